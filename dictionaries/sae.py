"""Sparse autoencoders: one product with the encoder says which features are active."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from .activation import Activation
from .candidates import Candidates, fast_candidates
from .dictionary import CHUNK, Dictionary, Provenance
from .normalization import Normalization
from .scale import Scale
from .sparse_code import SparseCode


class SparseAutoencoder(Dictionary):
    """`activation(encoder x + encoder_bias)` are the codes, `decoder` rows the directions.

    `encoder [n_features, d_model]` and `encoder_bias [n_features]` act on plain activations where the normalization
    folds (it is in them then), else on normalized ones. `groups` are the sizes of a Matryoshka dictionary's groups
    (Bussmann et al. 2025, arXiv 2503.17547), the coarsest first.

    Attributes:
        exact: every product in float32 (the default). False, for TopK with a float32 encoder, where the machine has
            fast coarse products: candidates by these, then their float32 values; about 3x the speed, and at least .99
            of the same features. The coarse encoder is made at the first call and kept, a quarter of the encoder.
    """

    kind = "sae"

    def __init__(
        self,
        site: str,
        encoder: Tensor,
        encoder_bias: Tensor,
        decoder: Tensor,
        decoder_bias: Tensor,
        activation: Activation,
        normalization: Normalization | None = None,
        groups: tuple[int, ...] = (),
        scale: Scale | None = None,
        natural: Tensor | None = None,
        provenance: Provenance | None = None,
    ):
        super().__init__(site, decoder, decoder_bias, normalization, scale, natural, provenance)
        activation.check(self.n_features)
        if groups and (min(groups) < 1 or sum(groups) != self.n_features):
            raise ValueError(f"Matryoshka groups must add up to the {self.n_features} features, found {groups}")
        self.encoder = encoder
        self.encoder_bias = encoder_bias
        self.activation = activation
        self.groups = groups
        self.exact = True
        self._candidates: Candidates | None = None

    @property
    def k(self) -> int | None:
        """Active features a token, where the activation counts them."""
        return self.activation.k

    def prefix(self, groups: int) -> SparseAutoencoder:
        """The dictionary of the first `groups` groups alone: what makes it a Matryoshka."""
        if not 1 <= groups <= len(self.groups):
            raise ValueError(f"this dictionary has {len(self.groups)} groups, asked for the first {groups}")
        n = sum(self.groups[:groups])
        threshold = self.activation.threshold
        own = threshold if threshold is None or len(threshold) == 1 else threshold[:n]
        k = None if self.k is None else min(self.k, n)
        return SparseAutoencoder(
            self.site,
            self.encoder[:n],
            self.encoder_bias[:n],
            self.decoder[:n],
            self.decoder_bias,
            Activation(self.activation.name, k, own, self.activation.relu),
            self.normalization,
            self.groups[:groups],
            self.scale,
            self.natural if self.natural is None else self.natural[:n],
            self.provenance,
        )

    def _encode(self, x: Tensor, moment: Any) -> SparseCode:
        if self.normalization is not None and not self.normalization.folds:
            x = self.normalization.apply(x, moment)
        fits = self.activation.name == "topk" and self.encoder.dtype == torch.float32
        if not self.exact and fits and fast_candidates(self.encoder.device):
            values, indices = self._coarse_encoder().topk(x, self.k or 1)
            return SparseCode(torch.relu(values) if self.activation.relu else values, indices)
        return self.activation(self._before(x))

    def _before(self, x: Tensor) -> Tensor:
        """Pre-activations `[n, n_features]` in float32, whatever type the encoder is kept in."""
        bias = self.encoder_bias.float()
        if self.encoder.dtype == torch.float32:
            return F.linear(x, self.encoder, bias)
        before = torch.empty(len(x), self.n_features, device=x.device)
        rows = max(CHUNK // (4 * self.d_model), 1)
        for start in range(0, self.n_features, rows):
            part = slice(start, start + rows)
            before[:, part] = F.linear(x, self.encoder[part].float(), bias[part])
        return before

    def _coarse_encoder(self) -> Candidates:
        if self._candidates is None or self._candidates.weight is not self.encoder:
            self._candidates = Candidates(self.encoder, self.encoder_bias.float())
        return self._candidates
