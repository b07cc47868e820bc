"""The k largest of many products, found roughly and settled in float32."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

SPARE = 0.5
"""Candidates beyond k, as a share of k: rough products misplace few features by more ranks than that."""
GROUP = 16
"""Features whose largest product stands for them while candidates are sought."""
ROWS, FEATURES = 1024, 4096
"""Tokens and features whose products are worked on at a time: they stay in a CPU's cache."""
_LEVELS = 127


class Candidates:
    """An encoder in a coarse form that says quickly which features may be among the largest.

    On CPUs whole numbers of 8 bits: each channel is divided by its size among the features, so that the few large
    channels of a residual stream do not take all the levels, then each feature and each token has a step of its own.
    Elsewhere bfloat16.

    Takes `weight [n_features, d_model]` (float32) and `bias [n_features]`; keeps both, not copied.
    """

    def __init__(self, weight: Tensor, bias: Tensor):
        self.weight, self.bias = weight, bias
        self.coarse = weight.device.type == "cpu"
        if not self.coarse:
            self.half = weight.to(torch.bfloat16)
            return
        self.channel = torch.zeros(weight.shape[1])
        for start in range(0, len(weight), FEATURES):
            self.channel += weight[start : start + FEATURES].square().sum(0)
        self.channel = (self.channel / len(weight)).sqrt().clamp_min(1e-30)
        self.step = torch.empty(len(weight))
        self.levels = torch.empty(weight.shape, dtype=torch.int8)
        for start in range(0, len(weight), FEATURES):
            part = slice(start, start + FEATURES)
            self.levels[part], self.step[part] = _quantised(weight[part] / self.channel)

    def topk(self, x: Tensor, k: int) -> tuple[Tensor, Tensor]:
        """Values and indices `[n, k]` of the largest of `weight x + bias`, for `x [n, d_model]`.

        The values are exact; a feature is missed where its rough product is below those of all the candidates.
        """
        parts = [self._part(x[start : start + ROWS], k) for start in range(0, len(x), ROWS)]
        values, indices = zip(*parts, strict=True)
        return torch.cat(values), torch.cat(indices)

    def _part(self, x: Tensor, k: int) -> tuple[Tensor, Tensor]:
        count = min(k + max(round(SPARE * k), 8), len(self.weight))
        if self.coarse:
            candidates = self._coarse(x, count)
        else:
            rough = F.linear(x.to(torch.bfloat16), self.half, self.bias.to(torch.bfloat16))
            candidates = rough.topk(count, dim=-1, sorted=False).indices
        values = products_at(x, self.weight, candidates) + self.bias[candidates]
        best, place = values.topk(k, dim=-1, sorted=False)
        return best, candidates.gather(-1, place)

    def _coarse(self, x: Tensor, count: int) -> Tensor:
        """Features `[n, count]` of the largest rough products."""
        n_features = len(self.weight)
        levels, step = _quantised(x * self.channel)
        rough = torch.empty(len(x), n_features, dtype=torch.bfloat16)
        for start in range(0, n_features, FEATURES):
            part = slice(start, start + FEATURES)
            products = torch._int_mm(levels, self.levels[part].t()).float()
            rough[:, part] = products.mul_(self.step[part]).mul_(step[:, None]).add_(self.bias[part])
        if n_features % GROUP or count * GROUP >= n_features:
            return rough.topk(count, dim=1, sorted=False).indices
        # the largest `count` lie in the `count` groups of largest maximum
        group = rough.unflatten(1, (-1, GROUP)).amax(2).topk(count, dim=1, sorted=False).indices
        inside = (group[:, :, None] * GROUP + torch.arange(GROUP)).flatten(1)
        return inside.gather(1, rough.gather(1, inside).topk(count, dim=1, sorted=False).indices)


def fast_candidates(device: torch.device) -> bool:
    """Whether rough products are faster there than float32 ones."""
    if device.type == "cpu":
        return bool(torch.cpu._is_vnni_supported())
    return device.type == "cuda" and torch.cuda.is_bf16_supported()


def products_at(x: Tensor, weight: Tensor, indices: Tensor) -> Tensor:
    """`x_i . weight[indices_ij]`, float32 `[n, k]`, without gathering the rows of `weight`.

    It is the gradient of a weighted `embedding_bag` with respect to its weights; torch computes that ten times faster
    than a gather and a product on a CPU. Called as an operator, because inference mode allows no gradients.
    """
    n, k = indices.shape
    offsets = torch.arange(0, n * k, k, device=x.device)
    bags = torch.arange(n, device=x.device).repeat_interleave(k)
    return torch.ops.aten._embedding_bag_per_sample_weights_backward(
        x.contiguous(), weight, indices.reshape(-1), offsets, bags, 0
    ).reshape(n, k)


def _quantised(rows: Tensor) -> tuple[Tensor, Tensor]:
    """Rows `[n, d]` as whole numbers up to `_LEVELS` and the step `[n]` of each."""
    step = rows.abs().amax(1).clamp_min(1e-30) / _LEVELS
    return (rows / step[:, None]).round_().to(torch.int8), step
