"""How large activations are at a site, by noise level: the unit in which a strength is given."""

from __future__ import annotations

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
            raise ValueError(f"a scale needs one positive finite number per sigma bin, found {values.tolist()[:4]}...")
        self.values = values

    def at(self, sigma: float) -> float:
        return float(between_bins(self.values, sigma))


def between_bins(values: Tensor, sigma: float | Tensor) -> Tensor:
    """`values [bins, ...]` at a sigma: linear between the centres of equal bins over [0, 1], flat beyond them.

    A tensor of sigmas `[n]` gives `[n, ...]`.
    """
    place = torch.as_tensor(sigma, dtype=torch.float64).clamp(0, 1) * len(values) - 0.5
    low = place.floor().clamp(0, len(values) - 1).long()
    share = (place - low).clamp(0, 1)
    high = (low + 1).clamp(max=len(values) - 1).to(values.device)
    low, share = low.to(values.device), share.to(values)
    share = share.reshape(share.shape + (1,) * (values.ndim - 1))
    return values[low] * (1 - share) + values[high] * share


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
