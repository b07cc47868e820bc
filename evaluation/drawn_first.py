"""Activations of pictures, the first of which are finished, decoded and kept: the others are only captured."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from ..residual import Site
from ..residual.tokens import Tokens
from ..training.drawn import Drawn
from ..training.stream import ActivationStream, Kept


class DrawnFirst:
    """An `ActivationStream` that begins with batches in memory, `drawn`, and goes on with those of `live`.

    Both are of the same prompts and seeds in the same batches, with every moment read.
    """

    def __init__(self, live: ActivationStream, drawn: Sequence[Drawn]):
        self.live, self.drawn = live, drawn
        self.sites, self.prompts, self.seeds = live.sites, live.prompts, live.seeds
        self.grid, self.model, self.header = live.grid, live.model, live.header

    def __len__(self) -> int:
        return len(self.live)

    def batches(self, start: int = 0, step: int = 1) -> Iterator[Mapping[Site, Tokens]]:
        number = start
        while number < len(self.drawn):
            yield self.drawn[number].tokens
            number += step
        if number < len(self):
            yield from self.live.batches(number, step)

    def kept(self) -> Kept:
        """What is in memory, as a stream of its own."""
        return Kept(self, [batch.tokens for batch in self.drawn])
