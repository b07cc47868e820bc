import math

import pytest
import torch

from fluxtionary.dictionaries import Activation, Noise, Normalization, SparseAutoencoder
from fluxtionary.dictionaries.metrics import CellMeans, measure_dictionary
from fluxtionary.dictionaries.scale import BINS
from fluxtionary.evaluation.baselines import kmeans_fvu, pca_fvu, random_tokens_fvu
from fluxtionary.evaluation.reconstruction import (
    EDGES,
    Evaluator,
    Reference,
    Sample,
    density_histogram,
    evaluate_reconstruction,
    measure_baselines,
    sigma_bins,
)
from fluxtionary.residual.tokens import Tokens

from ..conftest import make_dictionary

D = 24
SITE = "double.1.img"
DICTIONARY = make_dictionary(SITE, d_model=D, n_features=40, k=5)
SIGMAS = (1.0, 0.97, 0.62, 0.31, 0.04)  # the first two fall into one bin


def tokens(pictures=12, seed=0):
    """Tokens with channels of unlike size, whose mean and spread depend on sigma."""
    generator = torch.Generator().manual_seed(seed)
    sigma = torch.tensor(SIGMAS).repeat_interleave(pictures * 4)
    position = torch.arange(4).repeat(len(SIGMAS) * pictures)
    picture = torch.arange(pictures).repeat_interleave(4).repeat(len(SIGMAS))
    spread = torch.linspace(0.2, 5, D) * (0.3 + sigma[:, None])
    x = 3 * sigma[:, None] + 0.2 * position[:, None] + spread * torch.randn(len(sigma), D, generator=generator)
    return Tokens(x, sigma, position, picture)


TRAIN, TEST = tokens(seed=1), tokens(seed=2)
STREAM = [TEST.rows(slice(0, 50)), TEST.rows(slice(50, 51)), TEST.rows(slice(51, None))]


def complete(mean, shrink=1.0):
    """As many orthogonal features as dimensions, each with its negative, about `mean`; the code times `shrink`."""
    turned = torch.linalg.qr(torch.randn(D, D, generator=torch.Generator().manual_seed(3))).Q
    rows = torch.cat([turned, -turned])
    return SparseAutoencoder(SITE, rows, -rows @ mean, shrink * rows, mean, Activation("topk", D))


def test_every_figure_is_its_formula_in_float64():
    found = evaluate_reconstruction(DICTIONARY, TRAIN, STREAM)
    x, made = TEST.x.double(), DICTIONARY.reconstruct(TEST.x).double()
    mean, std = TRAIN.x.double().mean(0), TRAIN.x.double().std(0, correction=0)
    about, shifted, error = x - mean, made - mean, x - made
    active = DICTIONARY.encode(TEST.x).dense(40) != 0
    cells = torch.stack(
        [
            TRAIN.x[(TRAIN.sigma == s) & (TRAIN.position == p)].double().mean(0)
            for s, p in zip(TEST.sigma, TEST.position, strict=True)
        ]
    )
    expected = {
        "fvu": (error / std).square().sum() / (about / std).square().sum(),
        "fvu_raw": error.square().sum() / about.square().sum(),
        "fvu_within": (error / std).square().sum() / ((x - cells) / std).square().sum(),
        "cosine": torch.cosine_similarity(about, shifted, dim=1).mean(),
        "bias": shifted.square().sum() / (shifted * about).sum(),
        "dead": (~active.any(0)).double().mean(),
        "used": active.any(0).double().mean(),
        "l0": active.sum(1).double().mean(),
        "tokens": len(x),
    }
    assert vars(found.whole) == {name: pytest.approx(float(value), rel=1e-5) for name, value in expected.items()}
    assert found.density == pytest.approx(active.double().mean(0).tolist())


def test_it_agrees_with_the_measure_of_the_demonstration():
    norm, cells = Normalization.fit(TRAIN.x), CellMeans(TRAIN.x, TRAIN.sigma, TRAIN.position)
    other = measure_dictionary(DICTIONARY, norm, cells, TEST.x, TEST.sigma, TEST.position)
    whole = evaluate_reconstruction(DICTIONARY, TRAIN, STREAM).whole
    for name, value in other._asdict().items():
        assert getattr(whole, name) == pytest.approx(value), name


