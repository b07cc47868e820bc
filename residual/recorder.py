"""Recording the runs of a host into activation shards: a folder of runs, and what goes into one of them."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from .edits import Record, Tap
from .moment import Area, Moment, PlanError
from .shard_manifest import MANIFEST, ShardError
from .shards import ShardWriter
from .site import Site
from .tokens import Tokens

SHARD_TOKENS = 16_384
"""Tokens of a site that are gathered for a shard: 100 MB of Flux 1 in bfloat16, held while a run is recorded."""
MOST_CALLS = 1_000_000
"""More model calls than a run can have; how many it has is known at its end."""


@dataclass(frozen=True)
class About:
    """What is known of a run when it starts; `grid` is that of the whole picture."""

    sites: tuple[Site, ...]
    dtype: torch.dtype
    share: float
    model: Mapping[str, Any]
    header: Mapping[str, Any]
    prompts: Sequence[str]
    seeds: Sequence[int]
    grid: tuple[int, int]


class Recorder:
    """Writes what the taps of one run see into a folder of shards, call by call: a model call is a batch.

    Of each call `share` of the tokens are kept, drawn by the run's first seed. A call in which a cache left out some
    of the sites is left out altogether, so that all sites have the same calls; `partial` counts these.

    `folder` must be new and is the recorder's own. Raises `ShardError` where it cannot be written.
    """

    def __init__(self, folder: Path, about: About):
        self.folder, self.about = folder, about
        self.tokens = dict.fromkeys(about.sites, 0)
        self.partial = 0
        self._generator = torch.Generator().manual_seed(about.seeds[0])
        self._moment: Moment | None = None
        self._call: dict[Site, Tokens] = {}
        self._writer: ShardWriter | None = None

    def receive(self, tap: Tap, record: Record, _x: torch.Tensor) -> None:
        """Take what a tap saw; writes the call once every site was seen in it."""
        if record.moment is not self._moment:  # another call
            self._leave_out()
            self._moment = record.moment
        self._call[tap.site] = self._kept(tap.site, record)
        if len(self._call) == len(self.about.sites):
            self._opened().add(self._call)
            for site, tokens in self._call.items():
                self.tokens[site] += len(tokens.x)
            self._call = {}

    def finish(self) -> bool:
        """End the run: what was seen is a complete capture. False, and no folder, where nothing was seen."""
        self._leave_out()
        if self._writer is None:
            self.folder.rmdir()
            return False
        self._writer.finish()
        return True

    def discard(self) -> None:
        """Remove what was written of the run, as far as the system lets it."""
        with suppress(OSError, ShardError):
            if self._writer is None:
                self.folder.rmdir()
            else:
                self._writer.discard()

    def _leave_out(self) -> None:
        self.partial += bool(self._call)
        self._call = {}

    def _opened(self) -> ShardWriter:
        """The writer, begun with the first call, which tells how wide the sites are."""
        if self._writer is None:
            about = self.about
            self._writer = ShardWriter(
                self.folder,
                sites=about.sites,
                d_model={site: tokens.x.shape[1] for site, tokens in self._call.items()},
                dtype=about.dtype,
                model=about.model,
                header=about.header,
                prompts=about.prompts,
                seeds=about.seeds,
                grid=about.grid,
                batches=MOST_CALLS,
                shard_tokens=SHARD_TOKENS,
            )
        return self._writer

    def _kept(self, site: Site, record: Record) -> Tokens:
        x, moment = record.activations, record.moment
        assert x is not None
        rows = [moment.rows[i] for i in record.batch_rows.tolist()]
        if site.stream == "img":
            position = torch.stack([whole_positions(moment.grid, row.area, self.about.grid) for row in rows])
        else:
            position = torch.arange(x.shape[1]).expand(len(rows), -1)
        keep = torch.ones(x.shape[:2], dtype=torch.bool)
        if self.about.share < 1:
            keep = torch.rand(x.shape[:2], generator=self._generator) < self.about.share
        row, token = keep.nonzero(as_tuple=True)
        picture = torch.tensor([row.picture for row in rows])[row]
        return Tokens(x[row, token], torch.full(row.shape, moment.sigma), position[row, token], picture)


def whole_positions(grid: tuple[int, int], area: Area, whole: tuple[int, int]) -> torch.Tensor:
    """Numbers in the whole picture's token grid, row by row, of the tokens of `grid` that lies in an area of it.

    A tile of which nothing but its size is known counts as the one at the top left. Raises `PlanError` for more
    tokens than the whole picture has.
    """
    if grid[0] > whole[0] or grid[1] > whole[1]:
        raise PlanError(
            f"the model was called on {grid[0]} by {grid[1]} tokens in a run on {whole[0]} by {whole[1]}: where these "
            "lie in the picture is not known. Take out the node that changes the size of the latent while sampling"
        )
    top, left = (min(round(area[i] * whole[i]), whole[i] - grid[i]) for i in range(2))
    rows, columns = torch.arange(grid[0]) + top, torch.arange(grid[1]) + left
    return (rows[:, None] * whole[1] + columns).flatten()


def new_run(folder: Path) -> Path:
    """Make the next free `run-00001`, `run-00002`, ... in a folder of runs.

    Raises `OSError` where it cannot, and `ShardError` where the folder is a capture itself.
    """
    folder.mkdir(parents=True, exist_ok=True)
    if (folder / MANIFEST).exists():
        raise ShardError(folder, "a folder of runs", f"a capture, with a {MANIFEST} of its own", "give another folder")
    taken = [int(found[1]) for entry in folder.iterdir() if (found := re.fullmatch(r"run-(\d{5,})", entry.name))]
    number = max(taken, default=0)
    while True:
        number += 1
        path = folder / f"run-{number:05d}"
        with suppress(FileExistsError):  # somebody else records too
            path.mkdir()
            return path
