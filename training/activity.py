"""Which features are active while an autoencoder is trained: TopK, BatchTopK (Matryoshka too), JumpReLU."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from .entries import Entries
from .workers import Workers

CHUNK = 2**24
"""Bytes of pre-activations in memory at a time, where a token's choice depends on the token alone."""
WIDTH = 0.2
"""Window around a threshold in which JumpReLU's threshold is given a gradient, as a share of the threshold."""
MOST = 8
"""Values near or above a threshold that are looked at, as a multiple of the active ones aimed at."""


def topk(x: Tensor, encoder: Tensor, bias: Tensor, k: int, room: Tensor | None = None) -> Entries:
    """The `k` largest of each token, then ReLU (Gao et al. 2024, arXiv 2406.04093).

    `x [n, d]` and `encoder [features, d]` in one type, `bias [features]`. `room` is a tensor that may be written over:
    the more tokens at a time, the fewer times the encoder is read.
    """
    bias = bias.to(encoder.dtype)
    before = _lines(len(x), encoder, room)
    parts = [
        torch.addmm(bias, part, encoder.T, out=before[: len(part)]).topk(k, dim=1, sorted=False)
        for part in x.split(max(len(before), 1))
    ]
    values, indices = (torch.cat(column) for column in zip(*parts, strict=True))
    return Entries.of_topk(torch.relu(values.float()), indices)


def _lines(n: int, encoder: Tensor, room: Tensor | None) -> Tensor:
    """Space for the pre-activations of up to `n` tokens `[lines, features]`: the `room` given, or what `CHUNK` allows.

    One for all parts of a batch, because what is freed part by part leaves holes that are not filled again.
    """
    features, size = len(encoder), encoder.element_size()
    few = min(max(CHUNK // (size * features), 1), n)
    if room is not None:
        flat = room.view(-1).view(torch.uint8)
        most = min(len(flat) // (size * features), n)
        if most >= few:
            return flat[: most * features * size].view(encoder.dtype).view(most, features)
    return encoder.new_empty(few, features)


def batchtopk(x: Tensor, encoder: Tensor, bias: Tensor, k: int, workers: Workers, total: int) -> tuple[Entries, Tensor]:
    """The `k * total` largest of the whole batch of `total` tokens (Bussmann et al. 2024, arXiv 2412.06410).

    Returns them with the smallest value that is active.
    """
    before = torch.relu(F.linear(x, encoder, bias.to(encoder.dtype)).float())
    count = k * total
    flat = before.flatten()
    largest = flat.topk(min(count, len(flat)), sorted=False).values
    if workers.count > 1:
        largest = workers.all(F.pad(largest, (0, count - len(largest)))).topk(count, sorted=False).values
    floor = largest.min()
    return Entries.where((before >= floor) & (before > 0), before), floor


class JumpReLU:
    """Thresholds of one's own for each feature, learned (Rajamanoharan et al. 2024, arXiv 2407.14435).

    What has no gradient, whether a value is above its threshold, is given one within a window around it (section 4
    there); here it is as wide as the threshold is high times `WIDTH`, so that no unit matters. The penalty is
    `weight * (l0 / k - 1)^2`, which holds the mean count at `k`; a price for each active feature, as there, does not
    say how many there will be.

    Attributes:
        log_threshold: float32 `[features]`; its exponential is the threshold.
        gradient: of `log_threshold`, after `backward`.
    """

    def __init__(self, features: int, k: int, weight: float, device: torch.device):
        self.k, self.weight = k, weight
        self.log_threshold = torch.full((features,), math.nan, device=device)
        self.gradient = torch.zeros(features, device=device)

    @property
    def threshold(self) -> Tensor:
        return self.log_threshold.exp()

    def entries(self, x: Tensor, encoder: Tensor, bias: Tensor, workers: Workers, total: int) -> Entries:
        """All values near or above their thresholds; those below have no effect, but thresholds learn from them."""
        before = F.linear(x, encoder, bias.to(encoder.dtype)).float()
        if bool(self.log_threshold.isnan().any()):
            self._start(before, workers, total)
        excess = before - self.threshold * (1 - WIDTH / 2)
        most = MOST * self.k * len(x)
        floor = excess.flatten().topk(most, sorted=False).values.min().clamp_min(0) if most < excess.numel() else 0.0
        return Entries.where((excess > 0) & (excess >= floor), before)

    def _start(self, before: Tensor, workers: Workers, total: int) -> None:
        """One threshold for all, at which the first batch has twice the active values aimed at."""
        count = min(2 * self.k * total, total * before.shape[1])
        largest = before.flatten().topk(min(count, before.numel()), sorted=False).values
        if workers.count > 1:
            padded = F.pad(largest, (0, count - len(largest)), value=-math.inf)
            largest = workers.all(padded).topk(count, sorted=False).values
        self.log_threshold.fill_(math.log(max(float(largest.min()), 1e-3)))

    def on(self, entries: Entries) -> Tensor:
        return entries.values > self.threshold[entries.features]

    def backward(self, entries: Entries, slope: Tensor, workers: Workers, total: int) -> None:
        """Collect the gradient; `slope [e]` is that of the reconstruction loss by each value."""
        threshold = self.threshold[entries.features]
        l0 = float(workers.sum(self.on(entries).float().sum())) / total
        price = 2 * self.weight * (l0 / self.k - 1) / (self.k * total)
        near = (entries.values - threshold).abs() < threshold * WIDTH / 2
        share = -(threshold * slope + price) / WIDTH * near  # by the logarithm of the threshold
        self.gradient.zero_().index_add_(0, entries.features, share)
