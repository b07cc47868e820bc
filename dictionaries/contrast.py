"""Contrastive directions: what activations of one kind of picture have that those of its opposite lack."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal, get_args

import torch
from torch import Tensor

from .scale import Scale, ScaleMeter

Method = Literal["mean difference", "pca"]
METHODS: tuple[Method, ...] = get_args(Method)

NOTHING = 1e-6
"""Share of the activations' size below which a difference is their rounding."""

FOLDS = 5
"""Parts of the pairs, each of which is held out once."""


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

    @property
    def tokens(self) -> int:
        """How many there were, those of both sides of all pairs together."""
        return sum(map(sum, self._counts.values()))

    def sides(self) -> Tensor:
        """Mean activation of the negative and of the positive side: `[pairs, 2, d_model]`, float64, by pair number.

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
        return torch.stack([self._sums[pair] for pair in pairs]) / counts[:, :, None]

    def pair_differences(self) -> Tensor:
        """Mean activation of the positive side minus that of the negative: `[pairs, d_model]`. Raises as `sides`."""
        return differences_of(self.sides())

    def direction(self, method: Method = "mean difference") -> Tensor:
        """The direction `[d_model]` from negative to positive, float64: `direction_of` all pairs.

        Raises `ValueError` where `check` does.
        """
        if method not in METHODS:
            raise ValueError(f"expected a method of {', '.join(METHODS)}, found {method!r}")
        self.check()
        return direction_of(self.sides(), method)

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

    def quality(
        self,
        direction: Tensor,
        sigmas: Sequence[float],
        make: Callable[[Tensor], Tensor] | None = None,
        groups: Sequence[int] | None = None,
    ) -> dict[str, float | None]:
        """How good a direction is that was made by `make`, as the metrics of its file have it.

        `auroc`: see `held_out_auroc`. `split_half_cosine`: that of the mean difference. `explained`: see
        `explained_share`. `length`: its length in units of strength, at the noise levels `sigmas`.
        """
        sides, scale = self.sides(), self.scale()
        usual = sum(map(scale.at, sigmas)) / len(sigmas)
        return {
            "auroc": held_out_auroc(sides, make or direction_of, groups),
            "split_half_cosine": self.split_half_cosine(),
            "explained": explained_share(sides, direction),
            "length": float(direction.norm()) / usual,
        }

    def check(self) -> None:
        """Raise `ValueError` where `sides` does, and where all differences are as nothing, or cancel out."""
        differences = self.pair_differences()
        size = float((self._meter.squares.sum() / self._meter.count.sum()).sqrt())
        longest, length = float(differences.norm(dim=1).max()), float(differences.mean(0).norm())
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


def direction_of(sides: Tensor, method: Method = "mean difference") -> Tensor:
    """The direction `[d_model]` from negative to positive of pairs `[pairs, 2, d_model]`, in the residual's own units.

    `"mean difference"`: the mean of the pairs' differences. `"pca"`: their first right-singular vector about zero
    (Zou et al. 2023, "Representation Engineering", arXiv 2310.01405, section 3.1), pointing along the mean difference
    and of its length. For one pair the two are the same.
    """
    differences = differences_of(sides)
    mean = differences.mean(0)
    if method == "mean difference":
        return mean
    first = torch.linalg.svd(differences, full_matrices=False).Vh[0]
    return first * mean.norm() * (-1 if first @ mean < 0 else 1)


def differences_of(sides: Tensor) -> Tensor:
    """Positive minus negative, `[pairs, d_model]`, of `sides [pairs, 2, d_model]`."""
    return sides[:, 1] - sides[:, 0]


def explained_share(sides: Tensor, direction: Tensor) -> float:
    """Share of the differences' squared length that lies along a direction: 1 where all pairs are parallel to it."""
    differences = differences_of(sides)
    along = differences @ (direction / direction.norm())
    return float(along.square().sum() / differences.square().sum())


def held_out_auroc(
    sides: Tensor, make: Callable[[Tensor], Tensor] = direction_of, groups: Sequence[int] | None = None
) -> float | None:
    """How well a direction tells the sides of pairs that it was not made of apart: .5 is chance, 1 is always.

    Each part of the pairs `[pairs, 2, d_model]` is held out in turn (`FOLDS` parts, fewer of fewer pairs), `make` makes
    a direction of the rest, and each held-out positive side is compared with each held-out negative one by its
    projection: the area under the ROC curve, averaged over pairs. A side counts once, however many tokens it had.
    Pairs of one of the `groups` are held out together. None below 2 groups.
    """
    fold = folds(list(range(len(sides))) if groups is None else groups)
    if fold is None:
        return None
    total = 0.0
    for number in fold.unique():
        held = fold == number
        negative, positive = (sides[held] @ make(sides[~held])).unbind(1)
        gap = positive[:, None] - negative[None, :]
        total += float((gap.sign() + 1).mean() / 2) * len(positive)
    return total / len(sides)


def folds(groups: Sequence[int]) -> Tensor | None:
    """The number of the part `[pairs]` in which each pair is held out, by its group; None below 2 groups."""
    different = list(dict.fromkeys(groups))
    if len(different) < 2:
        return None
    count = min(FOLDS, max(2, len(different) // 2))
    order = torch.randperm(len(different), generator=torch.Generator().manual_seed(0)).tolist()
    fold_of = {group: place % count for group, place in zip(different, order, strict=True)}
    return torch.tensor([fold_of[group] for group in groups])


def _side(positive: bool) -> str:
    return "positive" if positive else "negative"
