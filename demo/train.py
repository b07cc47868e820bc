"""Trains the demo Flux from nothing: `python -m fluxtionary.demo.train --work FOLDER --out FOLDER`.

Stages: the VAE; the base transformer with its T5 encoder, in two parts; the small transformer on the same encoders.
Each leaves a checkpoint in `--work` and goes on from it; `training.json` beside the models says how long
each took.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch
import tyro
from diffusers import AutoencoderTiny, FluxPipeline

from .build import new_pipeline, new_transformer
from .train_flux import FluxTraining, train_flux
from .train_vae import VAETraining, train_vae

# What a caption leaves open is decided early, at high sigma, where the plain schedule hardly trains: the second
# stage dwells there, on captions that leave much open. On validation captions it took readable pictures from .72 (12
# steps) to .77 (16 steps): a help, not a cure.
OPEN_CAPTIONS = FluxTraining(
    steps=1700, learning_rate=1e-3, muon_rate=0.015, time_mean=0.8, time_spread=1.2, full=0.15, seed=1
)


@dataclass(frozen=True)
class DemoTraining:
    """All stages of training the demo Flux."""

    work: Path
    """Folder for checkpoints; what is finished there is not done again."""
    out: Path
    """Folder for the models: flux/, flux-small/ and training.json."""
    vae: VAETraining = field(default_factory=VAETraining)
    base: FluxTraining = field(default_factory=FluxTraining)
    finish: FluxTraining = field(default_factory=lambda: OPEN_CAPTIONS)
    small: FluxTraining = field(
        default_factory=lambda: FluxTraining(steps=1200, full=0.3, time_mean=0.5, time_spread=1.2)
    )


def train(config: DemoTraining) -> None:
    config.work.mkdir(parents=True, exist_ok=True)
    seconds_file = config.work / "seconds.json"
    seconds = json.loads(seconds_file.read_text()) if seconds_file.exists() else {}

    vae_folder = config.work / "vae"
    if not vae_folder.exists():
        seconds["vae"] = train_vae(config.vae, vae_folder)
        seconds_file.write_text(json.dumps(seconds))

    torch.manual_seed(config.base.seed)
    vae = AutoencoderTiny.from_pretrained(vae_folder)
    pipeline = new_pipeline(new_transformer("base"), vae)
    seconds["base"] = train_flux(pipeline, config.base, config.work / "base.ckpt", train_text=True)
    seconds["finish"] = train_flux(pipeline, config.finish, config.work / "finish.ckpt", train_text=True)
    save(pipeline, config.out / "flux")

    torch.manual_seed(config.small.seed)
    pipeline.transformer = new_transformer("small")
    seconds["small"] = train_flux(pipeline, config.small, config.work / "small.ckpt", train_text=False)
    pipeline.transformer.half().save_pretrained(config.out / "flux-small" / "transformer")

    record = {
        "seconds": {stage: round(value) for stage, value in seconds.items()},
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        **{stage: asdict(getattr(config, stage)) for stage in ("vae", "base", "finish", "small")},
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


if __name__ == "__main__":
    train(tyro.cli(DemoTraining))
