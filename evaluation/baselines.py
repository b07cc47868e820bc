"""What a dictionary's reconstruction is compared with: PCA, k-means, and tokens drawn at random."""

from __future__ import annotations

import torch
from torch import Tensor

from ..dictionaries import Normalization
from ..dictionaries.pursuit import pursue
from ..dictionaries.sparse_code import weighted_sum


def _fvu(z: Tensor, reconstruction: Tensor) -> float:
    """`z` is normalized by training tokens, so the variance is about 0."""
    return float((z - reconstruction).double().square().sum() / z.double().square().sum())


def pca_fvu(train: Tensor, held_out: Tensor, normalization: Normalization, k: int) -> float:
    """fvu of the first `k` principal components of training tokens `[n, d_model]`, on held-out ones."""
    z = normalization.apply(train).double()
    vectors = torch.linalg.eigh(z.T @ z / len(z)).eigenvectors[:, -k:]
    other = normalization.apply(held_out).double()
    return _fvu(other, other @ vectors @ vectors.T)


def kmeans_fvu(train: Tensor, held_out: Tensor, normalization: Normalization, clusters: int, seed: int = 0) -> float:
    """fvu of replacing each token by the nearest of `clusters` k-means centres."""
    from sklearn.cluster import MiniBatchKMeans  # slow to load

    model = MiniBatchKMeans(clusters, random_state=seed, batch_size=4096, n_init=1, max_iter=5, init="random")
    model.fit(normalization.apply(train).numpy())
    z = normalization.apply(held_out)
    centers = torch.from_numpy(model.cluster_centers_).float()
    return _fvu(z, centers[torch.from_numpy(model.predict(z.numpy())).long()])


def random_tokens_fvu(
    train: Tensor, held_out: Tensor, normalization: Normalization, atoms: int, k: int, seed: int = 0, batch: int = 256
) -> float:
    """fvu with `atoms` uniformly drawn training tokens as a dictionary, `k` of them a token, by OMP."""
    drawn = torch.randperm(len(train), generator=torch.Generator().manual_seed(seed))[:atoms]
    unit = torch.nn.functional.normalize(normalization.apply(train[drawn]), dim=1)
    z = normalization.apply(held_out)
    code = pursue(z, unit, k)
    return _fvu(z, weighted_sum(code, unit))
