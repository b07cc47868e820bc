"""A shuffle buffer of fixed size between capture, which yields whole pictures, and training, which wants a mix."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from ..residual.tokens import Tokens


class ShuffleBuffer:
    """Random batches from the last `capacity` tokens of a stream; each fresh token replaces a random old one.

    Capturing costs more than training, so each captured token is drawn about `reuse` times. When the stream ends,
    batches go on coming from what is held.
    """

    def __init__(self, stream: Iterator[Tokens], capacity: int, reuse: float, seed: int):
        if capacity < 1 or reuse <= 0:
            raise ValueError(f"a buffer needs capacity >= 1 and reuse > 0, found {capacity} and {reuse}")
        self._stream = stream
        self._capacity = capacity
        self._reuse = reuse
        self._generator = torch.Generator().manual_seed(seed)
        self._held: Tensor | None = None
        self._filled = 0
        self._owed = 0.0
        self.captured = 0

    def fill(self) -> Tokens:
        """Take from the stream until the buffer is full or the stream has ended; returns what was taken."""
        taken = []
        while self._filled < self._capacity and (tokens := next(self._stream, None)) is not None:
            taken.append(tokens)
            self._put(tokens.x)
        if not taken:
            raise ValueError("nothing was captured: there were no prompts")
        return Tokens.joined(taken)

    def batch(self, size: int) -> Tensor:
        """`[size, d_model]`, drawn with replacement."""
        while self._owed >= 1 and (tokens := next(self._stream, None)) is not None:
            self._put(tokens.x)
            self._owed -= len(tokens.x) * self._reuse
        self._owed += size
        assert self._held is not None, "fill the buffer first"
        return self._held[torch.randint(self._filled, (size,), generator=self._generator)]

    def _put(self, x: Tensor) -> None:
        self.captured += len(x)
        if self._held is None:
            self._held = torch.empty(self._capacity, x.shape[1])
        room = min(self._capacity - self._filled, len(x))
        self._held[self._filled : self._filled + room] = x[:room]
        self._filled += room
        for rest in x[room:].split(self._capacity):
            # without repetition: two tokens written to one place would race, and no run could be repeated
            places = torch.randperm(self._capacity, generator=self._generator)[: len(rest)]
            self._held[places] = rest
