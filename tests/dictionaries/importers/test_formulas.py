"""Formats whose projects are no library: against their published formulas, written out literally in float64."""

import json
import shutil
from collections import OrderedDict

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from fluxtionary.dictionaries import DictionaryFileError
from fluxtionary.dictionaries.importers import import_dictionary, recognise
from fluxtionary.dictionaries.pursuit import pursue

from .test_libraries import FIXTURES, record_of

D, M, K = 12, 24, 14
FLUX1_SAES = [("sae_double_l18_img-k6", "double.18.img"), ("sae_single_l9_both-k6", "single.9.txt")]
relu = lambda a: np.maximum(a, 0)  # noqa: E731


@pytest.fixture
def draw():
    state = np.random.RandomState(4)
    return lambda *shape: torch.from_numpy(state.standard_normal(shape).astype(np.float32))


@pytest.fixture
def x(draw):
    return 2 * draw(7, D) + 2 * draw(D)


def double(tensors):
    return {name: tensor.double().numpy() for name, tensor in tensors.items()}


def largest(before, k):
    """All but the `k` largest of each row set to 0."""
    kept = np.argsort(-before, axis=1)[:, :k]
    out = np.zeros_like(before)
    np.put_along_axis(out, kept, np.take_along_axis(before, kept, 1), 1)
    return out


def agree(dictionary, x, codes, reconstruction):
    assert 0.05 < (codes != 0).mean() < 0.7
    found = dictionary.encode(x).dense(len(codes[0]))
    assert (found.numpy() != 0).tolist() == (codes != 0).tolist()
    for ours, theirs in ((found, codes), (dictionary.reconstruct(x), reconstruction)):
        np.testing.assert_allclose(ours.numpy(), theirs, rtol=1e-5, atol=1e-5)


# flux1-saes: x @ P, less the means, over the deviations, clipped; (x - b_post + b_pre) @ W_enc; top k without ReLU


def array_of(folder, key):
    import tensorstore

    step = folder / "30/default"
    store = {"driver": "file", "path": f"{step}/{key}/"}
    if (step / "manifest.ocdbt").is_file():
        store = {"driver": "ocdbt", "base": f"file://{step}/", "path": f"{key}/"}
    return tensorstore.open({"driver": "zarr", "kvstore": store}).result().read().result().astype(np.float64)


@pytest.mark.parametrize(("name", "site"), FLUX1_SAES)
def test_flux1_saes(name, site):
    folder = FIXTURES / "flux1_saes" / name
    x = 3 * record_of(folder)["x"]
    p, means, squares = (
        array_of(folder, f"info.{key}") for key in ("whitening_matrix", "feature_means", "feature_square_means")
    )
    w_enc, w_dec, b_pre, b_post = (
        array_of(folder, f"sae_params.{key}") for key in ("W_enc", "W_dec", "b_pre", "b_post")
    )
    deviations = np.sqrt(np.maximum(squares - means**2, 1e-6))
    components = (x.double().numpy() @ p - means) / deviations
    z = np.clip(components, -10, 10)
    assert 0.02 < (z != components).mean() < 0.7
    codes = largest((z - b_post + b_pre) @ w_enc, 6)
    reconstruction = ((codes @ w_dec + b_post) * deviations + means) @ p.T
    dictionary = import_dictionary(folder, site)
    assert dictionary.site == site and dictionary.normalization.clip == 10
    agree(dictionary, x, codes, reconstruction)
    for inside in (folder / "30", folder / "30/default"):
        assert torch.equal(import_dictionary(inside, site).encoder, dictionary.encoder)


def test_flux1_saes_have_no_relu(tmp_path):
    """With as many features as there are, negative ones are among the largest."""
    shutil.copytree(FIXTURES / "flux1_saes/sae_double_l18_img-k6", tmp_path / f"sae_double_l18_img-k{M}")
    dictionary = import_dictionary(tmp_path / f"sae_double_l18_img-k{M}", "double.18.img")
    values = dictionary.encode(record_of(FIXTURES / "flux1_saes/sae_double_l18_img-k6")["x"]).values
    assert (values != 0).all() and (values < 0).any()


@pytest.mark.parametrize(("name", "site"), [*FLUX1_SAES, ("sae_double_l18_img-k6", "double.18.img.update")])
def test_flux1_saes_for_another_site_are_refused(name, site):
    other = {"double.18.img": "double.18.txt", "single.9.txt": "single.8.txt"}.get(site, site)
    with pytest.raises(DictionaryFileError, match=f"by the folder's name.*{other}"):
        import_dictionary(FIXTURES / "flux1_saes" / name, other)


