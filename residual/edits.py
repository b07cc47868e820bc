"""Edits and taps: what may happen at a site. How it happens there is in `site_pass`."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, TypeVar

import torch
from torch import Tensor

from ..dictionaries import Dictionary, Scale, SparseCode
from .moment import ALWAYS, Moment, PlanError, Schedule, Window
from .site import Site

Rows = Literal["cond", "uncond", "both"]


@dataclass(frozen=True, eq=False)
class Gate:
    """Lets an edit act only on tokens where any of some features is active (their summed value > `threshold`)."""

    dictionary: Dictionary
    features: tuple[int, ...]
    threshold: float = 0.0

    def __post_init__(self) -> None:
        object.__setattr__(self, "features", tuple(self.dictionary.check_feature(f) for f in self.features))
        if not self.features:
            raise PlanError("a gate needs at least one feature")
        _finite("threshold", self.threshold)


@dataclass(frozen=True, eq=False, kw_only=True)
class Place:
    """Where and when something acts: shared by edits and taps.

    `pictures` are the numbers of those pictures of the batch that it acts on, from 0; None is all of them.
    """

    window: Window = ALWAYS
    rows: Rows = "cond"
    pictures: frozenset[int] | None = None

    def __post_init__(self) -> None:
        if self.rows not in ("cond", "uncond", "both"):
            raise PlanError(f"rows must be cond, uncond or both, found {self.rows!r}")

    def acts(self, moment: Moment) -> Tensor | None:
        """The batch rows it acts on, as indices, or None where it does not act at all."""
        if not self.window.holds(moment.sigma):
            return None
        chosen = [
            i
            for i, row in enumerate(moment.rows)
            if self.rows in ("both", row.role) and (self.pictures is None or row.picture in self.pictures)
        ]
        return torch.tensor(chosen) if chosen else None


@dataclass(frozen=True, eq=False, kw_only=True)
class Edit(Place):
    """One change at a site.

    `mask` is `[h, w]` or `[batch, h, w]` in [0, 1] over the picture, area-resized to the token grid; it scales the
    change and applies to the image stream only. `gate` restricts it to tokens where features are active. `schedule`
    scales the change by noise level.
    """

    mask: Tensor | None = None
    gate: Gate | None = None
    schedule: Schedule | None = None

    def acts(self, moment: Moment) -> Tensor | None:
        """As of any `Place`; not at all where the schedule's factor is 0."""
        if self.schedule is not None and self.schedule.at(moment.sigma) == 0:
            return None
        return super().acts(moment)

    def _check(self, site: Site) -> None:
        if site.part != "output":
            raise PlanError(
                f"{site} can be tapped but not edited: "
                f"edits act on the residual stream, such as {site._replace(part='output')}"
            )
        if self.mask is not None:
            if site.stream != "img":
                raise PlanError(
                    f"a mask says where in the picture, so it needs an image site; found {site}: "
                    f"take the mask out, or act at an image site such as {site._replace(stream='img')}"
                )
            if self.mask.ndim not in (2, 3) or 0 in self.mask.shape or not bool(torch.isfinite(self.mask).all()):
                raise PlanError(
                    f"a mask is [h, w] or [batch, h, w] of finite numbers, found shape {tuple(self.mask.shape)}"
                )
        if self.gate is not None and self.gate.dictionary.site != str(site):
            raise PlanError(f"a gate at {site} needs a dictionary of {site}, found one of {self.gate.dictionary.site}")


PlaceType = TypeVar("PlaceType", bound=Place)


def altered(item: PlaceType, **changes: Any) -> PlaceType:
    """An edit or a tap with other values of some fields: also an `Ablate`, which is made of other arguments."""
    out = copy.copy(item)
    for name, value in changes.items():
        object.__setattr__(out, name, value)
    return out


