"""Which captions are steered, and to what: open ones, and ones that name another value."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from .cases import Case, sample_cases
from .harness import Asked, Easel, asked
from .steering import against_targets, even_targets

SPARE = 4
"""Readable pictures beyond those that are needed: of a few, one may keep the value that it shows already."""


class Targets(NamedTuple):
    """What is chosen on, and what is shown, both with their unsteered pictures."""

    validation: Sequence[Asked]
    test: Sequence[Asked]


def open_targets(easel: Easel, validation: int, test: int, factor: str) -> Targets:
    """Captions that leave a factor unnamed: `validation` of the one split, `test` of the other."""

    def some(count: int, seed: int, split: str) -> list[Asked]:
        cases = sample_cases(2 * count + 4 * SPARE, seed, split, never=[factor])
        return readable_targets(easel, cases, count, factor)

    return Targets(some(validation, 4, "validation"), some(test, 25, "test"))


def opposed_targets(easel: Easel, validation: int, test: int, factor: str) -> Targets:
    """Captions that name another value of a factor than the one they are steered to."""

    def some(count: int, seed: int, split: str) -> list[Asked]:
        cases = sample_cases(2 * count + 4 * SPARE, seed, split, always=[factor])
        plain = easel.readable(cases, count + SPARE)
        return asked(against_targets([one.case for one in plain], factor), plain)[:count]

    return Targets(some(validation, 6, "validation"), some(test, 27, "test"))


def readable_targets(easel: Easel, cases: Sequence[Case], count: int, factor: str) -> list[Asked]:
    """The first `count` targets among some cases; raises `ValueError` where there are too few."""
    plain = easel.readable(cases, count + SPARE)
    return asked(even_targets(plain, factor), plain)[:count]


def fitting_targets(easel: Easel, cases: Sequence[Case], factor: str) -> list[Asked]:
    """All targets among some cases: those whose unsteered pictures can be read."""
    plain = [one for one in easel.plain(cases) if one.reading.readable]
    return asked(even_targets(plain, factor), plain)
