"""Reading a recording: which features were active, how much, where and when."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from ..dictionaries import Dictionary, SparseCode
from .block_chain import token_grid
from .capture import CaptureError, Recording
from .moment import WHOLE, Row
from .site import Site
from .site_pass import token_mask

Measure = Literal["activation", "peak", "area"]
MEASURES: tuple[Measure, ...] = ("activation", "peak", "area")
PATCH = 2
"""Latent pixels along a side of a token: Flux 1 has no other."""


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
        sigma: the noise level at which the peak was; None for a difference of two views.
    """

    feature: int
    activation: float
    peak: float
    area: float
    sigma: float | None = None

    def strength(self, dictionary: Dictionary) -> float | None:
        """The peak in units of strength, as `natural` is: `peak * |direction| / scale(sigma)`.

        None where that is not defined: in differences, without a scale, where the length of a direction depends on
        the token, and for neurons, whose directions lie in another space than their codes.
        """
        normalization = dictionary.normalization
        if self.sigma is None or dictionary.scale is None or dictionary.kind == "neurons":
            return None
        if normalization is not None and normalization.per_call:
            return None
        return self.peak * float(dictionary.direction(self.feature).norm()) / dictionary.scale.at(self.sigma)


class Statistics(NamedTuple):
    """The same for all features: float64 `[n_features]` each, and how many tokens there were."""

    activation: Tensor
    peak: Tensor
    area: Tensor
    sigma: Tensor | None
    tokens: float

    def reading(self, feature: int) -> Reading:
        activation, peak, area = (float(getattr(self, name)[feature]) for name in MEASURES)
        return Reading(feature, activation, peak, area, None if self.sigma is None else float(self.sigma[feature]))


def seen(recording: Recording, site: Site, view: View) -> Iterator[Seen]:
    """The rows of a view, call by call. Raises `CaptureError` where it holds none, or no codes."""
    found, pictures, roles, steps = False, set(), set(), set()
    if recording.dictionaries[site] is None:
        raise CaptureError(f"at {site} activations were kept, not codes: give the Tap a dictionary to read features")
    for record in recording.records[site]:
        step = recording.step(record.moment.sigma)
        for number, place in enumerate(record.batch_rows.tolist()):
            row = record.moment.rows[place]
            pictures.add(row.picture)
            roles.add(row.role)
            steps.add(step)
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
    picture = "any picture" if view.picture is None else f"picture {view.picture}"
    asked = f"{picture}, {view.role} rows, steps {view.first} to {'the last' if view.last is None else view.last}"
    raise CaptureError(
        f"the Tap saw nothing of {asked}: it saw pictures {_range(pictures)}, {' and '.join(sorted(roles))} rows and "
        f"steps {_range(steps)}"
    )


def pictures(recording: Recording, site: Site) -> list[int]:
    """Numbers of the pictures of the batch that were seen at a site."""
    return sorted(
        {
            record.moment.rows[place].picture
            for record in recording.records[site]
            for place in record.batch_rows.tolist()
        }
    )


def statistics(recording: Recording, site: Site, view: View | None = None, mask: Tensor | None = None) -> Statistics:
    """How active each feature was in a view; tokens weigh by a `mask [h, w]` over the picture, where one is given."""
    own = recording.dictionaries[site]
    n = own.n_features if own is not None else 0
    total, peak, area, sigma = (torch.zeros(n, dtype=torch.float64) for _ in range(4))
    tokens = 0.0
    for one in seen(recording, site, view or View()):
        weight = _weight(one, site, mask, recording.latent)
        values, indices = one.code.values.double(), one.code.indices.long()
        active = (values != 0) * weight[:, None]
        total.index_add_(0, indices.flatten(), (values * weight[:, None]).flatten())
        area.index_add_(0, indices.flatten(), active.flatten())
        inside = torch.where(active > 0, values, torch.zeros_like(values)).flatten()
        high = torch.zeros(n, dtype=torch.float64).scatter_reduce(0, indices.flatten(), inside, "amax")
        low = torch.zeros(n, dtype=torch.float64).scatter_reduce(0, indices.flatten(), inside, "amin")
        strongest = torch.where(high >= -low, high, low)
        higher = strongest.abs() > peak.abs()
        peak, sigma = torch.where(higher, strongest, peak), torch.where(higher, one.sigma, sigma)
        tokens += float(weight.sum())
    if not tokens:
        raise CaptureError("the mask covers no token of the picture: paint a larger part, or leave it out")
    _check_finite(total, site)
    return Statistics(total / tokens, peak, area / tokens, sigma, tokens)


