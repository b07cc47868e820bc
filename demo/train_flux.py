"""Training the demo Flux: plain rectified flow on the VAE's latents of drawn scenes.

`x = (1 - sigma) * latents + sigma * noise`, and the transformer predicts `noise - latents`, as Flux 1 does
(Esser et al. 2024, arXiv 2403.03206, sections 2 and 3.1: logit-normal times). The T5 encoder learns along with
the base transformer; CLIP keeps its random weights, as a faint second voice. The small transformer is trained on
the finished T5 encoder.
"""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderTiny, FluxPipeline
from tqdm import tqdm

from .captions import TEXT_TOKENS, random_caption
from .scenes import GRID, Scene, draw
from .train_vae import to_tensor


@dataclass(frozen=True)
class FluxTraining:
    """How a demo Flux transformer is trained."""

    steps: int = 6500
    """Optimizer steps."""
    batch: int = 64
    """Scenes a step."""
    learning_rate: float = 1.5e-3
    """Peak of the one-cycle schedule for everything that Muon does not train."""
    muon_rate: float = 0.02
    """Peak for the weight matrices of the blocks, which Muon trains."""
    ema: float = 0.998
    """Decay of the averaged weights, which are the ones that are kept."""
    time_mean: float = 0.5
    """Mean of the logit of sigma: above 0, because what a caption leaves open is decided early, at high sigma."""
    time_spread: float = 1.2
    """Its deviation."""
    start: float = 0.04
    """Share of examples at sigma 1, where sampling starts."""
    full: float = 0.3
    """Share of captions that name every factor; a tenth name none, the others each factor by the toss of a coin."""
    save_every: int = 250
    """Steps between checkpoints."""
    seed: int = 0


