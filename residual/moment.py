"""Moments and windows: when a site is reached, and when an edit acts."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple


class PlanError(ValueError):
    """A plan that cannot mean anything, or not on this model."""


Area = tuple[float, float, float, float]
WHOLE: Area = (0.0, 0.0, 1.0, 1.0)


class Row(NamedTuple):
    """What one row of a batch is.

    Attributes:
        role: `"cond"` or `"uncond"`.
        picture: the number of its picture in the batch; cond and uncond rows share it.
        area: where the row lies in its picture: top, left, height, width as shares of it.
    """

    role: str
    picture: int = 0
    area: Area = WHOLE


class Moment(NamedTuple):
    """What is known when a site is reached.

    Attributes:
        sigma: noise level in [0, 1], 1 being pure noise.
        rows: what each batch row is.
        grid: token rows and columns of the image stream.
    """

    sigma: float
    rows: tuple[Row, ...]
    grid: tuple[int, int]


class Window(NamedTuple):
    """The part of sampling in which something acts: sigmas with `end < sigma <= start`."""

    start: float = math.inf
    end: float = -math.inf

    def holds(self, sigma: float) -> bool:
        return self.end < sigma <= self.start

    @classmethod
    def from_percent(cls, start: float, end: float, percent_to_sigma: Callable[[float], float]) -> Window:
        """From shares of sampling in [0, 1], by the run's own schedule; 0 and 1 include everything."""
        if not 0 <= start <= end <= 1:
            raise PlanError(f"a window needs 0 <= start <= end <= 1, found start {start} and end {end}")
        return cls(
            math.inf if start == 0 else percent_to_sigma(start),
            -math.inf if end == 1 else percent_to_sigma(end),
        )


ALWAYS = Window()