# RE-N-Y: relu(encoder(x - bias)), top k; standard and gated codes in units of the decoder's rows


def reny_folder(tmp_path, name, tensors, **settings):
    folder = tmp_path / name
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps({"features": D, "pages": M, **settings}))
    save_file(tensors, folder / "model.safetensors")
    return folder


@pytest.fixture
def linear(draw):
    return {
        "encoder.weight": draw(M, D) / D**0.5,
        "encoder.bias": 0.5 * draw(M),
        "decoder.weight": draw(D, M) / D**0.5 * draw(M).abs(),
        "bias": 0.5 * draw(D),
    }


def test_reny_topk(tmp_path, linear, x):
    folder = reny_folder(tmp_path, "cc3m-transformer_blocks.18-1", linear, k=K)
    w = double(linear)
    codes = largest(relu((x.double().numpy() - w["bias"]) @ w["encoder.weight"].T + w["encoder.bias"]), K)
    dictionary = import_dictionary(folder, "double.18.img")
    assert recognise(folder) == "reny" and dictionary.model["name"] == "FLUX.1-schnell"
    agree(dictionary, x, codes, codes @ w["decoder.weight"].T + w["bias"])


def test_reny_standard(tmp_path, linear, x):
    w = double(linear)
    norms = np.linalg.norm(w["decoder.weight"], axis=0)
    codes = relu((x.double().numpy() - w["bias"]) @ w["encoder.weight"].T + w["encoder.bias"]) * norms
    dictionary = import_dictionary(reny_folder(tmp_path, "some", linear), "double.18.img")
    agree(dictionary, x, codes, (codes / norms) @ w["decoder.weight"].T + w["bias"])


def test_reny_jumprelu(tmp_path, linear, draw, x):
    linear["logthres"] = draw(M)
    w = double(linear)
    before = relu((x.double().numpy() - w["bias"]) @ w["encoder.weight"].T + w["encoder.bias"])
    codes = before * (before > np.exp(w["logthres"]))
    dictionary = import_dictionary(reny_folder(tmp_path, "some", linear), "double.18.img")
    agree(dictionary, x, codes, codes @ w["decoder.weight"].T + w["bias"])


def test_reny_gated(tmp_path, linear, draw, x):
    tensors = {name: linear[name] for name in ("encoder.weight", "decoder.weight")}
    tensors |= {"decoder_bias": linear["bias"], "r_mag": draw(M), "gate_bias": draw(M), "mag_bias": draw(M)}
    w = double(tensors)
    inner = (x.double().numpy() - w["decoder_bias"]) @ w["encoder.weight"].T
    norms = np.linalg.norm(w["decoder.weight"], axis=0)
    codes = (inner + w["gate_bias"] > 0) * relu(np.exp(w["r_mag"]) * inner + w["mag_bias"]) * norms
    dictionary = import_dictionary(reny_folder(tmp_path, "some", tensors), "double.18.img")
    agree(dictionary, x, codes, (codes / norms) @ w["decoder.weight"].T + w["decoder_bias"])


PLACES = [
    ("cc3m-transformer_blocks.18-0", ("double.18.txt",), "double.18.img"),
    ("cc3m-transformer_blocks.0-1", ("double.0.img",), "double.18.img"),
    ("cc3m-single_transformer_blocks.9", ("single.9.img", "single.9.txt"), "double.9.img"),
    ("models--RE-N-Y--cc3m-transformer_blocks.18-1/snapshots/abc", ("double.18.img",), "double.18.img.update"),
    ("cc3m-transformer_blocks.18.attn", (), "double.18.img"),
]


@pytest.mark.parametrize(("name", "good", "bad"), PLACES)
def test_reny_folders_say_their_site(tmp_path, linear, name, good, bad):
    folder = reny_folder(tmp_path, name, linear, k=K)
    for site in good:
        assert import_dictionary(folder, site).site == site
    with pytest.raises(DictionaryFileError, match="by the folder's name|block's output"):
        import_dictionary(folder, bad)


# sdxl-unbox: relu(topk(encoder(x - pre_bias) + latent_bias)) of what a block added


