"""Reading a recording: which features were active, how much, where and when."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from ..dictionaries import SparseCode
from .capture import CaptureError, Recording
from .moment import WHOLE, Row
from .site import Site
from .site_pass import token_mask

Measure = Literal["activation", "peak", "area"]
MEASURES: tuple[Measure, ...] = ("activation", "peak", "area")


@dataclass(frozen=True)
class View:
    """Which part of a recording is read.

    Attributes:
        picture: number of the picture in the batch, from 0; None is all of them.
        role: rows of the positive (`"cond"`) or of the negative prompt.
        first, last: numbers of the steps, from 0, both included; None is the last there is.
    """

    picture: int | None = None
    role: str = "cond"
    first: int = 0
    last: int | None = None


class Seen(NamedTuple):
    """One row of one model call: the codes of its tokens `[tokens, k]`, and what it is."""

    sigma: float
    step: int
    row: Row
    grid: tuple[int, int]
    code: SparseCode


class Reading(NamedTuple):
    """One feature in a view. Values are codes, in the dictionary's own units.

    Attributes:
        activation: mean over all tokens, those where it is not active included.
        peak: the largest by magnitude.
        area: share of tokens on which it is active.
    """

    feature: int
    activation: float
    peak: float
    area: float


class Statistics(NamedTuple):
    """The same for all features: float64 `[n_features]` each, and how many tokens there were."""

    activation: Tensor
    peak: Tensor
    area: Tensor
    tokens: float

    def reading(self, feature: int) -> Reading:
        return Reading(feature, float(self.activation[feature]), float(self.peak[feature]), float(self.area[feature]))


def seen(recording: Recording, site: Site, view: View) -> Iterator[Seen]:
    """The rows of a view, call by call. Raises `CaptureError` where it holds none, or no codes."""
    found, pictures, roles = False, set(), set()
    if recording.dictionaries[site] is None:
        raise CaptureError(f"at {site} activations were kept, not codes: give the Tap a dictionary to read features")
    for record in recording.records[site]:
        step = recording.step(record.moment.sigma)
        for number, place in enumerate(record.batch_rows.tolist()):
            row = record.moment.rows[place]
            pictures.add(row.picture)
            roles.add(row.role)
            if view.picture not in (None, row.picture) or row.role != view.role:
                continue
            if step < view.first or (view.last is not None and step > view.last) or record.code is None:
                continue
            found = True
            code = SparseCode(*(tensor[number] for tensor in record.code))
            yield Seen(record.moment.sigma, step, row, record.moment.grid, code)
    if found:
        return
    if not recording.records[site]:
        lost = f", and {recording.lost} calls found no room in memory" if recording.lost else ""
        raise CaptureError(f"nothing was seen at {site}: no step fell into the Tap's window{lost}")
    steps = f"{view.first} to {recording.steps - 1 if view.last is None else view.last}"
    raise CaptureError(
        f"nothing was seen of picture {'any' if view.picture is None else view.picture}, {view.role} rows, steps "
        f"{steps}: this run has pictures {min(pictures)} to {max(pictures)}, {' and '.join(sorted(roles))} rows and "
        f"steps 0 to {recording.steps - 1}"
    )


def statistics(recording: Recording, site: Site, view: View | None = None, mask: Tensor | None = None) -> Statistics:
    """How active each feature was in a view; tokens weigh by a `mask [h, w]` over the picture, where one is given."""
    own = recording.dictionaries[site]
    n = own.n_features if own is not None else 0
    total, peak, area = (torch.zeros(n, dtype=torch.float64) for _ in range(3))
    tokens = 0.0
    for one in seen(recording, site, view or View()):
        weight = _weight(one, site, mask)
        values, indices = one.code.values.double(), one.code.indices.long()
        active = (values != 0) * weight[:, None]
        total.index_add_(0, indices.flatten(), (values * weight[:, None]).flatten())
        area.index_add_(0, indices.flatten(), active.flatten())
        inside = torch.where(active > 0, values, torch.zeros_like(values)).flatten()
        high = torch.zeros(n, dtype=torch.float64).scatter_reduce(0, indices.flatten(), inside, "amax")
        low = torch.zeros(n, dtype=torch.float64).scatter_reduce(0, indices.flatten(), inside, "amin")
        strongest = torch.where(high >= -low, high, low)
        peak = torch.where(strongest.abs() > peak.abs(), strongest, peak)
        tokens += float(weight.sum())
    if not tokens:
        raise CaptureError("the mask covers no token of the picture: paint a larger part, or leave it out")
    return Statistics(total / tokens, peak, area / tokens, tokens)


def ranked(now: Statistics, by: Measure, count: int, against: Statistics | None = None) -> list[Reading]:
    """The `count` features of the largest magnitude by a measure, the largest first, active ones only.

    With `against` the readings are differences, now minus then, and ranked by their size.
    """
    if against is not None and len(against.activation) != len(now.activation):
        raise CaptureError("two runs compare only through one dictionary: give both Taps the same")
    shown = now
    if against is not None:
        pairs = zip(now[:3], against[:3], strict=True)
        activation, peak, area = (one - other for one, other in pairs)
        shown = Statistics(activation, peak, area, now.tokens)
    size = getattr(shown, by).abs()
    order = size.argsort(descending=True, stable=True)[:count]
    return [shown.reading(int(feature)) for feature in order if size[feature] > 0]


class HeatMaps(NamedTuple):
    """A feature over the picture: `maps [steps, rows, columns]` of code values, their sigmas and step numbers."""

    maps: Tensor
    sigmas: tuple[float, ...]
    steps: tuple[int, ...]


def heat_maps(recording: Recording, site: Site, feature: int, view: View | None = None) -> HeatMaps:
    """A feature's codes on the token grid of the whole picture, one map for each sigma, falling.

    Rows of areas are laid where they belong, several on one place averaged; pictures too, unless the view names one.
    Raises `CaptureError` at a text site, whose tokens have no place in the picture.
    """
    if site.stream != "img":
        raise CaptureError(f"{site} is of the text: its tokens have no place in the picture; tap an img site for maps")
    own = recording.dictionaries[site]
    if own is not None:
        own.check_feature(feature)
    rows = list(seen(recording, site, view or View()))
    height = max(round(one.grid[0] / one.row.area[2]) for one in rows)
    width = max(round(one.grid[1] / one.row.area[3]) for one in rows)
    totals: dict[float, Tensor] = {}
    counts: dict[float, Tensor] = {}
    steps: dict[float, int] = {}
    for one in rows:
        key = round(one.sigma, 6)
        total = totals.setdefault(key, torch.zeros(height, width))
        count = counts.setdefault(key, torch.zeros(height, width))
        steps[key] = one.step
        tile = one.code.coefficient(feature).float().reshape(one.grid)
        top, left = round(one.row.area[0] * height), round(one.row.area[1] * width)
        here = (slice(top, top + tile.shape[0]), slice(left, left + tile.shape[1]))
        fits = total[here].shape
        total[here] += tile[: fits[0], : fits[1]]
        count[here] += 1
    falling = sorted(totals, reverse=True)
    maps = torch.stack([totals[key] / counts[key].clamp_min(1) for key in falling])
    return HeatMaps(maps, tuple(falling), tuple(steps[key] for key in falling))


def _weight(one: Seen, site: Site, mask: Tensor | None) -> Tensor:
    """How much each token of a row counts `[tokens]`."""
    if mask is None:
        return torch.ones(one.code.values.shape[0], dtype=torch.float64)
    if site.stream != "img":
        raise CaptureError(f"a mask says where in the picture, so it needs an image site; found {site}")
    tokens = token_mask(mask, one.grid, one.row.area or WHOLE)
    return tokens[one.row.picture % len(tokens)].double()
