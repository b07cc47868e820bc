"""Normalizing activations before a dictionary sees them, and folding that into its weights.

Flux's residual stream has a few channels tens of times larger than the rest; without normalization they take
every feature and over 99 % of a dictionary dies (arXiv 2505.24360, section 3).
"""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor

FLOOR = 1e-6
"""Smallest standard deviation that is divided by."""


class Normalization(NamedTuple):
    """`(x - mean) / std` per channel; both float32 `[d_model]`."""

    mean: Tensor
    std: Tensor

    @classmethod
    def fit(cls, x: Tensor) -> Normalization:
        """From tokens `[n, d_model]`, in float64."""
        x = x.double()
        return cls(x.mean(0).float(), x.std(0, correction=0).clamp_min(FLOOR).float())

    def apply(self, x: Tensor) -> Tensor:
        return (x - self.mean) / self.std

    def invert(self, x: Tensor) -> Tensor:
        return x * self.std + self.mean

    def fold_encoder(self, weight: Tensor, bias: Tensor) -> tuple[Tensor, Tensor]:
        """Weights `[n_features, d_model]` and bias `[n_features]` on normalized x, as the same map on plain x."""
        folded = weight.double() / self.std.double()
        return folded.float(), (bias.double() - folded @ self.mean.double()).float()

    def fold_decoder(self, weight: Tensor, bias: Tensor) -> tuple[Tensor, Tensor]:
        """Weights `[n_features, d_model]` and bias `[d_model]` into normalized space, as the same into plain x."""
        return weight * self.std, self.invert(bias)
