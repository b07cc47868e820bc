"""What every kind of dictionary keeps to, whatever is inside."""

import pytest
import torch

from fluxtionary.dictionaries import (
    FeatureError,
    Neurons,
    Noise,
    SparseCode,
    load_dictionary,
    load_vector,
    save_dictionary,
)

from .kinds import EXAMPLES, D, activations, noise_levels, sources, vector

NOISE = Noise(noise_levels())


@pytest.fixture(params=EXAMPLES)
def one(request):
    return EXAMPLES[request.param]()


def test_codes_have_the_promised_form(one):
    x = activations().reshape(5, 6, D)
    code = one.encode(x, moment=Noise(noise_levels().reshape(5, 6)))
    assert code.values.shape == code.indices.shape and code.values.shape[:2] == (5, 6)
    assert code.values.dtype == torch.float32 and code.indices.dtype == torch.int64
    assert (code.indices[code.values == 0] == 0).all()  # padding
    assert 0 <= code.indices.min() and code.indices.max() < one.n_features
    for values, indices in zip(code.values.flatten(0, 1), code.indices.flatten(0, 1), strict=True):
        active = indices[values != 0]
        assert len(active) == len(active.unique())
    assert 0 < code.l0().float().mean() <= code.values.shape[-1]


def test_tokens_do_not_depend_on_each_other_or_on_chunks(one, monkeypatch):
    x = activations()
    whole = one.encode(x, moment=NOISE).dense(one.n_features)
    monkeypatch.setattr("fluxtionary.dictionaries.dictionary.CHUNK", 4 * one.n_features * 7)
    parts = one.encode(x, moment=NOISE).dense(one.n_features)
    assert torch.allclose(parts, whole, atol=1e-5)
    single = one.encode(x[3], moment=Noise(noise_levels()[3])).dense(one.n_features)
    assert torch.allclose(single, whole[3], atol=1e-5)


def test_a_smaller_k_keeps_the_largest_magnitudes(one):
    x = activations()
    full, few = (one.encode(x, k, NOISE).dense(one.n_features) for k in (None, 2))
    assert (few != 0).sum(-1).max() <= 2
    assert torch.equal(few[few != 0], full[few != 0])
    assert torch.allclose(few.abs().sum(-1), full.abs().topk(min(2, full.shape[-1])).values.sum(-1))
    assert one.encode(x, 0, NOISE).values.shape == (30, 0)
    assert one.encode(x[:0], moment=Noise(noise_levels()[:0])).values.shape[0] == 0


def test_a_feature_s_share_of_the_reconstruction_is_its_direction(one):
    """One more of feature f moves the reconstruction by its direction, in the units of each token."""
    x = activations()
    code, frame = one.encode(x, moment=NOISE), one.frame(x, NOISE)
    extra = torch.cat([code.values, torch.ones(30, 1)], 1), torch.cat([code.indices, torch.full((30, 1), 0)], 1)
    moved = one.decode(SparseCode(*extra), frame) - one.decode(code, frame)
    if isinstance(one, Neurons):
        moved = one.contribution(SparseCode(*extra)) - one.contribution(code)
    expected = one.direction(0) if frame is None else frame.gain * one.direction(0)
    assert torch.allclose(moved, expected.expand_as(moved), rtol=1e-3, atol=2e-4)


def test_reconstructing_is_encoding_and_decoding(one):
    x = activations()
    assert torch.equal(one.reconstruct(x, NOISE), one.decode(one.encode(x, moment=NOISE), one.frame(x, NOISE)))
    assert torch.isfinite(one.reconstruct(torch.zeros(2, D), Noise(0.5))).all()


def test_half_precision_activations_are_encoded_in_float32(one):
    x = activations().bfloat16()
    assert torch.allclose(
        one.encode(x, moment=NOISE).dense(one.n_features),
        one.encode(x.float(), moment=NOISE).dense(one.n_features),
        atol=1e-5,
    )


@pytest.mark.parametrize("name", [name for name in EXAMPLES if name != "vector"])
def test_what_is_saved_is_loaded(name, tmp_path):
    one = EXAMPLES[name]()
    path = tmp_path / "one.safetensors"
    save_dictionary(one, path)
    again = load_dictionary(path)
    x = activations()
    assert type(again) is type(one) and again.site == one.site
    for a, b in zip(one.encode(x, moment=NOISE), again.encode(x, moment=NOISE), strict=True):
        assert torch.equal(a, b)
    assert torch.equal(one.reconstruct(x, NOISE), again.reconstruct(x, NOISE))
    assert (again.scale is None) == (one.scale is None) and (again.natural is None) == (one.natural is None)
    save_dictionary(again, path)  # over the very file that it is mapped from
    assert torch.equal(load_dictionary(path).decoder, one.decoder)


def test_wrong_widths_and_features_are_named(one):
    with pytest.raises(ValueError, match=f"width {D}, found width 7"):
        one.encode(torch.zeros(2, 7))
    with pytest.raises(FeatureError, match=f"0 to {one.n_features - 1}"):
        one.direction(one.n_features)


def test_kinds_that_depend_on_the_token_say_what_they_need():
    by_sigma, by_token = EXAMPLES["topk sigma"](), EXAMPLES["relu layer norm"]()
    with pytest.raises(ValueError, match="sigma of the activations"):
        by_sigma.encode(activations())
    with pytest.raises(ValueError, match="needs the tokens"):
        by_token.decode(by_token.encode(activations()))


def test_sources_of_atoms_survive_the_file(tmp_path):
    save_dictionary(EXAMPLES["itda omp"](), tmp_path / "a.safetensors")
    again = load_dictionary(tmp_path / "a.safetensors").sources
    assert again.of(0) == {"prompt": "a red circle", "seed": 0.0, "sigma": 0.0}
    assert again.of(4)["prompt"] == "two lines" and again.of(2)["prompt"] == ""
    assert torch.equal(again.table, sources().table)


def test_matryoshka_prefixes_are_the_coarser_dictionaries():
    whole = EXAMPLES["matryoshka"]()
    small = whole.prefix(2)
    assert small.n_features == 20 and small.groups == (8, 12)
    x = activations()
    assert torch.equal(small.encode(x).dense(20), whole.encode(x).dense(40)[:, :20])
    with pytest.raises(ValueError, match="3 groups, asked for the first 4"):
        whole.prefix(4)


def test_vectors_are_saved_with_their_sites_and_scales(tmp_path):
    save_dictionary(vector(), tmp_path / "v.safetensors")
    again = load_vector(tmp_path / "v.safetensors")
    assert again.sites == vector().sites and set(again.scales) == {"double.1.img"}
    for site in again.sites:
        assert torch.equal(again.directions[site], vector().directions[site])
    with pytest.raises(ValueError, match="load_vector"):
        load_dictionary(tmp_path / "v.safetensors")
    save_dictionary(EXAMPLES["topk"](), tmp_path / "d.safetensors")
    with pytest.raises(ValueError, match="expected a steering vector, found a dictionary of kind sae"):
        load_vector(tmp_path / "d.safetensors")
