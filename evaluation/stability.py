"""How much of a dictionary comes back when it is made again with another seed."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from ..dictionaries import Dictionary

SAME = 0.7
"""Cosine from which a feature counts as found again (Paulo and Belrose 2025, arXiv 2501.16615)."""


def unit_directions(dictionary: Dictionary, deviation: Tensor) -> Tensor:
    """All directions at length 1, each channel divided by its `deviation [d_model]`: float32 `[n_features, d]`."""
    rows = torch.stack([dictionary.direction(feature) for feature in range(dictionary.n_features)])
    return F.normalize(rows / deviation, dim=1)


def best_matches(one: Tensor, other: Tensor, signed: bool = False) -> Tensor:
    """For each of `one [n, d]` the largest cosine with any of `other [m, d]`, both of length 1: `[n]`.

    Where codes are `signed`, a direction and its opposite are the same.
    """
    cosine = one @ other.T
    return (cosine.abs() if signed else cosine).amax(1)


def stability(directions: Sequence[Tensor], signed: bool = False) -> list[Tensor]:
    """For each dictionary, by its unit directions `[n, d]`: of each feature the best match in another, `[n]`, averaged
    over the others."""
    if len(directions) < 2:
        raise ValueError(f"stability needs at least 2 dictionaries, found {len(directions)}")
    return [
        torch.stack(
            [best_matches(one, other, signed) for number, other in enumerate(directions) if number != own]
        ).mean(0)
        for own, one in enumerate(directions)
    ]
