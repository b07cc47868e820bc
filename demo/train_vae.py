"""Training the demo's VAE: an `AutoencoderTiny` with 16 latent channels, on crops of drawn scenes.

Its latents are trained towards mean 0 and deviation 1, so they need no scaling (the same convention as the
public tiny VAE of Flux), and with a little noise on them, so that the decoder forgives the flow model's errors.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderTiny
from diffusers.models.autoencoders.vae import AutoencoderTinyBlock
from tqdm import tqdm

from .scenes import SIZE, Scene, draw, sample_scenes


@dataclass(frozen=True)
class VAETraining:
    """How the VAE is trained."""

    steps: int = 2500
    """Optimizer steps."""
    batch: int = 12
    """Crops a step."""
    crop: int = 64
    """Side of a crop in pixels."""
    scenes: int = 8192
    """Scenes of the train split the crops are cut from."""
    learning_rate: float = 1e-3
    """Peak of the one-cycle schedule."""
    noise: float = 0.05
    """Deviation of the noise put on the latents before decoding."""
    moments: float = 0.02
    """Weight of the pull of each latent channel towards mean 0 and deviation 1."""
    seed: int = 0


def initialize(vae: AutoencoderTiny) -> None:
    """Start near the identity: without normalization layers the default start takes thousands of steps to see colour.

    Convolutions between blocks start as the identity (Dirac), a block's own branch at a tenth of its size.
    """
    for module in vae.modules():
        if isinstance(module, torch.nn.Conv2d):
            torch.nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
            if module.bias is not None:
                torch.nn.init.zeros_(module.bias)
    for layers in (vae.encoder.layers, vae.decoder.layers):
        for layer in layers:
            if isinstance(layer, AutoencoderTinyBlock):
                layer.conv[-1].weight.data.mul_(0.1)
            elif isinstance(layer, torch.nn.Conv2d) and layer.in_channels == layer.out_channels:
                torch.nn.init.dirac_(layer.weight)
                layer.weight.data.add_(0.01 * torch.randn_like(layer.weight))
    vae.encoder.layers[-1].weight.data.mul_(2.0)
    vae.decoder.layers[-1].weight.data.mul_(0.2)


def to_tensor(images: np.ndarray) -> torch.Tensor:
    """uint8 `[n, h, w, 3]` to float32 `[n, 3, h, w]` in [-1, 1]."""
    return torch.from_numpy(images).permute(0, 3, 1, 2).float() / 127.5 - 1


def random_crops(scenes: list[Scene], images: np.ndarray, config: VAETraining, rng: np.random.Generator) -> np.ndarray:
    """Crops that mostly hold a part of the object: background alone teaches little."""
    chosen = rng.integers(len(scenes), size=config.batch)
    crops = []
    for index in chosen:
        x, y, radius = scenes[index].placement
        reach = radius + 8
        corner = [
            int(np.clip(at + rng.uniform(-reach, reach) - config.crop / 2, 0, SIZE - config.crop)) for at in (x, y)
        ]
        crops.append(images[index, corner[1] : corner[1] + config.crop, corner[0] : corner[0] + config.crop])
    return np.stack(crops)


def train_vae(config: VAETraining, out: Path) -> float:
    """Train, save in diffusers' layout under `out`, and return the seconds it took."""
    started = time.monotonic()
    torch.manual_seed(config.seed)
    rng = np.random.default_rng(config.seed)
    scenes = sample_scenes(config.scenes, config.seed, "train")
    images = np.stack([draw(scene) for scene in scenes])

    # Flux latents need neither scale nor shift here: see the module's docstring.
    vae = AutoencoderTiny(latent_channels=16, scaling_factor=1.0, shift_factor=0.0).to(
        memory_format=torch.channels_last
    )
    initialize(vae)
    optimizer = torch.optim.AdamW(vae.parameters(), lr=config.learning_rate, weight_decay=1e-4, betas=(0.9, 0.99))
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, config.learning_rate, config.steps, pct_start=0.1)
    progress = tqdm(range(config.steps), desc="VAE", mininterval=5)
    for step in progress:
        target = to_tensor(random_crops(scenes, images, config, rng)).to(memory_format=torch.channels_last)
        with torch.autocast("cpu", torch.bfloat16):
            latents = vae.encoder(target).float()
            drawn = vae.decoder(latents + config.noise * torch.randn_like(latents)).float()
        mean, deviation = latents.mean((0, 2, 3)), latents.std((0, 2, 3))
        loss = (drawn - target).abs().mean() + (drawn - target).square().mean()
        loss = loss + config.moments * (mean.square() + (deviation - 1).square()).mean()
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(vae.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        if step % 50 == 0:
            progress.set_postfix(
                error=f"{(drawn - target).abs().mean().item():.4f}", deviation=f"{deviation.mean().item():.2f}"
            )
    vae.to(memory_format=torch.contiguous_format).save_pretrained(out)
    return time.monotonic() - started
