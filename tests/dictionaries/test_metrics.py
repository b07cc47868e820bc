import pytest
import torch

from fluxtionary.dictionaries import Normalization
from fluxtionary.dictionaries.metrics import CellMeans, ReconstructionMeter, measure_dictionary
from fluxtionary.dictionaries.scale import BINS, Scale, ScaleMeter

from ..conftest import make_dictionary

GENERATOR = torch.Generator().manual_seed(0)
X = torch.randn(600, 8, generator=GENERATOR) * torch.logspace(-1, 1, 8) + 2
SIGMA = torch.tensor([0.25, 1.0]).repeat(300)
POSITION = torch.arange(600) % 6
Y = X + 0.1 * torch.randn(600, 8, generator=GENERATOR)


def test_the_measures_are_what_the_design_says():
    normalization = Normalization.fit(X)
    cells = CellMeans(X, SIGMA, POSITION)
    meter = ReconstructionMeter(normalization, cells, 3)
    for start in range(0, 600, 128):
        part = slice(start, start + 128)
        meter.add(X[part], Y[part], SIGMA[part], POSITION[part])
    found = meter.measures()
    x, y = X.double(), Y.double()
    mean, std = x.mean(0), x.std(0, correction=0)
    assert found.fvu == pytest.approx(float((((x - y) / std) ** 2).sum() / (((x - mean) / std) ** 2).sum()), rel=1e-5)
    assert found.fvu_raw == pytest.approx(float(((x - y) ** 2).sum() / ((x - mean) ** 2).sum()), rel=1e-5)
    within = 0.0
    for sigma in (0.25, 1.0):
        for position in range(6):
            cell = x[(SIGMA == sigma) & (POSITION == position)]
            within += float((((cell - cell.mean(0)) / std) ** 2).sum()) if len(cell) else 0.0
    assert found.fvu_within == pytest.approx(float((((x - y) / std) ** 2).sum()) / within, rel=1e-5)
    assert found.tokens == 600


def test_perfect_and_mean_reconstructions_score_zero_and_one():
    normalization = Normalization.fit(X)
    cells = CellMeans(X, SIGMA, POSITION)
    for reconstruction, expected in ((X, 0.0), (normalization.mean.expand_as(X), 1.0)):
        meter = ReconstructionMeter(normalization, cells, 1)
        meter.add(X, reconstruction, SIGMA, POSITION)
        assert meter.measures().fvu == pytest.approx(expected, abs=1e-6)
        assert meter.measures().fvu_raw == pytest.approx(expected, abs=1e-6)


def test_a_cell_never_met_has_the_overall_mean():
    cells = CellMeans(X, SIGMA, POSITION)
    met = cells(torch.tensor([0.25]), torch.tensor([0]))[0]
    unmet = cells(torch.tensor([0.5, 2.0, 0.0]), torch.tensor([0, 9, 0]))
    assert torch.allclose(unmet, X.double().mean(0).expand(3, 8))
    assert not torch.allclose(met, X.double().mean(0), atol=1e-3)


def test_dead_and_l0_count_active_values_only():
    dictionary = make_dictionary("double.1.img", d_model=8, n_features=16, k=4)
    dictionary.encoder_bias[:] = 0.0
    dictionary.encoder_bias[3] = -1e9
    x = torch.randn(2000, 8, generator=GENERATOR)
    normalization = Normalization.fit(x)
    sigma = torch.ones(2000)
    found = measure_dictionary(
        dictionary, normalization, CellMeans(x, sigma, sigma.long()), x, sigma, sigma.long(), batch=300
    )
    code = dictionary.encode(x)
    active = code.values != 0
    assert found.l0 == pytest.approx(float(active.sum()) / 2000)
    assert found.dead == 1 - len(code.indices[active].unique()) / 16
    assert found.dead >= 1 / 16


def test_scale_is_measured_per_sigma_bin_and_interpolated():
    x = torch.cat([torch.randn(5000, 4, generator=GENERATOR), 3 * torch.randn(5000, 4, generator=GENERATOR)]) + 7
    sigma = torch.cat([torch.full((5000,), 0.125), torch.full((5000,), 0.875)])
    meter = ScaleMeter(4)
    for start in range(0, 10_000, 3000):
        meter.add(x[start : start + 3000], sigma[start : start + 3000])
    scale = meter.scale()
    assert scale.at(0.125) == pytest.approx(2, rel=0.03)
    assert scale.at(0.875) == pytest.approx(6, rel=0.03)
    assert scale.at(0.5) == pytest.approx(4, rel=0.03)
    assert scale.at(0.0) == pytest.approx(2, rel=0.03) and scale.at(1.0) == pytest.approx(6, rel=0.03)
    assert abs(scale.at(0.5) - scale.at(0.5 + 1e-7)) < 1e-5


@pytest.mark.parametrize("values", [[], [1.0, -1.0], [1.0, float("nan")], [0.0] * BINS])
def test_scales_that_mean_nothing_are_refused(values):
    with pytest.raises(ValueError, match="positive finite"):
        Scale(torch.tensor(values))


def test_an_empty_meter_has_no_scale():
    with pytest.raises(ValueError, match="no token"):
        ScaleMeter(4).scale()
