"""What a pursuit knows of the residual: its products with every atom, kept with or without a Gram matrix."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

NOISE = 1e-6
"""Products with the residual below this share of |x| are rounding: nothing is left that an atom could explain."""
TIE = 4e-6
"""Products closer to each other than this share of |x| may be in the wrong order."""


class Residual:
    """The residual `x - sum_l weight_l atom_l` of `n` rows, seen through its products with all atoms.

    Attributes:
        x: `[n, d_model]`, float32, what the residual was at the start.
        atoms: `[n_atoms, d_model]`, float32.
        norm: length of `x` `[n]`, in `exact`.
        noise, tie: `[n]`, float32, the sizes and differences of products that may be rounding.
        exact: the type of the small systems that pursuits solve: float64, float32 on a device without it.
    """

    def __init__(self, x: Tensor, atoms: Tensor):
        self.x = x
        self.atoms = atoms
        self.exact = torch.float32 if x.device.type == "mps" else torch.float64
        self.norm = torch.linalg.vector_norm(x, dim=1, dtype=self.exact)
        self.noise, self.tie = (NOISE * self.norm).float(), (TIE * self.norm).float()
        self._pending: tuple[Tensor, Tensor] | None = None

    def subtract(self, support: Tensor, weights: Tensor) -> None:
        """Take `sum_l weights[:, l] atoms[support[:, l]]` away, both `[n, l]`.

        It is worked out when products are next asked for: after a pursuit's last step nobody asks.
        """
        self._pending = support, weights.float()

    @property
    def correlation(self) -> Tensor:
        """Products of the residual with every atom, `[n, n_atoms]`, float32. Not to be written to."""
        raise NotImplementedError

    def products(self, atom: Tensor, support: Tensor) -> Tensor:
        """Products of one atom a row `[n]` with those of `support [n, l]`: `[n, l]`, in `exact`."""
        raise NotImplementedError


class GramResidual(Residual):
    """The residual is never formed: its products with the atoms change by rows of the Gram matrix.

    alpha = alpha_0 - G_I weights: Rubinstein, Zibulevsky and Elad 2008, "Efficient Implementation of the K-SVD
    Algorithm Using Batch Orthogonal Matching Pursuit", eq. 2.6. `correlation` is alpha_0 and is written over.
    """

    def __init__(self, x: Tensor, atoms: Tensor, gram: Tensor, correlation: Tensor):
        super().__init__(x, atoms)
        self.gram = gram
        self._correlation = correlation

    @property
    def correlation(self) -> Tensor:
        if self._pending is not None:
            support, weights = self._pending
            self._correlation -= F.embedding_bag(support, self.gram, per_sample_weights=weights, mode="sum")
            self._pending = None
        return self._correlation

    def products(self, atom: Tensor, support: Tensor) -> Tensor:
        # down a column, for those rows were read in the step before and are still in the cache
        return self.gram[support, atom[:, None]].to(self.exact)


class PlainResidual(Residual):
    """The residual is formed, and multiplied with all atoms anew each time."""

    def __init__(self, x: Tensor, atoms: Tensor):
        super().__init__(x, atoms)
        self._residual = x
        self._correlation = F.linear(x, atoms)

    @property
    def correlation(self) -> Tensor:
        if self._pending is not None:
            support, weights = self._pending
            self._residual = self._residual - F.embedding_bag(
                support, self.atoms, per_sample_weights=weights, mode="sum"
            )
            torch.mm(self._residual, self.atoms.T, out=self._correlation)
            self._pending = None
        return self._correlation

    def products(self, atom: Tensor, support: Tensor) -> Tensor:
        others = F.embedding(support, self.atoms).transpose(1, 2)
        return torch.bmm(self.atoms[atom][:, None, :], others)[:, 0].to(self.exact)
