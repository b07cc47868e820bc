"""What a sparse autoencoder starts from."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor

if TYPE_CHECKING:
    from .sae import SAETraining

DATA_SHARE = 0.8
"""Of a direction that starts from a data point; the rest is random, or equal points would stay equal."""


def start_weights(d_model: int, config: SAETraining, z: Tensor | None) -> tuple[Tensor, Tensor]:
    """Rows `[features, d_model]` of length 1, for encoder and decoder alike, and the decoder's bias `[d_model]`.

    `z [n, d_model]` are normalized activations; without them the rows are random and the bias is 0.
    """
    generator = torch.Generator().manual_seed(config.seed)
    rows = F.normalize(torch.randn(config.features, d_model, generator=generator), dim=1)
    if z is None:
        return rows, torch.zeros(d_model)
    center = z.double().mean(0).float() if config.center == "mean" else geometric_median(z)
    if config.start == "data":
        drawn = torch.randint(len(z), (config.features,), generator=generator)
        points = F.normalize(z[drawn] - center, dim=1)
        rows = F.normalize(DATA_SHARE * points + (1 - DATA_SHARE) * rows, dim=1)
    return rows, center


def geometric_median(z: Tensor, iterations: int = 50, enough: float = 1e-5) -> Tensor:
    """The point `[d]` with the least sum of distances to `z [n, d]`, by Weiszfeld's iteration, in float64."""
    z = z.double()
    center = z.mean(0)
    for _ in range(iterations):
        weight = 1 / (z - center).norm(dim=1).clamp_min(1e-12)
        before, center = center, (weight[:, None] * z).sum(0) / weight.sum()
        if float((center - before).norm()) <= enough * float(center.norm()):
            break
    return center.float()
