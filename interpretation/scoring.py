"""Scores of features out of a judge's answers."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import numpy as np

from ..atlas import Score
from .judge import Judgment

YES = 0.5
"""Answers from here on say that a picture matches."""
_Z95 = 1.959963984540054


def interp_score(judgments: Iterable[Judgment]) -> dict[int, Score]:
    """Balanced accuracy on held-out pictures: the mean of the shares of matches and of mismatches that were told.

    Features without an answer on either side are left out. The interval is Wilson's for as many judgments: a feature's
    own few pictures; what is said of a dictionary needs a bootstrap over features and more.
    """
    scores = {}
    for number, mine in _by_feature(judgments, "interp").items():
        sides = [[j.answer >= YES for j in mine if j.match is side] for side in (True, False)]
        if all(sides):
            told, fooled = (sum(side) / len(side) for side in sides)
            scores[number] = _score((told + 1 - fooled) / 2, len(mine))
    return scores


def paper_score(judgments: Iterable[Judgment]) -> dict[int, Score]:
    """The score of arXiv 2505.24360: the mean of the answer to matches, and of one minus the answer to others.

    On the pictures that were explained. The interval is Wilson's, which is too wide for answers between 0 and 1.
    """
    scores = {}
    for number, mine in _by_feature(judgments, "paper").items():
        scores[number] = _score(float(np.mean([j.answer if j.match else 1 - j.answer for j in mine])), len(mine))
    return scores


def mean_score(values: Sequence[float]) -> Score:
    """The mean of figures in [0, 1], with Wilson's interval, which is too wide for any but zeros and ones."""
    return _score(float(np.mean(values)), len(values))


def _by_feature(judgments: Iterable[Judgment], score: str) -> dict[int, list[Judgment]]:
    found: dict[int, list[Judgment]] = {}
    for judgment in judgments:
        if judgment.score == score:
            found.setdefault(judgment.feature, []).append(judgment)
    return found


def _score(value: float, n: int) -> Score:
    center = (value + _Z95**2 / (2 * n)) / (1 + _Z95**2 / n)
    half = _Z95 / (1 + _Z95**2 / n) * math.sqrt(value * (1 - value) / n + _Z95**2 / (4 * n**2))
    return Score(value, max(min(center - half, value), 0.0), min(max(center + half, value), 1.0), n)
