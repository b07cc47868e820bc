"""Intervals of interpretation scores: a paired bootstrap over dictionary seed, feature and picture.

All three are resampled at once and independently (Owen 2007, "The pigeonhole bootstrap", arXiv 0712.1111, which is
conservative for crossed effects). The draws of seeds and pictures are shared by all arms, so that differences between
arms are paired; arms of the same directions share the draw of features too.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np

THRESHOLD = 0.5
"""Answer above which a judge says that a picture matches."""
Measure = Literal["balanced_accuracy", "paper"]


class Interval(NamedTuple):
    """A score with its 95 % interval; nan throughout where nothing was judged."""

    score: float
    low: float
    high: float


@dataclass(frozen=True)
class Arm:
    """All judgments of one way of making dictionaries; every array is `[n]`.

    Attributes:
        seed: place of the dictionary among those of the arm, from 0.
        feature, picture: numbers of what was judged, in that dictionary and among pictures shared by all arms.
        match: whether the picture shows the feature.
        answer: what the judge said, 0 to 1.
        directions: arms with the same directions have the same name here.
    """

    seed: np.ndarray
    feature: np.ndarray
    picture: np.ndarray
    match: np.ndarray
    answer: np.ndarray
    directions: str

    @classmethod
    def of(cls, rows: Sequence[tuple[int, int, int, bool, float]], directions: str) -> Arm:
        """From rows of seed, feature, picture, match and answer."""
        seeds, features, pictures, match, answer = zip(*rows, strict=True) if rows else [()] * 5
        seed, feature, picture = (np.array(column, np.int64) for column in (seeds, features, pictures))
        return cls(seed, feature, picture, np.array(match, bool), np.array(answer, float), directions)


class Bootstrap:
    """Scores of several arms on the data, and on resampled data.

    A feature counts as much as any other whatever the number of its judgments, its matching and its other pictures by
    half each. `balanced_accuracy` is that of answers above `THRESHOLD`; `paper` is the mean of `answer` where the
    picture matches and of `1 - answer` where not (arXiv 2505.24360).

    With few seeds the part of the interval that comes from seeds is too narrow: a bootstrap of three cannot see more
    than three.
    """

    def __init__(self, arms: Mapping[str, Arm], measure: Measure, draws: int = 2000, seed: int = 0):
        self._arms = {name: _Weighed(arm, measure) for name, arm in arms.items() if len(arm.seed)}
        self.scores = {name: float("nan") for name in arms} | {name: arm.score() for name, arm in self._arms.items()}
        self._drawn: dict[str, np.ndarray] = {name: np.full(draws, np.nan) for name in arms}
        rng = np.random.default_rng(seed)
        seeds = 1 + max((int(arm.arm.seed.max()) for arm in self._arms.values()), default=0)
        pictures = 1 + max((int(arm.arm.picture.max()) for arm in self._arms.values()), default=0)
        directions = sorted({arm.arm.directions for arm in self._arms.values()})
        features = {
            name: np.unique(np.concatenate([arm.keys for arm in self._arms.values() if arm.arm.directions == name]))
            for name in directions
        }
        # only pictures that were judged are resampled: the others would only thin the draws out
        met = np.unique(np.concatenate([np.zeros(0, np.int64), *(arm.arm.picture for arm in self._arms.values())]))
        for number in range(draws):
            by_seed = _resampled(rng, np.arange(seeds), seeds)
            by_picture = _resampled(rng, met, pictures)
            by_feature = {name: _resampled(rng, keys, int(keys.max()) + 1) for name, keys in features.items()}
            for name, arm in self._arms.items():
                drawn = by_seed[arm.arm.seed] * by_picture[arm.arm.picture] * by_feature[arm.arm.directions][arm.keys]
                self._drawn[name][number] = arm.score(drawn)

    def interval(self, name: str) -> Interval:
        return _interval(self.scores[name], self._drawn[name])

    def difference(self, one: str, other: str) -> Interval:
        """Of the score of `one` less that of `other`."""
        return _interval(self.scores[one] - self.scores[other], self._drawn[one] - self._drawn[other])

    def minus_best(self, one: str, others: Sequence[str]) -> Interval:
        """Of the score of `one` less the best of the others; which is best is found in every draw anew."""
        best = max((self.scores[name] for name in others if not math.isnan(self.scores[name])), default=math.nan)
        drawn = np.stack([self._drawn[name] for name in others])
        known = ~np.isnan(drawn)
        highest = np.where(known.any(0), np.where(known, drawn, -np.inf).max(0), np.nan)
        return _interval(self.scores[one] - best, self._drawn[one] - highest)

    def by_seed(self, name: str) -> list[float]:
        """The score of each dictionary of an arm alone."""
        if name not in self._arms:
            return []
        seed = self._arms[name].arm.seed
        return [self._arms[name].score((seed == each).astype(float)) for each in np.unique(seed)]


class _Weighed:
    """An arm with what each judgment counts."""

    def __init__(self, arm: Arm, measure: Measure):
        self.arm = arm
        self.keys = arm.seed * (1 + int(arm.feature.max())) + arm.feature
        if measure == "balanced_accuracy":
            self._right = ((arm.answer > THRESHOLD) == arm.match).astype(float)
        else:
            self._right = np.where(arm.match, arm.answer, 1 - arm.answer)
        _, group = np.unique(self.keys * 2 + arm.match, return_inverse=True)
        self._weight = 1 / np.bincount(group)[group]

    def score(self, drawn: np.ndarray | float = 1.0) -> float:
        weight = self._weight * drawn
        halves = []
        for match in (True, False):
            own = weight * (self.arm.match == match)
            total = own.sum()
            halves.append((own * self._right).sum() / total if total else math.nan)
        known = [half for half in halves if not math.isnan(half)]
        return sum(known) / 2 if len(known) == 2 else math.nan


def _resampled(rng: np.random.Generator, numbers: np.ndarray, size: int) -> np.ndarray:
    """How often each number was drawn, with replacement, as many as there are: `[size]`, by number."""
    return np.bincount(rng.choice(numbers, len(numbers)), minlength=size).astype(float)


def _interval(score: float, drawn: np.ndarray) -> Interval:
    known = drawn[~np.isnan(drawn)]
    if not len(known):
        return Interval(float(score), math.nan, math.nan)
    low, high = np.quantile(known, (0.025, 0.975))
    return Interval(float(score), float(low), float(high))
