"""Activations of drawn scenes whose every token is labeled: what measures features without anybody's opinion."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from ..demo.captions import random_caption
from ..demo.scenes import FACTORS, Scene, draw, sample_scenes, token_coverage
from ..residual import Plan, Site, Tap
from ..residual.diffusers_host import Stopped, attach
from ..residual.tokens import Tokens
from ..training.embeddings import Embedded, embed

if TYPE_CHECKING:
    from ..training.sampling import FluxPipeline

VALUES: tuple[tuple[str, str], ...] = tuple((factor, value) for factor, values in FACTORS.items() for value in values)
"""Every value of every factor, in the order of all tables here."""
TRACE = 0.1
"""Share of a token's pixels up to which a value counts as absent."""
CLEAR = 0.5
"""Noise level up to which tokens are labeled by what is drawn there; above it a caption may know, the token cannot."""
FULL = 0.3
"""Share of captions that name every factor, as when the demo Flux was trained (`demo/train_flux.py`)."""


@dataclass(frozen=True)
class SceneTokens:
    """Image tokens of scenes at several noise levels, and what each of them shows.

    `tokens` are those of each site, the same rows in the same order; `picture` is the number of the scene.
    """

    scenes: tuple[Scene, ...]
    captions: tuple[str, ...]
    tokens: dict[Site, Tokens]

    def __len__(self) -> int:
        return len(self._any.x)

    @property
    def _any(self) -> Tokens:
        return next(iter(self.tokens.values()))

    @property
    def sigma(self) -> np.ndarray:
        """Noise level of each token, float32 `[n]`."""
        return self._any.sigma.numpy()

    @cached_property
    def shares(self) -> np.ndarray:
        """How much of each token's pixels shows each value, float32 `[n, values]`.

        A token shows its object's color, shape, size and position where the object lies on it, and its background
        where it does not.
        """
        of_scene = np.stack([_shares(scene) for scene in self.scenes])
        return of_scene[self._any.picture.numpy(), self._any.position.numpy()]

    @cached_property
    def labels(self) -> np.ndarray:
        """Which values each token shows, bool `[n, values]`: those of more than half its pixels."""
        return self.shares > 0.5

    @cached_property
    def counted(self) -> np.ndarray:
        """Where a label is clear, bool `[n, values]`: a token with a little of a value neither shows nor lacks it.

        Without its edges, an object of 16-pixel tokens would set a bound to every F1 that says nothing of features.
        """
        return self.labels | (self.shares <= TRACE)

    def between(self, low: float, high: float) -> SceneTokens:
        """Those tokens with `low < sigma <= high`."""
        chosen = torch.from_numpy((self.sigma > low) & (self.sigma <= high))
        rows = {site: tokens.rows(chosen) for site, tokens in self.tokens.items()}
        return SceneTokens(self.scenes, self.captions, rows)


def scene_tokens(
    pipeline: FluxPipeline,
    sites: Sequence[Site],
    n: int,
    seed: int,
    split: str,
    levels: int = 2,
    highest: float = CLEAR,
    batch: int = 40,
) -> SceneTokens:
    """Draw `n` scenes of a split exactly, noise them, and keep what the demo Flux makes of them at image sites.

    Nothing is sampled: scenes go through the pipeline's VAE and stand at `(1 - sigma) * latents + sigma * noise`, as
    when the model was trained, beside captions that name a random part of their factors. Of each scene there are
    `levels` noise levels, one from each equal part of [0, highest], drawn anew for each batch of `batch` scenes.
    """
    scenes = sample_scenes(n, seed, split)
    rng = np.random.default_rng([seed, 13])
    captions = [random_caption(scene.factors, rng, FULL) for scene in scenes]
    plan = Plan([Tap(site) for site in dict.fromkeys(sites)])
    parts: dict[Site, list[Tokens]] = {site: [] for site in plan.sites()}
    for start in range(0, n, batch):
        part = slice(start, start + batch)
        clean = _encoded(pipeline, scenes[part])
        sigmas = highest * (np.arange(levels) + rng.uniform(size=levels)) / levels
        generators = [torch.Generator().manual_seed(scene.seed % 2**63) for scene in scenes[part]]
        for site, tokens in _noised(pipeline, plan, clean, embed(pipeline, captions[part]), sigmas, generators):
            parts[site].append(tokens._replace(picture=tokens.picture + start))
    joined = {site: Tokens.joined(tokens) for site, tokens in parts.items()}
    return SceneTokens(tuple(scenes), tuple(captions), joined)


def _shares(scene: Scene) -> np.ndarray:
    """Share of each token of a scene that shows each value, `[tokens, values]`."""
    on = token_coverage(scene).flatten()
    columns = [
        (1 - on if factor == "background" else on) * (scene.factors[factor] == value) for factor, value in VALUES
    ]
    return np.stack(columns, axis=1).astype(np.float32)


@torch.inference_mode()
def _encoded(pipeline: FluxPipeline, scenes: Sequence[Scene]) -> Tensor:
    """Latents of drawn scenes, scaled and packed as the transformer has them `[n, tokens, channels]`."""
    x = pipeline.image_processor.preprocess(np.stack([draw(scene) for scene in scenes]).astype(np.float32) / 255)
    latents = pipeline.vae.encode(x.to(pipeline.vae.device, pipeline.vae.dtype)).latents
    latents = (latents - pipeline.vae.config.shift_factor) * pipeline.vae.config.scaling_factor
    return pipeline._pack_latents(latents, *latents.shape).float()


@torch.inference_mode()
def _noised(
    pipeline: FluxPipeline,
    plan: Plan,
    clean: Tensor,
    text: Embedded,
    sigmas: np.ndarray,
    generators: Sequence[torch.Generator],
) -> Iterator[tuple[Site, Tokens]]:
    """What the taps see of clean latents at some noise levels, each with noise of its own."""
    transformer, count = pipeline.transformer, len(clean)
    side = round(clean.shape[1] ** 0.5)
    ids = pipeline._prepare_latent_image_ids(count, side, side, clean.device, clean.dtype)
    words = torch.zeros(text.prompts.shape[1], 3)
    for sigma in sigmas.tolist():
        noise = torch.stack([torch.randn(clean.shape[1:], generator=generator) for generator in generators])
        with attach(pipeline, plan, lambda call: True) as run, suppress(Stopped):
            transformer(
                hidden_states=((1 - sigma) * clean + sigma * noise).to(transformer.device, transformer.dtype),
                timestep=torch.full([count], sigma, device=transformer.device, dtype=transformer.dtype),
                pooled_projections=text.pooled.to(transformer.device, transformer.dtype),
                encoder_hidden_states=text.prompts.to(transformer.device, transformer.dtype),
                txt_ids=words.to(transformer.device, transformer.dtype),
                img_ids=ids.to(transformer.device, transformer.dtype),
                return_dict=False,
            )
        for tap, (record,) in run.records.items():
            x = record.activations
            assert x is not None
            picture, position = (axis.flatten() for axis in torch.ones(x.shape[:2]).nonzero(as_tuple=True))
            yield tap.site, Tokens(x.flatten(0, 1), torch.full((len(picture),), record.moment.sigma), position, picture)
