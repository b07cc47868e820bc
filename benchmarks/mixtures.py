"""The data of the benchmarks: activations that are sparse mixtures, as badly scaled as Flux's residual stream."""

from __future__ import annotations

import torch
from torch import Tensor

DIRECTIONS = 4096
"""Unit directions that tokens are mixed from."""
MIXED = 32
"""Directions in one token."""
NOISE = 0.1
"""Length of the noise, as a share of the token's."""
LARGE = 50.0
"""How much larger the first two channels are than the rest."""


class Mixtures:
    """An endless source of tokens `[n, d_model]`, float32, all of one set of directions."""

    def __init__(self, d_model: int = 3072, device: str = "cpu", seed: int = 0):
        self.generator = torch.Generator(device).manual_seed(seed)
        directions = torch.randn(DIRECTIONS, d_model, generator=self.generator, device=device)
        self.directions = torch.nn.functional.normalize(directions, dim=1)

    def draw(self, n: int) -> Tensor:
        device, generator = self.directions.device, self.generator
        chosen = torch.randint(DIRECTIONS, (n, MIXED), generator=generator, device=device)
        weights = 0.2 + torch.rand(n, MIXED, generator=generator, device=device)
        x = torch.nn.functional.embedding_bag(chosen, self.directions, per_sample_weights=weights, mode="sum")
        noise = torch.randn(x.shape, generator=generator, device=device)
        x += NOISE * x.norm(dim=1, keepdim=True) / x.shape[1] ** 0.5 * noise
        x[:, :2] *= LARGE
        return x
