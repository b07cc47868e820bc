"""Which features a text is about."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np

from .database import VALUE_LIMIT
from .error import need
from .packed_maps import rising
from .picture_files import PICTURES

WORDS, LENGTH = 32, 64
"""The most words of a text that may be looked for, and the most letters of one that are."""
_GLUE = frozenset(("a", "an", "the", "of", "in", "at", "on", "with", "and", "is"))
"""Words that most captions have, which tell little and take longest: looked for only where a text has no others."""
_PREFIX = 3
"""Letters from which the last word of a text may be the beginning of one."""
_WORD = re.compile(r"[^\W_]+")
_COUNTED, _RARE = 256, 3
"""Up to how many matches of a word are counted, and how many of the rarest words are looked for one by one."""
_LABEL, _TEXT = 2e6, 1e6
"""What a match in the label, or in label and explanation, is worth beside any share of captions."""


class TopPictures(NamedTuple):
    """The pictures of all features' top examples, one after another.

    `feature [n]` int32, ascending; `end [n]` uint32, where its pictures end; `picture [m]` int32.
    """

    feature: np.ndarray
    end: np.ndarray
    picture: np.ndarray

    def weights(self) -> np.ndarray:
        """A place for each picture up to the last, float32, all 0."""
        return np.zeros(int(self.picture.max(initial=-1)) + 1, np.float32)

    def to_bytes(self) -> bytes:
        count = np.array([len(self.feature)], "<u4").tobytes()
        return count + b"".join(np.asarray(column, kind).tobytes() for column, kind in zip(self, _KINDS, strict=True))

    @classmethod
    def of_bytes(cls, path: Path, data: object, n_features: int) -> TopPictures:
        """From bytes that may be anybody's; raises `AtlasError` unless they are whole."""
        need(isinstance(data, bytes) and 4 <= len(data) <= VALUE_LIMIT, path, "pictures of top examples", data)
        assert isinstance(data, bytes)
        n = int.from_bytes(data[:4], "little")
        need(len(data) >= 4 + 8 * n and len(data) % 4 == 0, path, f"top examples of {n} features", data)
        places = zip(_KINDS, (n, n, -1), (4, 4 + 4 * n, 4 + 8 * n), strict=True)
        top = cls(*(np.frombuffer(data, kind, count, place) for kind, count, place in places))
        good = rising(top.feature, n_features - 1) and rising(top.end, len(top.picture), least=1)
        good = good and (int(top.end[-1]) if n else 0) == len(top.picture)
        good = good and (not n or bool(top.picture.min() >= 0 and top.picture.max() < PICTURES))
        need(good, path, "top examples of the atlas's own features", "others")
        return top


_KINDS = ("<i4", "<u4", "<i4")


class Relevance(NamedTuple):
    """Features that a text is about, `numbers [n]`, and how much, `[n]`."""

    numbers: np.ndarray
    score: np.ndarray


Matches = Callable[[str, str, int], np.ndarray]
"""Row numbers of a text index (`texts`: features; `captions`: pictures) for an FTS5 query, at most so many."""


def words(text: str) -> list[str]:
    """Words of any text, each as an FTS5 string: what it means to FTS5 is taken from it."""
    found = list(dict.fromkeys(word[:LENGTH] for word in _WORD.findall(text)))
    telling = [word for word in found if word.lower() not in _GLUE] or found
    quoted = [f'"{word}"' for word in telling]
    if found and telling[-1] == found[-1] and len(found[-1]) >= _PREFIX:
        quoted[-1] += "*"
    return quoted


def relevance(wanted: list[str], matches: Matches, top: TopPictures, n_features: int) -> Relevance:
    """Features in whose texts or captions all of some `words` are; where there are none, some of them."""
    if not wanted:
        return Relevance(np.zeros(0, np.int64), np.zeros(0))
    found = _all(wanted, matches, top, n_features)
    return found if len(found.numbers) or len(wanted) == 1 else _some(wanted, matches, top, n_features)


def best(found: Relevance, count: int) -> np.ndarray:
    """The numbers of greatest relevance, in order."""
    chosen = np.arange(len(found.score))
    if count < len(chosen):
        floor = np.partition(found.score, -count)[-count] if count else np.inf
        chosen = np.flatnonzero(found.score >= floor)
    return found.numbers[chosen[np.lexsort((found.numbers[chosen], -found.score[chosen]))]]


def _all(wanted: list[str], matches: Matches, top: TopPictures, n_features: int) -> Relevance:
    query = " AND ".join(wanted)
    weight = top.weights()
    weight[_inside(matches("captions", query, PICTURES), len(weight))] = 1
    score, found = _captions(weight, top, n_features)
    for match, worth in ((query, _TEXT), (f"label : ({query})", _LABEL)):
        rows = _inside(matches("texts", match, n_features), n_features)
        if not len(rows):
            break
        found[rows] = True
        score[rows] += worth
    numbers = np.flatnonzero(found)
    return Relevance(numbers, score[numbers])


def _some(wanted: list[str], matches: Matches, top: TopPictures, n_features: int) -> Relevance:
    """By the rarest words of those that are anywhere: one that most captions have says little."""
    places: tuple[tuple[str, int], ...] = (("texts", n_features), ("captions", PICTURES))
    counts = {word: sum(len(matches(table, word, min(most, _COUNTED))) for table, most in places) for word in wanted}
    rare = sorted((word for word in wanted if counts[word]), key=lambda word: (counts[word], -len(word)))[:_RARE]
    weight, worth = top.weights(), np.zeros(n_features)
    for word in rare:
        share = 1 / math.log(math.e + counts[word])
        weight[_inside(matches("captions", word, PICTURES), len(weight))] += share
        worth[_inside(matches("texts", word, n_features), n_features)] += _TEXT * share
    score, found = _captions(weight, top, n_features)
    numbers = np.flatnonzero(found | (worth > 0))
    return Relevance(numbers, (score + worth)[numbers])


def _captions(weight: np.ndarray, top: TopPictures, n_features: int) -> tuple[np.ndarray, np.ndarray]:
    """How much more of a `weight` by picture a feature's top pictures have than chance would give them, in standard
    deviations `[n_features]`, and which have any."""
    score, found = np.zeros(n_features), np.zeros(n_features, bool)
    if len(top.feature) and weight.any():
        hit = weight[top.picture]
        starts = np.concatenate([[0], top.end[:-1]]).astype(np.int64)
        total, n = np.add.reduceat(hit, starts), top.end - starts
        mean = float(hit.sum()) / len(hit)
        variance = max(float(hit @ hit) / len(hit) - mean**2, 0.0)
        score[top.feature] = (total - n * mean) / np.sqrt(n * variance + 1e-3)
        found[top.feature] = total > 0
    return score, found


def _inside(rows: np.ndarray, most: int) -> np.ndarray:
    return rows[(rows >= 0) & (rows < most)]
