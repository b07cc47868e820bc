"""From the codes of a batch of pictures to the heat maps of all features, and to what these look like."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np


class Active(NamedTuple):
    """Active values: `feature` has `value` on token number `place` of a batch of pictures, all `[e]`.

    A place is the picture's number in the batch times the number of tokens of a picture, plus the token's position.
    """

    feature: np.ndarray
    place: np.ndarray
    value: np.ndarray


class Appearances(NamedTuple):
    """Features in pictures, one for each pair: all `[a]`.

    Attributes:
        feature, picture: which; the picture's number in the batch.
        peak: the largest value of the heat map by magnitude, with its sign.
        spread: root mean square distance of the map's weight from its center, as a share of what an even map has.
        coverage: share of the picture's tokens on which the map is not 0.
    """

    feature: np.ndarray
    picture: np.ndarray
    peak: np.ndarray
    spread: np.ndarray
    coverage: np.ndarray


def heat_maps(active: Active, reads: np.ndarray, tokens: int, features: int) -> Active:
    """What is not 0 in the heat maps of a batch, sorted by picture, feature and token; values float32.

    A heat map is the mean of a feature's values over the moments at which a token was read: how often, `reads` says
    for every place of the batch. `tokens` are those of a picture.
    """
    picture, token = np.divmod(active.place, tokens)
    key = (picture * features + active.feature) * tokens + token
    order = key.argsort(kind="stable")
    key = key[order]
    start = np.flatnonzero(np.diff(key, prepend=-1))
    key = key[start]
    pair, token = np.divmod(key, tokens)
    picture, feature = np.divmod(pair, features)
    place = picture * tokens + token
    total = _sums(active.value[order].astype(np.float64), start)
    value = (total / reads[place]).astype(np.float32)
    kept = value != 0  # values of both signs may cancel
    return Active(feature[kept], place[kept], value[kept])


def appearances(maps: Active, reads: np.ndarray, grid: tuple[int, int]) -> Appearances:
    """What the heat maps of a batch look like, sorted as they are."""
    tokens = grid[0] * grid[1]
    picture, token = np.divmod(maps.place, tokens)
    start = np.flatnonzero((np.diff(picture, prepend=-1) != 0) | (np.diff(maps.feature, prepend=-1) != 0))
    row, column = np.divmod(token, grid[1])
    weight = np.abs(maps.value.astype(np.float64))
    total = _sums(weight, start)
    center = [_sums(weight * at, start) / total for at in (row, column)]
    squares = _sums(weight * (row**2 + column**2), start) / total
    distance = np.sqrt(np.maximum(squares - center[0] ** 2 - center[1] ** 2, 0))
    even = ((grid[0] ** 2 - 1 + grid[1] ** 2 - 1) / 12) ** 0.5
    there = (reads.reshape(-1, tokens) > 0).sum(1)[picture[start]]
    coverage = np.diff(start, append=len(token)) / there
    # the first of the tokens with the largest magnitude: they come first when the groups are sorted by it
    largest = np.lexsort((token, -weight, maps.feature, picture))[start]
    return Appearances(maps.feature[start], picture[start], maps.value[largest], distance / (even or 1.0), coverage)


def _sums(values: np.ndarray, start: np.ndarray) -> np.ndarray:
    """Sums of groups that begin at `start`; none where there are no values."""
    return np.add.reduceat(values, start) if len(start) else np.zeros(0)
