import pytest
import torch

from fluxtionary.dictionaries import FeatureError, Normalization, SparseAutoencoder, SparseCode

from ..conftest import make_dictionary


def test_codes_are_the_k_largest_positive_products(dictionary):
    x = torch.randn(3, 5, 128, generator=torch.Generator().manual_seed(1))
    code = dictionary.encode(x)
    before = torch.relu(x @ dictionary.encoder.T + dictionary.encoder_bias)
    dense = torch.zeros_like(before).scatter(-1, code.indices, code.values)
    kth = before.topk(8, dim=-1).values[..., -1:]
    assert torch.equal(dense, torch.where(before >= kth, before, 0))


def test_decoding_is_the_weighted_sum_of_directions(dictionary):
    code = dictionary.encode(torch.randn(4, 128))
    expected = dictionary.decoder_bias + sum(
        code.values[:, i, None] * torch.stack([dictionary.direction(f) for f in code.indices[:, i].tolist()])
        for i in range(8)
    )
    assert torch.allclose(dictionary.decode(code), expected, atol=1e-5)


def test_padding_decodes_to_the_bias(dictionary):
    code = SparseCode(torch.zeros(2, 3), torch.zeros(2, 3, dtype=torch.long))
    assert torch.equal(dictionary.decode(code), dictionary.decoder_bias.expand(2, 128))


def test_fewer_features_are_the_largest_by_magnitude():
    code = SparseCode(torch.tensor([[1.0, -3.0, 0.5, 2.0]]), torch.tensor([[7, 8, 9, 4]]))
    kept = code.limited(2)
    assert sorted(zip(kept.indices[0].tolist(), kept.values[0].tolist(), strict=True)) == [(4, 2.0), (8, -3.0)]
    assert code.limited(4) is code
    assert torch.equal(code.coefficient(8), torch.tensor([-3.0]))
    assert torch.equal(code.coefficient(5), torch.tensor([0.0]))


@pytest.mark.parametrize("feature", [-1, 48, 10**9])
def test_features_out_of_range_are_named(dictionary, feature):
    with pytest.raises(FeatureError, match=rf"feature {feature} .*0 to 47"):
        dictionary.direction(feature)


def test_another_width_is_refused(dictionary):
    with pytest.raises(ValueError, match="width 128, found width 64"):
        dictionary.encode(torch.randn(2, 64))


def test_k_must_fit_the_features():
    with pytest.raises(ValueError, match="between 1 and the 4 features, found 5"):
        make_dictionary("double.1.img", n_features=4, k=5)


def test_folding_the_normalization_changes_nothing():
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(100, 16, generator=generator) * torch.logspace(-2, 2, 16) + 5
    normalization = Normalization.fit(x)
    weight, bias = torch.randn(40, 16, generator=generator), torch.randn(40, generator=generator)
    encoder, encoder_bias = normalization.fold_encoder(weight, bias)
    expected = normalization.apply(x) @ weight.T + bias
    assert torch.allclose(x @ encoder.T + encoder_bias, expected, atol=1e-3)
    decoder, decoder_bias = normalization.fold_decoder(weight, torch.randn(16, generator=generator))
    assert torch.allclose(normalization.invert(weight[:3]) - normalization.mean, decoder[:3], rtol=1e-4, atol=1e-4)
    assert decoder_bias.shape == (16,)


def test_normalization_survives_a_constant_channel():
    x = torch.cat([torch.randn(50, 2), torch.full((50, 1), 3.0)], 1)
    z = Normalization.fit(x).apply(x)
    assert torch.isfinite(z).all() and (z[:, 2] == 0).all()


def test_a_sparse_autoencoder_says_what_it_is(dictionary):
    assert isinstance(dictionary, SparseAutoencoder)
    assert (dictionary.kind, dictionary.site, dictionary.d_model, dictionary.n_features) == (
        "sae",
        "double.1.img",
        128,
        48,
    )
