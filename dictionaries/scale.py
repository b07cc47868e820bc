"""How large activations are at a site, by noise level: the unit in which a strength is given."""

from __future__ import annotations

import math

import torch
from torch import Tensor

BINS = 20
"""Equal bins of sigma over [0, 1]."""


class Scale:
    """Root mean square of `|x - mean|` over tokens, per sigma bin; `x` a token, `mean` the mean token of the bin.

    `values` is float32 `[BINS]`, in the residual's own units. Between the centres of bins it is interpolated
    linearly, so that two hosts whose sigmas differ in the last bit agree.
    """

    def __init__(self, values: Tensor):
        values = values.detach().float().cpu()
        if values.ndim != 1 or not len(values) or not bool(torch.isfinite(values).all() and (values > 0).all()):
            raise ValueError(f"a scale needs one positive finite number per sigma bin, found {values}")
        self.values = values

    def at(self, sigma: float) -> float:
        place = min(max(sigma, 0.0), 1.0) * len(self.values) - 0.5
        low = min(max(math.floor(place), 0), len(self.values) - 1)
        high = min(low + 1, len(self.values) - 1)
        share = min(max(place - low, 0.0), 1.0)
        return float(self.values[low] * (1 - share) + self.values[high] * share)


class ScaleMeter:
    """Measures a `Scale` from a stream of tokens `[n, d_model]` with their sigmas `[n]`, in float64."""

    def __init__(self, d_model: int):
        self.count = torch.zeros(BINS, dtype=torch.float64)
        self.sum = torch.zeros(BINS, d_model, dtype=torch.float64)
        self.squares = torch.zeros(BINS, dtype=torch.float64)

    def add(self, x: Tensor, sigma: Tensor) -> None:
        x = x.double().cpu()
        place = (sigma.double().cpu() * BINS).long().clamp(0, BINS - 1)
        self.count.index_add_(0, place, torch.ones_like(place, dtype=torch.float64))
        self.sum.index_add_(0, place, x)
        self.squares.index_add_(0, place, x.square().sum(-1))

    def scale(self) -> Scale:
        """The scale so far; a bin that met no token takes its value from its neighbours."""
        met = (self.count > 1).nonzero()[:, 0]
        if not len(met):
            raise ValueError("no token was seen, so there is no scale to measure")
        mean = self.sum[met] / self.count[met, None]
        values = (self.squares[met] / self.count[met] - mean.square().sum(-1)).clamp_min(0).sqrt()
        at = torch.arange(BINS, dtype=torch.float64)
        right = torch.searchsorted(met.double(), at).clamp(max=len(met) - 1)
        left = torch.where(met[right] <= at, right, (right - 1).clamp_min(0))
        gap = (met[right] - met[left]).clamp_min(1)
        share = ((at - met[left]) / gap).clamp(0, 1)
        return Scale(values[left] * (1 - share) + values[right] * share)
