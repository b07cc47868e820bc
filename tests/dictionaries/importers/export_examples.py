"""Dictionaries of every kind that the exporters know, the same in every process: `record.py exported` exports them for
the libraries to read, and test_exporters.py compares."""

import numpy as np
import torch

from fluxtionary.dictionaries import Activation, Normalization, SparseAutoencoder

D, M = 12, 24
SITE = "double.18.img"


def make(activation, normalization=None, groups=(), tied=False):
    """Random weights with decoder rows of many lengths, folded as far as the normalization folds."""
    state = np.random.RandomState(8)

    def draw(*shape):
        return torch.from_numpy(state.standard_normal(shape).astype(np.float32))

    encoder, bias = draw(M, D) / D**0.5, 0.5 * draw(M)
    decoder, decoder_bias = draw(M, D) / D**0.5 * draw(M, 1).abs(), 0.5 * draw(D)
    if tied:
        decoder = encoder
    if normalization is not None:
        encoder, bias = normalization.fold_encoder(encoder, bias)
        decoder, decoder_bias = normalization.fold_decoder(decoder, decoder_bias)
    return SparseAutoencoder(SITE, encoder, bias, decoder, decoder_bias, activation, normalization, groups)


def thresholds():
    return torch.from_numpy(np.abs(np.random.RandomState(9).standard_normal(M)).astype(np.float32))


def standardised():
    state = np.random.RandomState(10)
    mean, std = (torch.from_numpy(state.standard_normal(D).astype(np.float32)) for _ in range(2))
    return Normalization(mean, std.abs() + 0.5)


def _both(name, make_one):
    return [("saelens", name, make_one), ("sparsify", name, make_one)]


EXAMPLES = [
    *_both("topk", lambda: make(Activation("topk", 16))),
    *_both("topk_standardised", lambda: make(Activation("topk", 16), standardised())),
    *_both("topk_matryoshka_tied", lambda: make(Activation("topk", 16), groups=(4, 8, 12), tied=True)),
    ("sparsify", "groupmax", lambda: make(Activation("groupmax", 8))),
    ("saelens", "relu", lambda: make(Activation("relu"))),
    ("saelens", "jumprelu", lambda: make(Activation("jumprelu", threshold=thresholds()))),
    ("saelens", "batchtopk", lambda: make(Activation("batchtopk", 4, threshold=torch.tensor([0.9])))),
    ("saelens", "gated", lambda: make(Activation("gated", threshold=thresholds()))),
    ("saelens", "layer_norm", lambda: make(Activation("topk", 16), Normalization(kind="layer_norm"))),
    ("saelens", "token_norm", lambda: make(Activation("relu"), Normalization(kind="token_norm"))),
]
"""Format, name, and what makes the dictionary."""
