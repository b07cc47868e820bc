"""Edits and taps: what may happen at a site, and the one function that makes it happen there.

Everything here works on plain tensors `[batch, tokens, d_model]` of one stream, so every host shares it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from ..dictionaries import Dictionary, Scale, SparseCode
from .moment import ALWAYS, WHOLE, Area, Moment, PlanError, Window
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
    change and applies to the image stream only. `gate` restricts it to tokens where features are active.
    """

    mask: Tensor | None = None
    gate: Gate | None = None

    def _check(self, site: Site) -> None:
        if site.part != "output":
            raise PlanError(
                f"{site} can be tapped but not edited: "
                f"edits act on the residual stream, such as {site._replace(part='output')}"
            )
        if self.mask is not None:
            if site.stream != "img":
                raise PlanError(f"a mask says where in the picture, so it needs an image site; found {site}")
            if self.mask.ndim not in (2, 3) or 0 in self.mask.shape or not bool(torch.isfinite(self.mask).all()):
                raise PlanError(
                    f"a mask is [h, w] or [batch, h, w] of finite numbers, found shape {tuple(self.mask.shape)}"
                )
        if self.gate is not None and self.gate.dictionary.site != str(site):
            raise PlanError(f"a gate at {site} needs a dictionary of {site}, found one of {self.gate.dictionary.site}")


@dataclass(frozen=True, eq=False)
class Add(Edit):
    """Activation addition: `x + strength * scale(sigma) * direction / |direction|`.

    `direction` is `[d_model]`. Without a `scale` it is measured on the unedited stream at the first call of each
    run, and a log line says so.
    """

    site: Site
    direction: Tensor
    strength: float
    scale: Scale | None = None

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
    """Set features to given code values: adds `(target - code) * direction` for each, keeping the error."""

    site: Site
    dictionary: Dictionary
    targets: Mapping[int, float]

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
    """Observe a site: keeps codes when it has a dictionary, activations when it has none, always copies."""

    site: Site
    dictionary: Dictionary | None = None
    rows: Rows = field(default="both", kw_only=True)

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


def token_mask(mask: Tensor, grid: tuple[int, int], area: Area = WHOLE) -> Tensor:
    """A picture mask `[h, w]` or `[masks, h, w]` on a token grid that lies in an area of it: `[masks, tokens]`.

    Each token gets the mean of the mask over its own part of the picture.
    """
    full = mask.float().reshape(-1, *mask.shape[-2:])
    height, width = full.shape[-2:]
    top, left, tall, wide = area
    rows = slice(round(top * height), max(round((top + tall) * height), round(top * height) + 1))
    columns = slice(round(left * width), max(round((left + wide) * width), round(left * width) + 1))
    return F.interpolate(full[:, None, rows, columns], size=grid, mode="area").flatten(1)


