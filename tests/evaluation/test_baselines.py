import pytest
import torch
from sklearn.decomposition import PCA

from fluxtionary.dictionaries import Normalization
from fluxtionary.evaluation.baselines import kmeans_fvu, pca_fvu, random_tokens_fvu

GENERATOR = torch.Generator().manual_seed(0)
MIX = torch.randn(10, 10, generator=GENERATOR)
TRAIN = torch.randn(3000, 10, generator=GENERATOR) @ MIX
TEST = torch.randn(1000, 10, generator=GENERATOR) @ MIX
NORMALIZATION = Normalization.fit(TRAIN)


def test_pca_is_scikit_learns():
    z, other = NORMALIZATION.apply(TRAIN).numpy(), NORMALIZATION.apply(TEST).numpy()
    model = PCA(3).fit(z)
    rest = other - model.inverse_transform(model.transform(other))
    assert pca_fvu(TRAIN, TEST, NORMALIZATION, 3) == pytest.approx(float((rest**2).sum() / (other**2).sum()), rel=1e-3)


def test_each_baseline_does_what_its_name_says():
    assert pca_fvu(TRAIN, TEST, NORMALIZATION, 10) < 1e-6
    assert kmeans_fvu(TRAIN, TRAIN, NORMALIZATION, 1) == pytest.approx(1.0, abs=0.05)
    assert kmeans_fvu(TRAIN, TEST, NORMALIZATION, 50) < 0.7
    assert random_tokens_fvu(TRAIN, TEST, NORMALIZATION, 100, 10) < random_tokens_fvu(
        TRAIN, TEST, NORMALIZATION, 100, 2
    )
    assert random_tokens_fvu(TRAIN, TRAIN[:50], NORMALIZATION, 3000, 1) < 1.0
