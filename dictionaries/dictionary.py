"""What a dictionary is: directions in one site's space, and a way to encode activations with them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from .normalization import Normalization
from .scale import Scale


class FeatureError(IndexError):
    """A feature number that a dictionary does not have."""


class SparseCode(NamedTuple):
    """How much of which features: `values` (float) and `indices` (int64), both `[..., k]`.

    A value of 0 is padding and its index means nothing; active means `value != 0`; values may be negative.
    """

    values: Tensor
    indices: Tensor

    def coefficient(self, feature: int) -> Tensor:
        """How much of one feature: `[...]`, 0 where it is not active."""
        return (self.values * (self.indices == feature)).sum(-1)

    def limited(self, k: int) -> SparseCode:
        """The `k` largest magnitudes of each code."""
        if k >= self.values.shape[-1]:
            return self
        kept = self.values.abs().topk(k, dim=-1).indices
        return SparseCode(self.values.gather(-1, kept), self.indices.gather(-1, kept))


@dataclass(frozen=True)
class Provenance:
    """Where a dictionary comes from: what its file's header says besides its shape."""

    model: dict[str, Any] = field(default_factory=dict)
    capture: dict[str, Any] = field(default_factory=dict)
    training: dict[str, Any] = field(default_factory=dict)
    metrics: dict[str, Any] = field(default_factory=dict)


class Dictionary:
    """`n_features` directions in one site's space; see `SparseAutoencoder` for the kind there is.

    Attributes:
        kind: the file's kind, such as `"sae"`.
        site: the site's name, such as `"double.18.img"`.
        decoder: `[n_features, d_model]`, in the residual's own units.
        decoder_bias: `[d_model]`, likewise.
        scale: size of activations per sigma, or None where the file carries none.
        natural: each feature's mean active value in units of strength `[n_features]`, or None.
    """

    kind: str

    def __init__(
        self,
        site: str,
        decoder: Tensor,
        decoder_bias: Tensor,
        scale: Scale | None = None,
        natural: Tensor | None = None,
        provenance: Provenance | None = None,
    ):
        self.site = site
        self.decoder = decoder
        self.decoder_bias = decoder_bias
        self.scale = scale
        self.natural = natural
        self.provenance = provenance or Provenance()
        self.n_features, self.d_model = decoder.shape

    @property
    def model(self) -> dict[str, Any]:
        """Family and name of the model whose activations it describes."""
        return self.provenance.model

    def encode(self, x: Tensor, k: int | None = None, moment: Any = None) -> SparseCode:
        """Codes of activations `x [..., d_model]`; at most `k` features each (default: the dictionary's own)."""
        raise NotImplementedError

    def decode(self, code: SparseCode) -> Tensor:
        """Activations `[..., d_model]` that a code describes, float32."""
        values, indices = code.values.float(), code.indices
        flat = F.embedding_bag(
            indices.reshape(-1, indices.shape[-1]),
            self.decoder.float(),
            per_sample_weights=values.reshape(-1, values.shape[-1]),
            mode="sum",
        )
        return flat.reshape(*values.shape[:-1], self.d_model) + self.decoder_bias.float()

    def direction(self, feature: int) -> Tensor:
        """One feature's decoder row `[d_model]`, float32, in the residual's own units, not normalized."""
        return self.decoder[self.check_feature(feature)].float()

    def check_feature(self, feature: int) -> int:
        """`feature` itself, or a `FeatureError` that says which there are."""
        if not 0 <= feature < self.n_features:
            raise FeatureError(
                f"feature {feature} is out of range: "
                f"this dictionary of {self.site} has features 0 to {self.n_features - 1}"
            )
        return feature

    def _check_width(self, x: Tensor) -> None:
        if x.shape[-1] != self.d_model:
            raise ValueError(
                f"this dictionary of {self.site} was made for activations of width {self.d_model}, "
                f"found width {x.shape[-1]}: is it a dictionary for another model?"
            )


class SparseAutoencoder(Dictionary):
    """A TopK sparse autoencoder (Gao et al. 2024, arXiv 2406.04093): `relu(topk(encoder x + encoder_bias))`.

    `encoder [n_features, d_model]` and `encoder_bias [n_features]` act on plain activations: the normalization the
    SAE was trained with is folded into them. `normalization` is kept for the measures, which divide by its `std`.
    """

    kind = "sae"

    def __init__(
        self,
        site: str,
        encoder: Tensor,
        encoder_bias: Tensor,
        decoder: Tensor,
        decoder_bias: Tensor,
        k: int,
        normalization: Normalization | None = None,
        scale: Scale | None = None,
        natural: Tensor | None = None,
        provenance: Provenance | None = None,
    ):
        super().__init__(site, decoder, decoder_bias, scale, natural, provenance)
        if not 1 <= k <= self.n_features:
            raise ValueError(f"k must lie between 1 and the {self.n_features} features, found {k}")
        self.encoder = encoder
        self.encoder_bias = encoder_bias
        self.k = k
        self.normalization = normalization

    def encode(self, x: Tensor, k: int | None = None, moment: Any = None) -> SparseCode:
        self._check_width(x)
        before = F.linear(x.to(self.encoder.dtype), self.encoder, self.encoder_bias)
        values, indices = before.topk(self.k, dim=-1, sorted=False)
        code = SparseCode(torch.relu(values).float(), indices)
        return code if k is None else code.limited(k)
