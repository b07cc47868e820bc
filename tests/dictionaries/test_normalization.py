import pytest
import torch

from fluxtionary.dictionaries import Noise, Normalization
from fluxtionary.dictionaries.normalization import KINDS

from .kinds import D, M, activations, noise_levels, normalization

FOLDING = ("none", "scalar", "center", "standardise", "pca")
NOISE = Noise(noise_levels())


def _weights():
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(*shape, generator=generator) for shape in ((M, D), (M,), (M, D), (D,))]


@pytest.mark.parametrize("kind", FOLDING)
def test_folding_changes_nothing_beyond_rounding(kind):
    x, norm = activations().double(), normalization(kind)
    encoder, bias, decoder, decoder_bias = _weights()
    folded, folded_bias = norm.fold_encoder(encoder, bias)
    plain = norm.apply(x) @ encoder.double().T + bias
    ours = x @ folded.double().T + folded_bias
    assert (ours - plain).abs().max() <= 1e-5 * plain.abs().max()
    codes = torch.randn(30, M, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    back, back_bias = norm.fold_decoder(decoder, decoder_bias)
    plain = norm.invert(codes @ decoder.double() + decoder_bias)
    ours = codes @ back.double() + back_bias
    assert (ours - plain).abs().max() <= 1e-5 * plain.abs().max()


@pytest.mark.parametrize("kind", KINDS)
def test_the_way_back_is_the_way_back(kind):
    x, norm = activations(), normalization(kind)
    frame = norm.frame(x, NOISE) if norm.per_call else None
    assert torch.allclose(norm.invert(norm.apply(x, NOISE), frame), x, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize(
    ("kind", "clip"), [("standardise", 10.0), ("pca", 10.0), ("sigma", None), ("layer_norm", None)]
)
def test_what_does_not_fold_is_left_as_it_is(kind, clip):
    norm = normalization(kind, clip)
    encoder, bias, _, _ = _weights()
    assert not norm.folds
    assert norm.fold_encoder(encoder, bias)[0] is encoder


def test_a_clip_still_lets_the_decoder_fold():
    norm = normalization("pca", 1.0)
    _, _, decoder, bias = _weights()
    assert torch.equal(norm.fold_decoder(decoder, bias)[0], normalization("pca").fold_decoder(decoder, bias)[0])
    assert norm.apply(activations()).abs().max() == 1.0


def test_each_kind_does_what_its_name_says():
    x = activations(2000)
    whole = Normalization.fit(x, "standardise").apply(x)
    assert torch.allclose(whole.mean(0), torch.zeros(D), atol=1e-4)
    assert torch.allclose(whole.std(0, correction=0), torch.ones(D), atol=1e-4)
    turned = Normalization.fit(x, "pca").apply(x)
    assert torch.allclose(turned.T @ turned / len(x), torch.eye(D), atol=1e-2)
    scaled = Normalization.fit(x, "scalar").apply(x)
    assert scaled.norm(dim=1).mean() == pytest.approx(D**0.5, rel=1e-4)
    token = Normalization(kind="token_norm").apply(x)
    assert torch.allclose(token.norm(dim=1), torch.full((2000,), D**0.5), rtol=1e-5)
    layer = Normalization(kind="layer_norm").apply(x)
    assert torch.allclose(layer.std(1), torch.ones(2000), atol=1e-4)
    assert torch.allclose(layer.mean(1), torch.zeros(2000), atol=1e-5)


def test_noise_levels_are_normalized_each_by_its_own():
    x = activations(4000)
    sigma = torch.rand(4000, generator=torch.Generator().manual_seed(0))
    x = x * (1 + 9 * sigma[:, None])  # ten times larger at pure noise
    norm = Normalization.fit(x, "sigma", sigma=sigma)
    for low in (0.0, 0.5, 0.9):
        part = (sigma >= low) & (sigma < low + 0.1)
        z = norm.apply(x[part], Noise(sigma[part]))
        assert z.std(0).mean() == pytest.approx(1.0, abs=0.15)


def test_a_constant_channel_survives():
    x = torch.cat([torch.randn(50, 2), torch.full((50, 1), 3.0)], 1)
    z = Normalization.fit(x).apply(x)
    assert torch.isfinite(z).all() and (z[:, 2] == 0).all()


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: Normalization(kind="batch"), "found 'batch'"),
        (lambda: Normalization(torch.zeros(2)), "standardise needs mean, std, found mean"),
        (lambda: Normalization(torch.zeros(2), torch.zeros(2)), "std must be positive"),
        (lambda: Normalization(kind="none", clip=-1.0), "positive number, found -1.0"),
    ],
)
def test_what_makes_no_normalization_is_refused(make, words):
    with pytest.raises(ValueError, match=words):
        make()