def unbox_folder(tmp_path, draw, name="final"):
    folder = tmp_path / name
    folder.mkdir(parents=True)
    settings = {"n_dirs_local": M, "d_model": D, "k": K, "auxk": 256, "dead_steps_threshold": 2441}
    (folder / "config.json").write_text(json.dumps(settings))
    tensors = {
        "pre_bias": 0.5 * draw(D),
        "latent_bias": 0.5 * draw(M),
        "encoder.weight": draw(M, D) / D**0.5,
        "decoder.weight": (draw(M, D) / D**0.5).T,  # column major, as the project keeps it
    }
    extra = {"stats_last_nonzero": torch.arange(M)}
    torch.save({"state_dict": OrderedDict(tensors | extra)}, folder / "state_dict.pth")
    torch.save(torch.ones(M), folder / "mean.pt")
    return folder, tensors


def test_sdxl_unbox(tmp_path, draw, x):
    folder, tensors = unbox_folder(tmp_path, draw)
    w = double(tensors)
    before = (x.double().numpy() - w["pre_bias"]) @ w["encoder.weight"].T + w["latent_bias"]
    codes = relu(largest(before, K))
    dictionary = import_dictionary(folder, "double.18.img")
    assert recognise(folder) == "sdxl_unbox" and dictionary.site == "double.18.img.update"
    assert import_dictionary(folder, "double.18.img.update").site == "double.18.img.update"
    agree(dictionary, x, codes, codes @ w["decoder.weight"].T + w["pre_bias"])


@pytest.mark.parametrize(
    ("name", "site"),
    [
        ("final", "double.18.img.mlp"),
        ("final", "mid_block"),
        ("unet.mid_block.attentions.0_k10_hidden5120/final", "double.18.img"),
        ("transformer.transformer_blocks.18_k10/final", "double.9.img"),
        ("transformer.transformer_blocks.18_k10/final", "single.18.img"),
    ],
)
def test_sdxl_unbox_for_what_it_is_not_is_refused(tmp_path, draw, name, site):
    with pytest.raises(DictionaryFileError, match="update|folder's name"):
        import_dictionary(unbox_folder(tmp_path, draw, name)[0], site)


# ITDA: signed matching pursuit in the release; gradient pursuit, non-negative, in the Flux paper's code


def matching_pursuit(x, atoms, k):
    residual, codes = x.copy(), np.zeros((len(x), len(atoms)))
    for _ in range(k):
        products = residual @ atoms.T
        best = np.abs(products).argmax(1)
        rows = np.arange(len(x))
        codes[rows, best] += products[rows, best]
        residual -= products[rows, best][:, None] * atoms[best]
    return codes


def gradient_pursuit(x, atoms, k):
    codes = np.zeros((len(x), len(atoms)))
    for _ in range(k):
        residual = x - codes @ atoms
        products = residual @ atoms.T
        chosen = codes != 0
        chosen[np.arange(len(x)), products.argmax(1)] = True
        gradient = chosen * products
        image = gradient @ atoms
        step = (image * residual).sum(1) / np.maximum((image**2).sum(1), 1e-3)
        codes = relu(codes + step[:, None] * gradient)
    return codes


def unit(draw, n=M):
    return torch.nn.functional.normalize(draw(n, D), dim=1)


METADATA = """activation_dim: 12
batch_size: 4
dataset: 'monology: pile'
device: cuda
k: 5
loss_threshold: 1.0e-05
max_dict_size: 0
seed: null
wandb_name: ITDA
"""


def release_folder(tmp_path, draw, metadata=METADATA):
    torch.save(unit(draw), tmp_path / "atoms.pt")
    torch.save(torch.stack([torch.arange(M), torch.arange(M) * 3], 1), tmp_path / "atom_indices.pt")
    (tmp_path / "metadata.yaml").write_text(metadata)
    return tmp_path


def test_itda_release(tmp_path, draw, x):
    folder = release_folder(tmp_path, draw)
    atoms = torch.load(folder / "atoms.pt").double().numpy()
    codes = matching_pursuit(x.double().numpy(), atoms, 5)
    assert (codes < 0).any()
    dictionary = import_dictionary(folder, "double.18.img")
    assert recognise(folder) == "itda" and dictionary.k == 5
    agree(dictionary, x, codes, codes @ atoms)
    assert dictionary.sources.of(7) == {"sequence": 7, "token": 21}
    training = dictionary.provenance.training["config"]
    assert (training["dataset"], training["seed"], training["loss_threshold"]) == ("monology: pile", None, 1e-5)


