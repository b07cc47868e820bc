"""Scene tokens whose activations are made up: one channel for each value, so that the truth is known."""

from __future__ import annotations

import numpy as np
import torch

from fluxtionary.demo.scenes import sample_scenes
from fluxtionary.interpretation.scene_tokens import VALUES, SceneTokens
from fluxtionary.residual import Site
from fluxtionary.residual.tokens import Tokens

SITE = Site.parse("double.1.img")


def planted(n, seed, split="train", noise=0.05):
    """Tokens of `n` scenes: the share of each value in a channel of its own, and noise."""
    scenes = tuple(sample_scenes(n, seed, split))
    picture, position = (axis.flatten() for axis in torch.meshgrid(torch.arange(n), torch.arange(64), indexing="ij"))
    empty = Tokens(torch.zeros(n * 64, 1), torch.full((n * 64,), 0.3), position, picture)
    shares = SceneTokens(scenes, ("",) * n, {SITE: empty}).shares
    rng = np.random.default_rng([seed, 5])
    x = torch.from_numpy(shares + noise * rng.normal(size=shares.shape).astype(np.float32))
    return SceneTokens(scenes, ("",) * n, {SITE: empty._replace(x=x)})


def column(factor, value):
    return VALUES.index((factor, value))
