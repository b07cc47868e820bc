"""The demo Flux's own sampler: each step predicts the clean picture and noises it anew, by the picture's own seed."""

from __future__ import annotations

import hashlib
from typing import Any

import torch
from diffusers import FlowMatchEulerDiscreteScheduler
from diffusers.utils.torch_utils import randn_tensor
from torch import Tensor


class RenewingScheduler(FlowMatchEulerDiscreteScheduler):
    """Stochastic flow sampling: `x = (1 - sigma) * clean + sigma * fresh noise` after every step.

    The same as ComfyUI's `lcm` sampler and as `stochastic_sampling` of diffusers, but for where the noise comes from:
    generators that each picture's own first latents seed, never torch's global state. Equal captions and seeds give
    equal pictures, and one picture of a batch does not depend on the others. What was begun badly is mended on the way.
    """

    def step(self, model_output: Tensor, timestep: Any, sample: Tensor, **_: Any) -> Any:
        if self.step_index is None:
            self._init_step_index(timestep)
            self._generators = [_generator_of(latents) for latents in sample]
        sigma, left = self.sigmas[self.step_index], self.sigmas[self.step_index + 1]
        clean = sample.float() - sigma * model_output.float()
        fresh = randn_tensor(sample.shape, self._generators, sample.device, torch.float32)
        self._step_index += 1
        return (((1 - left) * clean + left * fresh).to(model_output.dtype),)


def _generator_of(latents: Tensor) -> torch.Generator:
    digest = hashlib.sha256(latents.float().cpu().numpy().tobytes()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:7]))