@dataclass(frozen=True, eq=False)
class Add(Edit):
    """Activation addition: `x + strength * scale(sigma) * direction / |direction|`.

    `direction` is `[d_model]`. Without a `scale` it is measured on the unedited stream at the first call of each
    run, and a log line says so. `gain` `[bins, d_model]` multiplies the channels of the direction by noise level, one
    row for each of equal bins of sigma over [0, 1]: what a direction needs that lies in a space normalized so.
    """

    site: Site
    direction: Tensor
    strength: float
    scale: Scale | None = None
    gain: Tensor | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "site", Site.parse(self.site))
        self._check(self.site)
        _finite("strength", self.strength)
        length = self.direction.float().norm()
        if self.direction.ndim != 1 or not bool(torch.isfinite(length)) or not bool(length > 0):
            raise PlanError(
                "a direction is a vector of finite numbers, not all 0; "
                f"found shape {tuple(self.direction.shape)}, length {length}"
            )


@dataclass(frozen=True, eq=False)
class Clamp(Edit):
    """Set features to given values: adds `(target - code) * direction` for each, keeping the error.

    Targets are code values; with a `scale` they are strengths, as of `Add`: a target of 1 then asks for a code at
    which `code * direction` is as long as the scale.
    """

    site: Site
    dictionary: Dictionary
    targets: Mapping[int, float]
    scale: Scale | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "site", Site.parse(self.site))
        self._check(self.site)
        _check_dictionary(self.site, self.dictionary)
        if not self.targets:
            raise PlanError("clamping needs at least one feature")
        for feature, value in self.targets.items():
            self.dictionary.check_feature(feature)
            _finite(f"the target of feature {feature}", value)


class Ablate(Clamp):
    """Switch features off: a `Clamp` of each to 0."""

    def __init__(self, site: Site | str, dictionary: Dictionary, features: Sequence[int], **place: Any):
        super().__init__(Site.parse(site), dictionary, dict.fromkeys(features, 0.0), **place)


@dataclass(frozen=True, eq=False)
class Splice(Edit):
    """Replace what stands at a site by what a dictionary makes of it: `dictionary.reconstruct(x)`.

    `x` is the stream as the edits listed before left it. Clamps of the same dictionary listed after it then set
    coefficients of the spliced code. `keep_error` adds the error of the incoming stream back,
    `incoming - reconstruct(incoming)`: alone it then changes nothing but rounding, and of edits listed before it
    goes on what the dictionary can say. At text sites padding is replaced as well, which the model reads too.
    (Bricken et al. 2023, "Towards Monosemanticity", measure dictionaries this way.)
    """

    site: Site
    dictionary: Dictionary
    keep_error: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "site", Site.parse(self.site))
        self._check(self.site)
        _check_dictionary(self.site, self.dictionary)


@dataclass(frozen=True, eq=False)
class Tap(Place):
    """Observe a site: keeps codes when it has a dictionary, activations when it has none, always copies.

    With `receive` the run keeps nothing: it is called with the tap, each record, and the activations
    `[rows, tokens, d_model]` that the record was made of, on their own device.
    """

    site: Site
    dictionary: Dictionary | None = None
    rows: Rows = field(default="both", kw_only=True)
    receive: Callable[[Tap, Record, Tensor], None] | None = field(default=None, kw_only=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "site", Site.parse(self.site))
        if self.dictionary is not None:
            _check_dictionary(self.site, self.dictionary)


@dataclass(frozen=True, eq=False)
class Record:
    """What a tap kept of one model call: the batch rows it watched, and their activations or codes.

    `batch_rows [n]` are row numbers of the call; `activations [n, tokens, d_model]` or `code`, of the same leading
    shape, on the CPU.
    """

    moment: Moment
    batch_rows: Tensor
    activations: Tensor | None = None
    code: SparseCode | None = None


def _finite(name: str, value: float) -> None:
    if not math.isfinite(value):
        raise PlanError(f"{name} must be a finite number, found {value}")


def _check_dictionary(site: Site, dictionary: Dictionary) -> None:
    if dictionary.site != str(site):
        raise PlanError(f"this dictionary was made for {dictionary.site}, but the plan uses it at {site}")
