"""Atoms that are added to while they are used: kept with their products with one another, in place."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from ..dictionaries import SparseCode
from ..dictionaries.itda import GRAM
from ..dictionaries.pursuit import pursue
from ..dictionaries.sparse_code import weighted_sum

LEAST = 64
"""Places that the Gram matrix starts with."""


class Atoms:
    """At most `cap` unit rows of `d_model` channels and their Gram matrix, in memory taken once: float32.

    Pursuit gathers whole rows of the Gram matrix, and copies a matrix whose rows have gaps between them at every
    step. So the rows in use are kept `places` wide, without gaps, and are moved apart when the places are full, each
    time to a quarter more. Places not yet taken are atoms of zeros, which no pursuit chooses.

    Where the Gram matrix of `cap` atoms would take more than `GRAM` bytes there is none.
    """

    def __init__(self, cap: int, d_model: int):
        self.cap = cap
        self.count = 0
        self.groups: list[int] = []  # how many were added at a time
        self._rows = torch.zeros(cap, d_model)
        self._places = min(cap, LEAST)
        self._gram = torch.zeros(cap * cap) if 4 * cap * cap <= GRAM else None

    def __len__(self) -> int:
        return self.count

    @property
    def rows(self) -> Tensor:
        """The atoms so far `[count, d_model]`. Not to be written to."""
        return self._rows[: self.count]

    @property
    def gram(self) -> Tensor | None:
        """Products of all places with one another `[places, places]`, 0 where no atom is yet; None where too large."""
        return None if self._gram is None else self._gram[: self._places**2].view(self._places, self._places)

    def add(self, rows: Tensor) -> None:
        """Take in `[n, d_model]`, each divided by its length; there must be room for all of them."""
        self._append(F.normalize(rows.float(), dim=1))

    def _append(self, rows: Tensor) -> None:
        end = self.count + len(rows)
        if end > self.cap:
            raise ValueError(f"there is room for {self.cap - self.count} of {self.cap} atoms, found {len(rows)} more")
        fresh = slice(self.count, end)
        self._rows[fresh] = rows
        self.count = end
        self.groups.append(len(rows))
        while self._places < end:
            self._widen(min(self._places + self._places // 4, self.cap))
        if (gram := self.gram) is not None:
            products = self._rows[fresh] @ self.rows.T
            gram[fresh, :end] = products
            gram[:end, fresh] = products.T

    def _widen(self, places: int) -> None:
        """Move the Gram matrix's rows apart, the last first, so that none is written over before it has moved."""
        old, self._places = self._places, places
        if self._gram is None:
            return
        for row in range(old - 1, -1, -1):
            values = self._gram[row * old : (row + 1) * old].clone()
            self._gram[row * places : (row + 1) * places] = 0
            self._gram[row * places : row * places + old] = values
        self._gram[old * places : places * places] = 0

    def encode(self, z: Tensor, k: int, method: str, nonnegative: bool) -> tuple[SparseCode, Tensor]:
        """Codes of normalized tokens `z [n, d_model]` with the atoms so far, and what the codes leave of them."""
        atoms = self._rows[: self._places]
        code = pursue(z, atoms, k, method, nonnegative=nonnegative, gram=self.gram)
        return code, z - weighted_sum(code, atoms)

    def restore(self, rows: Tensor, groups: Sequence[int]) -> None:
        """Take in `rows` of another `[count, d_model]`, in the groups they were first added in.

        Products worked out in other groups may differ in the last bit, and a run that goes on would differ from one
        never cut off.
        """
        for group in rows.split(list(groups)):
            self._append(group)
