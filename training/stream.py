"""What dictionaries are made from: activations that arrive a batch of pictures at a time, always in the same order."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Protocol

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
