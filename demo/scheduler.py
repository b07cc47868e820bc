"""The demo Flux's own sampler: each step predicts the clean picture and noises it anew, by the picture's own seed."""

from __future__ import annotations

import hashlib
from typing import Any

import torch
from diffusers import FlowMatchEulerDiscreteScheduler
from diffusers.utils.torch_utils import randn_tensor
from torch import Tensor

HOLD = 0.6
"""The sigma above which a part of the noise is held from step to step."""
EARLY = 0.5
"""The share of the noise that is fresh until then."""


class RenewingScheduler(FlowMatchEulerDiscreteScheduler):
    """Stochastic flow sampling: `x = (1 - sigma) * clean + sigma * noise` after every step, most of the noise fresh.

    What was begun badly is mended on the way. Where the layout is decided a part of the noise is held: with all of it
    fresh in every step, objects whose place the caption leaves open are at times never begun. (Readable pictures of 400
    validation captions in 20 steps, an earlier training of the model: .930 with all fresh, .978 with this schedule. Of
    some 30 tried it did best there on color, background, shape and position together.) All fresh would be ComfyUI's
    `lcm` sampler, none of it `euler`.

    The noise comes from generators that each picture's own first latents seed, never from torch's global state: equal
    captions and seeds give equal pictures, and one picture of a batch does not depend on the others.
    """

    def step(self, model_output: Tensor, timestep: Any, sample: Tensor, **_: Any) -> Any:
        if self.step_index is None:
            self._init_step_index(timestep)
            self._generators = [_generator_of(latents) for latents in sample]
        sigma, left = self.sigmas[self.step_index], self.sigmas[self.step_index + 1]
        velocity = model_output.float()
        clean = sample.float() - sigma * velocity
        share = EARLY if left > HOLD else 1.0
        fresh = randn_tensor(sample.shape, self._generators, sample.device, torch.float32)
        noise = (1 - share**2) ** 0.5 * (clean + velocity) + share * fresh
        self._step_index += 1
        return (((1 - left) * clean + left * noise).to(model_output.dtype),)


def _generator_of(latents: Tensor) -> torch.Generator:
    digest = hashlib.sha256(latents.float().cpu().numpy().tobytes()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:7]))
