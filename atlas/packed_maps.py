"""Heat maps of one picture as bytes.

Little-endian, one after another: counts of maps and of entries (2 uint32); for each map its feature (int32), the
place in the entries where it ends (uint32), and its peak (float32, by magnitude); for each entry its token (uint16)
and its value as a share of the peak (float16). So a peak is exact, and other values are so to a two-thousandth.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from .database import VALUE_LIMIT
from .entries import Maps
from .error import need

_LEAST = np.float16(6e-8)
"""The smallest share there is: what is not 0 stays so."""


def pack(path: Path, maps: Maps, n_features: int, cells: int) -> bytes:
    """Bytes of heat maps. Raises `AtlasError` unless they are as `Maps` says."""
    feature, token, value = np.asarray(maps.feature), np.asarray(maps.token), np.asarray(maps.value, np.float32)
    shapes = [array.shape for array in (feature, token, value)]
    good = feature.ndim == 1 and shapes[1:] == shapes[:2] and feature.dtype.kind in "iu" and token.dtype.kind in "iu"
    need(good, path, "features, tokens and values [n]", shapes, _GIVE)
    if not len(feature):
        return np.zeros(2, "<u4").tobytes()
    inside = feature.min() >= 0 and feature.max() < n_features and token.min() >= 0 and token.max() < cells
    need(bool(inside), path, f"features below {n_features} and tokens below {cells}", "others", _GIVE)
    order = feature.astype(np.int64) * cells + token
    need(bool((np.diff(order) > 0).all()), path, "heat maps sorted by feature, then token", "others", _GIVE)
    need(bool(np.isfinite(value).all() and value.all()), path, "finite values that are not 0", "others", _GIVE)
    starts = np.flatnonzero(np.diff(feature, prepend=feature[0] - 1))
    ends = np.append(starts[1:], len(feature))
    peak = np.maximum.reduceat(np.abs(value), starts)
    exact = value / np.repeat(peak, ends - starts)
    share = exact.astype(np.float16)
    share = np.where(share == 0, np.copysign(_LEAST, exact), share)
    columns = ((feature[starts], "<i4"), (ends, "<u4"), (peak, "<f4"), (token, "<u2"), (share, "<f2"))
    counts = np.array([len(starts), len(feature)], "<u4").tobytes()
    return counts + b"".join(column.astype(kind).tobytes() for column, kind in columns)


_GIVE = "give heat maps of the atlas's own grid and dictionary"


class PackedMaps:
    """Heat maps of one picture, read from bytes that may be anybody's. Raises `AtlasError` unless they are whole."""

    def __init__(self, path: Path, data: object, n_features: int, cells: int):
        need(isinstance(data, bytes) and 8 <= len(data) <= VALUE_LIMIT, path, "heat maps as bytes", data)
        assert isinstance(data, bytes)
        maps, entries = (int(count) for count in np.frombuffer(data, "<u4", 2))
        length = 8 + 12 * maps + 4 * entries
        need(len(data) == length, path, f"{maps} heat maps with {entries} entries, {length} bytes", data)
        at = 8
        columns = []
        for kind, count in (("<i4", maps), ("<u4", maps), ("<f4", maps), ("<u2", entries), ("<f2", entries)):
            columns.append(np.frombuffer(data, kind, count, at))
            at += columns[-1].nbytes
        self.feature, self.end, self.peak, self.token, self.share = columns
        rises = rising(self.feature, n_features - 1) and rising(self.end, entries, least=1)
        good = rises and (int(self.end[-1]) if maps else 0) == entries
        good = good and (not entries or int(self.token.max()) < cells)
        good = good and bool(np.isfinite(self.peak).all() and np.isfinite(self.share).all())
        need(good, path, "heat maps of the atlas's own grid and dictionary", "others")

    def unpacked(self) -> Maps:
        """All of them."""
        counts = np.diff(self.end, prepend=np.uint32(0))
        value = self.share.astype(np.float32) * np.repeat(self.peak, counts).astype(np.float32)
        return Maps(np.repeat(self.feature, counts).astype(np.int32), self.token.astype(np.int32), value)

    def of(self, feature: int, cells: int) -> np.ndarray:
        """The map of one feature, float32 `[cells]`, 0 where it was not active."""
        dense = np.zeros(cells, np.float32)
        place = int(np.searchsorted(self.feature, feature))
        if place < len(self.feature) and self.feature[place] == feature:
            part = slice(int(self.end[place - 1]) if place else 0, int(self.end[place]))
            dense[self.token[part]] = self.share[part].astype(np.float32) * np.float32(self.peak[place])
        return dense


def rising(numbers: np.ndarray, most: int, least: int = 0) -> bool:
    """Whether whole numbers rise, each above the one before, from `least` up to `most`."""
    if not len(numbers):
        return True
    return bool((numbers[1:] > numbers[:-1]).all()) and least <= int(numbers[0]) and int(numbers[-1]) <= most
