"""Adam over the rows of large matrices, a few at a time, so that a CPU keeps them in its cache."""

from __future__ import annotations

import torch
from torch import Tensor

BETAS = (0.9, 0.999)
EPSILON = 1e-10
"""Far below any gradient here: a loss that is a mean over many channels has tiny ones (arXiv 2505.24360 has it too)."""
BLOCK = 400_000
"""Numbers that are worked on together on a CPU."""


class RowAdam:
    """Adam (Kingma and Ba 2015, arXiv 1412.6980) for one float32 parameter `[rows]` or `[rows, d]`, in place.

    With `unit_rows` the rows keep length 1: the part of the gradient along a row, which the renormalization would
    undo, is left out (Gao et al. 2024, arXiv 2406.04093, section A.3). `half` is a copy of the parameter in another
    type that is kept up to date.

    One pass over parameter, gradient and moments does projection, clipping, update, renormalization and copy. torch's
    own fused Adam needs five passes for these, and gradients in float32.
    """

    def __init__(self, weight: Tensor, unit_rows: bool = False, half: Tensor | None = None):
        self.weight, self.unit_rows, self.half = weight, unit_rows, half
        self.mean, self.square = torch.zeros_like(weight), torch.zeros_like(weight)
        whole = weight.device.type != "cpu" or weight.ndim == 1
        self._block = len(weight) if whole else max(BLOCK // weight.shape[1], 1)

    def _blocks(self) -> list[slice]:
        return [slice(start, start + self._block) for start in range(0, len(self.weight), max(self._block, 1))]

    def squared_norm(self, gradient: Tensor) -> Tensor:
        """Squared length of the gradient that `step` would act on."""
        total = torch.zeros((), device=self.weight.device)
        for part in self._blocks():
            g = gradient[part].float()
            total += g.square().sum()
            if self.unit_rows:
                total -= (g * self.weight[part]).sum(1).square().sum()
        return total

    def step(self, gradient: Tensor, rate: float, clip: Tensor, number: int) -> None:
        """Step `number` (from 1) with a gradient in any float type, which is multiplied with `clip`."""
        beta, gamma = BETAS
        size = rate / (1 - beta**number)
        correction = (1 - gamma**number) ** 0.5
        for part in self._blocks():
            w, mean, square = self.weight[part], self.mean[part], self.square[part]
            g = gradient[part].float() * clip
            if self.unit_rows:
                g -= (g * w).sum(1, keepdim=True) * w
            mean.lerp_(g, 1 - beta)
            square.mul_(gamma).addcmul_(g, g, value=1 - gamma)
            w.addcdiv_(mean, (square.sqrt() / correction).add_(EPSILON), value=-size)
            if self.unit_rows:
                w.div_(torch.linalg.vector_norm(w, dim=1, keepdim=True))
            if self.half is not None:
                self.half[part] = w
