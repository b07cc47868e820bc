"""Running a MODEL on a latent: one call at one noise level, or some steps of a schedule.

All of it goes through the host's own guider and samplers, so that whatever a MODEL, a CONDITIONING and a LATENT carry
(LoRA, ControlNet, areas, reference pictures, masks) acts as it does in the host's own sampling nodes.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import comfy.sample
import comfy.samplers
import torch
from torch import Tensor

Callback = Callable[[int, Tensor, Tensor, int], None]
"""What the host's samplers call after each step: number of the step, clean picture so far, latent, steps in all."""


def schedule(model: Any, scheduler: str, steps: int) -> Tensor:
    """The sigmas of a run of `steps`, by the model's own shift: `[steps + 1]`, falling, the last one 0."""
    return comfy.samplers.calculate_sigmas(model.get_model_object("model_sampling"), scheduler, steps)


def within_range(model: Any, sigma: float) -> float:
    """The closest noise level that the model was made for."""
    sampling = model.get_model_object("model_sampling")
    return min(max(sigma, float(sampling.sigma_min)), float(sampling.sigma_max))


def forward(model: Any, latent: dict[str, Any], conditioning: list, sigma: float, seed: int) -> None:
    """Call the model once, on the latent noised to `sigma` by the noise of a seed; for those who watch it."""
    once = comfy.samplers.KSAMPLER(_once)
    _run(model, latent, conditioning, once, torch.tensor([sigma, 0.0]), seed, None)


def sample(
    model: Any, latent: dict[str, Any], conditioning: list, sigmas: Tensor, seed: int, callback: Callback | None = None
) -> Tensor:
    """The latent after the steps from one sigma to the next, by Euler's method, without guidance by a negative prompt.

    The noise is that of the host's samplers for this seed. What a callback raises ends the run: the host stops an
    interrupted one that way.
    """
    euler = comfy.samplers.sampler_object("euler")
    return _run(model, latent, conditioning, euler, sigmas, seed, callback)


def check_acts(name: str, model: Any, conditioning: list, sigmas: Sequence[float]) -> None:
    """Raise `ValueError`, naming the input, for a conditioning that the host leaves out at all of some sigmas."""
    to_sigma = model.get_model_object("model_sampling").percent_to_sigma
    ranges = [(options.get("start_percent", 0.0), options.get("end_percent", 1.0)) for _, options in conditioning]
    if not any(to_sigma(end) <= sigma <= to_sigma(start) for start, end in ranges for sigma in sigmas):
        found = ", ".join(f"{start:g} to {end:g}" for start, end in dict.fromkeys(ranges))
        raise ValueError(
            f"{name}: expected a conditioning that acts at sigma {_listed(sigmas)}, found one whose timestep range is "
            f"{found} of sampling: widen it, or choose another noise level"
        )


def _once(model: Any, x: Tensor, sigmas: Tensor, extra_args: dict[str, Any], **_: Any) -> Tensor:
    model(x, sigmas[0] * x.new_ones(len(x)), **extra_args)
    return x


def _run(
    model: Any,
    latent: dict[str, Any],
    conditioning: list,
    sampler: Any,
    sigmas: Tensor,
    seed: int,
    callback: Callback | None,
) -> Tensor:
    samples = _samples(model, latent)
    noise = comfy.sample.prepare_noise(samples, seed, latent.get("batch_index"))
    guider = comfy.samplers.CFGGuider(model)
    guider.inner_set_conds({"positive": conditioning})
    guider.set_cfg(1.0)
    mask = latent.get("noise_mask")
    return guider.sample(
        noise, samples, sampler, sigmas, denoise_mask=mask, callback=callback, disable_pbar=True, seed=seed
    )


def _samples(model: Any, latent: dict[str, Any]) -> Tensor:
    """The pictures of a LATENT, as this model takes them."""
    samples = comfy.sample.fix_empty_latent_channels(model, latent["samples"])
    channels = model.get_model_object("latent_format").latent_channels
    if samples.ndim != 4 or samples.shape[1] != channels:
        raise ValueError(
            f"latent: expected [pictures, {channels}, height, width], found {list(samples.shape)}: encode the picture "
            "with this model's own VAE, or make an empty latent for this model"
        )
    if not bool(torch.isfinite(samples).all()):
        raise ValueError("latent: expected finite numbers, found NaN or infinity: did the VAE overflow in its type?")
    return samples


def _listed(sigmas: Sequence[float]) -> str:
    high, low = max(sigmas), min(sigmas)
    return f"{high:.3g}" if math.isclose(high, low) else f"{high:.3g} to {low:.3g}"
