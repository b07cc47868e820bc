"""Directions with another way to encode, and directions of no making: what dictionaries are compared with."""

from __future__ import annotations

from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor

from ..dictionaries import ITDA, Activation, Dictionary, Normalization, Provenance, Scale, SparseAutoencoder


def by_pursuit(dictionary: Dictionary, normalization: Normalization, k: int, nonnegative: bool) -> ITDA:
    """The directions of a dictionary, at length 1 in normalized space, as atoms: codes by OMP.

    `normalization` standardises, as that of an ITDA does. Features keep their numbers.
    """
    assert normalization.std is not None
    rows = torch.stack([dictionary.direction(feature) for feature in range(dictionary.n_features)])
    return ITDA(
        site=dictionary.site,
        atoms=F.normalize(rows / normalization.std, dim=1),
        k=k,
        nonnegative=nonnegative,
        normalization=normalization,
        scale=dictionary.scale,
        provenance=_encoded(dictionary, "pursuit"),
    )


def by_product(dictionary: ITDA, k: int) -> SparseAutoencoder:
    """The atoms of an ITDA, encoded by their products with a token, of which the `k` largest count.

    The codes of the committed notebook of arXiv 2505.24360. Nothing makes up for atoms that overlap, so its
    reconstruction says little.
    """
    assert dictionary.normalization is not None
    made = product_dictionary(dictionary.site, dictionary.atoms.float(), dictionary.normalization, k, dictionary.scale)
    made.provenance = _encoded(dictionary, "product")
    return made


def random_directions(
    site: str, normalization: Normalization, n_features: int, k: int, seed: int, scale: Scale | None = None
) -> SparseAutoencoder:
    """Directions drawn uniformly in normalized space, encoded by their products with a token."""
    assert normalization.std is not None
    generator = torch.Generator().manual_seed(seed)
    rows = F.normalize(torch.randn(n_features, len(normalization.std), generator=generator), dim=1)
    made = product_dictionary(site, rows, normalization, k, scale)
    made.provenance = Provenance(training={"made": "random directions", "seed": seed})
    return made


def product_dictionary(
    site: str, rows: Tensor, normalization: Normalization, k: int, scale: Scale | None = None
) -> SparseAutoencoder:
    """Unit rows `[n_features, d_model]` of normalized space as both encoder and decoder, TopK."""
    encoder, encoder_bias = normalization.fold_encoder(rows, torch.zeros(len(rows)))
    decoder, decoder_bias = normalization.fold_decoder(rows, torch.zeros(rows.shape[1]))
    return SparseAutoencoder(
        site=site,
        encoder=encoder.clone(),
        encoder_bias=encoder_bias.clone(),
        decoder=decoder.clone(),
        decoder_bias=decoder_bias.clone(),
        activation=Activation("topk", k),
        normalization=normalization,
        scale=scale,
    )


def _encoded(dictionary: Dictionary, way: str) -> Provenance:
    provenance = dictionary.provenance
    return replace(provenance, training=provenance.training | {"encoded": way})
