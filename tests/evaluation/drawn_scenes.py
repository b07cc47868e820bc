"""Drawn scenes whose activations are made up, so that it is known what each feature of a dictionary shows."""

from __future__ import annotations

import numpy as np
import torch

from fluxtionary.demo.captions import caption_of
from fluxtionary.demo.scenes import BACKGROUNDS, COLORS, GRID, SIZE, draw, sample_scenes
from fluxtionary.evaluation.contestants import Contestant
from fluxtionary.residual.tokens import Tokens

from ..interpretation.drawn_atlas import NOISE, SHOWN, invented_maps
from ..interpretation.streams import MadeUpPictures, plain_dictionary

CLEAR = len(COLORS) + len(BACKGROUNDS)
"""The first features show a color on the object or a background beside it; some that show nothing follow."""
RARE, NEVER = CLEAR + NOISE, CLEAR + NOISE + 1
"""Features that are active in three pictures, and in none."""
FEATURES = NEVER + 1


class DrawnScenes(MadeUpPictures):
    """A `PictureStream` of drawings, one channel a feature."""

    def __init__(self, scenes, seed=1):
        super().__init__(scenes, FEATURES, (GRID, GRID), (0.5,), batch=20, seed=seed)
        self.size = (SIZE, SIZE)
        self.scenes = sample_scenes(scenes, seed, "test")
        self.prompts = [caption_of(scene.factors) for scene in self.scenes]
        self.seeds = [scene.seed for scene in self.scenes]
        self.maps = np.zeros((FEATURES, scenes, GRID * GRID), np.float32)
        maps = invented_maps(self.scenes, np.random.default_rng(seed))
        self.maps[:RARE] = np.concatenate([maps[:CLEAR], maps[len(SHOWN) :]])
        self.maps[RARE, :3, 5] = 1

    def activations(self, picture):
        return self.maps[:, picture].T[None]

    def drawn(self, pictures):
        return super().drawn(pictures)._replace(pictures=np.stack([draw(self.scenes[i]) for i in pictures]))


def contestant(scenes=70, way="sae", seed=0):
    """A dictionary of which every channel is a feature, and drawings to look at it with."""
    none = Tokens(torch.zeros(0, FEATURES), torch.zeros(0), torch.zeros(0), torch.zeros(0))
    return Contestant(way, seed, plain_dictionary(FEATURES), DrawnScenes(scenes), none, 0, 0.0)
