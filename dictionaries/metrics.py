"""The measures of a reconstruction, as defined in docs/design.md: fvu, fvu_raw, fvu_within, dead, l0."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from .dictionary import Dictionary
from .normalization import Noise, Normalization
from .sparse_code import SparseCode


class Reconstruction(NamedTuple):
    """Measures over held-out tokens; the three errors are fractions of variance unexplained."""

    fvu: float
    fvu_raw: float
    fvu_within: float
    dead: float
    l0: float
    tokens: int


class CellMeans:
    """Mean activation given sigma and position: what clock and place alone explain.

    Learned from training tokens; a cell is one sigma (to three decimals) at one position.
    """

    def __init__(self, x: Tensor, sigma: Tensor, position: Tensor):
        keys = self._keys(sigma, position)
        self._known, place = keys.unique(return_inverse=True)
        count = torch.zeros(len(self._known), dtype=torch.float64).index_add_(
            0, place, torch.ones(len(x), dtype=torch.float64)
        )
        total = torch.zeros(len(self._known), x.shape[1], dtype=torch.float64).index_add_(0, place, x.double())
        self._means = total / count[:, None]
        self._overall = x.double().mean(0)

    @staticmethod
    def _keys(sigma: Tensor, position: Tensor) -> Tensor:
        return (sigma.double() * 1000).round().long() * 1_000_000 + position.long()

    def __call__(self, sigma: Tensor, position: Tensor) -> Tensor:
        """Means `[n, d_model]` in float64; the overall mean where a cell was never met."""
        keys = self._keys(sigma, position)
        place = torch.searchsorted(self._known, keys).clamp(max=len(self._known) - 1)
        known = (self._known[place] == keys)[:, None]
        return torch.where(known, self._means[place], self._overall)


class ReconstructionMeter:
    """Adds up the measures of a reconstruction over batches of held-out tokens, in float64.

    `normalization` (mean and standard deviation of each channel) and `cells` come from training tokens.
    """

    def __init__(self, normalization: Normalization, cells: CellMeans, n_features: int):
        if normalization.kind != "standardise" or normalization.mean is None or normalization.std is None:
            raise ValueError(f"the measures divide by each channel's deviation, found a {normalization.kind} one")
        self.mean, self.std = normalization.mean.double(), normalization.std.double()
        self.cells = cells
        self.error = self.variance = self.raw_error = self.raw_variance = self.within = 0.0
        self.active = torch.zeros(n_features, dtype=torch.long)
        self.tokens = 0

    def add(
        self, x: Tensor, reconstruction: Tensor, sigma: Tensor, position: Tensor, code: SparseCode | None = None
    ) -> None:
        """`x` and `reconstruction [n, d_model]`, `sigma` and `position [n]`."""
        x, difference = x.double(), x.double() - reconstruction.double()
        about = x - self.mean
        self.error += float((difference / self.std).square().sum())
        self.variance += float((about / self.std).square().sum())
        self.raw_error += float(difference.square().sum())
        self.raw_variance += float(about.square().sum())
        self.within += float(((x - self.cells(sigma, position)) / self.std).square().sum())
        self.tokens += len(x)
        if code is not None:
            self.active += torch.bincount(code.indices[code.values != 0].flatten(), minlength=len(self.active))

    def measures(self) -> Reconstruction:
        return Reconstruction(
            fvu=self.error / self.variance,
            fvu_raw=self.raw_error / self.raw_variance,
            fvu_within=self.error / self.within,
            dead=float((self.active == 0).double().mean()),
            l0=float(self.active.sum()) / max(self.tokens, 1),
            tokens=self.tokens,
        )


def measure_dictionary(
    dictionary: Dictionary,
    normalization: Normalization,
    cells: CellMeans,
    x: Tensor,
    sigma: Tensor,
    position: Tensor,
    batch: int = 8192,
) -> Reconstruction:
    """The measures of a dictionary on held-out tokens `x [n, d_model]`."""
    meter = ReconstructionMeter(normalization, cells, dictionary.n_features)
    for start in range(0, len(x), batch):
        part = slice(start, start + batch)
        noise = Noise(sigma[part])
        code = dictionary.encode(x[part], moment=noise)
        found = dictionary.decode(code, dictionary.frame(x[part], noise))
        meter.add(x[part], found, sigma[part], position[part], code)
    return meter.measures()
