"""Which features are active together, estimated from a small sample of places that is the same for all features."""

from __future__ import annotations

import numpy as np

from .best_lists import hashed, ranks

BITS = np.uint64(40)
"""Of a place's hash that are kept; the feature's number stands before them, so that one sort is by both."""
EMPTY = np.uint64(2**40 - 1)
BLOCK = 256
"""Features whose companions are looked for at a time."""


class Sketch:
    """For each feature the `size` places with the least hashes among those where it is active.

    A place's hash is the same for every feature, so what two features keep are samples of one and the same kind, and
    the Jaccard similarity of the whole sets can be read off them: bottom-k sketches (Cohen and Kaplan, "Summarizing
    data using bottom-k sketches", 2007). Exact where both features have at most `size` places; otherwise the standard
    error is about half of one over the root of `size`. Memory: 8 bytes a feature and place.

    Attributes:
        kept: uint64 `[features, size]`, rising; the feature's number and the hash, `EMPTY` where there is none yet.
    """

    def __init__(self, features: int, size: int):
        self.kept = (np.arange(features, dtype=np.uint64)[:, None] << BITS) | np.full(size, EMPTY)

    def add(self, feature: np.ndarray, place: np.ndarray) -> None:
        """Features `[n]` are active at places `[n]`; no pair comes twice."""
        new = (feature.astype(np.uint64) << BITS) | np.minimum(hashed(place) >> (np.uint64(64) - BITS), EMPTY - 1)
        new = new[new < self.kept[feature, -1]]
        if not len(new):
            return
        touched = np.unique(new >> BITS).astype(np.int64)
        every = np.sort(np.concatenate([self.kept[touched].ravel(), new]))
        rank = ranks(every >> BITS)
        size = self.kept.shape[1]
        self.kept[touched] = every[rank < size].reshape(-1, size)

    def companions(self, count: int) -> tuple[np.ndarray, np.ndarray]:
        """The `count` features most similar to each: their numbers, -1 where there are fewer, and Jaccard similarities.

        Both `[features, count]`.
        """
        features = len(self.kept)
        numbers, similarity = np.full((features, count), -1), np.zeros((features, count))
        flat = self.kept.ravel()
        flat = flat[(flat & EMPTY) != EMPTY]
        owner, place = (flat >> BITS).astype(np.int64), flat & EMPTY
        by_place = np.argsort(place, kind="stable")
        place_sorted, owner_sorted = place[by_place], owner[by_place]
        first = np.searchsorted(place_sorted, place, "left")
        sharing = np.searchsorted(place_sorted, place, "right") - first
        bounds = np.searchsorted(owner, np.arange(features + 1))
        for start in range(0, features, BLOCK):
            part = slice(bounds[start], bounds[min(start + BLOCK, features)])
            length = sharing[part]
            one = owner[part].repeat(length)
            other = owner_sorted[first[part].repeat(length) + ranks(np.arange(len(length)).repeat(length))]
            pair, common = np.unique((one * features + other)[one != other], return_counts=True)
            one, other = pair // features, pair % features
            alike = self._similarity(flat, bounds, one, other, common)
            order = np.lexsort((other, -alike, one))
            rank = ranks(one[order])
            best = order[rank < count]
            numbers[one[best], rank[rank < count]] = other[best]
            similarity[one[best], rank[rank < count]] = alike[best]
        return numbers, similarity

    def _similarity(
        self, flat: np.ndarray, bounds: np.ndarray, one: np.ndarray, other: np.ndarray, common: np.ndarray
    ) -> np.ndarray:
        """Jaccard similarity of pairs that have `common` of their kept places: up to where both are complete."""
        last = self.kept[:, -1] & EMPTY  # EMPTY where a feature has all its places
        until = np.minimum(last[one], last[other])
        seen = [
            np.searchsorted(flat, (each.astype(np.uint64) << BITS) | until, "right") - bounds[each]
            for each in (one, other)
        ]
        return common / (seen[0] + seen[1] - common)
