"""Activation shards as a stream that dictionaries are made from, and a stream captured into shards."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from itertools import chain
from pathlib import Path

import torch
from tqdm import tqdm

from ..residual import Site
from ..residual.shard_manifest import MANIFEST
from ..residual.shards import ShardError, Shards, ShardWriter
from ..residual.tokens import Tokens
from .stream import ActivationStream

logger = logging.getLogger(__name__)


class ShardStream:
    """An `ActivationStream` read from a folder of shards; batches are mapped from the files, in their own type.

    A capture that is not complete is read up to where it goes, with a warning.

    Raises `ShardError` for a folder that does not hold whole shards, and while reading for files damaged since.
    """

    def __init__(self, folder: str | os.PathLike):
        self.shards = shards = Shards(folder)
        if not shards.complete:
            here, all_ = shards.done, shards.batches
            logger.warning("%s: only %d of %d batches are captured; reading these", shards.folder, here, all_)
        self.sites, self.grid = shards.sites, shards.grid
        self.prompts: Sequence[str] = shards.prompts
        self.seeds: Sequence[int] = shards.seeds
        self.model, self.header = shards.model, shards.header

    def __len__(self) -> int:
        """Number of batches that are in the folder."""
        return self.shards.done

    def batches(self, start: int = 0, step: int = 1) -> Iterator[Mapping[Site, Tokens]]:
        """Batches `start`, `start + step`, ...; the tokens of each by site."""
        for i in range(start, len(self), step):
            yield self.shards.batch(i)


def write_shards(
    stream: ActivationStream,
    folder: str | os.PathLike,
    shard_tokens: int,
    dtype: torch.dtype | None = None,
    progress: bool = True,
) -> Shards:
    """Capture a stream into a folder of shards, going on where the folder has a part of it.

    Args:
        shard_tokens: tokens of the fullest site at which a shard is written; so many are held in memory.
        dtype: of the activations on disk (default: as the stream has them).
        progress: show batches, tokens of all sites a second and time left.

    Raises `ShardError` as `ShardWriter` does, and for a stream with nothing left to write or that ends early.
    """
    path = Path(folder)
    done = Shards(path).done if (path / MANIFEST).exists() else 0
    started, tokens, count = time.perf_counter(), 0, done
    rest = stream.batches(done)
    first = next(rest, None)
    if first is None:
        raise ShardError(path, f"less than the {len(stream)} batches of the stream", f"{done}", "read it as it is")
    kinds = {tokens.x.dtype for tokens in first.values()} if dtype is None else {dtype}
    if len(kinds) != 1:
        raise ShardError(path, "one type at all sites", ", ".join(sorted(map(str, kinds))), "give the dtype to write")
    writer = ShardWriter(
        folder,
        sites=stream.sites,
        d_model={site: tokens.x.shape[1] for site, tokens in first.items()},
        dtype=kinds.pop(),
        model=stream.model,
        header=stream.header,
        prompts=stream.prompts,
        seeds=stream.seeds,
        grid=stream.grid,
        batches=len(stream),
        shard_tokens=shard_tokens,
    )
    bar = tqdm(total=len(stream), initial=done, desc="capture", unit="batch", mininterval=1, disable=not progress)
    with writer, bar:
        for batch in chain([first], rest):
            writer.add(batch)
            tokens += sum(len(part.x) for part in batch.values())
            bar.set_postfix_str(f"{tokens / (time.perf_counter() - started):,.0f} tokens/s", refresh=False)
            bar.update()
            count += 1
        if not writer.complete:
            raise ShardError(path, f"{len(stream)} batches from the stream", f"{count}", "capture the rest again")
    return Shards(folder)
