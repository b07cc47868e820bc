"""Streams of made-up activations with known structure."""

import torch

from fluxtionary.residual import Site
from fluxtionary.residual.tokens import Tokens

SITE = Site.parse("double.1.img")


def sparse_tokens(count, d=24, atoms=48, active=3, seed=0, channel=50.0):
    """Sparse positive mixtures of known unit directions, with one channel much larger than the rest."""
    directions = torch.nn.functional.normalize(torch.randn(atoms, d, generator=torch.Generator().manual_seed(9)), dim=1)
    generator = torch.Generator().manual_seed(seed)
    which = torch.rand(count, atoms, generator=generator).topk(active).indices
    x = (directions[which] * (0.5 + torch.rand(count, active, 1, generator=generator))).sum(1)
    x[:, 0] *= channel
    return Tokens(x, torch.full((count,), 0.5), torch.arange(count) % 64, torch.arange(count) // 64)


class TokenStream:
    """An `ActivationStream` over tokens in memory: pictures of 64 tokens, some of them a batch."""

    grid = (8, 8)

    def __init__(self, tokens, size=512, sites=(SITE,)):
        self.sites, self.tokens, self.size = sites, tokens, size
        pictures = int(tokens.picture.max()) + 1
        self.prompts = [f"picture {i}" for i in range(pictures)]
        self.seeds = list(range(pictures))
        self.model, self.header = {"family": "flux1", "name": "made up"}, {"steps": 1}
        self.asked = []

    def __len__(self):
        return -(-len(self.tokens.x) // self.size)

    def batches(self, start=0, step=1):
        for number in range(start, len(self), step):
            self.asked.append(number)
            part = self.tokens.rows(slice(number * self.size, (number + 1) * self.size))
            # other sites have half the tokens, and another width
            yield {
                site: part if i == 0 else part.rows(slice(0, None, 2))._replace(x=part.x[::2, :16])
                for i, site in enumerate(self.sites)
            }
