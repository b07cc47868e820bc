"""Files that other projects' libraries wrote (record.py), and what those libraries made of them."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from fluxtionary.dictionaries import DictionaryFileError, load_dictionary, save_dictionary
from fluxtionary.dictionaries.importers import import_dictionary, recognise

FIXTURES = Path(__file__).parent / "fixtures"
LIBRARIES = {
    "saelens": "saelens",
    "saelens5": "saelens",
    "sparsify": "sparsify",
    "dictionary_learning": "dictionary_learning",
}
"""Folder of fixtures to format."""
CASES = [path for library in LIBRARIES for path in sorted((FIXTURES / library).iterdir()) if path.is_dir()]


def named(path):
    return f"{path.parent.name}-{path.name}"


def record_of(path):
    return load_file(f"{path}.recorded.safetensors")


def test_every_variant_is_there():
    counts = {library: sum(path.parent.name == library for path in CASES) for library in LIBRARIES}
    assert counts == {"saelens": 25, "saelens5": 8, "sparsify": 4, "dictionary_learning": 10}


@pytest.mark.parametrize("path", CASES, ids=named)
def test_codes_and_reconstruction_are_the_library_s(path):
    record = record_of(path)
    assert recognise(path) == LIBRARIES[path.parent.name]
    dictionary = import_dictionary(path, "double.18.img")
    codes = dictionary.encode(record["x"]).dense(dictionary.n_features)
    assert torch.equal(codes != 0, record["codes"] != 0)
    torch.testing.assert_close(codes, record["codes"], rtol=0, atol=1e-5)
    again = dictionary.reconstruct(record["x"])
    torch.testing.assert_close(again, record["reconstruction"], rtol=0, atol=1e-5)


@pytest.mark.parametrize("path", CASES, ids=named)
def test_what_is_imported_can_be_saved(path, tmp_path):
    record, dictionary = record_of(path), import_dictionary(path, "single.3.txt")
    save_dictionary(dictionary, tmp_path / "d.safetensors")
    again = load_dictionary(tmp_path / "d.safetensors")
    assert again.site == "single.3.txt"
    assert torch.equal(again.reconstruct(record["x"]), dictionary.reconstruct(record["x"]))
    training = again.provenance.training
    assert training["imported_from"] == LIBRARIES[path.parent.name]
    assert training["config"].items() <= json.loads(json.dumps(training["config"])).items() and training["config"]


REASONS = {
    "saelens_refused/temporal": "tokens before",
    "saelens_refused/matching_pursuit": "residual_threshold",
    "saelens_refused/abstopk": "either sign",
    "saelens_refused/transcoder": "written at another",
    "saelens_refused/skip_transcoder": "written at another",
    "saelens_refused/jumprelu_transcoder": "written at another",
    "saelens_refused/hook_z": "heads of an attention",
    "saelens_refused/no_factor": "activation_scaler.json",
    "saelens_refused/no_whitening": "activation_whitening.safetensors",
    "sparsify_refused/transcode": "written at another",
    "sparsify_refused/skip_connection": "has no code",
}


@pytest.mark.parametrize("name", REASONS)
def test_what_cannot_mean_the_same_is_refused_with_the_reason(name):
    with pytest.raises(DictionaryFileError, match=REASONS[name]) as caught:
        import_dictionary(FIXTURES / name, "double.18.img")
    assert name in str(caught.value)


def test_every_refused_file_has_its_reason():
    assert {f"{p.parent.name}/{p.name}" for p in FIXTURES.glob("*_refused/*")} == REASONS.keys()


def test_a_matryoshka_keeps_its_groups():
    assert import_dictionary(FIXTURES / "saelens/matryoshka", "double.1.img").groups == (4, 6, 14)
    assert import_dictionary(FIXTURES / "saelens/checkpoint_matryoshka", "double.1.img").groups == (4, 6, 14)
    assert import_dictionary(FIXTURES / "dictionary_learning/matryoshka", "double.1.img").groups == (6, 6, 12)


def test_older_checkpoints_of_jumprelu_keep_the_threshold_s_logarithm(tmp_path):
    source = FIXTURES / "saelens/checkpoint_jumprelu_trained"
    (tmp_path / "cfg.json").write_bytes((source / "cfg.json").read_bytes())
    tensors = load_file(source / "sae_weights.safetensors")
    tensors["log_threshold"] = tensors.pop("threshold").log()
    save_file(tensors, tmp_path / "sae_weights.safetensors")
    found, wanted = (import_dictionary(path, "double.18.img").activation.threshold for path in (tmp_path, source))
    torch.testing.assert_close(found, wanted)


def test_the_last_width_of_a_matryoshka_may_be_left_out(tmp_path):
    source = FIXTURES / "saelens/matryoshka"
    (tmp_path / "sae_weights.safetensors").write_bytes((source / "sae_weights.safetensors").read_bytes())
    (tmp_path / "cfg.json").write_text((source / "cfg.json").read_text().replace("[4, 10, 24]", "[4, 10]"))
    assert import_dictionary(tmp_path, "double.18.img").groups == (4, 6, 14)


@pytest.mark.parametrize("name", ["topk", "topk_layer_norm"])
def test_half_precision_is_read(name, tmp_path):
    """SAELens computes in the file's precision; here it is float32 from the weights as they were rounded."""
    path, record = FIXTURES / "saelens" / name, record_of(FIXTURES / "saelens" / name)
    (tmp_path / "cfg.json").write_bytes((path / "cfg.json").read_bytes())
    tensors = load_file(path / "sae_weights.safetensors")
    save_file({n: t.bfloat16() for n, t in tensors.items()}, tmp_path / "sae_weights.safetensors")
    dictionary = import_dictionary(tmp_path, "double.18.img")
    assert dictionary.encoder.dtype == torch.bfloat16  # nothing was folded into it
    torch.testing.assert_close(dictionary.reconstruct(record["x"]), record["reconstruction"], rtol=0, atol=0.2)
