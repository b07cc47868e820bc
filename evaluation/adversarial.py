"""Captions that undo a steer, found by evolution; they may not name any value of the factor that is steered.

The experiment of arXiv 2505.03189 (section on adversarial inputs) on pictures. What is found is judged on noise that
the search never saw, and the same search is made where nothing is steered, as a control.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np

from ..demo.captions import STYLES, TEXT_TOKENS, WORDS, CaptionError, caption_of, named_factors, words_of
from ..demo.scenes import FACTORS
from .cases import Case, Judged
from .harness import Candidate, Easel
from .intervals import Share
from .steering import Target

Words = tuple[str, ...]
FAR = 500_009
"""Between the seeds of a search and those that what it found is judged on."""
NOUNS = (*FACTORS["shape"], "shape")


@dataclass(frozen=True)
class Evolution:
    """How captions are searched for."""

    searches: int = 6
    """Searches for each goal, each with a value and a natural caption to begin with of its own."""
    population: int = 4
    """Captions of a generation."""
    generations: int = 3
    """Generations, the first being the natural caption and variations of it."""
    seeds: int = 2
    """Pictures by which a caption is scored."""
    fresh: int = 4
    """Pictures with other noise on which the best caption of a search is judged."""
    longest: int = TEXT_TOKENS - 3
    """Words of a caption, at most: with the value named beside them the demo Flux still reads them all."""


class Search(NamedTuple):
    """What a search begins with: the value steered to, a natural caption, and the first of its seeds."""

    value: str
    start: Words
    seed: int


def evolve(
    searches: Sequence[Search],
    score: Callable[[Sequence[tuple[int, Words]]], Sequence[float]],
    vocabulary: Sequence[str],
    config: Evolution,
    seed: int,
) -> list[Words]:
    """The best words of each search; all searches go on together, so that pictures can be drawn in large batches.

    `score` is asked once about each (number of a search, words). The better half of all that a search has seen has
    the next generation as its children, by crossing and by changing, adding, taking out and exchanging words.
    """
    rng = np.random.default_rng(seed)
    known: list[dict[Words, float]] = [{} for _ in searches]
    generation = [
        [one.start, *(_mutated(one.start, vocabulary, config.longest, rng) for _ in range(config.population - 1))]
        for one in searches
    ]
    for _ in range(config.generations):
        wanted = [
            (n, words) for n, own in enumerate(generation) for words in dict.fromkeys(own) if words not in known[n]
        ]
        for (n, words), value in zip(wanted, score(wanted), strict=True):
            known[n][words] = value
        generation = [_children(own, vocabulary, config, rng) for own in known]
    return [_ranked(own)[0] for own in known]


def _ranked(known: dict[Words, float]) -> list[Words]:
    return sorted(known, key=lambda words: -known[words])  # of equals the first that was seen


def _children(
    known: dict[Words, float], vocabulary: Sequence[str], config: Evolution, rng: np.random.Generator
) -> list[Words]:
    parents = _ranked(known)[: max(config.population // 2, 1)]
    children: list[Words] = []
    while len(children) < config.population:
        one, other = (parents[int(rng.integers(len(parents)))] for _ in range(2))
        if one != other and rng.random() < 0.5:
            one = (*one[: int(rng.integers(1, len(one) + 1))], *other[int(rng.integers(len(other))) :])
        children.append(_mutated(one[: config.longest], vocabulary, config.longest, rng))
    return children


def _mutated(words: Words, vocabulary: Sequence[str], longest: int, rng: np.random.Generator) -> Words:
    """One to three changes; never empty."""
    out = list(words)
    for _ in range(int(rng.integers(1, 4))):
        kind, place = int(rng.integers(4)), int(rng.integers(len(out)))
        word = str(rng.choice(list(vocabulary)))
        if kind == 0:
            out[place] = word
        elif kind == 1 and len(out) < longest:
            out.insert(place, word)
        elif kind == 2 and len(out) > 1:
            del out[place]
        else:
            other = int(rng.integers(len(out)))
            out[place], out[other] = out[other], out[place]
    return tuple(out)


class Pictures:
    """Draws what a search asks for, steered, unsteered, or unsteered with the value named."""

    def __init__(self, easel: Easel, candidate: Candidate, factor: str):
        self.easel, self.candidate, self.factor = easel, candidate, factor

    def steered(self, asked: Sequence[tuple[str, Words, int]]) -> list[Judged]:
        """For each value, words and seed."""
        targets = [Target(Case(" ".join(words), {}, seed), self.factor, value) for value, words, seed in asked]
        return self.easel.steered([(target, self.candidate) for target in targets])

    def plain(self, asked: Sequence[tuple[str, Words, int]]) -> list[Judged]:
        return self.easel.plain([Case(" ".join(words), {}, seed) for _, words, seed in asked])

    def named(self, asked: Sequence[tuple[str, Words, int]]) -> list[Judged]:
        return self.easel.plain([Case(" ".join(naming(words, value)), {}, seed) for value, words, seed in asked])

    def again(self, asked: Sequence[tuple[str, Words, int]]) -> list[Judged]:
        """Unsteered, from other noise."""
        return self.plain([(value, words, seed + FAR // 2) for value, words, seed in asked])


def naming(words: Words, value: str) -> Words:
    """The value put where its word belongs: before the first noun, else in front."""
    place = next((i for i, word in enumerate(words) if word in NOUNS), 0)
    return (*words[:place], value, *words[place:])


def study_adversarial(
    easel: Easel,
    candidate: Candidate,
    cases: Sequence[Case],
    factor: str,
    config: Evolution,
    near: Callable[[str, str], float | None],
) -> tuple[dict[str, Any], list[tuple[np.ndarray, np.ndarray]]]:
    """Search for captions that nullify a steer and for such that reverse it, and for both where nothing is steered.

    A found caption *nullifies* where more than half of its fresh steered pictures show another value than the target,
    readably; it *reverses* where they show the target more rarely than the unsteered ones do. Where nothing is steered:
    nullified, where the value is named in the caption; reversed, where one half of the unsteered pictures is taken for
    steered. `near(value, caption)` says how related a caption is to the vector of a value. With the figures come, for
    each of their examples, a steered and an unsteered picture.
    """
    values = FACTORS[factor]
    vocabulary = [word for word in WORDS if word not in values]
    searches = [
        Search(values[n % len(values)], tuple(words_of(cases[n].caption)), cases[n].seed)
        for n in range(config.searches)
    ]
    pictures = Pictures(easel, candidate, factor)
    kinds: dict[str, tuple[Callable[..., list[Judged]], Callable[..., list[Judged]] | None]] = {
        "nullified": (pictures.steered, None),
        "reversed": (pictures.steered, pictures.plain),
        "control_nullified": (pictures.named, None),
        "control_reversed": (pictures.again, pictures.plain),
    }
    found = {}
    for number, (kind, (after, before)) in enumerate(kinds.items()):
        best = evolve(searches, _scorer(searches, after, before, factor, config), vocabulary, config, number)
        found[kind] = _judged(searches, best, after, before or pictures.plain, factor, config)
    natural = _judged(searches, [one.start for one in searches], pictures.steered, pictures.plain, factor, config)
    figures = _figures(found, natural, searches, near, _Naturalness([case.caption for case in cases]))
    return figures, [one.pictures for kind in ("nullified", "reversed") for one in found[kind]]


def _scorer(
    searches: Sequence[Search],
    after: Callable[..., list[Judged]],
    before: Callable[..., list[Judged]] | None,
    factor: str,
    config: Evolution,
) -> Callable[[Sequence[tuple[int, Words]]], list[float]]:
    """How well words do: without `before` by showing another value, with it by showing the target more rarely."""

    def score(wanted: Sequence[tuple[int, Words]]) -> list[float]:
        asked = [(searches[n].value, words, searches[n].seed + i) for n, words in wanted for i in range(config.seeds)]
        one = np.array(
            [_effect(judged, value, factor) for judged, (value, _, _) in zip(after(asked), asked, strict=True)]
        )
        if before is None:
            made = np.array([{"target": 0.0, "other": 1.0, "unreadable": 0.25}[kind] for kind in one])
        else:
            other = [_effect(judged, value, factor) for judged, (value, _, _) in zip(before(asked), asked, strict=True)]
            made = (np.array(other) == "target") - (one == "target").astype(float)
        return made.reshape(len(wanted), -1).mean(1).tolist() if wanted else []

    return score


def _effect(judged: Judged, value: str, factor: str) -> str:
    if not judged.reading.readable:
        return "unreadable"
    return "target" if judged.reading.factors[factor] == value else "other"


class Fresh(NamedTuple):
    """What a caption does on fresh noise: what pictures show, steered and not; both pictures of the first seed."""

    words: Words
    after: list[str]
    before: list[str]
    pictures: tuple[np.ndarray, np.ndarray]

    @property
    def nullified(self) -> bool:
        return self.after.count("other") > len(self.after) / 2

    @property
    def reversed(self) -> bool:
        return self.after.count("target") < self.before.count("target")


def _judged(
    searches: Sequence[Search],
    best: Sequence[Words],
    after: Callable[..., list[Judged]],
    before: Callable[..., list[Judged]],
    factor: str,
    config: Evolution,
) -> list[Fresh]:
    asked = [
        (one.value, words, one.seed + FAR + i)
        for one, words in zip(searches, best, strict=True)
        for i in range(config.fresh)
    ]
    drawn = after(asked), before(asked)
    found = []
    for n, words in enumerate(best):
        part = slice(n * config.fresh, (n + 1) * config.fresh)
        value = searches[n].value
        kinds = [[_effect(judged, value, factor) for judged in side[part]] for side in drawn]
        found.append(Fresh(words, kinds[0], kinds[1], (drawn[0][part][0].picture, drawn[1][part][0].picture)))
    return found


class _Naturalness:
    """Bits a word of captions under a bigram model, add one, of natural captions: what perplexity is for sentences."""

    def __init__(self, captions: Sequence[str]):
        lines = [["", *words_of(caption), ""] for caption in captions]
        self.pairs = Counter(pair for line in lines for pair in pairwise(line))
        self.firsts = Counter(word for line in lines for word in line[:-1])

    def bits(self, words: Words) -> float:
        line = ["", *words, ""]
        chances = [(self.pairs[pair] + 1) / (self.firsts[pair[0]] + len(WORDS) + 1) for pair in pairwise(line)]
        return -sum(map(math.log2, chances)) / len(chances)


def grammatical(words: Words) -> bool:
    """Whether words make a caption as the demo Flux was trained on."""
    try:
        named = named_factors(" ".join(words))
    except CaptionError:
        return False
    return any(tuple(words_of(caption_of(named, style))) == words for style in STYLES)


def _figures(
    found: dict[str, list[Fresh]],
    natural: list[Fresh],
    searches: Sequence[Search],
    near: Callable[[str, str], float | None],
    naturalness: _Naturalness,
) -> dict[str, Any]:
    def share(fresh: Sequence[Fresh], kind: str) -> Share:
        return Share.of([getattr(one, kind) for one in fresh])

    def likeness(fresh: Sequence[Fresh]) -> dict[str, Any]:
        values = [near(search.value, " ".join(one.words)) for search, one in zip(searches, fresh, strict=True)]
        known = [value for value in values if value is not None]
        return {
            "bits_per_word": float(np.mean([naturalness.bits(one.words) for one in fresh])),
            "grammatical": float(np.mean([grammatical(one.words) for one in fresh])),
            "relatedness": float(np.mean(known)) if known else math.nan,
        }

    goals = {kind: share(found[kind], kind) for kind in ("nullified", "reversed")}
    control = {kind: share(found[f"control_{kind}"], kind) for kind in goals}
    return {
        **{kind: each.value for kind, each in goals.items()},
        "unsteered_control": {kind: each.value for kind, each in control.items()},
        "intervals": {
            **{kind: each._asdict() for kind, each in goals.items()},
            **{f"unsteered_control_{kind}": each._asdict() for kind, each in control.items()},
        },
        "natural": {kind: share(natural, kind)._asdict() for kind in goals},
        "pictures": {kind: _of_pictures(fresh) for kind, fresh in {**found, "natural": natural}.items()},
        "unnatural": {"natural": likeness(natural), **{kind: likeness(found[kind]) for kind in goals}},
        "examples": [
            {
                "goal": kind,
                "value": search.value,
                "natural": " ".join(search.start),
                "caption": " ".join(one.words),
                "reached": getattr(one, kind),
                "steered": one.after,
                "unsteered": one.before,
            }
            for kind in goals
            for search, one in zip(searches, found[kind], strict=True)
        ],
    }


def _of_pictures(fresh: Sequence[Fresh]) -> dict[str, Any]:
    """Shares of the fresh pictures themselves."""
    after = [kind for one in fresh for kind in one.after]
    before = [kind for one in fresh for kind in one.before]
    return {
        **{name: Share.of([kind == name for kind in after])._asdict() for name in ("target", "other", "unreadable")},
        "target_unsteered": Share.of([kind == "target" for kind in before])._asdict(),
    }
