"""Short lists, one for each of many owners, of what has the least keys: updated for all owners at once."""

from __future__ import annotations

import numpy as np
from numpy.typing import DTypeLike


class BestLists:
    """For each of `owners` the `size` items with the least keys, whatever order they come in; ties go to lower items.

    Each list is sorted; places not yet taken have item -1.

    Attributes:
        key: `[owners, size]`, of `dtype`, which is float32 or uint64.
        item: int32 `[owners, size]`.
        value: a number that goes with an item, float32 `[owners, size]`.
    """

    def __init__(self, owners: int, size: int, dtype: DTypeLike):
        worst = np.inf if dtype is np.float32 else np.iinfo(np.uint64).max
        self.key = np.full((owners, size), worst, dtype)
        self.item = np.full((owners, size), -1, np.int32)
        self.value = np.zeros((owners, size), np.float32)

    def add(self, owner: np.ndarray, key: np.ndarray, item: np.ndarray, value: np.ndarray) -> None:
        """Offer items `[n]`; no item is offered to one owner twice."""
        hopeful = key <= self.key[owner, -1]
        if not hopeful.any():
            return
        owner, key, item, value = (column[hopeful] for column in (owner, key, item, value))
        touched = np.unique(owner)
        size = self.key.shape[1]
        owners = np.concatenate([touched.repeat(size), owner])
        keys = np.concatenate([self.key[touched].ravel(), key])
        items = np.concatenate([self.item[touched].ravel(), item.astype(np.int32)])
        values = np.concatenate([self.value[touched].ravel(), value])
        # an empty place has the worst key, and loses a tie against any item
        order = np.lexsort((np.where(items < 0, np.iinfo(np.int32).max, items), keys, owners))
        rank = ranks(owners[order])
        kept = order[rank < size]
        places = owners[kept], rank[rank < size]
        self.key[places], self.item[places], self.value[places] = keys[kept], items[kept], values[kept]


def ranks(groups: np.ndarray) -> np.ndarray:
    """Place of each element within its group, from 0; equal groups `[n]` stand together."""
    start = np.flatnonzero(np.concatenate([[True], groups[1:] != groups[:-1]])[: len(groups)])
    return np.arange(len(groups)) - start.repeat(np.diff(start, append=len(groups)))


def hashed(numbers: np.ndarray) -> np.ndarray:
    """Numbers as evenly spread uint64, one to one (the finalizer of SplitMix64: Steele, Lea and Flood, 2014)."""
    x = numbers.astype(np.uint64) + np.uint64(0x9E3779B97F4A7C15)
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))
