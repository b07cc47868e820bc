"""How well a dictionary reconstructs held-out activations: the measures of docs/design.md, whole and by noise level.

Everything is added up in float64 over batches of tokens, so memory does not grow with their number.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..dictionaries import Dictionary, Noise, Normalization
from ..dictionaries.metrics import CellMeans, ReconstructionMeter
from ..dictionaries.scale import BINS
from ..residual.tokens import Tokens
from . import baselines

CHUNK = 4096
"""Tokens measured at a time."""
EDGES = tuple(i / 4 for i in range(-24, 1))
"""Bins of the density histogram: quarters of a decade, from one token in a million to every token."""


@dataclass(frozen=True)
class Measures:
    """Measures over some held-out tokens; lengths and products in residual units are about the training mean.

    Attributes:
        fvu, fvu_raw, fvu_within: fractions of variance unexplained, as docs/design.md defines them.
        cosine: mean over tokens of the cosine between `x - mean` and `x' - mean`.
        bias: the gamma that minimises `sum |x - mean - (x' - mean) / gamma|^2`, which is
            `sum |x' - mean|^2 / sum (x' - mean)(x - mean)`: below 1 the reconstruction is shrunk. The relative
            reconstruction bias of Rajamanoharan et al. 2024 (arXiv 2404.16014). NaN where the
            reconstruction never leaves the mean.
        dead, used: shares of features without, and with, an active value.
        l0: mean number of active features.
        tokens: how many there were.
    """

    fvu: float
    fvu_raw: float
    fvu_within: float
    cosine: float
    bias: float
    dead: float
    used: float
    l0: float
    tokens: int


@dataclass(frozen=True)
class SigmaMeasures:
    """Measures over the tokens of one of `BINS` equal bins of sigma.

    `sigma` is the bin's centre. `weight` is the bin's part of all variance (as fvu takes it: about the training mean,
    each channel divided by its deviation), so that `sum weight * fvu` is the fvu of all tokens.
    """

    sigma: float
    weight: float
    measures: Measures


@dataclass(frozen=True)
class Reconstruction:
    """What was measured of a dictionary.

    Attributes:
        whole: over all tokens.
        by_sigma: for every bin that met a token, by rising sigma.
        density: for each feature the share of tokens on which it is active.
        histogram: how many used features have a log10 density between one of `EDGES` and the next; rarer ones are in
            the first bin.
    """

    whole: Measures
    by_sigma: tuple[SigmaMeasures, ...]
    density: tuple[float, ...]
    histogram: tuple[int, ...]


@dataclass(frozen=True)
class BaselineFigures:
    """A baseline's fvu, on a sample of the held-out tokens.

    `size` is its number of components, centres or atoms; `by_sigma` has centres of sigma bins and the fvu there.
    """

    size: int
    fvu: float
    by_sigma: tuple[tuple[float, float], ...]


class Reference:
    """What training tokens say of a site: the mean and deviation of channels, and what clock and place explain.

    `sample [n, d_model]` is a uniform sample of them, `n` at most `limit`, that baselines are fitted to.
    """

    def __init__(self, train: Tokens, limit: int = 40_000, seed: int = 0):
        self.normalization = Normalization.fit(train.x)
        self.cells = CellMeans(train.x, train.sigma, train.position)
        self.sample = train.x[
            torch.randperm(len(train.x), generator=torch.Generator().manual_seed(seed))[:limit]
        ].float()


class Sample:
    """A uniform sample, `tokens`, of at most `limit` of the `seen` tokens of a stream: the lowest random keys stay."""

    def __init__(self, limit: int, seed: int = 0):
        self.limit = limit
        self.tokens: Tokens | None = None
        self.seen = 0
        self._keys = torch.zeros(0)
        self._generator = torch.Generator().manual_seed(seed)

    def add(self, tokens: Tokens) -> None:
        self.seen += len(tokens.x)
        keys = torch.cat([self._keys, torch.rand(len(tokens.x), generator=self._generator)])
        kept = keys.argsort()[: self.limit]
        fresh = kept[kept >= len(self._keys)] - len(self._keys)  # only these are copied, never the whole batch
        old = kept[kept < len(self._keys)]
        parts = [tokens.rows(fresh)] if self.tokens is None else [self.tokens.rows(old), tokens.rows(fresh)]
        self.tokens, self._keys = Tokens.joined(parts), torch.cat([keys[old], keys[fresh + len(self._keys)]])


class Evaluator:
    """Measures one dictionary over batches of held-out tokens: `add` them all, then read `figures`."""

    def __init__(self, dictionary: Dictionary, reference: Reference):
        self.dictionary, self.reference = dictionary, reference
        self._bins: dict[int, _Sums] = {}

    def add(self, tokens: Tokens) -> None:
        """`tokens` of the dictionary's site, on the CPU."""
        bins = sigma_bins(tokens.sigma)
        for number in bins.unique().tolist():
            sums = self._bins.setdefault(number, _Sums(self.reference, self.dictionary.n_features))
            own = (bins == number).nonzero()[:, 0]
            for rows in own.split(CHUNK):
                sums.add(self.dictionary, tokens.rows(rows))

    def figures(self) -> Reconstruction:
        """Raises `ValueError` where there were no tokens, or tokens that do not vary."""
        if not self._bins:
            raise ValueError(f"there is nothing to measure: no held-out tokens of {self.dictionary.site}")
        parts = sorted(self._bins.items())
        whole = _Sums(self.reference, self.dictionary.n_features).joined([sums for _, sums in parts])
        if not (whole.meter.variance and whole.meter.within):
            raise ValueError(f"the held-out tokens of {self.dictionary.site} do not vary: is it more than one picture?")
        by_sigma = tuple(
            SigmaMeasures((number + 0.5) / BINS, sums.meter.variance / whole.meter.variance, sums.measures())
            for number, sums in parts
        )
        density = whole.meter.active.double() / whole.meter.tokens
        return Reconstruction(whole.measures(), by_sigma, tuple(density.tolist()), density_histogram(density))


