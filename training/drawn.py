"""Pictures together with what the model was thinking at some moments while it drew them: what an atlas is made from."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor

from ..residual import ALWAYS, Plan, Run, Site, Tap, Window
from ..residual.diffusers_host import attach, model_shape, percent_to_sigma
from ..residual.tokens import Tokens
from .capture import Capture, PipelineStream
from .embeddings import Embedded, embedded_batches
from .sampling import ModelError, Sampling

if TYPE_CHECKING:
    from diffusers import FluxPipeline


class Drawn(NamedTuple):
    """A batch of pictures.

    Attributes:
        first: number of the first of them; the others follow it.
        pictures: uint8 `[n, height, width, 3]`.
        tokens: of each site those of the moments that were read; `picture` counts from the stream's first picture.
    """

    first: int
    pictures: np.ndarray
    tokens: dict[Site, Tokens]


class PictureStream(Protocol):
    """A numbered row of batches of pictures; batch `i` is the same each time it is asked for.

    Attributes:
        sites: the sites every batch has tokens of.
        prompts, seeds: those of picture `i`.
        grid: token rows and columns of a picture.
        size: its height and width in pixels.
        sigmas: noise levels of the moments that are read, falling.
        model: `{"family": ..., "name": ...}`, as a dictionary's header names its model.
        header: how the pictures were drawn and read, as JSON has it.
    """

    sites: tuple[Site, ...]
    prompts: Sequence[str]
    seeds: Sequence[int]
    grid: tuple[int, int]
    size: tuple[int, int]
    sigmas: tuple[float, ...]
    model: dict[str, Any]
    header: dict[str, Any]

    def __len__(self) -> int:
        """Number of batches."""
        ...

    def batches(self, start: int = 0) -> Iterator[Drawn]:
        """Batches `start`, `start + 1`, ... to the end."""
        ...


class DrawnPictures:
    """A `PictureStream` drawn live: batch `i` is the pictures `[i * batch, (i + 1) * batch)`.

    One pass: the pictures are finished and decoded, and of the steps on the way `moments` are read, each in the middle
    of an equal part of sampling; nothing of the other steps is copied. Text sites leave out padding.

    Raises `ModelError` for more moments than steps, and `PlanError` or `SiteError` for a site the model has not.
    """

    def __init__(
        self,
        pipeline: FluxPipeline,
        prompts: Sequence[str],
        seeds: Sequence[int],
        sites: Sequence[Site],
        sampling: Sampling,
        moments: int = 4,
        name: str = "",
        guidance: float = 3.5,
    ):
        every = PipelineStream(pipeline, prompts, seeds, sites, Capture(guidance=guidance), sampling, name)
        self.pipeline, self.sampling, self.guidance = pipeline, sampling, guidance
        self.prompts, self.seeds, self.sites = every.prompts, every.seeds, every.sites
        self.grid, self.model = every.grid, every.model
        cell = pipeline.vae_scale_factor * 2
        self.size = (self.grid[0] * cell, self.grid[1] * cell)
        self.sigmas, windows = read_moments(pipeline, sampling, moments)
        self.header = every.header | {"sigmas": list(self.sigmas)}
        self.plan = Plan(Tap(site, window=window) for site in self.sites for window in windows)
        self.plan.check(*model_shape(pipeline.transformer))

    def __len__(self) -> int:
        return -(-len(self.prompts) // self.sampling.batch)

    def batches(self, start: int = 0) -> Iterator[Drawn]:
        parts = [slice(i * self.sampling.batch, (i + 1) * self.sampling.batch) for i in range(start, len(self))]
        embedded = embedded_batches(self.pipeline, [self.prompts[part] for part in parts])
        for part, text in zip(parts, embedded, strict=True):
            yield self._batch(part, text)

    def _batch(self, part: slice, text: Embedded) -> Drawn:
        device, dtype = self.pipeline._execution_device, self.pipeline.transformer.dtype
        with attach(self.pipeline, self.plan) as run, torch.inference_mode():
            images = self.pipeline(
                prompt_embeds=text.prompts.to(device, dtype),
                pooled_prompt_embeds=text.pooled.to(device, dtype),
                height=self.sampling.height,
                width=self.sampling.width,
                num_inference_steps=self.sampling.steps,
                guidance_scale=self.guidance,
                generator=[torch.Generator().manual_seed(seed) for seed in self.seeds[part]],
                output_type="np",
            ).images
        if run.idle():
            wanted = ", ".join(f"{sigma:.3f}" for sigma in self.sigmas)
            raise ModelError(
                f"expected steps of sampling near each of sigma {wanted}, found none at some: "
                f"the {type(self.pipeline.scheduler).__name__} has another schedule than the flow's own"
            )
        tokens = {site: _read(run, site, text.words, part.start) for site in self.sites}
        return Drawn(part.start, (np.asarray(images) * 255).round().astype(np.uint8), tokens)


def read_steps(sampling: Sampling, count: int) -> list[int]:
    """Numbers of the middle steps of `count` equal parts of sampling. Raises `ModelError` where there are fewer."""
    if not 1 <= count <= sampling.steps:
        raise ModelError(f"moments must lie between 1 and the {sampling.steps} steps of sampling, found {count}")
    return [(2 * i + 1) * sampling.steps // (2 * count) for i in range(count)]


def read_moments(pipeline: FluxPipeline, sampling: Sampling, count: int) -> tuple[tuple[float, ...], list[Window]]:
    """The sigmas of `read_steps`, and a window about each.

    The windows end half-way to the neighbouring steps: a pipeline in bfloat16 rounds a sigma by up to .002.
    """
    steps = read_steps(sampling, count)
    to_sigma = percent_to_sigma(pipeline, sampling.height, sampling.width)
    schedule = [to_sigma(step / sampling.steps) for step in range(sampling.steps)]
    between = [ALWAYS.start, *((a + b) / 2 for a, b in pairwise(schedule)), ALWAYS.end]
    return tuple(schedule[step] for step in steps), [Window(between[step], between[step + 1]) for step in steps]


def _read(run: Run, site: Site, words: Tensor, first: int) -> Tokens:
    """What the taps of a site kept, moment by moment; of text only `words`."""
    parts = []
    for tap, records in run.records.items():
        for record in records if tap.site == site else ():
            x = record.activations
            assert x is not None
            keep = words if site.stream == "txt" else torch.ones(x.shape[:2], dtype=torch.bool)
            row, position = keep.nonzero(as_tuple=True)
            flat = x.flatten(0, 1) if site.stream == "img" else x[row, position]
            parts.append(Tokens(flat, torch.full(row.shape, record.moment.sigma), position, row + first))
    return Tokens.joined(parts)
