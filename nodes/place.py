"""Where and when an edit acts: the inputs that all steering nodes share, and what they mean."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from comfy_api.latest import io
from torch import Tensor

from ..residual import PlanError, Schedule, Window
from ..residual.comfy_host import ToSigma
from ..residual.edits import Rows
from ..residual.mode import END

Floats = io.Custom("FLOATS")
"""A list of numbers, as other packs' schedules and audio nodes give it."""

CONSTANT = "constant"
SHAPES: dict[str, Callable[[float], float]] = {
    CONSTANT: lambda share: 1.0,
    "ramp up": lambda share: share,
    "ramp down": lambda share: 1 - share,
    "cosine": lambda share: (1 + math.cos(math.pi * share)) / 2,
}
"""How the strength runs through the window, from its beginning (0) to its end (1)."""


def place_inputs(end_percent: float = END) -> list[io.Input]:
    """The shared inputs, those that came later at the end, so that saved workflows go on working."""
    percent = {"min": 0.0, "max": 1.0, "step": 0.01}
    return [
        io.Float.Input(
            "start_percent",
            default=0.0,
            tooltip="When in sampling it begins to act: 0 is the start, where the layout is decided.",
            **percent,
        ),
        io.Float.Input(
            "end_percent",
            default=end_percent,
            tooltip="When it stops acting: 1 is the end, where only fine detail changes.",
            **percent,
        ),
        io.Combo.Input(
            "rows",
            options=["cond", "uncond", "both"],
            default="cond",
            tooltip="With cfg above 1: act on the positive prompt's half, the negative's, or both.",
        ),
        io.Mask.Input(
            "mask",
            optional=True,
            tooltip="Where in the picture it acts; everywhere without a mask. Any size; gray acts in part. A batch of "
            "masks goes with the pictures of the batch.",
        ),
        io.Combo.Input(
            "schedule",
            options=list(SHAPES),
            default=CONSTANT,
            optional=True,
            tooltip="How the strength runs from start_percent to end_percent. ramp up: from 0 to full. ramp down: from "
            "full to 0. cosine: from full to 0, gently at both ends.",
        ),
        Floats.Input(
            "strengths",
            optional=True,
            tooltip="A list of factors for the strength, instead of the schedule: spread evenly from start_percent to "
            "end_percent, the first at the start, the last at the end.",
        ),
    ]


def when_inputs(verb: str, going_on: str) -> list[io.Input]:
    """When in sampling a node that changes nothing does what `verb` says, and in which rows; all of it by default."""
    percent = {"min": 0.0, "max": 1.0, "step": 0.01, "optional": True}
    return [
        io.Float.Input(
            "start_percent",
            default=0.0,
            tooltip=f"When in sampling it begins to {verb}: 0 is the start.",
            **percent,
        ),
        io.Float.Input(
            "end_percent",
            default=1.0,
            tooltip=f"When it stops {going_on}: 1 is the end.",
            **percent,
        ),
        io.Combo.Input(
            "rows",
            options=["cond", "uncond", "both"],
            default="cond",
            optional=True,
            tooltip=f"With cfg above 1: {verb} the positive prompt's half, the negative's, or both.",
        ),
    ]


@dataclass(frozen=True)
class Place:
    """The values of the shared inputs. Raises `PlanError` naming the input that cannot mean anything."""

    start_percent: float
    end_percent: float
    rows: Rows
    mask: Tensor | None = None
    schedule: str = CONSTANT
    strengths: Sequence[float] | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.start_percent <= self.end_percent <= 1:
            raise PlanError(
                "start_percent and end_percent: expected 0 <= start <= end <= 1, "
                f"found start {self.start_percent} and end {self.end_percent}"
            )
        if self.mask is not None:
            _check_mask(self.mask)
        if self.schedule not in SHAPES:
            raise PlanError(f"schedule: expected one of {', '.join(SHAPES)}, found {self.schedule!r}")
        if self.strengths is not None:
            object.__setattr__(self, "strengths", _factors(self.strengths))

    def options(self, to_sigma: ToSigma) -> dict[str, Any]:
        """What they are as arguments of an edit, in a run with this schedule."""
        return {
            "window": Window.from_percent(self.start_percent, self.end_percent, to_sigma),
            "rows": self.rows,
            "mask": self.mask,
            "schedule": self._schedule(to_sigma),
        }

    def described(self) -> str:
        """How the strength runs, as the end of a sentence."""
        if self.strengths is not None:
            return f", times {len(self.strengths)} strengths"
        return "" if self.schedule == CONSTANT else f", {self.schedule}"

    def _schedule(self, to_sigma: ToSigma) -> Schedule | None:
        part = (self.start_percent, self.end_percent, to_sigma)
        if self.strengths is not None:
            return Schedule.of_steps(self.strengths, *part)
        return None if self.schedule == CONSTANT else Schedule.from_percent(SHAPES[self.schedule], *part)


def check_finite(name: str, value: float) -> None:
    """Raise `PlanError` naming an input that is no finite number."""
    if not math.isfinite(value):
        raise PlanError(f"{name}: expected a finite number, found {value}")


def _check_mask(mask: Tensor) -> None:
    if mask.ndim not in (2, 3) or 0 in mask.shape:
        raise PlanError(f"mask: expected [h, w] or [batch, h, w] with pixels in it, found shape {tuple(mask.shape)}")
    if not bool(torch.isfinite(mask).all()):
        raise PlanError("mask: expected a finite number in every pixel, found NaN or infinity")


def _factors(found: Any) -> tuple[float, ...]:
    try:
        factors = tuple(float(number) for number in (found if isinstance(found, Iterable) else [found]))
    except (TypeError, ValueError) as error:
        raise PlanError(f"strengths: expected a list of numbers ({error})") from error
    if not factors:
        raise PlanError("strengths: expected a list of one number at least, found an empty one")
    for place, factor in enumerate(factors):
        check_finite(f"strengths, number {place + 1} of {len(factors)}", factor)
    return factors
