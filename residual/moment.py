"""Moments and windows: when a site is reached, and when an edit acts."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import NamedTuple


class PlanError(ValueError):
    """A plan that cannot mean anything, or not on this model."""


ROUNDING = 1e-6
"""More than hosts differ by in a sigma, and less than any two steps do."""

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
        """From shares of sampling in [0, 1], by the run's own schedule; 0 and 1 include everything.

        A step is in it that begins at `start` or later and before `end`. Hosts compute a step's sigma and that of a
        share in other types, so the bounds lie a little above them: what begins at a bound is found there.
        """
        if not 0 <= start <= end <= 1:
            raise PlanError(f"a window needs 0 <= start <= end <= 1, found start {start} and end {end}")
        return cls(
            math.inf if start == 0 else percent_to_sigma(start) + ROUNDING,
            -math.inf if end == 1 else percent_to_sigma(end) + ROUNDING,
        )


ALWAYS = Window()


class Schedule(NamedTuple):
    """How much of a change is made, by noise level: factors at falling sigmas, linear between, flat beyond them."""

    sigmas: tuple[float, ...]
    factors: tuple[float, ...]

    def at(self, sigma: float) -> float:
        """The factor at a noise level."""
        if sigma >= self.sigmas[0]:
            return self.factors[0]
        for (high, before), (low, after) in pairwise(zip(self.sigmas, self.factors, strict=True)):
            if sigma >= low:
                return after + (before - after) * (sigma - low) / (high - low) if high > low else after
        return self.factors[-1]

    def times(self, factor: float) -> Schedule:
        """The same course with every factor multiplied."""
        return Schedule(self.sigmas, tuple(factor * own for own in self.factors))

    @classmethod
    def from_percent(
        cls,
        shape: Callable[[float], float],
        start: float,
        end: float,
        percent_to_sigma: Callable[[float], float],
        points: int = 65,
    ) -> Schedule:
        """A shape over a part of sampling, by the run's own schedule.

        `shape` takes a share of that part (0 its beginning, 1 its end) to a factor; it is drawn through `points`.
        """
        shares = [i / (points - 1) for i in range(points)]
        sigmas = tuple(percent_to_sigma(start + (end - start) * share) for share in shares)
        factors = tuple(float(shape(share)) for share in shares)
        if not all(math.isfinite(factor) for factor in factors):
            raise PlanError(f"a schedule's factors must be finite numbers, found {factors}")
        return cls(sigmas, factors)

    @classmethod
    def of_steps(
        cls, factors: Sequence[float], start: float, end: float, percent_to_sigma: Callable[[float], float]
    ) -> Schedule:
        """Given factors, spread evenly over a part of sampling: the first at its beginning, the last at its end."""
        if not len(factors):
            raise PlanError("a schedule needs at least one factor, found an empty list")
        last = len(factors) - 1

        def shape(share: float) -> float:
            place = share * last
            low = min(int(place), max(last - 1, 0))
            high = min(low + 1, last)
            return factors[low] + (factors[high] - factors[low]) * (place - low)

        # drawn through every factor, however many there are
        points = last * max(64 // last, 1) + 1 if last else 2
        return cls.from_percent(shape, start, end, percent_to_sigma, points)
