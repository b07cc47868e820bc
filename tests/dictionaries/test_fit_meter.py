import pytest
import torch

from fluxtionary.dictionaries import (
    Activation,
    FitMeter,
    Neurons,
    Normalization,
    Provenance,
    Scale,
    SparseAutoencoder,
    describe_fit,
)
from fluxtionary.dictionaries.metrics import CellMeans, ReconstructionMeter
from fluxtionary.dictionaries.scale import BINS

from ..conftest import make_dictionary

WIDTH = 128


def tokens(count=600, seed=0):
    """Tokens with channels of unlike size, about a mean that is not 0."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(count, WIDTH, generator=generator) * torch.linspace(0.2, 3, WIDTH) + 1


def fit(dictionary, x, batch=100):
    meter = FitMeter(dictionary)
    for part in x.split(batch):
        meter.add(dictionary, part, dictionary.encode(part))
    return meter.fit()


def fitting(metrics=None, capture=None, count=512):
    """A dictionary that knows its tokens: each of them is a feature's direction, in training's own units."""
    x = tokens(count)
    normalization = Normalization(x.mean(0), x.std(0))
    away = x - x.mean(0)
    own = SparseAutoencoder(
        site="double.1.img",
        encoder=away / x.std(0).square() / (away / x.std(0)).square().sum(1, keepdim=True),
        encoder_bias=-(away / x.std(0).square() / (away / x.std(0)).square().sum(1, keepdim=True)) @ x.mean(0),
        decoder=away,
        decoder_bias=x.mean(0),
        activation=Activation("topk", 1),
        normalization=normalization,
        provenance=Provenance(metrics=metrics or {}, capture=capture or {}),
    )
    return own, x


def test_fvu_is_that_of_the_measures():
    dictionary, x = make_dictionary("double.1.img"), tokens()
    zeros = torch.zeros(len(x))
    normalization = dictionary.normalization
    reference = ReconstructionMeter(normalization, CellMeans(x, zeros, zeros.long()), dictionary.n_features)
    code = dictionary.encode(x)
    reference.add(x, dictionary.decode(code), zeros, zeros.long(), code)
    found, expected = fit(dictionary, x), reference.measures()
    assert found.fvu == pytest.approx(expected.fvu, rel=1e-5)
    assert found.l0 == expected.l0 and found.unused == pytest.approx(expected.dead)
    assert found.tokens == 600 and found.reference == "training"


@pytest.mark.parametrize("batch", [1, 7, 600])
def test_batches_do_not_matter(batch):
    for dictionary in (make_dictionary("double.1.img"), without_deviations()):
        one, other = fit(dictionary, tokens(), batch), fit(dictionary, tokens(), 100)
        assert one.fvu == pytest.approx(other.fvu, rel=1e-4)
        assert one[1:] == other[1:]


def test_rows_and_half_precision_are_measured_alike():
    dictionary, x = make_dictionary("double.1.img"), tokens().reshape(2, 300, WIDTH)
    meter = FitMeter(dictionary)
    meter.add(dictionary, x, dictionary.encode(x))
    assert meter.fit().fvu == pytest.approx(fit(dictionary, x.flatten(0, 1)).fvu, rel=1e-5)
    half = FitMeter(dictionary)
    half.add(dictionary, x.bfloat16(), dictionary.encode(x.bfloat16()))
    assert half.fit().fvu == pytest.approx(meter.fit().fvu, rel=0.02)


def without_deviations():
    known = make_dictionary("double.1.img")
    return SparseAutoencoder(
        known.site, known.encoder, known.encoder_bias, known.decoder, known.decoder_bias, Activation("topk", 8)
    )


def test_without_deviations_the_run_s_own_weigh_the_channels():
    dictionary, x = without_deviations(), tokens()
    found = fit(dictionary, x)
    wide = x.double()
    error = (wide - dictionary.reconstruct(x).double()).square().sum(0)
    expected = (error / wide.var(0, unbiased=False)).sum() / (len(x) * WIDTH)
    assert found.fvu == pytest.approx(float(expected), rel=1e-4) and found.reference == "run"
    assert "weighed by this run, as the file has no deviations" in describe_fit(dictionary, found)[0]


def test_a_channel_that_never_moves_counts_for_nothing():
    x = tokens()
    x[:, 3] = 5.0
    assert 0 < fit(without_deviations(), x).fvu < float("inf")


def test_nothing_seen_is_no_fit():
    assert FitMeter(make_dictionary("double.1.img")).fit() is None


def test_neurons_and_normalizations_by_token_fit_too():
    neurons = Neurons("double.1.img.mlp", torch.randn(WIDTH, 32), k=WIDTH)
    assert fit(neurons, tokens()).fvu == pytest.approx(0, abs=1e-6)
    known = make_dictionary("double.1.img")
    by_token = SparseAutoencoder(
        known.site,
        known.encoder,
        known.encoder_bias,
        known.decoder,
        known.decoder_bias,
        Activation("topk", 8),
        Normalization(kind="layer_norm"),
    )
    meter, x = FitMeter(by_token), tokens()
    meter.add(by_token, x, by_token.encode(x))
    wide = x.double()
    error = (wide - by_token.reconstruct(x).double()).square().sum(0)
    expected = (error / wide.var(0, unbiased=False)).sum() / (len(x) * WIDTH)
    assert meter.fit().fvu == pytest.approx(float(expected), rel=1e-3)


def test_activations_that_fit_raise_no_warning():
    dictionary, x = fitting({"fvu": 0.02, "dead": 0.0})
    found = fit(dictionary, x)
    text, warning = describe_fit(dictionary, found)
    assert found.fvu < 0.02 and warning is None
    assert text.startswith(f"double.1.img: fvu {found.fvu:.3f} (its file says 0.020), 1.0 active features a token, ")
    assert text.endswith("0% of 512 features unused by 512 tokens (dead in its file: 0.0%)")


def test_activations_that_do_not_fit_are_named_with_what_it_was_made_for():
    capture = {"sigmas": [1.0, 0.5, 0.1], "height": 512, "width": 768}
    dictionary, _ = fitting({"fvu": 0.02, "dead": 0.0}, capture)
    found = fit(dictionary, tokens(seed=9) * 2 + 3)
    _, warning = describe_fit(dictionary, found)
    assert found.fvu > 0.5
    expected = "this dictionary of double.1.img does not fit this run: trained at sigma 1 to 0.1, 768x512 pixels; "
    assert warning == f"{expected}here fvu {found.fvu:.2f}"


def test_without_figures_in_its_file_only_what_is_worse_than_the_mean_is_a_misfit():
    dictionary, x = fitting()
    good = describe_fit(dictionary, fit(dictionary, x))
    assert "(its file says nothing)" in good[0] and good[1] is None
    found = fit(dictionary, tokens(seed=9))
    assert describe_fit(dictionary, found._replace(fvu=0.99))[1] is None
    assert "does not fit this run: here fvu 1.01" in describe_fit(dictionary, found._replace(fvu=1.01))[1]


def test_features_that_never_fire_warn_once_there_were_tokens_enough():
    dictionary, x = fitting({"fvu": 0.02, "dead": 0.1})
    found = fit(dictionary, x)._replace(unused=0.7)
    assert describe_fit(dictionary, found)[1] is None  # too few tokens to tell
    many = describe_fit(dictionary, found._replace(tokens=10**6))
    assert "70% of its features are never active" in many[1]


def test_a_scale_does_not_matter():
    dictionary = make_dictionary("double.1.img")
    before = fit(dictionary, tokens())
    dictionary.scale = Scale(torch.full((BINS,), 9.0))
    assert fit(dictionary, tokens()) == before
