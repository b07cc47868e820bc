"""Pictures whose codes are known: activations in a space in which every channel is a feature."""

import numpy as np
import torch

from fluxtionary.dictionaries import Activation, SparseAutoencoder
from fluxtionary.residual import Site
from fluxtionary.residual.tokens import Tokens
from fluxtionary.training.drawn import Drawn

SITE = Site.parse("double.1.img")


def plain_dictionary(features, k=None):
    """A dictionary whose codes are the `k` largest channels (by default all of them), negative ones too."""
    return SparseAutoencoder(
        str(SITE),
        torch.eye(features),
        torch.zeros(features),
        torch.eye(features),
        torch.zeros(features),
        Activation("topk", k or features, None, False),
    )


class MadeUpPictures:
    """A `PictureStream` of random sparse activations; picture `i` is the same in whatever batch it comes."""

    sites, model, header = (SITE,), {"family": "flux1", "name": "made up"}, {"steps": 2}

    def __init__(
        self, pictures, features=12, grid=(3, 4), sigmas=(0.75, 0.25), batch=7, density=0.1, seed=0, size=None
    ):
        self.features, self.grid, self.sigmas, self.batch = features, grid, tuple(sigmas), batch
        self.density, self.seed = density, seed
        self.size = (4 * grid[0], 4 * grid[1])
        self.prompts = [f"picture {i}" for i in range(pictures)]
        self.seeds = [1000 + i for i in range(pictures)]

    def __len__(self):
        return -(-len(self.prompts) // self.batch)

    def activations(self, picture):
        """`[moments, tokens, features]`: each picture has features of its own that it likes."""
        rng = np.random.default_rng([self.seed, picture])
        shape = (len(self.sigmas), self.grid[0] * self.grid[1], self.features)
        active = rng.random(shape) < 2 * self.density * rng.random(self.features)
        return (active * (rng.random(shape) - 0.3)).astype(np.float32)

    def batches(self, start=0):
        for number in range(start, len(self)):
            yield self.drawn(range(number * self.batch, min((number + 1) * self.batch, len(self.prompts))))

    def drawn(self, pictures):
        count = self.grid[0] * self.grid[1]
        parts = []
        x = torch.from_numpy(np.stack([self.activations(picture) for picture in pictures]))
        for moment, sigma in enumerate(self.sigmas):
            position = torch.arange(count).repeat(len(pictures))
            picture = torch.tensor(pictures).repeat_interleave(count)
            parts.append(Tokens(x[:, moment].flatten(0, 1), torch.full((len(position),), sigma), position, picture))
        pixels = np.stack([np.full((*self.size, 3), picture % 256, np.uint8) for picture in pictures])
        return Drawn(pictures[0], pixels, {SITE: Tokens.joined(parts)})
