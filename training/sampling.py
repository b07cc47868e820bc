"""Loading a Flux pipeline, and drawing pictures with it under a plan."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from ..demo import files
from ..residual import Plan, Run
from ..residual.diffusers_host import attach

if TYPE_CHECKING:  # loading diffusers takes seconds, which `--help` and mistyped options need not wait for
    from diffusers import FluxPipeline


class ModelError(ValueError):
    """A model, or a way of drawing with it, that cannot be had as asked."""


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


DEMO_MODELS = {"demo": "base", "demo-small": "small"}


def load_pipeline(model: str, dtype: torch.dtype = torch.float32) -> FluxPipeline:
    """`demo`, `demo-small`, a folder that `FluxPipeline` can load, or a hub id where there is a network.

    The demo models come with the `RenewingScheduler`, any other with the scheduler it was saved with.
    """
    import diffusers
    import transformers

    from ..demo.scheduler import RenewingScheduler

    diffusers.utils.logging.disable_progress_bar()
    transformers.utils.logging.disable_progress_bar()
    if model in DEMO_MODELS:
        pipeline = _from_pretrained(files.PIPELINE, dtype)
        pipeline.scheduler = RenewingScheduler.from_config(pipeline.scheduler.config)
        _decode_faster(pipeline.vae.decoder)
        if DEMO_MODELS[model] == "small":
            small = diffusers.FluxTransformer2DModel.from_pretrained(files.SMALL_TRANSFORMER, dtype=dtype)
            pipeline.transformer = small
    else:
        pipeline = _from_pretrained(model, dtype)
    pipeline.set_progress_bar_config(disable=True)
    pipeline.vae.to(memory_format=torch.channels_last)  # a third faster on CPUs
    return pipeline


def _decode_faster(decoder: torch.nn.Module) -> None:
    """On CPUs few pictures at once fit the cache; bfloat16 halves the time where the CPU computes in it.

    Elsewhere bfloat16 is emulated and takes ten times as long. `measure` reads both kinds of pictures as well.
    """
    forward = decoder.forward
    able = torch.cpu.get_capabilities() if hasattr(torch.cpu, "get_capabilities") else {}
    half = bool(able.get("avx512_bf16") or able.get("amx_bf16"))

    def in_parts(latents: torch.Tensor) -> torch.Tensor:
        with torch.autocast("cpu", torch.bfloat16, enabled=half):
            return torch.cat([forward(part).float() for part in latents.split(10)])

    decoder.forward = in_parts


def _from_pretrained(source: str | Path, dtype: torch.dtype) -> FluxPipeline:
    from diffusers import FluxPipeline

    try:
        return FluxPipeline.from_pretrained(source, dtype=dtype)
    except (OSError, ValueError) as error:
        raise ModelError(
            f"cannot load a Flux pipeline from {str(source)!r}: expected demo, demo-small, a folder written by "
            f"FluxPipeline.save_pretrained, or a hub id. {error}"
        ) from error


def text_length(pipeline: FluxPipeline) -> int:
    """T5 tokens a prompt is padded to: what the model's own tokenizer says, 512 at most."""
    return min(pipeline.tokenizer_2.model_max_length, 512)


def check_size(model: str, sampling: Sampling) -> None:
    """The demo Flux knows one picture size; others would come out as noise."""
    if model in DEMO_MODELS and (sampling.height, sampling.width) != (128, 128):
        raise ModelError(
            f"the demo Flux was trained on 128x128 pictures only, found {sampling.width}x{sampling.height}: "
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
