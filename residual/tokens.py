"""Activations with where each came from."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor


class Tokens(NamedTuple):
    """Activations of one site, and where each came from; all with the same first dimension `n`.

    Attributes:
        x: `[n, d_model]`, in the float type they were captured in.
        sigma: noise level, float32 `[n]`.
        position: number of the token in its stream, int64 `[n]`; for image tokens row by row.
        picture: number of the picture in the capture, int64 `[n]`: its prompt and its seed.
    """

    x: Tensor
    sigma: Tensor
    position: Tensor
    picture: Tensor

    def rows(self, which: Tensor | slice) -> Tokens:
        """Some of the tokens, by an index, a mask or a slice."""
        return Tokens(*(column[which] for column in self))

    @classmethod
    def joined(cls, parts: Sequence[Tokens]) -> Tokens:
        """Tokens of several parts, one after another."""
        return cls(*(torch.cat(column) for column in zip(*parts, strict=True)))
