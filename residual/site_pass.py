"""What edits and taps do at one site in one call of the model.

Everything here works on plain tensors `[batch, tokens, d_model]` of one stream, so every host shares it.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from ..dictionaries import Dictionary, Scale, SparseCode
from ..dictionaries.scale import between_bins
from .edits import Add, Clamp, Edit, Record, Splice, Tap
from .moment import WHOLE, Area, Moment


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
        if edit.schedule is not None:
            factor = edit.schedule.at(self.moment.sigma)
            if weight is None:
                weight = torch.ones(len(rows), self.incoming.shape[1], device=self.incoming.device)
            weight = factor * weight
        return weight

    def add(self, edit: Add, x: Tensor, scale: Scale | float) -> Tensor:
        """The stream after an `Add`; the delta is computed in float32 and cast back."""
        rows = edit.acts(self.moment)
        if rows is None or edit.strength == 0:
            return x
        size = scale.at(self.moment.sigma) if isinstance(scale, Scale) else scale
        direction = edit.direction.to(x.device, torch.float32)
        if edit.gain is not None:
            direction = between_bins(edit.gain.to(direction), self.moment.sigma) * direction
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
            direction = edit.dictionary.direction(feature).to(x.device)
            if frame is not None:
                direction = frame.gain * direction
            wanted: float | Tensor = target
            if edit.scale is not None:
                wanted = target * edit.scale.at(self.moment.sigma) / direction.norm(dim=-1)
            key = (id(edit.dictionary), feature)
            if key not in self._coefficients:
                self._coefficients[key] = self.code(edit.dictionary).coefficient(feature).clone()
            now = self._coefficients[key]
            change = (wanted - now[rows]) if weight is None else weight * (wanted - now[rows])
            now[rows] += change
            delta += change[..., None] * direction
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
        """What a tap sees; None where its receiver took it, or where it does not look."""
        rows = tap.acts(self.moment)
        if rows is None:
            return None
        watched = x.detach()[rows]  # indexing with a tensor copies
        if tap.dictionary is None:
            record = Record(self.moment, rows, activations=watched.to("cpu"))
        else:
            code = tap.dictionary.encode(watched, moment=self.moment)
            record = Record(self.moment, rows, code=SparseCode(code.values.cpu(), code.indices.cpu()))
        if tap.receive is None:
            return record
        tap.receive(tap, record, watched)
        return None


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
