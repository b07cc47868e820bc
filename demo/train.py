"""Trains the demo Flux from nothing: `python -m fluxtionary.demo.train --work FOLDER --out FOLDER`.

Stages: the VAE and the latents it makes of the scenes; the base transformer with its T5 encoder; the base again, at a
lower rate and on captions that leave more open; the small transformer on the same encoders. Each leaves a checkpoint
in `--work` and goes on from it; `training.json` beside the models says how long each took.
"""

from __future__ import annotations

import json
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch
import tyro
from diffusers import AutoencoderTiny, FluxPipeline
from safetensors.torch import load_file, save_file

from .build import new_pipeline, new_transformer
from .scenes import sample_scenes
from .train_flux import FluxTraining, encode_scenes, train_flux
from .train_vae import VAETraining, train_vae


@dataclass(frozen=True)
class DemoTraining:
    """All stages of training the demo Flux."""

    work: Path
    """Folder for checkpoints; what is finished there is not done again."""
    out: Path
    """Folder for the models: flux/, flux-small/ and training.json."""
    vae: VAETraining = field(default_factory=VAETraining)
    scenes: int = 8192
    """Scenes of the train split that the transformers learn from."""
    base: FluxTraining = field(default_factory=FluxTraining)
    more: FluxTraining = field(
        default_factory=lambda: FluxTraining(
            steps=2500, learning_rate=7.5e-4, muon_rate=0.01, time_mean=0.8, full=0.15, seed=1
        )
    )
    """The base again, from its averaged weights, with its text encoder as it is. What a caption leaves open is decided
    at high sigma, where without it objects are at times never begun."""
    small: FluxTraining = field(default_factory=lambda: FluxTraining(steps=3000))


def train(config: DemoTraining) -> None:
    config.work.mkdir(parents=True, exist_ok=True)
    seconds_file = config.work / "seconds.json"
    seconds = json.loads(seconds_file.read_text()) if seconds_file.exists() else {}

    vae_folder = config.work / "vae"
    if not vae_folder.exists():
        seconds["vae"] = train_vae(config.vae, vae_folder)
        seconds_file.write_text(json.dumps(seconds))

    vae = AutoencoderTiny.from_pretrained(vae_folder)
    scenes = sample_scenes(config.scenes, config.base.seed, "train")
    latents_file = config.work / "latents.safetensors"
    if not latents_file.exists():
        started = time.monotonic()
        save_file({"latents": encode_scenes(vae, scenes)}, latents_file)
        seconds["latents"] = time.monotonic() - started
        seconds_file.write_text(json.dumps(seconds))
    latents = load_file(latents_file)["latents"]
    if len(latents) != config.scenes:
        raise ValueError(f"{latents_file} holds {len(latents)} scenes, --scenes asks for {config.scenes}: remove it")

    torch.manual_seed(config.base.seed)
    pipeline = new_pipeline(new_transformer("base"), vae)
    checkpoint = config.work / "base.ckpt"
    seconds["base"] = train_flux(pipeline, config.base, scenes, latents, checkpoint, train_text=True)
    checkpoint = config.work / "more.ckpt"
    seconds["more"] = train_flux(pipeline, config.more, scenes, latents, checkpoint, train_text=False)
    save(pipeline, config.out / "flux")

    torch.manual_seed(config.small.seed)
    pipeline.transformer = new_transformer("small")
    checkpoint = config.work / "small.ckpt"
    seconds["small"] = train_flux(pipeline, config.small, scenes, latents, checkpoint, train_text=False)
    pipeline.transformer.half().save_pretrained(config.out / "flux-small" / "transformer")

    record = {
        "seconds": {stage: round(value) for stage, value in seconds.items()},
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        **{stage: asdict(getattr(config, stage)) for stage in ("vae", "base", "more", "small")},
    }
    (config.out / "training.json").write_text(json.dumps(record, indent=2) + "\n")
    print(f"trained in {', '.join(f'{stage} {value / 60:.0f} min' for stage, value in seconds.items())}")


def save(pipeline: FluxPipeline, folder: Path) -> None:
    """Write a pipeline with its two large parts in float16: half the bytes."""
    pipeline.vae.to(memory_format=torch.contiguous_format)
    pipeline.save_pretrained(folder)
    for name in ("transformer", "vae"):
        part = getattr(pipeline, name)
        part.half().save_pretrained(folder / name)
        part.float()
    for path in folder.rglob("*.json"):  # diffusers notes where each part was loaded from, which is nobody's business
        text = json.loads(path.read_text())
        if text.pop("_name_or_path", None) is not None:
            path.write_text(json.dumps(text, indent=2) + "\n")


if __name__ == "__main__":
    train(tyro.cli(DemoTraining))