def pack(latents: torch.Tensor) -> torch.Tensor:
    """Latents `[n, 16, 16, 16]` as Flux tokens `[n, 64, 64]`: 2x2 pixels a token, row by row."""
    n, channels, height, width = latents.shape
    split = latents.view(n, channels, height // 2, 2, width // 2, 2)
    return split.permute(0, 2, 4, 1, 3, 5).reshape(n, height // 2 * (width // 2), channels * 4)


def image_ids() -> torch.Tensor:
    """Position ids `[GRID * GRID, 3]` of the image tokens, as `FluxPipeline` makes them."""
    rows, columns = torch.meshgrid(torch.arange(GRID), torch.arange(GRID), indexing="ij")
    return torch.stack([torch.zeros_like(rows), rows, columns], -1).reshape(-1, 3).float()


@torch.no_grad()
def encode_scenes(vae: AutoencoderTiny, scenes: list[Scene], batch: int = 16) -> torch.Tensor:
    """Packed latents of scenes, float16 `[n, 64, 64]`."""
    vae.to(memory_format=torch.channels_last)
    parts = []
    for start in tqdm(range(0, len(scenes), batch), desc="latents", mininterval=5):
        images = to_tensor(np.stack([draw(scene) for scene in scenes[start : start + batch]]))
        with torch.autocast("cpu", torch.bfloat16):
            parts.append(pack(vae.encoder(images.to(memory_format=torch.channels_last)).float()).half())
    return torch.cat(parts)


def _tokens(tokenizer, captions: list[str]) -> torch.Tensor:
    return tokenizer(captions, padding="max_length", max_length=TEXT_TOKENS, return_tensors="pt").input_ids


def _optimizers(pipeline: FluxPipeline, config: FluxTraining, train_text: bool):
    """Muon for the blocks' matrices, AdamW for the rest; both on a one-cycle schedule."""
    matrices: list[torch.nn.Parameter] = []
    others: list[torch.nn.Parameter] = []
    for name, weight in pipeline.transformer.named_parameters():
        (matrices if weight.ndim == 2 and "transformer_blocks" in name else others).append(weight)
    if train_text:
        others += list(pipeline.text_encoder_2.parameters())
    muon = torch.optim.Muon(matrices, lr=config.muon_rate, weight_decay=0.01, adjust_lr_fn="original")
    adam = torch.optim.AdamW(others, lr=config.learning_rate, weight_decay=0.01, betas=(0.9, 0.98))
    schedules = [
        torch.optim.lr_scheduler.OneCycleLR(o, lr, config.steps, pct_start=0.05, cycle_momentum=False)
        for o, lr in ((muon, config.muon_rate), (adam, config.learning_rate))
    ]
    return [muon, adam], schedules


def train_flux(
    pipeline: FluxPipeline,
    config: FluxTraining,
    scenes: list[Scene],
    latents: torch.Tensor,
    checkpoint: Path,
    train_text: bool,
) -> float:
    """Train the pipeline's transformer (and T5 encoder) in place; returns the seconds spent.

    `latents` are those of `scenes`, from `encode_scenes`. Writes `checkpoint` every `save_every` steps and goes on from
    it when it is there.
    """
    started = time.monotonic()
    torch.manual_seed(config.seed)
    transformer, t5, clip = pipeline.transformer, pipeline.text_encoder_2, pipeline.text_encoder
    trained = {**{f"transformer.{k}": v for k, v in transformer.named_parameters()}}
    trained |= {f"t5.{k}": v for k, v in t5.named_parameters()} if train_text else {}
    average = {name: weight.detach().clone() for name, weight in trained.items()}
    optimizers, schedules = _optimizers(pipeline, config, train_text)

    first, spent = 0, 0.0
    if checkpoint.exists():
        state = torch.load(checkpoint, weights_only=True)
        if state["config"] != asdict(config):
            raise ValueError(f"{checkpoint} was made with other settings: {state['config']}; remove it or use them")
        first, spent, average = state["step"], state["seconds"], state["average"]
        for name, weight in trained.items():
            weight.data.copy_(state["weights"][name])
        for part, saved in zip([*optimizers, *schedules], state["optimizers"], strict=True):
            part.load_state_dict(saved)
    ids, text_ids = image_ids(), torch.zeros(TEXT_TOKENS, 3)
    progress = tqdm(range(first, config.steps), initial=first, total=config.steps, desc="Flux", mininterval=10)
    smooth = None
    for step in progress:
        rng = np.random.default_rng([config.seed, step])
        generator = torch.Generator().manual_seed(config.seed * 1_000_003 + step)
        chosen = rng.integers(len(scenes), size=config.batch)
        captions = [random_caption(scenes[i].factors, rng, config.full) for i in chosen]
        clean = latents[chosen].float()
        noise = torch.randn(clean.shape, generator=generator)
        logit = config.time_mean + config.time_spread * torch.randn(config.batch, generator=generator)
        sigma = logit.sigmoid()
        sigma[: round(config.start * config.batch)] = 1.0
        noisy = clean + sigma[:, None, None] * (noise - clean)
        with torch.no_grad():
            pooled = clip(_tokens(pipeline.tokenizer, captions)).pooler_output
        with torch.autocast("cpu", torch.bfloat16):
            with torch.set_grad_enabled(train_text):
                text = t5(_tokens(pipeline.tokenizer_2, captions))[0]
            velocity = transformer(
                hidden_states=noisy,
                encoder_hidden_states=text,
                pooled_projections=pooled,
                timestep=sigma,
                img_ids=ids,
                txt_ids=text_ids,
                return_dict=False,
            )[0]
        loss = (velocity.float() - (noise - clean)).square().mean()
        for optimizer in optimizers:
            optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(trained.values(), 1.0)
        for part in (*optimizers, *schedules):
            part.step()
        with torch.no_grad():
            decay = min(config.ema, (1 + step) / (10 + step))
            for name, weight in trained.items():
                average[name].lerp_(weight, 1 - decay)
        smooth = loss.item() if smooth is None else 0.98 * smooth + 0.02 * loss.item()
        if step % 25 == 0:
            progress.set_postfix(loss=f"{smooth:.4f}")
        if (step + 1) % config.save_every == 0 or step + 1 == config.steps:
            _save(
                checkpoint,
                step + 1,
                spent + time.monotonic() - started,
                config,
                trained,
                average,
                optimizers,
                schedules,
            )
    for name, weight in trained.items():
        weight.data.copy_(average[name])
    return spent + (time.monotonic() - started if first < config.steps else 0.0)


def _save(checkpoint, step, seconds, config, trained, average, optimizers, schedules) -> None:
    state = {
        "step": step,
        "seconds": seconds,
        "config": asdict(config),
        "weights": {name: weight.detach() for name, weight in trained.items()},
        "average": average,
        "optimizers": [part.state_dict() for part in (*optimizers, *schedules)],
    }
    partial = checkpoint.with_suffix(".part")
    torch.save(state, partial)
    partial.replace(checkpoint)
