"""The first steps of pictures, as ComfyUI's `euler` sampler takes them: the same schedule, noise and text length."""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from ..residual import Plan, Window
from ..residual.diffusers_host import Stopped, attach
from .embeddings import Embedded
from .sampling import ModelError, text_length

if TYPE_CHECKING:
    from .sampling import FluxPipeline

TEXT_LENGTH = 256
"""T5 tokens that ComfyUI pads prompts to."""
SHIFT = 1.15
"""Shift of the schedule of FLUX.1 dev in ComfyUI, whatever the size of the picture."""


@dataclass(frozen=True)
class Watching:
    """How pictures are begun and when they are watched; by default as the node Contrast Prompts does."""

    steps: int = 4
    """Steps of the whole schedule, of which only those up to the end are sampled."""
    start: float = 0.0
    """Share of sampling after which it begins to watch, 0 to 1."""
    end: float = 0.5
    """Share of sampling after which it stops watching, and sampling too."""
    seeds: int = 1
    """Pictures for each prompt: with seed, seed + 1 and so on. More even out chance."""
    seed: int = 0
    """The first seed. Both prompts of a pair start from the same noise."""
    guidance: float = 3.5
    """Guidance that a guidance-distilled model (FLUX.1 dev) is told; others ignore it."""
    shift: float | None = None
    """Shift of the schedule, as of ComfyUI's ModelSamplingFlux; by default 1.15 for FLUX.1 dev, none for others."""
    text_length: int = TEXT_LENGTH
    """T5 tokens that prompts are padded to, at most what the model knows; ComfyUI pads to 256, diffusers to 512."""

    def __post_init__(self) -> None:
        for name in ("steps", "seeds", "text_length"):
            if getattr(self, name) < 1:
                raise ModelError(f"{name} must be at least 1, found {getattr(self, name)}")
        if not 0 <= self.start <= self.end <= 1:
            raise ModelError(f"expected 0 <= start <= end <= 1, found start {self.start} and end {self.end}")

    def numbers(self) -> list[int]:
        """The seeds, each of which is one picture of every prompt."""
        return [(self.seed + number) % 2**64 for number in range(self.seeds)]

    def length(self, pipeline: FluxPipeline) -> int:
        """T5 tokens of each prompt."""
        return min(self.text_length, text_length(pipeline))


class Size(NamedTuple):
    """Height and width of the pictures in pixels, and how many are drawn at once."""

    height: int = 128
    width: int = 128
    batch: int = 40


class Part(NamedTuple):
    """The part of a schedule that is sampled: its sigmas, and the number of the first step that is watched."""

    sigmas: tuple[float, ...]
    first: int

    @property
    def watched(self) -> list[float]:
        """The noise levels of the steps that are watched."""
        return list(self.sigmas[self.first : -1])


def part_of(pipeline: FluxPipeline, watching: Watching) -> Part:
    """What is sampled: up to the last step that begins in the watched part, and no further.

    The schedule is ComfyUI's `simple`, as its code rounds it. Raises `ModelError` where no step begins in the part.
    """
    distilled = pipeline.transformer.config.guidance_embeds
    shift = watching.shift if watching.shift is not None else SHIFT if distilled else 0.0
    levels = 10_000 if distilled else 1000  # so many noise levels ComfyUI tells apart
    window = Window.from_percent(watching.start, watching.end, lambda share: _shifted(1 - share, shift))
    sigmas = [_shifted(1 - int(number * levels / watching.steps) / levels, shift) for number in range(watching.steps)]
    inside = [number for number, sigma in enumerate(sigmas) if window.holds(sigma)]
    if not inside:
        raise ModelError(
            f"expected a part of sampling in which one of the {watching.steps} steps begins, found none from "
            f"{watching.start} to {watching.end}: widen it, or raise steps"
        )
    return Part((*sigmas, 0.0)[: inside[-1] + 2], inside[0])


def _shifted(left: float, shift: float) -> float:
    return math.exp(shift) * left / (1 + (math.exp(shift) - 1) * left)


class FirstSteps:
    """Some pictures on their way, `x [pictures, tokens, channels]` in float32, beginning as noise.

    The noise of a picture is that of ComfyUI's samplers for an empty latent of one picture with its seed.
    """

    def __init__(self, pipeline: FluxPipeline, seeds: Sequence[int], size: Size, guidance: float):
        self.pipeline, self.transformer = pipeline, pipeline.transformer
        self.device, self.dtype = pipeline._execution_device, self.transformer.dtype
        cell, count = pipeline.vae_scale_factor * 2, len(seeds)
        rows, columns = size.height // cell, size.width // cell
        shape = (1, self.transformer.config.in_channels // 4, 2 * rows, 2 * columns)
        noise = torch.cat([torch.randn(shape, generator=torch.Generator().manual_seed(seed)) for seed in seeds])
        self.x = pipeline._pack_latents(noise, *noise.shape).to(self.device)
        self._places = pipeline._prepare_latent_image_ids(count, rows, columns, self.device, self.dtype)
        told = self.transformer.config.guidance_embeds
        self._guidance = torch.full([count], guidance, device=self.device) if told else None

    def velocity(self, text: Embedded, sigma: float, plan: Plan | None = None) -> Tensor:
        """What the model predicts, `x`-shaped in float32, under a plan."""
        with attach(self.pipeline, plan or Plan()), torch.inference_mode():
            return self._predict(text, sigma)

    def watch(self, text: Embedded, sigma: float, taps: Plan) -> None:
        """As `velocity`, for those who watch: blocks after the last site are not computed."""
        with suppress(Stopped), attach(self.pipeline, taps, lambda _: True), torch.inference_mode():
            self._predict(text, sigma)

    def step(self, velocity: Tensor, sigma: float, after: float) -> None:
        """Euler's step from one noise level to the next."""
        self.x = self.x + (after - sigma) * velocity

    def _predict(self, text: Embedded, sigma: float) -> Tensor:
        found: Tensor = self.transformer(
            hidden_states=self.x.to(self.dtype),
            timestep=torch.full([len(self.x)], sigma, device=self.device, dtype=self.dtype),
            guidance=self._guidance,
            pooled_projections=text.pooled.to(self.device, self.dtype),
            encoder_hidden_states=text.prompts.to(self.device, self.dtype),
            txt_ids=torch.zeros(text.prompts.shape[1], 3, device=self.device, dtype=self.dtype),
            img_ids=self._places,
            return_dict=False,
        )[0]
        return found.float()
