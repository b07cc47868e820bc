"""What a dictionary's reconstruction is compared with: PCA, k-means, and tokens drawn at random."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from ..dictionaries import Normalization
from ..dictionaries.pursuit import pursue
from ..dictionaries.sparse_code import weighted_sum

Baseline = Callable[[Tensor], Tensor]
"""What a baseline makes of normalized tokens `[n, d_model]`: their reconstruction, of the same shape."""


def _fvu(z: Tensor, reconstruction: Tensor) -> float:
    """`z` is normalized by training tokens, so the variance is about 0."""
    return float((z - reconstruction).double().square().sum() / z.double().square().sum())


def fvu_of(reconstruct: Baseline, held_out: Tensor, normalization: Normalization) -> float:
    """fvu of a map from plain tokens `[n, d_model]` to their reconstruction."""
    return _fvu(normalization.apply(held_out), normalization.apply(reconstruct(held_out)))


def pca(train: Tensor, normalization: Normalization, k: int) -> Baseline:
    """The first `k` principal components of training tokens `[n, d_model]`; it computes in float64."""
    z = normalization.apply(train).double()
    vectors = torch.linalg.eigh(z.T @ z / len(z)).eigenvectors[:, -k:]
    return lambda other: other.double() @ vectors @ vectors.T


def kmeans(train: Tensor, normalization: Normalization, clusters: int, seed: int = 0) -> Baseline:
    """The nearest of `clusters` k-means centres of training tokens `[n, d_model]`."""
    from sklearn.cluster import MiniBatchKMeans  # slow to load

    model = MiniBatchKMeans(clusters, random_state=seed, batch_size=4096, n_init=1, max_iter=5, init="random")
    model.fit(normalization.apply(train).numpy())
    centers = torch.from_numpy(model.cluster_centers_).float()
    return lambda other: centers[torch.from_numpy(model.predict(other.numpy())).long()]


def random_tokens(train: Tensor, normalization: Normalization, atoms: int, k: int, seed: int = 0) -> Baseline:
    """`atoms` uniformly drawn training tokens as a dictionary, `k` of them a token, by OMP."""
    drawn = torch.randperm(len(train), generator=torch.Generator().manual_seed(seed))[:atoms]
    unit = torch.nn.functional.normalize(normalization.apply(train[drawn]), dim=1)
    return lambda other: weighted_sum(pursue(other, unit, k), unit)


def pca_fvu(train: Tensor, held_out: Tensor, normalization: Normalization, k: int) -> float:
    """fvu of the first `k` principal components of training tokens `[n, d_model]`, on held-out ones."""
    z = normalization.apply(held_out).double()
    return _fvu(z, pca(train, normalization, k)(z))


def kmeans_fvu(train: Tensor, held_out: Tensor, normalization: Normalization, clusters: int, seed: int = 0) -> float:
    """fvu of replacing each token by the nearest of `clusters` k-means centres."""
    z = normalization.apply(held_out)
    return _fvu(z, kmeans(train, normalization, clusters, seed)(z))


def random_tokens_fvu(
    train: Tensor, held_out: Tensor, normalization: Normalization, atoms: int, k: int, seed: int = 0
) -> float:
    """fvu with `atoms` uniformly drawn training tokens as a dictionary, `k` of them a token, by OMP."""
    z = normalization.apply(held_out)
    return _fvu(z, random_tokens(train, normalization, atoms, k, seed)(z))
