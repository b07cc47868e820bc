"""ITDA: a dictionary whose atoms are data points, encoded by pursuit (arXiv 2505.17769)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from .dictionary import Dictionary, Provenance
from .normalization import Normalization
from .pursuit import METHODS, UNIT, gram_of, pursue
from .scale import Scale
from .sparse_code import SparseCode

GRAM = 2**30
"""Largest Gram matrix, in bytes, that a dictionary makes and keeps when many tokens are encoded."""
WORTH = 2048
"""Tokens in one call from which making the Gram pays."""


@dataclass(frozen=True)
class Sources:
    """Where atoms were taken from: one row of `table [n_atoms, len(columns)]` each, float64.

    `columns` are names such as `prompt, seed, sigma, row, column`; a `prompt` is a place in `prompts` where these
    are given.
    """

    columns: tuple[str, ...]
    table: Tensor
    prompts: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.table.ndim != 2 or self.table.shape[1] != len(self.columns):
            raise ValueError(
                f"sources need one column for each of {', '.join(self.columns)}; "
                f"found a table of shape {tuple(self.table.shape)}"
            )

    def of(self, atom: int) -> dict[str, float | str]:
        """One atom's source by column; its prompt in words where they are known."""
        found: dict[str, float | str] = dict(zip(self.columns, self.table[atom].tolist(), strict=True))
        place = found.get("prompt")
        if isinstance(place, float) and self.prompts and 0 <= place < len(self.prompts):
            found["prompt"] = self.prompts[int(place)]
        return found


class ITDA(Dictionary):
    """`atoms [n_features, d_model]` of length 1 in normalized space; codes by `method` with at most `k` of them.

    `decoder` is the atoms, `decoder_bias` 0, both in normalized space: unlike an autoencoder's weights the atoms
    cannot take a normalization in, for pursuit needs them at length 1. `decode` and `direction` give residual units.
    """

    kind = "itda"

    def __init__(
        self,
        site: str,
        atoms: Tensor,
        k: int,
        method: str = "omp",
        nonnegative: bool = False,
        normalization: Normalization | None = None,
        sources: Sources | None = None,
        scale: Scale | None = None,
        natural: Tensor | None = None,
        provenance: Provenance | None = None,
    ):
        super().__init__(site, atoms, atoms.new_zeros(atoms.shape[1]), normalization, scale, natural, provenance)
        if method not in METHODS:
            raise ValueError(f"a method of pursuit is one of {', '.join(METHODS)}; found {method!r}")
        lengths = torch.linalg.vector_norm(atoms, dim=1, dtype=torch.float32)
        if not bool(((lengths - 1).abs() <= UNIT).logical_or(lengths == 0).all()):
            raise ValueError(f"atoms have length 1 (or 0), found lengths {lengths.min():.3g} to {lengths.max():.3g}")
        if k < 1:
            raise ValueError(f"k, the number of atoms a token, must be at least 1; found {k}")
        if sources is not None and len(sources.table) != len(atoms):
            raise ValueError(f"sources need one row for each of {len(atoms)} atoms, found {len(sources.table)}")
        self.k = k
        self.method = method
        self.nonnegative = nonnegative
        self.sources = sources
        self._gram: Tensor | None = None

    @property
    def atoms(self) -> Tensor:
        return self.decoder

    def encode(self, x: Tensor, k: int | None = None, moment: Any = None) -> SparseCode:
        tokens = x.numel() // max(self.d_model, 1)
        if self._gram is None and tokens >= WORTH and 4 * self.n_features**2 <= GRAM:
            self._gram = gram_of(self.atoms)
        return super().encode(x, k, moment)

    def _encode(self, x: Tensor, moment: Any) -> SparseCode:
        z = x if self.normalization is None else self.normalization.apply(x, moment)
        return pursue(z, self.atoms, self.k, self.method, nonnegative=self.nonnegative, gram=self._gram)

    def decode(self, code: SparseCode, frame: Any = None) -> Tensor:
        inside = super().decode(code, frame)  # what depends on the token is inverted there
        if self.normalization is None or self.normalization.per_call:
            return inside
        return self.normalization.invert(inside)

    def direction(self, feature: int) -> Tensor:
        atom = super().direction(feature)
        if self.normalization is None or self.normalization.per_call:
            return atom
        return self.normalization.invert(atom) - self.normalization.invert(torch.zeros_like(atom))
