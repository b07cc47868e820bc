"""Which format a path has, and what is said where it has none."""

import shutil

import pytest
import torch

from fluxtionary.dictionaries import DictionaryFileError
from fluxtionary.dictionaries.importers import IMPORTERS, import_dictionary

from .test_libraries import FIXTURES

SITE = "double.18.img"


def test_a_format_can_be_named():
    dictionary = import_dictionary(FIXTURES / "saelens/topk", SITE, "saelens")
    assert dictionary.provenance.training["imported_from"] == "saelens"
    with pytest.raises(ValueError, match="auto or one of saelens, .*found 'keras'") as caught:
        import_dictionary(FIXTURES / "saelens/topk", SITE, "keras")
    assert not isinstance(caught.value, DictionaryFileError)


def test_the_wrong_format_names_the_file_it_wants():
    for format in IMPORTERS.keys() - {"saelens"}:
        with pytest.raises(DictionaryFileError, match="saelens/topk"):
            import_dictionary(FIXTURES / "saelens/topk", SITE, format)


@pytest.mark.parametrize("name", ["saelens/topk/sae_weights.safetensors", "dictionary_learning/topk/ae.pt"])
def test_a_file_of_the_folder_will_do(name):
    whole = import_dictionary((FIXTURES / name).parent, SITE)
    assert torch.equal(import_dictionary(FIXTURES / name, SITE).encoder, whole.encoder)


def test_a_snapshot_of_a_training_takes_its_settings_from_above(tmp_path):
    source = FIXTURES / "dictionary_learning/batchtopk"
    (tmp_path / "checkpoints").mkdir()
    shutil.copy(source / "config.json", tmp_path)
    snapshot = tmp_path / "checkpoints/ae_100.pt"
    shutil.copy(source / "ae.pt", snapshot)
    for format in ("auto", "dictionary_learning"):
        dictionary = import_dictionary(snapshot, SITE, format)
        assert (dictionary.activation.name, dictionary.k) == ("batchtopk", 12)


def test_another_file_in_a_known_folder_is_not_taken_for_it(tmp_path):
    shutil.copytree(FIXTURES / "sparsify/topk", tmp_path / "topk")
    shutil.copy(tmp_path / "topk/sae.safetensors", tmp_path / "topk/other.safetensors")
    with pytest.raises(DictionaryFileError, match="found other.safetensors"):
        import_dictionary(tmp_path / "topk/other.safetensors", SITE)


def test_unknown_folders_are_told_what_is_known(tmp_path):
    with pytest.raises(DictionaryFileError, match="no such file or folder"):
        import_dictionary(tmp_path / "nothing", SITE)
    with pytest.raises(DictionaryFileError, match=r"saelens \(cfg.json, sae_weights.safetensors\).*an empty folder"):
        import_dictionary(tmp_path, SITE)
    (tmp_path / "model.onnx").touch()
    with pytest.raises(DictionaryFileError, match="found model.onnx"):
        import_dictionary(tmp_path, SITE)


def test_a_folder_of_dictionaries_lists_them():
    with pytest.raises(DictionaryFileError, match="choose one: groupmax, topk, topk_expansion"):
        import_dictionary(FIXTURES / "sparsify", SITE)


def test_our_own_files_are_not_foreign(tmp_path):
    from fluxtionary.dictionaries import save_dictionary

    save_dictionary(import_dictionary(FIXTURES / "saelens/topk", SITE), tmp_path / "d.safetensors")
    with pytest.raises(DictionaryFileError, match="of this project already"):
        import_dictionary(tmp_path / "d.safetensors", SITE)


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("standard", "AutoEncoder"),
        ("new", "AutoEncoderNew"),
        ("gated", "GatedAutoEncoder"),
        ("jumprelu", "JumpReluAutoEncoder"),
        ("matryoshka", "MatryoshkaBatchTopKSAE"),
    ],
)
def test_dictionary_learning_without_settings_goes_by_its_tensors(tmp_path, name, kind):
    source = FIXTURES / "dictionary_learning" / name
    shutil.copy(source / "ae.pt", tmp_path)
    dictionary = import_dictionary(tmp_path, SITE)
    assert dictionary.provenance.training["dict_class"] == kind
    assert torch.equal(dictionary.encoder, import_dictionary(source, SITE).encoder)


@pytest.mark.parametrize("name", ["topk", "batchtopk"])
def test_dictionary_learning_s_two_of_the_same_tensors_need_the_settings(tmp_path, name):
    shutil.copy(FIXTURES / "dictionary_learning" / name / "ae.pt", tmp_path)
    with pytest.raises(DictionaryFileError, match="dict_class: AutoEncoderTopK or BatchTopKSAE"):
        import_dictionary(tmp_path, SITE)


def test_a_backup_carries_its_own_settings(tmp_path):
    shutil.copy(FIXTURES / "dictionary_learning/topk_backup/ae.pt", tmp_path)
    assert import_dictionary(tmp_path, SITE).activation.name == "topk"


@pytest.mark.parametrize("name", ["sparsify/topk", "saelens/topk", "dictionary_learning/topk"])
def test_missing_settings_are_named(tmp_path, name):
    source = FIXTURES / name
    (weights,) = (p for p in source.iterdir() if "fig" not in p.name and "cfg" not in p.name)
    shutil.copy(weights, tmp_path)
    with pytest.raises(DictionaryFileError, match=r"cfg\.json.*no such file|config\.json with trainer"):
        import_dictionary(tmp_path, SITE)
