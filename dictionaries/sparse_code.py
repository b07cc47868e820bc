"""Sparse codes: how much of which features."""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor


class SparseCode(NamedTuple):
    """How much of which features: `values` (float) and `indices` (int64), both `[..., k]`.

    A value of 0 is padding and its index means nothing; active means `value != 0`; values may be negative.
    """

    values: Tensor
    indices: Tensor

    def coefficient(self, feature: int) -> Tensor:
        """How much of one feature: `[...]`, 0 where it is not active."""
        return (self.values * (self.indices == feature)).sum(-1)

    def l0(self) -> Tensor:
        """How many features are active, int64 `[...]`; the mean is what is reported as l0."""
        return (self.values != 0).sum(-1)

    def limited(self, k: int) -> SparseCode:
        """The `k` largest magnitudes of each code."""
        if k < 0:
            raise ValueError(f"k counts features, so it is at least 0; found {k}")
        if k >= self.values.shape[-1]:
            return self
        kept = self.values.abs().topk(k, dim=-1).indices
        return SparseCode(self.values.gather(-1, kept), self.indices.gather(-1, kept))

    def dense(self, n_features: int) -> Tensor:
        """The same as a plain matrix `[..., n_features]`: for small dictionaries and for comparisons."""
        shape = (*self.values.shape[:-1], n_features)
        return self.values.new_zeros(shape).scatter_add_(-1, self.indices, self.values)

    @classmethod
    def of_dense(cls, values: Tensor) -> SparseCode:
        """The active entries of `values [n, n_features]`; k is the largest count of any row, at least 0."""
        k = int((values != 0).sum(-1).max()) if len(values) else 0
        indices = values.abs().topk(k, dim=-1).indices
        kept = values.gather(-1, indices)
        return cls(kept, indices * (kept != 0))

    @classmethod
    def joined(cls, parts: list[SparseCode]) -> SparseCode:
        """Codes `[n_i, k_i]` one below the other, the shorter ones padded."""
        k = max(part.values.shape[-1] for part in parts)
        padded = [[F.pad(tensor, (0, k - tensor.shape[-1])) for tensor in part] for part in parts]
        return cls(*(torch.cat(tensors) for tensors in zip(*padded, strict=True)))


def weighted_sum(code: SparseCode, rows: Tensor) -> Tensor:
    """`sum_j values_j rows[indices_j]`, float32 `[..., d_model]`; `rows [n_features, d_model]` of any float type."""
    values, indices = code.values.float(), code.indices
    if not values.numel():  # no feature or no token: embedding_bag wants at least one
        return values.new_zeros(*values.shape[:-1], rows.shape[-1])
    flat_values, flat_indices = values.reshape(-1, values.shape[-1]), indices.reshape(-1, indices.shape[-1])
    if rows.dtype != torch.float32:  # convert the rows that are needed, never the whole matrix
        used, flat_indices = flat_indices.unique(return_inverse=True)
        rows = rows[used].float()
    flat = F.embedding_bag(flat_indices, rows, per_sample_weights=flat_values, mode="sum")
    return flat.reshape(*values.shape[:-1], rows.shape[-1])
