"""Which pictures of a feature are explained, and which are then judged: never the same ones."""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import lru_cache
from typing import Literal, NamedTuple

import numpy as np

from ..atlas import Atlas, Example

EXPLAINED = 5
"""Top pictures that an explainer sees (arXiv 2505.24360)."""
HOT = 0.5
"""Share of its peak from which a heat map counts as clearly active."""
QUALIFYING_TOKENS = 6 / 256
QUALIFYING_PICTURES = 5

ScoreName = Literal["interp", "paper"]


class Trial(NamedTuple):
    """A picture to be judged against a feature's label.

    Attributes:
        feature: whose label it is.
        picture: number of the picture.
        shown: the feature whose heat map is shown: another one where it is no match.
        score: which score it is for.
    """

    feature: int
    picture: int
    shown: int
    score: ScoreName

    @property
    def match(self) -> bool:
        return self.shown == self.feature


def explained(atlas: Atlas, feature: int) -> list[Example]:
    """The pictures that a feature is explained by: the few in which it is most active."""
    return atlas.examples(feature, "top")[:EXPLAINED]


def qualifies(atlas: Atlas, feature: int, threshold: float = HOT) -> bool:
    """Whether a feature shows enough to be explained, by the rule of arXiv 2505.24360: in at least 5 pictures it
    exceeds a threshold on at least 6 of 256 tokens (that share of the atlas's grid).

    The paper's threshold is 5 in units of its standardized activations, 1 for neurons, and says nothing about other
    dictionaries; here it is half of the feature's own peak, so that dictionaries of all kinds and units compare. The
    kept top pictures are looked at: no others exceed it sooner.
    """
    rows, columns = atlas.header["grid"]
    tokens = math.ceil(QUALIFYING_TOKENS * rows * columns)
    top = atlas.examples(feature, "top")
    if len(top) < QUALIFYING_PICTURES:
        return False
    bound = threshold * max(abs(example.peak) for example in top)
    found = 0
    for left, example in zip(range(len(top), 0, -1), top, strict=True):
        if abs(example.peak) <= bound or found + left < QUALIFYING_PICTURES:
            return False  # those that follow are no stronger, or too few
        found += int((np.abs(atlas.heat_map(feature, example.picture)) > bound).sum()) >= tokens
        if found == QUALIFYING_PICTURES:
            return True
    return False


def sample_features(atlas: Atlas, count: int, seed: int = 0) -> list[int]:
    """Up to `count` of the features that were active, drawn uniformly; a larger sample begins with the same."""
    numbers = [feature.number for feature in atlas.features(limit=atlas.count())]
    order = np.random.default_rng([seed, 2]).permutation(len(numbers))
    return [numbers[i] for i in order[:count]]


class Trials:
    """Draws the pictures by which labels are judged: the same for one atlas and seed, whatever else is judged."""

    def __init__(self, atlas: Atlas, seed: int = 0):
        self.atlas, self.seed = atlas, seed
        self._examples = lru_cache(4096)(atlas.examples)
        self._active = lru_cache(1024)(lambda picture: frozenset(np.unique(atlas.maps(picture).feature).tolist()))
        features = atlas.features(limit=atlas.count())
        self._ring = _ring({feature.number: [other for other, _ in feature.companions] for feature in features})
        self._place = {number: place for place, number in enumerate(self._ring)}
        self._numbers = np.array([feature.number for feature in features])
        self._up_to = np.cumsum([feature.pictures for feature in features])

    def held_out(self, feature: int) -> list[Example]:
        """Pictures in which a feature is active, drawn uniformly, without those it is explained by; strongest first."""
        seen = self._seen(feature)
        return [example for example in self._examples(feature, "spread") if example.picture not in seen]

    def interp(self, feature: int, each: int) -> list[Trial]:
        """Trials of the interpretation score: up to `each` pictures in which the feature is active, at equal distances
        in the order of its values, and as many hard negatives.

        A hard negative shows another feature in a picture in which this one is not active. The others are neighbours
        on a ring in which features that are active together lie side by side (see `_ring`), drawn just as their own
        positives are: each feature stands in for as many others as stand in for it. So matches and mismatches do not
        differ but by the label, and a judge that ignores the label scores one half. Empty where the feature has fewer
        than two pictures of either sort (one that is always active has no picture without it).
        """
        positives = spaced(self.held_out(feature), each)
        negatives = self._negatives(feature, len(positives))
        count = min(len(positives), len(negatives))
        if count < 2:
            return []
        own = [Trial(feature, example.picture, feature, "interp") for example in spaced(positives, count)]
        return own + negatives[:count]

    def paper(self, feature: int) -> list[Trial]:
        """Trials of the score of arXiv 2505.24360: the pictures that were explained, and as many top pictures of other
        features, which are drawn by how many pictures they have."""
        own = [Trial(feature, example.picture, feature, "paper") for example in explained(self.atlas, feature)]
        draw = np.random.default_rng([self.seed, feature, 3])
        others: list[Trial] = []
        while len(others) < len(own) and len(self._numbers) > 1:
            other = int(self._numbers[np.searchsorted(self._up_to, draw.integers(self._up_to[-1]), side="right")])
            if other != feature:
                top = self._examples(other, "top")[:EXPLAINED]
                others.append(Trial(feature, top[draw.integers(len(top))].picture, other, "paper"))
        return own + others

    def _negatives(self, feature: int, count: int) -> list[Trial]:
        """Neighbours in turn, the nearest first, one picture each at the quantile that a match would have."""
        found: list[Trial] = []
        taken = self._seen(feature)
        for other in self._neighbours(feature, 8 * count):
            if len(found) == count:
                break
            share = (len(found) + 0.5) / count
            for example in _from_quantile(self.held_out(other), share):
                if example.picture not in taken and feature not in self._active(example.picture):
                    found.append(Trial(feature, example.picture, other, "interp"))
                    taken.add(example.picture)
                    break
        return found

    def _neighbours(self, feature: int, limit: int) -> Iterator[int]:
        size, place = len(self._ring), self._place[feature]
        for step in range(1, min(limit, size)):
            # one to the right, one to the left, two to the right, ...
            yield self._ring[(place + (step + 1) // 2 * (1 if step % 2 else -1)) % size]

    def _seen(self, feature: int) -> set[int]:
        return {example.picture for example in self._examples(feature, "top")[:EXPLAINED]}


def _ring(companions: dict[int, list[int]]) -> list[int]:
    """All features in an order in which neighbours are mostly active together: a walk from each feature to its first
    companion that was not visited yet, and back where there is none."""
    order: list[int] = []
    visited: set[int] = set()
    for start in companions:
        stack = [start]
        while stack:
            number = stack.pop()
            if number in visited or number not in companions:
                continue
            visited.add(number)
            order.append(number)
            stack += reversed(companions[number])
    return order


def spaced(examples: list[Example], count: int) -> list[Example]:
    """Up to `count` of some examples, each from the middle of a part of equal size."""
    count = min(count, len(examples))
    return [examples[int((i + 0.5) * len(examples) / count)] for i in range(count)]


def _from_quantile(examples: list[Example], share: float) -> list[Example]:
    """Examples by how far their rank is from a quantile."""
    return [examples[i] for i in sorted(range(len(examples)), key=lambda i: abs((i + 0.5) / len(examples) - share))]
