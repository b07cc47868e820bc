"""Pictures and activations in memory: drawn once, and looked at by many dictionaries."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from ..residual import Site
from ..training.drawn import Drawn, PictureStream


class KeptPictures:
    """A `PictureStream` of batches in memory; `of` has how they were drawn. `header` is added to that of `of`."""

    def __init__(
        self,
        of: PictureStream,
        batches: Sequence[Drawn],
        sites: Sequence[Site] | None = None,
        header: dict[str, Any] | None = None,
    ):
        self._batches = batches
        self.sites = tuple(of.sites if sites is None else sites)
        self.prompts, self.seeds = of.prompts, of.seeds
        self.grid, self.size, self.sigmas, self.model = of.grid, of.size, of.sigmas, of.model
        self.header = of.header | (header or {})

    def __len__(self) -> int:
        return len(self._batches)

    def batches(self, start: int = 0) -> Iterator[Drawn]:
        for batch in self._batches[start:]:
            yield batch._replace(tokens={site: batch.tokens[site] for site in self.sites})
