"""Drawing pictures with a Flux pipeline under a plan."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from ..residual import Plan, Run
from ..residual.diffusers_host import attach
from .models import DEMO_MODELS, ModelError

if TYPE_CHECKING:  # loading diffusers takes seconds, which `--help` and mistyped options need not wait for
    from diffusers import FluxPipeline


@dataclass(frozen=True)
class Sampling:
    """How pictures are drawn."""

    steps: int = 22
    """Steps of the flow sampler."""
    height: int = 128
    """Picture height in pixels."""
    width: int = 128
    """Picture width in pixels."""
    batch: int = 40
    """Pictures drawn at once."""

    def __post_init__(self) -> None:
        for name in ("steps", "height", "width", "batch"):
            if getattr(self, name) < 1:
                raise ModelError(f"{name} must be at least 1, found {getattr(self, name)}")


@dataclass(frozen=True)
class Drawing:
    """How pictures are drawn, where a model need not be told: what is None is what suits it."""

    steps: int | None = None
    """Steps of the flow sampler; by default 22 for the demo, 20 for FLUX.1 dev, 4 for FLUX.1 schnell."""
    height: int | None = None
    """Picture height in pixels; by default 128 for the demo, 256 otherwise."""
    width: int | None = None
    """Picture width in pixels, likewise."""
    batch: int | None = None
    """Pictures drawn at once; by default 40 for the demo, 4 otherwise."""

    def resolved(self, model: str, pipeline: FluxPipeline) -> Sampling:
        """With what suits the model in place of None; a guidance-distilled one (dev) needs more steps."""
        suits = Sampling()
        if model not in DEMO_MODELS:
            suits = Sampling(20 if pipeline.transformer.config.guidance_embeds else 4, 256, 256, 4)
        return Sampling(
            *(getattr(suits, f.name) if getattr(self, f.name) is None else getattr(self, f.name) for f in fields(self))
        )


def text_length(pipeline: FluxPipeline) -> int:
    """T5 tokens a prompt is padded to: what the model's own tokenizer says, 512 at most."""
    return min(pipeline.tokenizer_2.model_max_length, 512)


def check_size(model: str, sampling: Sampling | Drawing) -> None:
    """The demo Flux knows one picture size; others would come out as noise."""
    height, width = sampling.height or 128, sampling.width or 128
    if model in DEMO_MODELS and (height, width) != (128, 128):
        raise ModelError(
            f"the demo Flux was trained on 128x128 pictures only, found {width}x{height}: "
            "leave --sampling.height and --sampling.width at 128"
        )


def draw_pictures(
    pipeline: FluxPipeline,
    captions: Sequence[str],
    seeds: Sequence[int],
    sampling: Sampling,
    plan: Plan | None = None,
) -> np.ndarray:
    """One picture a caption: uint8 `[n, height, width, 3]`. Each depends on its own seed alone."""
    parts = [
        np.asarray(images) for images, _ in run_batches(pipeline, captions, seeds, sampling, plan, output_type="np")
    ]
    return (np.concatenate(parts) * 255).round().astype(np.uint8)


def run_batches(
    pipeline: FluxPipeline,
    captions: Sequence[str],
    seeds: Sequence[int],
    sampling: Sampling,
    plan: Plan | None = None,
    output_type: str = "latent",
) -> Iterator[tuple[Any, Run | None]]:
    """Run the pipeline batch by batch; yields its output and the plan's run (with what its taps kept)."""
    if len(captions) != len(seeds):
        raise ValueError(f"expected one seed a caption, found {len(captions)} captions and {len(seeds)} seeds")
    for start in range(0, len(captions), sampling.batch):
        part = slice(start, start + sampling.batch)
        generators = [torch.Generator().manual_seed(seed) for seed in seeds[part]]
        with nullcontext() if plan is None else attach(pipeline, plan) as run, torch.inference_mode():
            output = pipeline(
                prompt=list(captions[part]),
                height=sampling.height,
                width=sampling.width,
                num_inference_steps=sampling.steps,
                max_sequence_length=text_length(pipeline),
                generator=generators,
                output_type=output_type,
            ).images
        yield output, run
