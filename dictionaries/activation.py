"""Which features a sparse autoencoder lets be active, and how much."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from .sparse_code import SparseCode

COUNTED = ("topk", "groupmax")
THRESHOLDED = ("jumprelu", "batchtopk", "gated")
NAMES = ("relu", *COUNTED, *THRESHOLDED)


@dataclass(frozen=True, eq=False)
class Activation:
    """From `before = encoder x + encoder_bias` to codes.

    - `relu`: all that is positive.
    - `topk`: the `k` largest, then ReLU (Gao et al. 2024, arXiv 2406.04093); `relu=False` leaves negative ones.
    - `groupmax`: the features in `k` groups of neighbours, the largest of each group, then ReLU.
    - `jumprelu`: what is above its feature's `threshold [n_features]` (Rajamanoharan et al. 2024, arXiv 2407.14435).
    - `batchtopk`: the same with one threshold `[1]`, which stands for the batch's top k (Bussmann et al. 2024,
      arXiv 2412.06410); `k` is the mean count it was trained for.
    - `gated`: with shared weights a gate is a threshold too (Rajamanoharan et al. 2024, arXiv 2404.16014, section 3.2).
    """

    name: str
    k: int | None = None
    threshold: Tensor | None = None
    relu: bool = True

    def __post_init__(self) -> None:
        if self.name not in NAMES:
            raise ValueError(f"an activation is one of {', '.join(NAMES)}; found {self.name!r}")
        if (self.k is not None and self.k < 1) or (self.k is None and self.name in COUNTED):
            raise ValueError(f"{self.name} needs k, the number of active features, at least 1; found {self.k}")
        if (self.threshold is None) != (self.name not in THRESHOLDED):
            raise ValueError(f"{', '.join(THRESHOLDED)} have a threshold, the others have none; found {self.name}")
        if not self.relu and self.name != "topk":
            raise ValueError(f"only topk can leave the ReLU out; found {self.name}")

    def check(self, n_features: int) -> None:
        """Raise `ValueError` unless it fits a dictionary of this many features."""
        if self.k is not None and self.k > n_features:
            raise ValueError(f"k must lie between 1 and the {n_features} features, found {self.k}")
        if self.name == "groupmax" and self.k is not None and n_features % self.k:
            raise ValueError(f"groupmax needs k groups of one size, found k = {self.k} for {n_features} features")
        if self.threshold is not None and tuple(self.threshold.shape) not in ((1,), (n_features,)):
            raise ValueError(f"a threshold is [1] or [{n_features}], found {tuple(self.threshold.shape)}")

    @property
    def counted(self) -> bool:
        """Whether every token gets the same number of places, `k`."""
        return self.name in COUNTED

    def __call__(self, before: Tensor) -> SparseCode:
        """Codes of pre-activations `[n, n_features]`, which are left as they are."""
        if self.name == "topk":
            values, indices = before.topk(self.k or 1, dim=-1, sorted=False)
        elif self.name == "groupmax":
            values, indices = before.unflatten(-1, (self.k or 1, -1)).max(-1)
            indices = indices + torch.arange(self.k or 1, device=before.device) * (before.shape[-1] // (self.k or 1))
        elif self.threshold is None:
            return SparseCode.of_dense(torch.relu(before))
        else:
            floor = self.threshold.to(before).clamp_min(0)
            return SparseCode.of_dense(torch.where(before > floor, before, 0))
        return SparseCode(torch.relu(values) if self.relu else values, indices)
