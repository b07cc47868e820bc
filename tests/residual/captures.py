"""A small capture of two sites, one with as many tokens in each batch and one without, and its folder."""

import torch

from fluxtionary.residual import Site
from fluxtionary.residual.shards import ShardWriter
from fluxtionary.residual.tokens import Tokens

IMG, TXT = Site.parse("double.1.img"), Site.parse("single.0.txt")
WIDTH = {IMG: 6, TXT: 3}
BATCHES = 7
ABOUT = {
    "sites": (IMG, TXT),
    "d_model": WIDTH,
    "dtype": torch.bfloat16,
    "model": {"family": "flux1", "name": "demo"},
    "header": {"steps": 2, "guidance": None, "height": 128},
    "prompts": [f"prompt {i} é \n\ud800" for i in range(2 * BATCHES)],
    "seeds": [2**64 - 1 - i for i in range(2 * BATCHES)],
    "grid": (2, 4),
    "batches": BATCHES,
    "shard_tokens": 40,
}


def batch_of(i, dtype=torch.bfloat16):
    """Batch `i`: 16 image tokens, and as many text tokens as its prompts have words, none in the third."""
    generator = torch.Generator().manual_seed(i)
    out = {}
    for site, n in ((IMG, 16), (TXT, (3 * i + 6) % 12)):
        x = torch.randn(n, WIDTH[site], generator=generator).to(dtype)
        position = torch.arange(n) % 8
        out[site] = Tokens(x, torch.rand(n, generator=generator), position, 2 * i + torch.arange(n) % 2)
    return out


def capture(folder, upto=BATCHES, **changes):
    with ShardWriter(folder, **(ABOUT | changes)) as writer:
        for i in range(writer.done, upto):
            writer.add(batch_of(i, changes.get("dtype", torch.bfloat16)))
    return writer


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def same(first, second):
    return all(torch.equal(a, b) and a.dtype == b.dtype for a, b in zip(first, second, strict=True))