def test_bias_is_the_gamma_that_fits_best():
    whole = evaluate_reconstruction(DICTIONARY, TRAIN, STREAM).whole
    mean = TRAIN.x.double().mean(0)
    about, shifted = TEST.x.double() - mean, DICTIONARY.reconstruct(TEST.x).double() - mean

    def error(gamma):
        return float((about - shifted / gamma).square().sum())

    assert error(whole.bias) < min(error(whole.bias * 1.01), error(whole.bias * 0.99))


def test_a_dictionary_of_all_dimensions_reconstructs_everything():
    whole = evaluate_reconstruction(complete(TRAIN.x.mean(0)), TRAIN, STREAM).whole
    assert whole.fvu < 1e-10 and whole.fvu_raw < 1e-10
    assert whole.cosine == pytest.approx(1, abs=1e-6) and whole.bias == pytest.approx(1, abs=1e-6)
    assert whole.l0 == D and whole.dead == 0


def test_half_the_code_gives_a_bias_of_a_half():
    whole = evaluate_reconstruction(complete(TRAIN.x.mean(0), shrink=0.5), TRAIN, STREAM).whole
    assert whole.bias == pytest.approx(0.5, abs=1e-6)
    assert whole.fvu == pytest.approx(0.25, abs=1e-6) and whole.cosine == pytest.approx(1, abs=1e-6)


def test_the_mean_alone_explains_nothing_and_has_no_direction():
    whole = evaluate_reconstruction(complete(Normalization.fit(TRAIN.x).mean, shrink=0.0), TRAIN, STREAM).whole
    assert whole.fvu == pytest.approx(1, abs=1e-12) and whole.fvu_raw == pytest.approx(1, abs=1e-12)
    assert whole.cosine == 0 and math.isnan(whole.bias)


def test_bins_of_sigma_weighted_by_variance_add_up_to_the_whole():
    found = evaluate_reconstruction(DICTIONARY, TRAIN, STREAM)
    bins = found.by_sigma
    assert [part.sigma for part in bins] == pytest.approx([0.025, 0.325, 0.625, 0.975])
    assert sum(part.weight for part in bins) == pytest.approx(1)
    assert sum(part.weight * part.measures.fvu for part in bins) == pytest.approx(found.whole.fvu)
    assert sum(part.measures.tokens for part in bins) == found.whole.tokens
    lowest = TEST.rows(TEST.sigma < 0.1)
    alone = evaluate_reconstruction(DICTIONARY, TRAIN, [lowest]).whole
    assert bins[0].measures == alone
    assert bins[0].measures.fvu != pytest.approx(found.whole.fvu, rel=0.05)


def test_how_tokens_come_in_batches_makes_no_difference():
    one = evaluate_reconstruction(DICTIONARY, TRAIN, [TEST])
    many = evaluate_reconstruction(DICTIONARY, TRAIN, [TEST.rows(slice(i, i + 7)) for i in range(0, len(TEST.x), 7)])
    assert vars(many.whole) == pytest.approx(vars(one.whole))
    assert many.density == one.density and many.histogram == one.histogram


def test_a_dictionary_normalized_by_sigma_is_told_it():
    norm = Normalization.fit(TRAIN.x, "sigma", sigma=TRAIN.sigma)
    own = SparseAutoencoder(
        SITE,
        DICTIONARY.encoder,
        DICTIONARY.encoder_bias,
        DICTIONARY.decoder,
        torch.zeros(D),
        Activation("topk", 5),
        norm,
    )
    whole = evaluate_reconstruction(own, TRAIN, STREAM).whole
    made = own.reconstruct(TEST.x, Noise(TEST.sigma)).double()
    about = TEST.x.double() - TRAIN.x.double().mean(0)
    assert whole.fvu_raw == pytest.approx(float((TEST.x - made).square().sum() / about.square().sum()), rel=1e-5)