class SitePass:
    """One call at one site: the incoming stream, and what the items listed for the site make of it, in order.

    Feature edits of one dictionary share one encoding of the incoming stream; only named coefficients change.
    """

    def __init__(self, x: Tensor, moment: Moment):
        self.incoming = x
        self.moment = moment
        self._codes: dict[int, SparseCode] = {}
        self._coefficients: dict[tuple[int, int], Tensor] = {}

    def code(self, dictionary: Dictionary) -> SparseCode:
        key = id(dictionary)
        if key not in self._codes:
            self._codes[key] = dictionary.encode(self.incoming, moment=self.moment)
        return self._codes[key]

    def weight(self, edit: Edit, rows: Tensor) -> Tensor | None:
        """How much an edit acts on each token of some rows `[rows, tokens]`; None for everywhere alike."""
        weight = None
        if edit.mask is not None:
            acted = [self.moment.rows[i] for i in rows.tolist()]
            tokens = {area: token_mask(edit.mask, self.moment.grid, area) for area in {row.area for row in acted}}
            # a batch of masks goes with the pictures of the batch, and is repeated where it is shorter
            chosen = [tokens[row.area][row.picture % len(tokens[row.area])] for row in acted]
            weight = torch.stack(chosen).to(self.incoming.device)
        if edit.gate is not None:
            code = self.code(edit.gate.dictionary)
            value = torch.stack([code.coefficient(feature) for feature in edit.gate.features]).sum(0)
            opened = (value > edit.gate.threshold)[rows].float()
            weight = opened if weight is None else weight * opened
        return weight

    def add(self, edit: Add, x: Tensor, scale: Scale | float) -> Tensor:
        """The stream after an `Add`; the delta is computed in float32 and cast back."""
        rows = edit.acts(self.moment)
        if rows is None or edit.strength == 0:
            return x
        size = scale.at(self.moment.sigma) if isinstance(scale, Scale) else scale
        direction = edit.direction.to(x.device, torch.float32)
        delta = edit.strength * size * direction / direction.norm()
        return _changed(x, rows, self.weight(edit, rows), delta)

    def clamp(self, edit: Clamp, x: Tensor) -> Tensor:
        """The stream after a `Clamp` or `Ablate`."""
        rows = edit.acts(self.moment)
        if rows is None:
            return x
        weight = self.weight(edit, rows)
        delta = torch.zeros(len(rows), *x.shape[1:], device=x.device)
        frame = edit.dictionary.frame(self.incoming[rows], self.moment)
        for feature, target in edit.targets.items():
            key = (id(edit.dictionary), feature)
            if key not in self._coefficients:
                self._coefficients[key] = self.code(edit.dictionary).coefficient(feature).clone()
            now = self._coefficients[key]
            change = (target - now[rows]) if weight is None else weight * (target - now[rows])
            now[rows] += change
            direction = edit.dictionary.direction(feature).to(x.device)
            delta += change[..., None] * (direction if frame is None else frame.gain * direction)
        return _changed(x, rows, None, delta)

    def splice(self, edit: Splice, x: Tensor) -> Tensor:
        """The stream after a `Splice`; the reconstruction is float32 and cast back."""
        rows = edit.acts(self.moment)
        if rows is None:
            return x
        here = x[rows].float()
        delta = edit.dictionary.reconstruct(here, self.moment) - here
        if edit.keep_error:
            incoming = self.incoming[rows].float()
            delta += incoming - edit.dictionary.reconstruct(incoming, self.moment)
        return _changed(x, rows, self.weight(edit, rows), delta)

    def record(self, tap: Tap, x: Tensor) -> Record | None:
        rows = tap.acts(self.moment)
        if rows is None:
            return None
        watched = x[rows]  # indexing with a tensor copies
        if tap.dictionary is None:
            return Record(self.moment, rows, activations=watched.detach().to("cpu"))
        code = tap.dictionary.encode(watched, moment=self.moment)
        return Record(self.moment, rows, code=SparseCode(code.values.cpu(), code.indices.cpu()))


def token_scale(x: Tensor) -> float:
    """Root mean square of `|x - mean|` over all tokens of `x [batch, tokens, d_model]`."""
    flat = x.detach().double().flatten(0, -2)
    return float((flat - flat.mean(0)).square().sum(-1).mean().sqrt())


def _changed(x: Tensor, rows: Tensor, weight: Tensor | None, delta: Tensor) -> Tensor:
    """`x` with `delta` added to some rows; tokens of weight 0, and all other rows, keep their bits."""
    before = x[rows]
    moved = before.float() + (delta if weight is None else weight[..., None] * delta)
    after = moved.to(x.dtype)
    if weight is not None:
        after = torch.where(weight[..., None] != 0, after, before)
    out = x.clone()
    out[rows] = after
    return out


def _finite(name: str, value: float) -> None:
    if not math.isfinite(value):
        raise PlanError(f"{name} must be a finite number, found {value}")


def _check_dictionary(site: Site, dictionary: Dictionary) -> None:
    if dictionary.site != str(site):
        raise PlanError(f"this dictionary was made for {dictionary.site}, but the plan uses it at {site}")
