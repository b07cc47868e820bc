"""What dictionaries are made from: activations that arrive a batch of pictures at a time, always in the same order."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor

from ..residual import Site
from ..residual.tokens import Tokens


class ActivationStream(Protocol):
    """A numbered row of batches; batch `i` holds the same tokens each time it is asked for.

    So a run that was cut off goes on from a batch number, and several processes share a stream without talking.
    Captured live from a pipeline (`capture.PipelineStream`) or read from shards (`shards.ShardStream`).

    Attributes:
        sites: the sites every batch has tokens of.
        prompts, seeds: those of picture `i`.
        grid: token rows and columns of a picture, so that a position is a place.
        model: `{"family": ..., "name": ...}`, as a dictionary's header names its model.
        header: how it was captured, as a dictionary's header says it, but for the number of tokens.
    """

    sites: tuple[Site, ...]
    prompts: Sequence[str]
    seeds: Sequence[int]
    grid: tuple[int, int]
    model: dict[str, Any]
    header: dict[str, Any]

    def __len__(self) -> int:
        """Number of batches."""
        ...

    def batches(self, start: int = 0, step: int = 1) -> Iterator[Mapping[Site, Tokens]]:
        """Batches `start`, `start + step`, ... to the end; the tokens of each by site."""
        ...


class Only:
    """The part of a stream at some of its sites that comes from some pictures: `keep [pictures]`, true for those."""

    def __init__(self, stream: ActivationStream, keep: Tensor, sites: Sequence[Site]):
        self._stream, self._keep = stream, keep
        self.sites, self.prompts, self.seeds = tuple(sites), stream.prompts, stream.seeds
        self.grid, self.model, self.header = stream.grid, stream.model, stream.header
        if not bool(keep.all()):  # named, so that no run goes on with another part of the stream
            kept = hashlib.sha256(keep.numpy().tobytes()).hexdigest()
            self.header = stream.header | {"pictures": f"{int(keep.sum())} of {len(keep)}", "pictures_sha256": kept}

    def __len__(self) -> int:
        return len(self._stream)

    def batches(self, start: int = 0, step: int = 1) -> Iterator[Mapping[Site, Tokens]]:
        for batch in self._stream.batches(start, step):
            yield {site: batch[site].rows(self._keep[batch[site].picture]) for site in self.sites}


class Kept:
    """Batches in memory, as a stream."""

    def __init__(self, stream: ActivationStream, batches: Sequence[Mapping[Site, Tokens]]):
        self._batches = batches
        self.sites, self.prompts, self.seeds = stream.sites, stream.prompts, stream.seeds
        self.grid, self.model, self.header = stream.grid, stream.model, stream.header

    def __len__(self) -> int:
        return len(self._batches)

    def batches(self, start: int = 0, step: int = 1) -> Iterator[Mapping[Site, Tokens]]:
        yield from self._batches[start::step]


def mixed(stream: ActivationStream, site: Site, seed: int = 0) -> Kept:
    """A stream's tokens of one site in random order, in memory: as many batches, each with tokens of all pictures.

    What looks at few tokens, as an ITDA does, otherwise sees those of its first pictures alone.
    """
    tokens = Tokens.joined([batch[site] for batch in stream.batches()])
    order = torch.randperm(len(tokens.x), generator=torch.Generator().manual_seed(seed))
    return Kept(stream, [{site: tokens.rows(part)} for part in order.chunk(len(stream))])
