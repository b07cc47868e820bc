"""One small dictionary of every kind and option, on badly scaled activations like Flux's."""

import torch

from fluxtionary.dictionaries import (
    ITDA,
    Activation,
    Neurons,
    Normalization,
    Scale,
    Sources,
    SparseAutoencoder,
    SteeringVector,
)
from fluxtionary.dictionaries.scale import BINS

D, M, K = 24, 40, 6
SITE = "double.1.img"


def activations(n=30, seed=1):
    """Tokens `[n, D]` with an offset and two channels 50 times larger."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(n, D, generator=generator) + 0.5 * torch.randn(D, generator=generator)
    x[:, :2] *= 50
    return x


def noise_levels(n=30):
    return torch.linspace(0.02, 1.0, n)


def _random(seed=0):
    generator = torch.Generator().manual_seed(seed)
    return lambda *shape: torch.randn(*shape, generator=generator)


def sae(activation, normalization=None, groups=(), dtype=torch.float32):
    """Random weights in normalized space, folded as far as they fold."""
    random = _random()
    encoder, bias = random(M, D) / D**0.5, 0.1 * random(M)
    decoder, decoder_bias = random(M, D) / D**0.5, 0.1 * random(D)
    if normalization is not None:
        encoder, bias = normalization.fold_encoder(encoder, bias)
        decoder, decoder_bias = normalization.fold_decoder(decoder, decoder_bias)
    natural, scale = random(M).abs(), Scale(torch.linspace(1, 3, BINS))
    weights = (encoder.to(dtype), bias, decoder.to(dtype), decoder_bias)
    return SparseAutoencoder(SITE, *weights, activation, normalization, groups, scale, natural)


def thresholds():
    return _random(5)(M).abs() * 0.5


def atoms():
    return torch.nn.functional.normalize(_random(3)(M, D), dim=1)


def normalization(kind, clip=None):
    return Normalization.fit(activations(400, seed=7), kind, clip, noise_levels(400))


def sources():
    table = torch.stack([torch.arange(M) % 3, torch.arange(M), torch.linspace(0, 1, M)], 1).double()
    return Sources(("prompt", "seed", "sigma"), table, ("a red circle", "two\nlines", ""))


def vector():
    random = _random(9)
    scale = Scale(torch.linspace(1, 2, BINS))
    return SteeringVector({SITE: random(D), "single.0.txt": random(D)}, {SITE: scale})


EXAMPLES = {
    "relu": lambda: sae(Activation("relu")),
    "topk": lambda: sae(Activation("topk", K)),
    "topk signed": lambda: sae(Activation("topk", M - 2, relu=False)),
    "topk half precision": lambda: sae(Activation("topk", K), dtype=torch.bfloat16),
    "groupmax": lambda: sae(Activation("groupmax", 8)),
    "jumprelu": lambda: sae(Activation("jumprelu", threshold=thresholds())),
    "batchtopk": lambda: sae(Activation("batchtopk", K, threshold=torch.tensor([0.4]))),
    "gated": lambda: sae(Activation("gated", threshold=thresholds())),
    "matryoshka": lambda: sae(Activation("batchtopk", K, threshold=torch.tensor([0.4])), groups=(8, 12, 20)),
    "topk scalar": lambda: sae(Activation("topk", K), normalization("scalar")),
    "topk center": lambda: sae(Activation("topk", K), normalization("center")),
    "topk standardise": lambda: sae(Activation("topk", K), normalization("standardise")),
    "topk pca": lambda: sae(Activation("topk", K), normalization("pca")),
    "topk standardise clip": lambda: sae(Activation("topk", K), normalization("standardise", 1.5)),
    "topk pca clip": lambda: sae(Activation("topk", K, relu=False), normalization("pca", 1.5)),
    "topk sigma": lambda: sae(Activation("topk", K), normalization("sigma")),
    "relu layer norm": lambda: sae(Activation("relu"), normalization("layer_norm")),
    "jumprelu token norm clip": lambda: sae(
        Activation("jumprelu", threshold=thresholds()), normalization("token_norm", 2.0)
    ),
    "itda omp": lambda: ITDA(SITE, atoms(), K, "omp", sources=sources()),
    "itda omp nonnegative": lambda: ITDA(SITE, atoms(), K, "omp", True),
    "itda mp": lambda: ITDA(SITE, atoms(), K, "mp", normalization=normalization("standardise")),
    "itda gp": lambda: ITDA(SITE, atoms(), K, "gp", normalization=normalization("center")),
    "itda gp_paper": lambda: ITDA(SITE, atoms(), K, "gp_paper", True, normalization("pca", 1.5)),
    "itda sigma": lambda: ITDA(SITE, atoms(), K, "omp", normalization=normalization("sigma")),
    "neurons": lambda: Neurons(f"{SITE}.mlp", _random(4)(D, 16), K, natural=_random(6)(D).abs()),
    "vector": lambda: vector().at(SITE),
}
"""Name to a function that makes it; each has width D."""
