import pytest
import torch

from fluxtionary.dictionaries import Activation, SparseAutoencoder
from fluxtionary.dictionaries.candidates import Candidates, products_at

from .kinds import SITE


@pytest.fixture
def problem():
    """Tokens, and an encoder whose rows are tokens, with two channels 50 times larger."""
    generator = torch.Generator().manual_seed(0)
    directions = torch.nn.functional.normalize(torch.randn(256, 64, generator=generator), dim=1)
    chosen = torch.randint(256, (2048 + 200, 8), generator=generator)
    x = torch.nn.functional.embedding_bag(chosen, directions, mode="sum")
    x[:, :2] *= 50
    rows = torch.nn.functional.normalize(x[200:] / x.std(0), dim=1) / x.std(0)
    return x[:200], rows.contiguous(), 0.1 * torch.randn(2048, generator=generator)


@pytest.mark.parametrize("features", [2048, 2047, 100])
def test_the_largest_are_found_and_their_values_are_exact(problem, features):
    x, weight, bias = (part[:features] if i else part for i, part in enumerate(problem))
    true = torch.nn.functional.linear(x, weight, bias)
    coarse = Candidates(weight, bias)
    values, indices = coarse.topk(x, 32)
    assert torch.allclose(values, true.gather(1, indices), atol=1e-5)
    assert all(len(row.unique()) == 32 for row in indices)
    best = true.topk(32).indices
    assert recall(best, indices) >= 0.99
    alone = coarse._coarse(x, 32)
    assert recall(best, alone) < recall(best, indices)  # the spare candidates earn their keep


def recall(true, found):
    return torch.stack([torch.isin(a, b).float().mean() for a, b in zip(true, found, strict=True)]).mean()


def test_products_are_those_of_the_rows(problem):
    x, weight, _ = problem
    indices = torch.randint(2048, (200, 5), generator=torch.Generator().manual_seed(1))
    expected = torch.einsum("nd,nkd->nk", x, weight[indices])
    assert torch.allclose(products_at(x, weight, indices), expected, atol=1e-4)
    with torch.inference_mode():
        assert torch.allclose(products_at(x, weight, indices), expected, atol=1e-4)


def test_the_fast_mode_is_asked_for(problem, monkeypatch):
    x, weight, bias = problem
    sae = SparseAutoencoder(SITE, weight, bias, weight, torch.zeros(64), Activation("topk", 32))
    exact = sae.encode(x)
    sae.exact = False
    monkeypatch.setattr("fluxtionary.dictionaries.sae.fast_candidates", lambda device: True)
    fast = sae.encode(x)
    monkeypatch.setattr("fluxtionary.dictionaries.sae.fast_candidates", lambda device: False)
    assert torch.equal(sae.encode(x).values, exact.values)
    assert torch.equal(sae.encode(x).indices, exact.indices)
    error = [(x - sae.decode(code)).square().sum() for code in (fast, exact)]
    assert error[0] / error[1] <= 1.005
