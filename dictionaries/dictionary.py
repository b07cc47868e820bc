"""What a dictionary is: directions in one site's space, and a way to encode activations with them."""

from __future__ import annotations

import copy
import weakref
from dataclasses import dataclass, field, fields, is_dataclass, replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from .normalization import Frame, Normalization
from .scale import Scale
from .sparse_code import SparseCode, weighted_sum

if TYPE_CHECKING:
    from typing import Self  # Python 3.10 has none

CHUNK = 2**28
"""Bytes of pre-activations that are in memory at a time while encoding."""


class FeatureError(IndexError):
    """A feature number that a dictionary does not have."""


@dataclass(frozen=True)
class Provenance:
    """Where a dictionary comes from: what its file's header says besides its shape."""

    model: dict[str, Any] = field(default_factory=dict)
    capture: dict[str, Any] = field(default_factory=dict)
    training: dict[str, Any] = field(default_factory=dict)
    metrics: dict[str, Any] = field(default_factory=dict)


class Dictionary:
    """`n_features` directions in one site's space. Its kinds: `SparseAutoencoder`, `ITDA`, `Neurons`, `VectorAt`.

    Attributes:
        kind: the file's kind, such as `"sae"`.
        site: the site's name, such as `"double.18.img"`.
        decoder: `[n_features, d_model]`. In the residual's own units, but where `normalization` depends on the token
            or on sigma: there in units of `frame(x)`.
        decoder_bias: `[d_model]`, likewise.
        normalization: what the dictionary was made with. What folds is in the weights already; the rest is applied
            in `encode`.
        scale: size of activations per sigma, or None where the file carries none.
        natural: each feature's mean active value in units of strength `[n_features]`, or None.
    """

    kind: str

    def __init__(
        self,
        site: str,
        decoder: Tensor,
        decoder_bias: Tensor,
        normalization: Normalization | None = None,
        scale: Scale | None = None,
        natural: Tensor | None = None,
        provenance: Provenance | None = None,
    ):
        self.site = site
        self.decoder = decoder
        self.decoder_bias = decoder_bias
        self.normalization = normalization
        self.scale = scale
        self.natural = natural
        self.provenance = provenance or Provenance()
        self.n_features, self.d_model = decoder.shape

    @property
    def model(self) -> dict[str, Any]:
        """Family and name of the model whose activations it describes."""
        return self.provenance.model

    def encode(self, x: Tensor, k: int | None = None, moment: Any = None) -> SparseCode:
        """Codes of activations `x [..., d_model]`, float32 values.

        `k` keeps that many features of each token, those of the largest magnitude (default: all that are active).
        `moment` is anything with a `sigma`, a number or `[...]`; a dictionary normalized by noise level needs it.
        The work is done where the dictionary is; the code is where `x` is.
        """
        self._check_width(x)
        flat = x.reshape(-1, self.d_model)
        sigma = getattr(moment, "sigma", None)
        if isinstance(sigma, Tensor) and sigma.ndim:
            sigma = sigma.expand(x.shape[:-1]).reshape(-1)
        rows = max(CHUNK // (4 * self.n_features), 1)
        parts = []
        for start in range(0, len(flat), rows):
            part = slice(start, start + rows)
            at = _At(sigma[part] if isinstance(sigma, Tensor) and sigma.ndim else sigma)
            code = self._encode(flat[part].to(self.decoder.device, torch.float32), at)
            code = SparseCode(code.values, code.indices * (code.values != 0))  # padding has index 0
            parts.append(code if k is None else code.limited(k))
        if not parts:
            empty = torch.zeros(0, 0, device=x.device)
            parts = [SparseCode(empty, empty.long())]
        code = parts[0] if len(parts) == 1 else SparseCode.joined(parts)
        return SparseCode(*(tensor.to(x.device).reshape(*x.shape[:-1], tensor.shape[-1]) for tensor in code))

    def _encode(self, x: Tensor, moment: Any) -> SparseCode:
        """Codes of `x [n, d_model]` in float32."""
        raise NotImplementedError

    def frame(self, x: Tensor, moment: Any = None) -> Frame | None:
        """What turns `decoder` into residual units for these tokens; None where it is in them already."""
        if self.normalization is None or not self.normalization.per_call:
            return None
        gain, offset, floor = self.normalization.frame(x.float(), moment)
        return Frame(gain.to(x.device), offset.to(x.device), floor)

    def decode(self, code: SparseCode, frame: Frame | None = None) -> Tensor:
        """Activations `[..., d_model]` that a code describes, float32.

        Where the normalization depends on the token or on sigma it needs the `frame` of the tokens that were encoded
        (see `reconstruct`), and raises `ValueError` without.
        """
        here = SparseCode(*(tensor.to(self.decoder.device) for tensor in code))
        inside = (weighted_sum(here, self.decoder) + self.decoder_bias.float()).to(code.values.device)
        if self.normalization is None or not self.normalization.per_call:
            return inside
        return self.normalization.invert(inside, frame)

    def reconstruct(self, x: Tensor, moment: Any = None) -> Tensor:
        """What the dictionary makes of activations `x [..., d_model]`: encoded and decoded, float32."""
        return self.decode(self.encode(x, moment=moment), self.frame(x, moment))

    def on(self, device: str | torch.device) -> Self:
        """The same dictionary with its tensors on a device: itself where they are there, else a copy.

        While a copy for a device is in use, asking again gives that one.
        """
        device = torch.device(device)
        if self.decoder.device == device:
            return self
        copies = self.__dict__.setdefault("_copies", weakref.WeakValueDictionary())
        moved = copies.get(device)
        if moved is None:
            moved = copies[device] = copy.copy(self)
            for name, value in vars(self).items():
                setattr(moved, name, None if name == "_candidates" else _moved(value, device))
            vars(moved).pop("_copies")
        return moved

    def direction(self, feature: int) -> Tensor:
        """One feature's decoder row `[d_model]`, float32, in the units of `decoder`, not normalized."""
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


def _moved(value: Any, device: torch.device) -> Any:
    """A tensor, or a dataclass of tensors, on a device; anything else as it is."""
    if isinstance(value, Tensor):
        return value.to(device)
    if is_dataclass(value) and not isinstance(value, type):
        tensors = {f.name: getattr(value, f.name) for f in fields(value)}
        tensors = {name: tensor.to(device) for name, tensor in tensors.items() if isinstance(tensor, Tensor)}
        return replace(value, **tensors) if tensors else value
    return value


@dataclass(frozen=True)
class _At:
    sigma: Any