def ranked(now: Statistics, by: Measure, count: int, against: Statistics | None = None) -> list[Reading]:
    """The `count` features of the largest magnitude by a measure, the largest first, active ones only.

    With `against` the readings are differences, now minus then, and ranked by their size.
    """
    if against is not None and len(against.activation) != len(now.activation):
        raise CaptureError("two runs compare only through one dictionary: give both Taps the same")
    shown = now
    if against is not None:
        activation, peak, area = (getattr(now, name) - getattr(against, name) for name in MEASURES)
        shown = Statistics(activation, peak, area, None, now.tokens)
    size = getattr(shown, by).abs()
    order = size.argsort(descending=True, stable=True)[:count]
    return [shown.reading(int(feature)) for feature in order if size[feature] > 0]


class HeatMaps(NamedTuple):
    """A feature over the picture: `maps [steps, rows, columns]` of code values, and the numbers of the steps."""

    maps: Tensor
    steps: tuple[int, ...]


def heat_maps(recording: Recording, site: Site, feature: int, view: View | None = None) -> HeatMaps:
    """A feature's codes on the token grid of the whole picture, one map for each step that was seen, in order.

    Rows of areas are laid where they belong, several on one place averaged; the calls of a step too, and pictures,
    unless the view names one. Raises `CaptureError` at a text site, whose tokens have no place in the picture.
    """
    if site.stream != "img":
        raise CaptureError(f"{site} is of the text: its tokens have no place in the picture; tap an img site for maps")
    own = recording.dictionaries[site]
    if own is not None:
        own.check_feature(feature)
    rows = list(seen(recording, site, view or View()))
    if recording.latent is not None:
        height, width = token_grid(*recording.latent, PATCH)
    else:
        height = max(round(one.grid[0] / one.row.area[2]) for one in rows)
        width = max(round(one.grid[1] / one.row.area[3]) for one in rows)
    steps = sorted({one.step for one in rows})
    total, count = (torch.zeros(len(steps), height, width) for _ in range(2))
    for one in rows:
        _check_placed(one, recording.latent)
        tile = one.code.coefficient(feature).float().reshape(one.grid)
        top, left = round(one.row.area[0] * height), round(one.row.area[1] * width)
        here = (steps.index(one.step), slice(top, top + tile.shape[0]), slice(left, left + tile.shape[1]))
        fits = total[here].shape
        total[here] += tile[: fits[0], : fits[1]]
        count[here] += 1
    _check_finite(total, site)
    return HeatMaps(total / count.clamp_min(1), tuple(steps))


def _weight(one: Seen, site: Site, mask: Tensor | None, latent: tuple[int, int] | None) -> Tensor:
    """How much each token of a row counts `[tokens]`."""
    if mask is None:
        return torch.ones(one.code.values.shape[0], dtype=torch.float64)
    if site.stream != "img":
        raise CaptureError(f"a mask says where in the picture, so it needs an image site; found {site}")
    _check_placed(one, latent)
    tokens = token_mask(mask, one.grid, one.row.area or WHOLE)
    return tokens[one.row.picture % len(tokens)].double()


def _check_placed(one: Seen, latent: tuple[int, int] | None) -> None:
    """Raise `CaptureError` for a row of a part of the picture that does not say which, as tiled sampling makes."""
    if latent is None or one.row.area != WHOLE or one.grid == token_grid(*latent, PATCH):
        return
    rows, columns = token_grid(*latent, PATCH)
    raise CaptureError(
        f"the picture has {rows}x{columns} tokens, but the model was called on parts of {one.grid[0]}x{one.grid[1]}, "
        "and it is not known where they lie: take out the node that samples in tiles, or read without a mask or a map"
    )


def _check_finite(values: Tensor, site: Site) -> None:
    if not bool(torch.isfinite(values).all()):
        raise CaptureError(
            f"what the model computed at {site} is not finite (NaN or infinite), so there is nothing to read: its "
            "picture will be black too; try the model in another precision"
        )


def _range(numbers: set[int]) -> str:
    return f"{min(numbers)} to {max(numbers)}" if len(numbers) > 1 else str(min(numbers))
