"""What a dictionary costs the model when its reconstruction stands in for the activations.

The model draws pictures on its own and again with the reconstruction spliced in. Replacing a site by its training mean
stands beside as the floor, as zero or mean ablation does for language models (Bricken et al. 2023, "Towards
Monosemanticity"); there the loss is that of the next token, here it is the error of the velocity.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from ..dictionaries import Activation, SparseAutoencoder
from ..residual import Plan
from ..residual.diffusers_host import attach
from ..training.sampling import Sampling, run_batches

if TYPE_CHECKING:
    from ..training.sampling import FluxPipeline


class Call(NamedTuple):
    """One call of the transformer in a plain run: its arguments, its noise level, and the velocity it predicted."""

    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    sigma: float
    velocity: Tensor


@dataclass(frozen=True)
class PlainRun:
    """What the model draws on its own, and every call that was made to it on the way.

    `latents [n, tokens, channels]` are the final ones, packed; `pictures` uint8 `[n, height, width, 3]`.
    """

    prompts: Sequence[str]
    seeds: Sequence[int]
    sampling: Sampling
    calls: Sequence[Call]
    latents: Tensor
    pictures: np.ndarray


@dataclass(frozen=True)
class SpliceErrors:
    """What a plan changed, against a plain run of the same prompts and seeds.

    Attributes:
        velocity: `sum |v - v'|^2 / sum |v|^2` over pictures and steps; both at the latents of the plain run, so that
            errors of earlier steps do not count again.
        velocity_by_sigma: each step's sigma, falling, and the same for that step alone.
        latent: `sum |z - z'|^2 / sum |z|^2` of the final latents, all steps drawn under the plan.
        pixel: mean absolute difference of the pictures' 8-bit values.
        psnr: peak signal-to-noise ratio of the pictures in dB, from the mean squared difference over all of them;
            infinite where they are equal.
        pictures: what was drawn, uint8 `[n, height, width, 3]`.
    """

    velocity: float
    velocity_by_sigma: tuple[tuple[float, float], ...]
    latent: float
    pixel: float
    psnr: float
    pictures: np.ndarray


@dataclass(frozen=True)
class Recovered:
    """How much of what replacing a site by its mean breaks a dictionary does not: `1 - error / error of the mean`.

    1: nothing is lost; 0: no better than the mean; below 0: worse. NaN where the mean breaks nothing.
    """

    velocity: float
    velocity_by_sigma: tuple[tuple[float, float], ...]
    latent: float
    pixel: float


def draw_plain(pipeline: FluxPipeline, prompts: Sequence[str], seeds: Sequence[int], sampling: Sampling) -> PlainRun:
    """Draw without any plan, and keep the calls. Nothing stays on the pipeline, also after an exception."""
    calls: list[Call] = []

    def keep(module: Any, args: tuple, kwargs: dict[str, Any], output: Any) -> None:
        calls.append(Call(args, dict(kwargs), float(kwargs["timestep"].reshape(-1)[0]), output[0].clone()))

    handle = pipeline.transformer.register_forward_hook(keep, with_kwargs=True)
    try:
        latents = _draw(pipeline, prompts, seeds, sampling)
    finally:
        handle.remove()
    return PlainRun(prompts, seeds, sampling, calls, latents, decode(pipeline, latents, sampling))


def measure_plan(pipeline: FluxPipeline, plan: Plan, plain: PlainRun) -> SpliceErrors:
    """What a plan changes: each call of the plain run made again under it, and the pictures drawn under it."""
    error: dict[float, float] = {}
    power: dict[float, float] = {}
    with attach(pipeline, plan), torch.inference_mode():
        for call in plain.calls:
            velocity = pipeline.transformer(*call.args, **call.kwargs)[0]
            error[call.sigma] = error.get(call.sigma, 0.0) + _squares(velocity, call.velocity)
            power[call.sigma] = power.get(call.sigma, 0.0) + _squares(call.velocity)
    latents = _draw(pipeline, plain.prompts, plain.seeds, plain.sampling, plan)
    pictures = decode(pipeline, latents, plain.sampling)
    difference = pictures.astype(np.float64) - plain.pictures
    squared = float((difference**2).mean())
    return SpliceErrors(
        velocity=sum(error.values()) / sum(power.values()),
        velocity_by_sigma=tuple((sigma, error[sigma] / power[sigma]) for sigma in sorted(error, reverse=True)),
        latent=_squares(latents, plain.latents) / _squares(plain.latents),
        pixel=float(np.abs(difference).mean()),
        psnr=10 * math.log10(255**2 / squared) if squared else math.inf,
        pictures=pictures,
    )


def recovered(splice: SpliceErrors, mean: SpliceErrors) -> Recovered:
    """What a splice recovers of what replacing the site by its mean breaks, in the same plain run."""

    def share(error: float, floor: float) -> float:
        return 1 - error / floor if floor else math.nan

    floors = dict(mean.velocity_by_sigma)
    return Recovered(
        velocity=share(splice.velocity, mean.velocity),
        velocity_by_sigma=tuple((sigma, share(error, floors[sigma])) for sigma, error in splice.velocity_by_sigma),
        latent=share(splice.latent, mean.latent),
        pixel=share(splice.pixel, mean.pixel),
    )


def mean_dictionary(site: str, mean: Tensor) -> SparseAutoencoder:
    """A dictionary of one feature that writes nothing: it reconstructs everything as `mean [d_model]`."""
    nothing = torch.zeros(1, len(mean))
    return SparseAutoencoder(site, nothing, torch.zeros(1), nothing, mean.float(), Activation("topk", 1))


def decode(pipeline: FluxPipeline, latents: Tensor, sampling: Sampling) -> np.ndarray:
    """Pictures of final packed latents, uint8 `[n, height, width, 3]`, as the pipeline itself ends a run.

    So one run gives both; asking the pipeline for pictures would mean drawing everything twice.
    """
    vae, parts = pipeline.vae, []
    for packed in latents.split(sampling.batch):
        unpacked = pipeline._unpack_latents(packed, sampling.height, sampling.width, pipeline.vae_scale_factor)
        with torch.inference_mode():
            scaled = unpacked / vae.config.scaling_factor + vae.config.shift_factor
            image = vae.decode(scaled.to(pipeline._execution_device), return_dict=False)[0]
        parts.append(pipeline.image_processor.postprocess(image, output_type="np"))
    return (np.concatenate(parts) * 255).round().astype(np.uint8)


def _draw(
    pipeline: FluxPipeline,
    prompts: Sequence[str],
    seeds: Sequence[int],
    sampling: Sampling,
    plan: Plan | None = None,
) -> Tensor:
    return torch.cat([latents.cpu() for latents, _ in run_batches(pipeline, prompts, seeds, sampling, plan)])


def _squares(a: Tensor, b: Tensor | None = None) -> float:
    """Sum of squares of `a`, or of its difference from `b`, in float64."""
    return float((a.double() if b is None else a.double() - b.double()).square().sum())
