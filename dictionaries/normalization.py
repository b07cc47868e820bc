"""Normalizing activations before a dictionary sees them, and folding that into its weights.

Flux's residual stream has a few channels tens of times larger than the rest; without normalization they take
every feature and over 99 % of a dictionary dies (arXiv 2505.24360, section 3).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from .scale import between_bins

FLOOR = 1e-6
"""Smallest standard deviation that is divided by."""
TOKEN_FLOOR = 1e-5
"""Added to a token's own standard deviation in `layer_norm` before it divides, as SAELens does."""

KINDS = {
    # kind: the tensors it has
    "none": (),
    "scalar": ("std",),
    "center": ("mean",),
    "standardise": ("mean", "std"),
    "pca": ("mean", "std", "rotation"),
    "sigma": ("mean", "std"),
    "layer_norm": (),
    "token_norm": (),
}
"""`none`; `scalar`: one number for all; `center`: the mean alone; `standardise`: by channel; `pca`: rotated first;
`sigma`: by channel and by noise level; `layer_norm`: each token by its own mean and deviation; `token_norm`: each
token to length `sqrt(d_model)`."""
_PER_CALL = ("sigma", "layer_norm", "token_norm")


class Noise(NamedTuple):
    """The least that a dictionary needs to know of a moment: sigma, one number or one per token `[...]`."""

    sigma: float | Tensor


class Frame(NamedTuple):
    """How normalized space lies in the residual stream for some tokens: `x = gain * z + offset`, each broadcast."""

    gain: Tensor
    offset: Tensor
    floor: float = 0.0
    """Added to the gain on the way there, but not back: SAELens's layer norm has it so."""


