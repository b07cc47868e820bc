"""How soon a large atlas answers: `python benchmarks/atlas_open.py [--json]`.

An atlas of 65,536 features with 20 top examples each (and 20 spread ones) over 10,000 pictures, with labels of a few
words and captions of about a dozen, each figure the worst of its kind, in seconds:

open            of several openings, first question included
search          of many searches: common words, rare ones, several, beginnings of words, a page far back, by a score
search_first    the first search after opening, which also reads what all others use
page            a page of 50 features by each order, asked for again
page_first      the same, asked for the first time, which sorts
feature         a feature's page: the feature, its examples, 20 pictures' captions, files and heat maps

`build` (not a bar) is the time to write it all. Figures of a file that the system has in memory.
"""

from __future__ import annotations

import argparse
import json
import random
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from fluxtionary.atlas import Atlas, AtlasWriter, Example, Feature, Maps, Score
from fluxtionary.atlas.reader import ORDERS

COLORS = ("red", "blue", "green", "yellow", "purple", "orange", "white", "black")
SHAPES = ("circle", "square", "triangle", "star", "cross", "ring", "house", "cat", "dog", "bicycle")
PLACES = ("left", "right", "top", "bottom", "middle")
GRID, SIZE, TOP = (8, 8), (32, 32), 20
SEARCHES = (
    *("a", "the of a", "red", "red circle", "a large red circle on the left", "picture", "circ", "a picture of a red"),
    *("word17", "word17 circle", "cat word3 word4", "nothing at all", "blue OR green", '"quoted" NEAR(', "red red red"),
)


def header(n_features: int) -> dict:
    about = {"kind": "sae", "site": "double.18.img", "n_features": n_features}
    fields = {"grid": list(GRID), "size": list(SIZE), "sigmas": [1.0, 0.75, 0.5, 0.25], "capture": {}}
    return {"fingerprint": "0" * 64, "dictionary": about, **fields}


def caption(chance: random.Random) -> str:
    rare = " ".join(f"word{int(chance.paretovariate(0.7)) % 20_000}" for _ in range(3))
    color, shape, place = (chance.choice(words) for words in (COLORS, SHAPES, PLACES))
    return f"a picture of a {color} {shape} on the {place}, {rare}"


def build(folder: Path, n_features: int, n_pictures: int) -> None:
    """Every feature is about a color and a shape, and its top examples are drawn accordingly, but for some noise."""
    chance, numbers = random.Random(0), np.random.default_rng(0)
    captions = [caption(chance) for _ in range(n_pictures)]
    of: dict[str, list[int]] = {}
    for number, text in enumerate(captions):
        of.setdefault(" ".join(text.split()[4:6]), []).append(number)
    about = list(of)

    def features() -> Iterator[Feature]:
        for n in range(n_features):
            figures = numbers.random(5)
            companions = tuple((int(other), 0.5) for other in numbers.integers(0, n_features, 8))
            color, shape = about[n % len(about)].split()
            label = None if n % 4 == 3 else f"{color} {shape}{'s' * (n % 2)} on the {PLACES[n % 5]}"
            score = Score(float(figures[0]), 0.0, 1.0, 20)
            yield Feature(
                n, int(numbers.integers(20, 1000)), *(float(figure) for figure in figures), (0.1,) * 4, companions, 0.5,
                label=label, explanation=label and f"The heat map lies on the {shape} wherever it is {color}.",
                scores={"interp": score, "interp_paper": score},
            )  # fmt: skip

    def examples(n: int) -> list[Example]:
        own, any_ = of[about[n % len(about)]], range(n_pictures)
        top = [chance.choice(own if chance.random() < 0.8 else any_) for _ in range(TOP)]
        spread = [chance.choice(any_) for _ in range(TOP)]
        return [Example(p, 1.0, k, r) for k, found in (("top", top), ("spread", spread)) for r, p in enumerate(found)]

    with AtlasWriter.begin(folder, header(n_features)) as writer:
        for number, text in enumerate(captions):
            active = np.unique(numbers.integers(0, n_features, 300)).astype(np.int32)
            feature, token = active.repeat(4), np.tile(np.arange(4, dtype=np.int32), len(active))
            pixels = np.full((*SIZE, 3), number % 256, np.uint8)
            writer.add(number, text, number, pixels, Maps(feature, token, np.ones(len(feature), np.float32)))
        writer.finish(features(), {n: examples(n) for n in range(n_features)})


def seconds(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def feature_page(atlas: Atlas, number: int) -> None:
    atlas.feature(number)
    for example in atlas.examples(number, "top"):
        atlas.picture(example.picture)
        atlas.pixels(example.picture)
        atlas.heat_map(number, example.picture)


def measure(folder: Path, n_features: int) -> dict[str, float]:
    def opened() -> None:
        with Atlas.open(folder) as atlas:
            atlas.features()

    found = {"open": max(seconds(opened) for _ in range(5))}
    with Atlas.open(folder, "0" * 64) as atlas:
        found["search_first"] = seconds(lambda: atlas.search("red circle"))
        every = {text: min(seconds(lambda text=text: atlas.search(text)) for _ in range(3)) for text in SEARCHES}
        every["far back"] = seconds(lambda: atlas.search("red", offset=3000))
        atlas.search("red", order="interp")
        every["by score"] = seconds(lambda: atlas.search("red", order="interp"))
        found["search"] = max(every.values())
        found["search_slowest"] = max(every, key=every.__getitem__)
        orders = (*ORDERS, "interp")
        found["page_first"] = max(seconds(lambda order=order: atlas.features(order)) for order in orders)
        found["page"] = max(seconds(lambda order=order: atlas.features(order, offset=5000)) for order in orders)
        found["feature"] = max(
            seconds(lambda n=n: feature_page(atlas, n)) for n in range(0, n_features, n_features // 20)
        )
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--features", type=int, default=65_536)
    parser.add_argument("--pictures", type=int, default=10_000)
    parser.add_argument("--folder", type=Path, help="keep the atlas here, or use the one that is here")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder, found = options.folder or Path(temporary) / "atlas", {}
        if not folder.exists():
            found["build"] = seconds(lambda: build(folder, options.features, options.pictures))
        found |= measure(folder, options.features)
        found["megabytes"] = (folder / "atlas.sqlite").stat().st_size / 1e6
    if options.json:
        print(json.dumps(found))
    else:
        for name, value in found.items():
            print(f"{name:15} {value if isinstance(value, str) else f'{value:.4f}'}")


if __name__ == "__main__":
    main()