def test_densities_are_counted_by_decade_and_the_dead_left_out():
    density = torch.tensor([0.0, 0.0, 1e-9, 0.0009, 0.0011, 0.5, 1.0], dtype=torch.float64)
    found = density_histogram(density)
    assert len(found) == len(EDGES) - 1 and sum(found) == 5
    assert found[0] == 1  # rarer than the first bin
    assert found[EDGES.index(-3.0) - 1] == 1 and found[EDGES.index(-3.0)] == 1
    assert found[-1] == 1 and found[-2] == 1


def test_sigmas_fall_into_the_bins_of_a_scale():
    assert sigma_bins(torch.tensor([0.0, 0.049, 0.05, 0.999, 1.0])).tolist() == [0, 0, 1, BINS - 1, BINS - 1]


def test_what_cannot_be_measured_is_said():
    with pytest.raises(ValueError, match="no held-out tokens of double.1.img"):
        evaluate_reconstruction(DICTIONARY, TRAIN, [])
    still = TRAIN._replace(x=torch.ones_like(TRAIN.x))
    with pytest.raises(ValueError, match="do not vary"):
        evaluate_reconstruction(DICTIONARY, still, [still])


def test_a_sample_is_of_bounded_size_and_takes_every_token_alike():
    counts = torch.zeros(len(TEST.x))
    numbered = TEST._replace(picture=torch.arange(len(TEST.x)))
    for seed in range(300):
        sample = Sample(60, seed)
        for start in range(0, len(TEST.x), 32):
            sample.add(numbered.rows(slice(start, start + 32)))
        chosen = sample.tokens.picture
        assert len(chosen) == 60 and len(chosen.unique()) == 60 and sample.seen == len(TEST.x)
        assert torch.equal(sample.tokens.x, TEST.x[chosen])
        counts[chosen] += 1
    expected = 300 * 60 / len(TEST.x)  # 75, with a deviation of 7.5
    assert counts.min() > expected - 40 and counts.max() < expected + 40


def test_a_sample_of_few_tokens_is_all_of_them():
    sample = Sample(1000)
    for part in STREAM:
        sample.add(part)
    assert torch.equal(sample.tokens.x.sort(0).values, TEST.x.sort(0).values)


def test_baselines_are_those_of_the_demonstration():
    reference = Reference(TRAIN, limit=10_000)
    found = measure_baselines(reference, TEST, n_features=30, k=5)
    args = (reference.sample, TEST.x, reference.normalization)
    assert found["pca"].fvu == pytest.approx(pca_fvu(*args, 5)) and found["pca"].size == 5
    assert found["kmeans"].fvu == pytest.approx(kmeans_fvu(*args, 30)) and found["kmeans"].size == 30
    assert found["random_tokens"].fvu == pytest.approx(random_tokens_fvu(*args, 30, 5))
    for baseline in found.values():
        assert [sigma for sigma, _ in baseline.by_sigma] == pytest.approx([0.025, 0.325, 0.625, 0.975])
    lowest = TEST.rows(TEST.sigma < 0.1)
    alone = pca_fvu(reference.sample, lowest.x, reference.normalization, 5)
    assert found["pca"].by_sigma[0][1] == pytest.approx(alone)


def test_baselines_are_bounded_by_what_they_are_fitted_to():
    reference = Reference(TRAIN, limit=50)
    assert len(reference.sample) == 50
    found = measure_baselines(reference, TEST.rows(slice(0, 64)), n_features=10**6, k=10**3)
    assert found["pca"].size == D
    assert found["kmeans"].size == found["random_tokens"].size == 50


def test_half_precision_tokens_are_measured_as_they_are():
    coarse = [part._replace(x=part.x.to(torch.bfloat16)) for part in STREAM]
    exact = [part._replace(x=part.x.to(torch.bfloat16).float()) for part in STREAM]
    one, other = (evaluate_reconstruction(DICTIONARY, TRAIN, stream).whole for stream in (coarse, exact))
    assert one == other


def test_two_dictionaries_share_a_reference():
    reference = Reference(TRAIN)
    evaluators = [Evaluator(DICTIONARY, reference), Evaluator(complete(TRAIN.x.mean(0)), reference)]
    for part in STREAM:
        for evaluator in evaluators:
            evaluator.add(part)
    assert evaluators[0].figures().whole == evaluate_reconstruction(DICTIONARY, TRAIN, STREAM).whole
    assert evaluators[1].figures().whole.fvu < 1e-10
