"""Features, examples and pictures as rows of the database; every value is checked both ways."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, get_args

import numpy as np

from .entries import Example, Feature, Kind, Picture, Score, Source
from .error import need
from .header import decode, is_number
from .picture_files import PICTURES

FEATURE_COLUMNS = (
    *("number", "pictures", "density", "mean", "peak", "spread", "coverage", "output_score"),
    *("label", "explanation", "profile", "companions", "source"),
)
KINDS = get_args(Kind)
LABEL, EXPLANATION, PROMPT, NAME, LIST = 1_000, 10_000, 100_000, 64, 1_000_000
"""The longest label, explanation, prompt, name of a score, and list in JSON, in characters."""
SEED = 2**64


def feature_row(path: Path, feature: Feature, n_features: int) -> tuple[Any, ...]:
    """A feature without its scores, by `FEATURE_COLUMNS`."""
    source = None if feature.source is None else list(feature.source)
    lists = (list(feature.profile), [list(pair) for pair in feature.companions], source)
    try:
        texts = [None if each is None else json.dumps(each, allow_nan=False) for each in lists]
    except (TypeError, ValueError) as error:
        need(False, path, f"plain numbers in feature {feature.number}", str(error), "give finite numbers")
    figures = (feature.density, feature.mean, feature.peak, feature.spread, feature.coverage)
    row = (
        *(int(feature.number), int(feature.pictures), *map(float, figures)),
        None if feature.output_score is None else float(feature.output_score),
        *(feature.label, feature.explanation, *texts),
    )
    read_feature(path, row, (), n_features)
    return row


def read_feature(path: Path, row: Sequence[Any], scores: Sequence[Sequence[Any]], n_features: int) -> Feature:
    """A feature of its row by `FEATURE_COLUMNS` and the rows (name, value, low, high, n) of its scores."""
    number, pictures, density, mean, peak, spread, coverage, output_score = row[:8]
    label, explanation, profile, companions, source = row[8:]
    figures = (density, mean, peak, spread, coverage)
    need(_count(number, n_features), path, f"a feature below {n_features}", number)
    name = f"feature {number}"
    need(_count(pictures, PICTURES + 1), path, f"{name} with a number of pictures", pictures)
    need(all(map(is_number, figures)), path, f"{name} with finite figures", figures)
    need(output_score is None or is_number(output_score), path, f"{name} with a finite output score", output_score)
    check_text(path, label, LABEL, f"a label of {name}")
    check_text(path, explanation, EXPLANATION, f"an explanation of {name}")
    levels = _read_profile(path, profile, name)
    pairs = _list(path, companions, f"the companions of {name}")
    good = all(isinstance(p, list) and len(p) == 2 and _count(p[0], n_features) and is_number(p[1]) for p in pairs)
    need(good, path, f"companions of {name}, each with a similarity", companions)
    return Feature(
        number,
        pictures,
        *(float(density), float(mean), float(peak), float(spread), float(coverage)),
        profile=levels,
        companions=tuple((int(other), float(similarity)) for other, similarity in pairs),
        output_score=None if output_score is None else float(output_score),
        source=None if source is None else _source(path, source, name),
        label=label,
        explanation=explanation,
        scores={each[0]: read_score(path, each[0], each[1:], name) for each in scores},
    )


def _read_profile(path: Path, text: Any, of: str) -> tuple[float, ...]:
    """A profile: density by noise level."""
    levels = _list(path, text, f"the profile of {of}")
    need(all(map(is_number, levels)), path, f"a profile of {of}, numbers", text)
    return tuple(float(level) for level in levels)


def read_profiles(path: Path, texts: Sequence[Any], levels: int) -> np.ndarray:
    """Profiles of many features, `[n, levels]`, 0 where one is shorter: a tenth of the time of one after another."""
    good = all(isinstance(text, str) and len(text) <= LIST for text in texts)
    need(good, path, "profiles in JSON", "others")
    found = decode(path, f"[{','.join(texts)}]", "profiles in JSON")
    need(len(found) == len(texts), path, f"{len(texts)} profiles", len(found))
    table = np.zeros((len(texts), levels))
    try:
        for place, profile in enumerate(found):
            table[place, : len(profile)] = profile[:levels]
    except (TypeError, ValueError) as error:
        need(False, path, "profiles, lists of numbers", str(error))
    need(bool(np.isfinite(table).all()), path, "profiles, finite numbers", "others")
    return table


def read_score(path: Path, name: Any, row: Sequence[Any], of: str) -> Score:
    """A score of its name and (value, low, high, n)."""
    need(isinstance(name, str) and 0 < len(name) <= NAME, path, f"the name of a score of {of}", name)
    value, low, high, n = row
    good = all(is_number(figure) and 0 <= figure <= 1 for figure in (value, low, high)) and _count(n, 2**53)
    need(good, path, f"{name} of {of}, figures in [0, 1] and a count", list(row))
    return Score(float(value), float(low), float(high), n)


def read_example(path: Path, row: Sequence[Any]) -> Example:
    """An example of (picture, peak, kind, rank)."""
    picture, peak, kind, rank = row
    good = _count(picture, PICTURES) and is_number(peak) and kind in KINDS and _count(rank, PICTURES)
    need(good, path, "an example: picture, peak, kind and rank", list(row))
    return Example(picture, float(peak), kind, rank)


def read_picture(path: Path, row: Sequence[Any]) -> Picture:
    """A picture of (number, prompt, seed); the seed is a text, because it may be beyond what SQLite counts."""
    number, prompt, seed = row
    need(_count(number, PICTURES), path, f"a picture below {PICTURES}", number)
    check_text(path, prompt, PROMPT, f"the prompt of picture {number}", missing=False)
    good = isinstance(seed, str) and len(seed) <= 20 and seed.isascii() and seed.isdigit() and int(seed) < SEED
    need(good, path, f"the seed of picture {number} in digits", seed)
    return Picture(number, prompt, int(seed))


def check_text(path: Path, text: Any, most: int, expected: str, missing: bool = True) -> None:
    """Raise `AtlasError` unless it is a text that UTF-8 can say, of at most so many characters."""
    good = missing if text is None else isinstance(text, str) and len(text) <= most
    need(good, path, f"{expected}, a text of at most {most} characters", text)
    if text is not None:
        whole = not any("\ud800" <= letter <= "\udfff" for letter in text)
        need(whole, path, f"{expected}, whole letters", "half a letter", "mend the text")


def _source(path: Path, text: Any, name: str) -> Source:
    parts = _list(path, text, f"the source of {name}")
    good = len(parts) == 5 and isinstance(parts[0], str) and len(parts[0]) <= PROMPT and is_number(parts[2])
    good = good and _count(parts[1], SEED) and all(_count(part, 2**16) for part in parts[3:])
    need(good, path, f"the source of {name}: prompt, seed, sigma, row and column", text)
    return Source(parts[0], parts[1], float(parts[2]), parts[3], parts[4])


def _list(path: Path, text: Any, expected: str) -> list[Any]:
    need(isinstance(text, str) and len(text) <= LIST, path, f"{expected} in JSON", text)
    found = decode(path, text, f"{expected} in JSON")
    need(isinstance(found, list), path, f"{expected}, a list", found)
    return found


def _count(value: Any, below: int) -> bool:
    return type(value) is int and 0 <= value < below