def flux_folder(tmp_path, draw, subtract_mean, **settings):
    atoms, mean = torch.nn.functional.normalize(draw(M, D) + draw(D), dim=1), draw(D)
    rows = torch.cat([atoms, torch.full((8, D), float("nan"))])  # memory as it was found
    tensors = {"xs": rows, "ys": rows.clone(), "mean_x": mean, "mean_y": mean.clone(), "weight": draw(D, D)}
    known = {"d_model": D, "target_l0": 14, "loss_threshold": 0.6, "subtract_mean": subtract_mean}
    known |= {"skip_connection": False, "normalize": False, "dictionary_size": M, "steps": 9}
    (tmp_path / "cfg.json").write_text(json.dumps(known | settings))
    save_file(tensors, tmp_path / "sae.safetensors")
    return tensors, atoms.double().numpy(), mean.double().numpy() * subtract_mean


@pytest.mark.parametrize("subtract_mean", [True, False])
def test_itda_of_the_flux_paper(tmp_path, draw, x, subtract_mean):
    _, atoms, mean = flux_folder(tmp_path, draw, subtract_mean)
    codes = gradient_pursuit(x.double().numpy() - mean, atoms, 14)
    dictionary = import_dictionary(tmp_path, "double.18.img")
    better = pursue(x - torch.from_numpy(mean).float(), dictionary.atoms, 14, "gp", nonnegative=True)
    assert abs(better.dense(M).numpy() - codes).max() > 1e-3  # a pursuit that does better is not the same
    assert recognise(tmp_path) == "flux_itda" and dictionary.n_features == M
    agree(dictionary, x, codes, codes @ atoms + mean)


@pytest.mark.parametrize(
    ("change", "settings", "words"),
    [
        (lambda t: t["ys"][0].neg_(), {}, "atoms that are the same"),
        (lambda t: t["mean_y"].neg_(), {}, "means that are the same"),
        (lambda t: (t["xs"].mul_(2), t["ys"].mul_(2)), {}, "length 1"),
        (
            lambda t: t.update({n: torch.full((D,), 1e300, dtype=torch.double) for n in ("mean_x", "mean_y")}),
            {},
            "finite numbers",
        ),
        (lambda t: t.update(std_x=torch.full((D,), 2.0)), {}, "std_x"),
        (lambda t: None, {"skip_connection": True}, "no code"),
        (lambda t: None, {"normalize": True}, "by what"),
        (lambda t: None, {"dictionary_size": M + 1}, "finite numbers in xs"),
        (lambda t: None, {"dictionary_size": 0}, "from 1"),
        (lambda t: None, {"dictionary_size": 1000}, "n = 1000"),
    ],
)
def test_itda_of_the_flux_paper_that_cannot_mean_the_same_is_refused(tmp_path, draw, change, settings, words):
    tensors, _, _ = flux_folder(tmp_path, draw, True, **settings)
    change(tensors)
    save_file(tensors, tmp_path / "sae.safetensors")
    with pytest.raises(DictionaryFileError, match=words):
        import_dictionary(tmp_path, "double.18.img")


@pytest.mark.parametrize(
    ("metadata", "words"),
    [
        ("k: 5\n  deeper: 1\n", "key: value"),
        ("k: [5]\n", "plain values"),
        ("k: !!python/object:os.system 5\n", "plain values"),
        ("k: five\n", "a whole number"),
        ("k: 0\n", "from 1"),
        ("k: 99999999\n", "between 1 and"),
        ("activation_dim: 7\n", "width 7"),
        ("- k: 5\n", "key: value"),
    ],
)
def test_other_yaml_is_refused(tmp_path, draw, metadata, words):
    with pytest.raises(DictionaryFileError, match=words):
        import_dictionary(release_folder(tmp_path, draw, metadata), "double.18.img")


# SAeUron: sparsify's files, with an option that takes each token's mean and deviation off


def test_saeuron_normalizes_each_token(tmp_path, x):
    source = FIXTURES / "sparsify/topk"
    shutil.copytree(source, tmp_path / "sae")
    settings = json.loads((source / "cfg.json").read_text())
    settings |= {"input_unit_norm": True, "batch_topk": True, "sample_topk": False}
    (tmp_path / "sae/cfg.json").write_text(json.dumps(settings))
    w, tokens = double(load_file(source / "sae.safetensors")), x.double().numpy()
    mean, deviation = tokens.mean(1, keepdims=True), tokens.std(1, ddof=1, keepdims=True)
    z = (tokens - mean) / (deviation + 1e-5)
    codes = largest(relu((z - w["b_dec"]) @ w["encoder.weight"].T + w["encoder.bias"]), settings["k"])
    dictionary = import_dictionary(tmp_path / "sae", "double.18.img")
    agree(dictionary, x, codes, (codes @ w["W_dec"] + w["b_dec"]) * deviation + mean)
