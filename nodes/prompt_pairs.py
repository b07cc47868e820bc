"""Pairs of prompts: the conditionings of two inputs, each one prompt or many, matched in order."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

Conditioning = list
"""The host's: a list of `[text [batch, tokens, width], options]`, several where areas or prompts are combined."""

BATCHED = ("pooled_output", "attention_mask")
"""Options that have a row for each row of the text."""


class Prompt(NamedTuple):
    """The conditioning of one prompt, and the pairs in which it is the positive, or else the negative, side."""

    conditioning: Conditioning
    pairs: tuple[int, ...]
    positive: bool

    @property
    def side(self) -> str:
        return "positive" if self.positive else "negative"


def matched(positive: list[Conditioning], negative: list[Conditioning]) -> list[Prompt]:
    """The prompts of all pairs. One prompt on a side is that of every pair.

    Raises `ValueError` where a side is empty or not finite, where the numbers do not fit, and where both sides are
    the same.
    """
    rows = {"positive": _rows("positive", positive), "negative": _rows("negative", negative)}
    counts = {name: len(found) for name, found in rows.items()}
    pairs = max(counts.values())
    if any(count not in (1, pairs) for count in counts.values()):
        raise ValueError(
            "positive and negative: expected as many prompts on both sides, or one on a side, found "
            f"{counts['positive']} positive and {counts['negative']} negative"
        )
    if all(
        _alike(rows["positive"][i % counts["positive"]], rows["negative"][i % counts["negative"]]) for i in range(pairs)
    ):
        raise ValueError(
            "positive and negative: expected conditionings that differ, found the same on both sides: a vector of "
            "their difference would be 0"
        )
    return [
        Prompt(row, tuple(range(pairs)) if counts[name] == 1 else (place,), name == "positive")
        for name, found in rows.items()
        for place, row in enumerate(found)
    ]


def _rows(name: str, given: list[Conditioning]) -> list[Conditioning]:
    """All conditionings of an input one by one, batches split."""
    if not given or not all(given):
        found = (
            "an empty list" if not given else f"one that is empty, number {[bool(c) for c in given].index(False) + 1}"
        )
        raise ValueError(f"{name}: expected one conditioning at least, found {found}: connect CLIP Text Encode")
    rows = []
    for number, conditioning in enumerate(given, 1):
        where = name if len(given) == 1 else f"{name}, number {number} of {len(given)}"
        if not all(text is None or bool(torch.isfinite(text).all()) for text, _ in conditioning):
            raise ValueError(f"{where}: expected finite numbers, found NaN or infinity: did the text encoder overflow?")
        sizes = {len(text) for text, _ in conditioning if text is not None} - {1}
        if len(sizes) > 1:
            raise ValueError(
                f"{where}: expected combined conditionings of one batch size, found {sorted(sizes)}: combine "
                "conditionings of as many prompts"
            )
        size = sizes.pop() if sizes else 1
        rows += [[_row(text, options, i, size) for text, options in conditioning] for i in range(size)]
    return rows


def _row(text: Tensor | None, options: dict[str, Any], row: int, size: int) -> list:
    """One row of a batch of conditionings; what has a single row belongs to all."""

    def own(value: Tensor) -> Tensor:
        return value[row : row + 1] if len(value) == size else value

    batched = {name: own(value) for name in BATCHED if isinstance(value := options.get(name), Tensor)}
    return [None if text is None else own(text), options | batched]


def _alike(one: Any, other: Any) -> bool:
    """Whether two conditionings, or parts of them, are the same for certain."""
    if isinstance(one, Tensor) and isinstance(other, Tensor):
        return torch.equal(one, other)
    if isinstance(one, list | tuple) and isinstance(other, list | tuple):
        return len(one) == len(other) and all(map(_alike, one, other))
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(_alike(one[key], other[key]) for key in one)
    plain = (str, int, float, bool)
    return one is other or (isinstance(one, plain) and isinstance(other, plain) and one == other)
