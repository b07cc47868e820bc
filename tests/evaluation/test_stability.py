import pytest
import torch
import torch.nn.functional as F

from fluxtionary.dictionaries import Activation, SparseAutoencoder
from fluxtionary.evaluation.stability import stability, unit_directions


def rows(n=6, d=32, seed=0):
    return F.normalize(torch.randn(n, d, generator=torch.Generator().manual_seed(seed)), dim=1)


def test_the_same_directions_in_another_order_are_found_again():
    one = rows()
    for found in stability([one, one.flip(0), one[[2, 0, 1, 5, 4, 3]]]):
        assert torch.allclose(found, torch.ones(6), atol=1e-6)


def test_a_feature_of_one_dictionary_alone_is_not():
    shared, own, other = rows(5), rows(1, seed=1), rows(1, seed=2)
    found, _ = stability([torch.cat([shared, own]), torch.cat([other, shared])])
    assert torch.allclose(found[:5], torch.ones(5), atol=1e-6)
    assert found[5] < 0.6


def test_it_is_the_mean_over_the_other_seeds():
    one = rows()
    found = stability([one, one, -one])
    alone = [stability([one, other])[0] for other in (one, -one)]
    assert torch.allclose(found[0], (alone[0] + alone[1]) / 2)
    assert torch.allclose(stability([one, -one], signed=True)[0], torch.ones(6), atol=1e-6)
    with pytest.raises(ValueError, match="at least 2"):
        stability([one])


def test_directions_are_compared_with_every_channel_at_one_scale():
    deviation = torch.ones(8)
    deviation[0] = 100.0
    plain = torch.randn(4, 8, generator=torch.Generator().manual_seed(3))
    dictionary = SparseAutoencoder(
        "double.1.img", plain, torch.zeros(4), plain * deviation, torch.zeros(8), Activation("topk", 2)
    )
    assert torch.allclose(unit_directions(dictionary, deviation), F.normalize(plain, dim=1), atol=1e-6)