@dataclass(frozen=True, eq=False)
class Normalization:
    """`z = clip((x @ rotation - mean) / std)`, with what its kind has of these.

    `mean` and `std` are float32 `[d_model]` (after the rotation, where there is one), `[1]` for the std of `scalar`,
    `[bins, d_model]` for `sigma`, linear between the centres of bins; `rotation` is orthogonal, `[d_model, d_model]`.
    """

    mean: Tensor | None = None
    std: Tensor | None = None
    rotation: Tensor | None = None
    kind: str = "standardise"
    clip: float | None = None

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ValueError(f"normalization is one of {', '.join(KINDS)}; found {self.kind!r}")
        found = tuple(name for name in ("mean", "std", "rotation") if getattr(self, name) is not None)
        if set(found) != set(KINDS[self.kind]):
            raise ValueError(f"{self.kind} needs {_listed(KINDS[self.kind])}, found {_listed(found)}")
        if self.std is not None and not bool((self.std > 0).all()):
            raise ValueError("every std must be positive, found zero or less")
        if self.clip is not None:
            object.__setattr__(self, "clip", float(self.clip))  # a large whole number is none that torch takes
            if not self.clip > 0:
                raise ValueError(f"a clip is a positive number, found {self.clip}")

    @classmethod
    def fit(cls, x: Tensor, kind: str = "standardise", clip: float | None = None, sigma: Any = None) -> Normalization:
        """From tokens `[n, d_model]`, in float64; `sigma [n]` for the kind of that name."""
        x = x.double()
        if kind == "scalar":  # the mean length becomes sqrt(d_model), as in Conerly et al. 2024 and SAELens
            size = x.norm(dim=-1).mean() / math.sqrt(x.shape[-1])
            return cls(std=size.clamp_min(FLOOR).float()[None], kind=kind, clip=clip)
        if kind == "center":
            return cls(x.mean(0).float(), kind=kind, clip=clip)
        if kind == "standardise":
            return cls(x.mean(0).float(), _deviation(x), kind=kind, clip=clip)
        if kind == "pca":
            rotation = torch.linalg.eigh((x - x.mean(0)).T @ (x - x.mean(0))).eigenvectors
            turned = x @ rotation
            return cls(turned.mean(0).float(), _deviation(turned), rotation.float(), kind, clip)
        if kind == "sigma":
            return _fit_sigma(x, torch.as_tensor(sigma).double(), clip)
        return cls(kind=kind, clip=clip)

    @property
    def folds(self) -> bool:
        """Whether an encoder can take all of it in; the decoder always takes in what does not depend on the token."""
        return self.clip is None and self.kind not in _PER_CALL

    @property
    def per_call(self) -> bool:
        """Whether the way back from normalized space depends on the token or on sigma."""
        return self.kind in _PER_CALL

    def apply(self, x: Tensor, moment: Any = None) -> Tensor:
        """Normalized `x [..., d_model]`; `moment` (anything with a `sigma`) for the kind `sigma`."""
        if self.per_call:
            gain, offset, floor = self.frame(x, moment)
            z = (x - offset) / (gain + floor)
        else:
            z = x if self.rotation is None else x @ self.rotation.to(x.dtype)
            z = z if self.mean is None else z - self.mean
            z = z if self.std is None else z / self.std
        return z if self.clip is None else z.clamp(-self.clip, self.clip)

    def invert(self, z: Tensor, frame: Frame | None = None) -> Tensor:
        """Back from normalized space `[..., d_model]`, but for what a clip took away.

        The kinds `sigma`, `layer_norm` and `token_norm` need the `frame` of the tokens.
        """
        if self.per_call:
            if frame is None:
                raise ValueError(f"the way back from {self.kind} needs the tokens that were normalized")
            return z * frame.gain + frame.offset
        z = z if self.std is None else z * self.std
        z = z if self.mean is None else z + self.mean
        return z if self.rotation is None else z @ self.rotation.to(z.dtype).T

    def frame(self, x: Tensor, moment: Any = None) -> Frame:
        """Where the normalized space of these tokens `[..., d_model]` lies; for the kinds that depend on them."""
        if self.kind == "sigma":
            sigma = getattr(moment, "sigma", None)
            if sigma is None:
                raise ValueError("this dictionary normalizes by noise level: it needs the sigma of the activations")
            assert self.mean is not None and self.std is not None
            return Frame(between_bins(self.std, sigma), between_bins(self.mean, sigma))
        if self.kind == "layer_norm":
            mean = x.mean(-1, keepdim=True)
            return Frame((x - mean).std(-1, keepdim=True), mean, TOKEN_FLOOR)
        if self.kind == "token_norm":
            size = x.norm(dim=-1, keepdim=True) / math.sqrt(x.shape[-1])
            return Frame(size.clamp_min(FLOOR), x.new_zeros(1))
        raise ValueError(f"{self.kind} is the same for all tokens")

    def fold_encoder(self, weight: Tensor, bias: Tensor) -> tuple[Tensor, Tensor]:
        """Weights `[n_features, d_model]` and bias `[n_features]` on normalized x, as the same map on plain x.

        Where it does not fold, they are given back as they are, to act on normalized x.
        """
        if not self.folds:
            return weight, bias
        folded = weight.double() if self.std is None else weight.double() / self.std.double()
        shifted = bias.double() if self.mean is None else bias.double() - folded @ self.mean.double()
        turned = folded if self.rotation is None else folded @ self.rotation.double().T
        return turned.float(), shifted.float()

    def fold_decoder(self, weight: Tensor, bias: Tensor) -> tuple[Tensor, Tensor]:
        """Weights `[n_features, d_model]` and bias `[d_model]` into normalized space, as the same into plain x.

        Where the way back depends on the token or on sigma they are given back as they are.
        """
        if self.per_call:
            return weight, bias
        folded = weight.double() if self.std is None else weight.double() * self.std.double()
        turned = folded if self.rotation is None else folded @ self.rotation.double().T
        return turned.float(), self.invert(bias.double()).float()

    def tensors(self) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        return self.mean, self.std, self.rotation


def _deviation(x: Tensor) -> Tensor:
    return x.std(0, correction=0).clamp_min(FLOOR).float()


def _fit_sigma(x: Tensor, sigma: Tensor, clip: float | None) -> Normalization:
    """Mean and deviation by sigma bin; a bin that met no token takes those of the nearest that did."""
    from .scale import BINS

    place = (sigma * BINS).long().clamp(0, BINS - 1)
    met = place.unique()
    mean = torch.stack([x[place == b].mean(0) for b in met]).float()
    std = torch.stack([_deviation(x[place == b]) for b in met])
    nearest = (torch.arange(BINS)[:, None] - met[None]).abs().argmin(1)
    return Normalization(mean[nearest], std[nearest], kind="sigma", clip=clip)


def _listed(names: tuple[str, ...]) -> str:
    return ", ".join(names) or "no tensors"
