"""Sparse codes of a batch as a list of active values, and the products a training step needs of them.

A step of a sparse autoencoder touches `k` of thousands of features a token, so gradients are never dense in
`[batch, features]`: each product below is one weighted `embedding_bag` or its gradient, which torch computes several
times faster than gathering rows (forward, backward and weight gradients; none of them makes a copy of rows).
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

PART = 256
"""Sums that are made at a time where each goes into a tensor that is there: torch makes them in float32 at first."""


class Entries(NamedTuple):
    """The active values of `n` tokens, token by token; all but `starts` have one number an active value.

    Attributes:
        values: how much `[e]`.
        features: of which feature, int64 `[e]`.
        rows: on which token, int64 `[e]`, in order.
        starts: where each token's values begin, int64 `[n]`.
    """

    values: Tensor
    features: Tensor
    rows: Tensor
    starts: Tensor

    @classmethod
    def of_topk(cls, values: Tensor, indices: Tensor) -> Entries:
        """From `k` values and features a token `[n, k]`."""
        n, k = indices.shape
        starts = torch.arange(0, n * k, max(k, 1), device=values.device)[:n]
        rows = torch.arange(n, device=values.device).repeat_interleave(k)
        return cls(values.reshape(-1), indices.reshape(-1), rows, starts)

    @classmethod
    def where(cls, chosen: Tensor, values: Tensor) -> Entries:
        """The values `[n, features]` at places of a mask."""
        rows, features = chosen.nonzero(as_tuple=True)
        return cls(values[rows, features], features, rows, _starts(rows, len(chosen)))

    def only(self, chosen: Tensor) -> Entries:
        """Some of the values, by a mask `[e]`."""
        rows = self.rows[chosen]
        return Entries(self.values[chosen], self.features[chosen], rows, _starts(rows, len(self.starts)))

    def weighted_sum(self, weight: Tensor) -> Tensor:
        """`sum_j values_j weight[features_j]` for each token `[n, d]`, in the type of `weight [features, d]`."""
        values = self.values.to(weight.dtype)
        return F.embedding_bag(self.features, weight, self.starts, mode="sum", per_sample_weights=values)

    def subtract_from(self, x: Tensor, weight: Tensor) -> None:
        """Take the `weighted_sum` from `x [n, d]`, in place."""
        values = self.values.to(weight.dtype)
        for some, own, starts in _parts(self.starts, len(self.features)):
            x[some] -= F.embedding_bag(self.features[own], weight, starts, mode="sum", per_sample_weights=values[own])

    def products(self, x: Tensor, weight: Tensor) -> Tensor:
        """`x[rows_j] . weight[features_j]` for each active value, float32 `[e]`; `x [n, d]`."""
        # the gradient of `weighted_sum` with respect to its values; an operator, since nothing here records gradients
        found = torch.ops.aten._embedding_bag_per_sample_weights_backward(
            x.to(weight.dtype).contiguous(), weight, self.features, self.starts, self.rows, 0
        )
        return found.float()


class ByFeature:
    """Active values of the features from `first` to `end`, put in order of these, for sums over tokens."""

    def __init__(self, entries: Entries, first: int, end: int):
        order = entries.features.argsort(stable=True)  # equal features in order of tokens: runs can be repeated
        features = entries.features[order]
        bounds = torch.searchsorted(features, torch.arange(first, end + 1, device=features.device))
        self.order = order[bounds[0] : bounds[-1]]
        self.rows = entries.rows[self.order]
        self.starts = bounds[:-1] - bounds[0]

    def sums(self, values: Tensor, x: Tensor, into: Tensor | None = None) -> Tensor:
        """`sum_j values_j x[rows_j]` for each feature `[end - first, d]`, in the type of `x [n, d]`; `values [e]`.

        Written `into` a tensor of that shape where one is given.
        """
        into = x.new_empty(len(self.starts), x.shape[1]) if into is None else into
        own = values[self.order].to(x.dtype)
        for some, mine, starts in _parts(self.starts, len(self.rows)):
            into[some] = F.embedding_bag(self.rows[mine], x, starts, mode="sum", per_sample_weights=own[mine])
        return into


def _parts(starts: Tensor, count: int) -> Iterator[tuple[slice, slice, Tensor]]:
    """Sums that begin at `starts` among `count` numbers, some at a time: which, their numbers, starts among these."""
    bounds = [*starts[::PART].tolist(), count]
    for number, (first, end) in enumerate(itertools.pairwise(bounds)):
        some = slice(number * PART, (number + 1) * PART)
        yield some, slice(first, end), starts[some] - first


def _starts(rows: Tensor, n: int) -> Tensor:
    count = torch.bincount(rows, minlength=n)
    return count.cumsum(0) - count
