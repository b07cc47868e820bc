"""Contrastive directions: what activations of one kind of picture have that those of its opposite lack."""

from __future__ import annotations

from typing import Literal, get_args

import torch
from torch import Tensor

from .scale import Scale, ScaleMeter

Method = Literal["mean difference", "pca"]
METHODS: tuple[Method, ...] = get_args(Method)

NOTHING = 1e-6
"""Share of the activations' size below which a difference is their rounding."""


class ContrastMeter:
    """Measures a direction at one site from pairs of pictures that differ in one thing (arXiv 2505.03189).

    Activations come a batch at a time, in any order; what is kept is one sum `[d_model]` for each side of each pair,
    in float64, so memory grows with the pairs and never with the tokens. Every pair weighs the same, however many
    tokens it has, and so do all tokens of one side of a pair.
    """

    def __init__(self, d_model: int):
        self.d_model = d_model
        self._sums: dict[int, Tensor] = {}  # [2, d_model] for a pair: negative, positive
        self._counts: dict[int, list[int]] = {}
        self._meter = ScaleMeter(d_model)

    def add(self, x: Tensor, sigma: Tensor, pair: int, positive: bool) -> None:
        """Take activations `x [n, d_model]` at noise levels `sigma [n]` of one side of pair number `pair`.

        To be called as often as a side has steps and seeds. Raises `ValueError` for other shapes, NaN and infinity.
        """
        if x.ndim != 2 or x.shape[1] != self.d_model or sigma.shape != x.shape[:1]:
            raise ValueError(
                f"expected activations [n, {self.d_model}] and one sigma for each, "
                f"found shapes {list(x.shape)} and {list(sigma.shape)}"
            )
        x, sigma = x.detach().cpu().double(), sigma.detach().cpu().double()
        if not bool(torch.isfinite(x).all() and torch.isfinite(sigma).all()):
            raise ValueError(
                f"expected finite activations and sigmas, found NaN or infinity on the {_side(positive)} side of "
                f"pair {pair}: does the model overflow in its type?"
            )
        if pair not in self._sums:
            self._sums[pair] = torch.zeros(2, self.d_model, dtype=torch.float64)
            self._counts[pair] = [0, 0]
        self._sums[pair][int(positive)] += x.sum(0)
        self._counts[pair][int(positive)] += len(x)
        self._meter.add(x, sigma)

    def pair_differences(self) -> Tensor:
        """Mean activation of the positive side minus that of the negative: `[pairs, d_model]`, float64, by pair number.

        Raises `ValueError` without a pair, and for a pair of which one side has no token.
        """
        if not self._sums:
            raise ValueError("expected activations of one pair at least, found none: add both sides of each pair first")
        pairs = sorted(self._sums)
        missing = [f"{pair} ({_side(p)})" for pair in pairs for p in (True, False) if not self._counts[pair][p]]
        if missing:
            more = f" and {len(missing) - 8} more" if len(missing) > 8 else ""
            raise ValueError(
                f"expected tokens on both sides of each of {len(pairs)} pairs, found none for "
                f"{', '.join(missing[:8])}{more}: add the missing sides, or leave these pairs out"
            )
        counts = torch.tensor([self._counts[pair] for pair in pairs], dtype=torch.float64)
        negative, positive = (torch.stack([self._sums[pair] for pair in pairs]) / counts[:, :, None]).unbind(1)
        return positive - negative

    def direction(self, method: Method = "mean difference") -> Tensor:
        """The direction `[d_model]` from negative to positive, float64, in the residual's own units.

        `"mean difference"`: the mean of the pairs' differences. `"pca"`: their first right-singular vector about zero
        (Zou et al. 2023, "Representation Engineering", arXiv 2310.01405, section 3.1), pointing along the mean
        difference and of its length. For one pair the two are the same.

        Raises `ValueError` where `pair_differences` does, and where the differences are nothing beside the
        activations, or cancel out.
        """
        if method not in METHODS:
            raise ValueError(f"expected a method of {', '.join(METHODS)}, found {method!r}")
        differences = self.pair_differences()
        mean = differences.mean(0)
        self._check_something_is_left(differences, mean)
        if method == "mean difference":
            return mean
        first = torch.linalg.svd(differences, full_matrices=False).Vh[0]
        return first * mean.norm() * (-1 if first @ mean < 0 else 1)

    def scale(self) -> Scale:
        """The size of the activations of both sides by noise level. Raises `ValueError` before the first token."""
        return self._meter.scale()

    def split_half_cosine(self) -> float | None:
        """Cosine of the mean differences of every other pair and of the rest; None below 2 pairs.

        Near 1 the pairs agree on a direction; near 0 the direction is one of the noise. 0 where a half cancels out.
        """
        differences = self.pair_differences()
        if len(differences) < 2:
            return None
        even, odd = differences[::2].mean(0), differences[1::2].mean(0)
        lengths = float(even.norm() * odd.norm())
        return float(even @ odd) / lengths if lengths else 0.0

    def explained(self, method: Method = "mean difference") -> float:
        """Share of the differences' squared length that lies along the direction: 1 where all pairs are parallel."""
        direction, differences = self.direction(method), self.pair_differences()
        along = differences @ (direction / direction.norm())
        return float(along.square().sum() / differences.square().sum())

    def _check_something_is_left(self, differences: Tensor, mean: Tensor) -> None:
        size = float((self._meter.squares.sum() / self._meter.count.sum()).sqrt())
        longest, length = float(differences.norm(dim=1).max()), float(mean.norm())
        if longest <= NOTHING * size:
            raise ValueError(
                f"expected sides that differ, found differences of {longest:.2g} at most beside activations of "
                f"{size:.2g}: are the positive and the negative pictures the same?"
            )
        if length <= NOTHING * longest:
            raise ValueError(
                f"expected differences that agree, found a mean of {length:.2g} beside a longest of {longest:.2g}: "
                f"they cancel out; are positive and negative swapped in some pairs?"
            )


def _side(positive: bool) -> str:
    return "positive" if positive else "negative"
