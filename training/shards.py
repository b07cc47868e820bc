"""Activation shards as a stream that dictionaries are made from, several captures as one, and a stream captured."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import time
from bisect import bisect_right
from collections.abc import Iterator, Mapping, Sequence
from itertools import accumulate, chain
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from ..dictionaries.schema import shown
from ..residual import Site
from ..residual.shard_manifest import MANIFEST, difference
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
        self._verified: set[int] = set()

    def __len__(self) -> int:
        """Number of batches that are in the folder."""
        return self.shards.done

    def batches(self, start: int = 0, step: int = 1) -> Iterator[Mapping[Site, Tokens]]:
        """Batches `start`, `start + step`, ...; the tokens of each by site."""
        for i in range(start, len(self), step):
            yield self.batch(i)

    def batch(self, i: int) -> Mapping[Site, Tokens]:
        """Batch `i`; its shard is verified once before its numbers go anywhere, for damaged ones may look plausible."""
        shard = self.shards.shard_of(i)
        if shard not in self._verified:
            self.shards.verify(shard)
            self._verified.add(shard)
        return self.shards.batch(i)


class JoinedStream:
    """Several captures as one `ActivationStream`: their batches one capture after another, their pictures renumbered.

    `grid` is the smallest that holds every capture's, and positions of image tokens are numbered in it, so that rows
    and columns stay what they were. `header` has what all captures say alike, their number (`captures`), and the names
    of what they say differently (`differ`).

    Raises `ShardError` where sites, widths, type or model of two captures differ, with both folders.
    """

    def __init__(self, streams: Sequence[ShardStream]):
        first = streams[0]
        for other in streams[1:]:
            _check_alike(first.shards, other.shards)
        self.streams = tuple(streams)
        self.sites, self.model = first.sites, first.model
        self.prompts: Sequence[str] = [prompt for stream in streams for prompt in stream.prompts]
        self.seeds: Sequence[int] = [seed for stream in streams for seed in stream.seeds]
        self.grid = (max(stream.grid[0] for stream in streams), max(stream.grid[1] for stream in streams))
        self.header = _joined_header([stream.header for stream in streams], self.prompts)
        self._ends = [*accumulate(len(stream) for stream in streams)]
        self._pictures = [0, *accumulate(len(stream.prompts) for stream in streams)]

    def __len__(self) -> int:
        return self._ends[-1]

    def batches(self, start: int = 0, step: int = 1) -> Iterator[Mapping[Site, Tokens]]:
        for i in range(start, len(self), step):
            part = bisect_right(self._ends, i)
            stream = self.streams[part]
            batch = stream.batch(i - self._ends[part] + len(stream))
            yield {site: self._renumbered(site, tokens, part) for site, tokens in batch.items()}

    def _renumbered(self, site: Site, tokens: Tokens, part: int) -> Tokens:
        position, columns = tokens.position, self.streams[part].grid[1]
        if site.stream == "img":
            position = position // columns * self.grid[1] + position % columns
        return tokens._replace(position=position, picture=tokens.picture + self._pictures[part])


def shard_stream(folders: Sequence[str | os.PathLike]) -> ShardStream | JoinedStream:
    """The captures of some folders as a stream, each once: a folder is a capture, or has captures in subfolders.

    Raises `ShardError` for a folder that is neither, and for captures that do not go together.
    """
    found = dict.fromkeys(capture.resolve() for folder in folders for capture in _captures(Path(folder)))
    streams = [ShardStream(capture) for capture in found]
    return streams[0] if len(streams) == 1 else JoinedStream(streams)


def _captures(folder: Path) -> list[Path]:
    if (folder / MANIFEST).exists() or not folder.is_dir():
        return [folder]
    return sorted(entry for entry in folder.iterdir() if (entry / MANIFEST).exists()) or [folder]


def _check_alike(one: Shards, other: Shards) -> None:
    """Raise `ShardError` where two captures cannot be read as one."""
    remedy = "give captures of the same sites, width, type and model, or one at a time"
    for name, first, second in zip(("sites", "d_model", "dtype", "model"), _facts(one), _facts(other), strict=True):
        if different := difference(name, first, second):
            field, expected, found = different
            raise ShardError(other.folder, f"the {field} of {one.folder}, {shown(expected)}", shown(found), remedy)


def _facts(shards: Shards) -> tuple[str, dict[str, int], str, dict[str, Any]]:
    """Sites, widths, type and model of a capture, in the words of its manifest."""
    sites = ", ".join(sorted(map(str, shards.sites)))
    widths = {str(site): width for site, width in shards.d_model.items()}
    return sites, widths, str(shards.dtype).removeprefix("torch."), shards.model


def _joined_header(headers: Sequence[Mapping[str, Any]], prompts: Sequence[str]) -> dict[str, Any]:
    names = dict.fromkeys(name for header in headers for name in header if name != "prompts_sha256")
    alike = [name for name in names if all(name in header and header[name] == headers[0][name] for header in headers)]
    joined = {name: headers[0][name] for name in alike} | {"captures": len(headers)}
    if differ := [name for name in names if name not in alike]:
        joined["differ"] = differ
    return joined | {"prompts_sha256": hashlib.sha256("\n".join(prompts).encode()).hexdigest()}


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
    done = _begun(path, stream) if (path / MANIFEST).exists() else 0
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


def _begun(path: Path, stream: ActivationStream) -> int:
    """Batches that are there, of this very capture: said before anything is captured that could not be added."""
    shards = Shards(path)
    for name in ("model", "header", "prompts", "seeds", "grid"):
        there, here = (json.loads(json.dumps(getattr(each, name))) for each in (shards, stream))
        if different := difference(name, there, here):
            field, old, new = different
            remedy = "capture into another folder, or with what this one was begun with"
            raise ShardError(path, f"the same capture, {field} = {shown(new)}", f"{field} = {shown(old)}", remedy)
    return shards.done