class _Sums:
    """The sums behind `Measures`."""

    def __init__(self, reference: Reference, n_features: int):
        self.meter = ReconstructionMeter(reference.normalization, reference.cells, n_features)
        self.cosine = self.product = self.square = 0.0

    def add(self, dictionary: Dictionary, tokens: Tokens) -> None:
        noise = Noise(tokens.sigma)
        x = tokens.x.float()
        code = dictionary.encode(x, moment=noise)
        found = dictionary.decode(code, dictionary.frame(x, noise))
        self.meter.add(x, found, tokens.sigma, tokens.position, code)
        about, made = x.double() - self.meter.mean, found.double() - self.meter.mean
        product = (about * made).sum(1)
        self.product += float(product.sum())
        self.square += float(made.square().sum())
        # a token, or a reconstruction, that is the mean itself has no direction: cosine 0
        self.cosine += float((product / (about.norm(dim=1) * made.norm(dim=1)).clamp_min(1e-300)).sum())

    def joined(self, parts: Sequence[_Sums]) -> _Sums:
        """These sums, set to those of all `parts` together."""
        for name in ("error", "variance", "raw_error", "raw_variance", "within", "active", "tokens"):
            setattr(self.meter, name, sum(getattr(part.meter, name) for part in parts))
        for name in ("cosine", "product", "square"):
            setattr(self, name, sum(getattr(part, name) for part in parts))
        return self

    def measures(self) -> Measures:
        meter = self.meter
        dead = float((meter.active == 0).double().mean())
        return Measures(
            fvu=_ratio(meter.error, meter.variance),
            fvu_raw=_ratio(meter.raw_error, meter.raw_variance),
            fvu_within=_ratio(meter.error, meter.within),
            cosine=self.cosine / meter.tokens,
            bias=_ratio(self.square, self.product),
            dead=dead,
            used=1 - dead,
            l0=float(meter.active.sum()) / meter.tokens,
            tokens=meter.tokens,
        )


def evaluate_reconstruction(dictionary: Dictionary, train: Tokens, held_out: Iterable[Tokens]) -> Reconstruction:
    """The figures of a dictionary on a stream of held-out tokens; means come from the training tokens."""
    evaluator = Evaluator(dictionary, Reference(train))
    for tokens in held_out:
        evaluator.add(tokens)
    return evaluator.figures()


def measure_baselines(
    reference: Reference, held_out: Tokens, n_features: int, k: int, seed: int = 0
) -> dict[str, BaselineFigures]:
    """PCA with `k` components, k-means and random tokens with as many centres and atoms as there are features.

    Fitted to the reference's sample, which also bounds the number of centres and atoms, and measured on `held_out`,
    a sample of held-out tokens.
    """
    norm, fit = reference.normalization, reference.sample
    components, many = max(1, min(k, fit.shape[1])), min(n_features, len(fit))
    ways = {
        "pca": (components, baselines.pca(fit, norm, components)),
        "kmeans": (many, baselines.kmeans(fit, norm, many, seed)),
        "random_tokens": (many, baselines.random_tokens(fit, norm, many, components, seed)),
    }
    z, bins = norm.apply(held_out.x.float()), sigma_bins(held_out.sigma)
    variance = z.double().square().sum(1)
    figures = {}
    for name, (size, way) in ways.items():
        error = (z - way(z)).double().square().sum(1)
        by_sigma = tuple(
            ((number + 0.5) / BINS, float(error[bins == number].sum() / variance[bins == number].sum()))
            for number in bins.unique().tolist()
        )
        figures[name] = BaselineFigures(size, float(error.sum() / variance.sum()), by_sigma)
    return figures


def sigma_bins(sigma: Tensor) -> Tensor:
    """The number of each sigma's bin, int64 `[n]`: the bins of a `Scale`, `BINS` equal ones over [0, 1]."""
    return (sigma.double() * BINS).long().clamp(0, BINS - 1)


def density_histogram(density: Tensor) -> tuple[int, ...]:
    """Counts of the features of each bin between `EDGES`; `density [n_features]`, those of 0 are left out."""
    place = density[density > 0].log10().clamp(EDGES[0], EDGES[-1])
    return tuple(int(count) for count in torch.histc(place, len(EDGES) - 1, EDGES[0], EDGES[-1]))


def _ratio(over: float, under: float) -> float:
    return over / under if under else math.nan
