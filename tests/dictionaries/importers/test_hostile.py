"""Files that lie: refused with the reason, before anything is run or allocated."""

import json
import pickle
import resource
import shutil
import struct
import zipfile
from collections import OrderedDict
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from fluxtionary.dictionaries import DictionaryFileError
from fluxtionary.dictionaries.importers import flux1_saes, import_dictionary
from fluxtionary.dictionaries.importers.pickles import read_pickle, state_of

from .test_libraries import FIXTURES

SITE = "double.18.img"


def copied(tmp_path, name):
    return Path(shutil.copytree(FIXTURES / name, tmp_path / name.split("/")[-1]))


def refused(folder, words, site=SITE):
    with pytest.raises(DictionaryFileError, match=words) as caught:
        import_dictionary(folder, site)
    assert folder.name in str(caught.value)


# Settings


def settings(folder, **changes):
    file = next(path for name in ("cfg.json", "config.json") if (path := folder / name).is_file())
    values = json.loads(file.read_text())
    inner = values.get("trainer", values)
    inner |= changes
    for name in [name for name, value in inner.items() if value == "absent"]:
        del inner[name]
    file.write_text(json.dumps(values))


SETTINGS = [
    ("saelens/topk", {"k": 0}, "k, a whole number from 1"),
    ("saelens/topk", {"k": True}, "k, a whole number"),
    ("saelens/topk", {"k": 2.5}, "k, a whole number"),
    ("saelens/topk", {"k": 25}, "24 features"),
    ("saelens/topk", {"k": "absent"}, "k = None"),
    ("saelens/topk", {"d_in": 10**15}, "d_in = 1000000000000000"),
    ("saelens/topk", {"d_in": 10**9}, "W_enc of shape"),
    ("saelens/topk", {"d_sae": 12}, "W_enc of shape"),
    ("saelens/topk", {"architecture": "gated"}, "no b_gate"),
    ("saelens/topk", {"architecture": "soft"}, "architecture one of standard"),
    ("saelens/topk", {"normalize_activations": "always"}, "normalize_activations one of"),
    ("saelens/topk", {"apply_b_dec_to_input": "yes"}, "true or false"),
    ("saelens/topk", {"metadata": []}, "metadata, a JSON object"),
    ("saelens/matryoshka", {"matryoshka_widths": [4, 30]}, "add up"),
    ("saelens/matryoshka", {"matryoshka_widths": [4, 2.5]}, "whole numbers"),
    ("saelens/matryoshka", {"matryoshka_widths": list(range(1, 90))}, "fewer matryoshka_widths"),
    ("saelens5/standard", {"activation_fn_str": "tanh-relu"}, "relu or topk"),
    ("saelens5/standard_topk", {"activation_fn_kwargs": {}}, "k = None"),
    ("saelens5/standard", {"normalize_activations": True}, "activation_scaler.json"),
    ("saelens5/standard", {"hook_name": "blocks.0.attn.hook_z"}, "heads of an attention"),
    ("saelens5/gated", {"activation_fn_str": "topk", "activation_fn_kwargs": {"k": 2}}, "'gated' with topk"),
    ("saelens5/finetuned", {"finetuning_scaling_factor": False}, "no scaling factor"),
    ("sparsify/topk", {"num_latents": 25}, "encoder.weight of shape"),
    ("sparsify/topk", {"num_latents": -24}, "num_latents"),
    ("sparsify/topk_expansion", {"expansion_factor": 3}, "encoder.weight of shape"),
    ("sparsify/topk", {"signed": True}, "either sign"),
    ("sparsify/topk", {"activation": "softmax"}, "topk or groupmax"),
    ("sparsify/groupmax", {"k": 7}, "groups of one size"),
    ("dictionary_learning/topk", {"k": 4}, "k = 4, as config.json says"),
    ("dictionary_learning/topk", {"dict_class": "IdentityDict"}, "has no weights"),
    ("dictionary_learning/topk", {"dict_class": "CrossCoder"}, "several places"),
    ("dictionary_learning/topk", {"dict_class": "GatedAutoEncoder"}, "no decoder_bias"),
    ("dictionary_learning/jumprelu", {"dict_class": "MatryoshkaBatchTopKSAE"}, "k, in the settings"),
]


@pytest.mark.parametrize(("name", "changes", "words"), SETTINGS)
def test_settings_that_lie_are_refused(tmp_path, name, changes, words):
    folder = copied(tmp_path, name)
    settings(folder, **changes)
    refused(folder, words)


def test_a_transcoder_of_dictionary_learning_is_refused(tmp_path):
    folder = copied(tmp_path, "dictionary_learning/new")
    values = json.loads((folder / "config.json").read_text())
    values["buffer"]["io"] = "in_and_out"
    (folder / "config.json").write_text(json.dumps(values))
    refused(folder, "transcoder")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "null",
        "NaN",
        "[" * 100_000,
        '{"a":' * 100_000,
        "{" + " " * 2**19 + "}",
        '{"d_in": 1' + "0" * 5000 + "}",
    ],
)
@pytest.mark.parametrize("name", ["saelens/topk", "sparsify/topk", "dictionary_learning/topk"])
def test_settings_that_are_none_are_refused(tmp_path, name, text):
    folder = copied(tmp_path, name)
    file = next(path for n in ("cfg.json", "config.json") if (path := folder / n).is_file())
    file.write_text(text)
    refused(folder, "settings|format|dict_class|JSON")


def test_settings_are_small(tmp_path):
    folder = copied(tmp_path, "sparsify/topk")
    file = folder / "cfg.json"
    file.write_text(file.read_text() + " " * 2**18)
    refused(folder, "settings of at most 262144 bytes")


def test_settings_stay_what_a_header_can_hold(tmp_path):
    folder = copied(tmp_path, "saelens/topk")
    deep: dict = {}
    for _ in range(60):
        deep = {"deeper": deep}
    extra = '{"much": 1e999, "many": ' + "9" * 30 + ', "deep": ' + json.dumps(deep) + ","
    file = folder / "cfg.json"
    file.write_text(extra + file.read_text().lstrip()[1:])
    kept = import_dictionary(folder, SITE).provenance.training["config"]
    assert json.loads(json.dumps(kept, allow_nan=False)) == kept
    assert kept["much"] == "inf" and kept["many"] == "..." and '"..."' in json.dumps(kept["deep"])


# Tensors


def tensors(folder, change):
    file = next(folder.glob("*.safetensors"))
    held = load_file(file)
    change(held)
    save_file(held, file)


TENSORS = [
    ("saelens/topk", lambda t: t.pop("b_dec"), "no b_dec"),
    ("saelens/topk", lambda t: t.update(W_skip=torch.zeros(2)), "only tensors .*W_skip"),
    ("saelens/topk", lambda t: t.update(W_enc=t["W_dec"].clone()), r"W_enc of shape \(D = 12, M = 24\), found shape"),
    ("saelens/topk", lambda t: t["W_enc"][3].fill_(float("nan")), "finite numbers in W_enc"),
    ("saelens/topk", lambda t: t["b_enc"].fill_(float("inf")), "finite numbers in b_enc"),
    ("saelens/topk", lambda t: t.update(b_enc=t["b_enc"].int()), "floating type"),
    ("saelens/topk", lambda t: t.update(W_dec=t["W_dec"].double() * 1e300), "once in this project's form"),
    ("saelens/gated", lambda t: t["r_mag"].fill_(3e38), "once in this project's form"),
    ("saelens5/finetuned", lambda t: t.update(scaling_factor=torch.ones(3)), "scaling_factor of shape"),
    ("sparsify/topk", lambda t: t.update({"encoder.weight": torch.zeros(0, 12)}), "encoder.weight of shape"),
    ("sparsify/topk", lambda t: t.update(W_skip=torch.zeros(12, 12)), "skip connection"),
    ("saelens/topk", lambda t: t["b_dec"].fill_(3e38), "once in this project's form"),
]


@pytest.mark.parametrize(("name", "change", "words"), TENSORS)
def test_tensors_that_do_not_fit_are_refused(tmp_path, name, change, words):
    folder = copied(tmp_path, name)
    tensors(folder, change)
    refused(folder, words)


def test_a_factor_of_ones_does_nothing(tmp_path):
    """Older SAELens wrote it into every file."""
    folder = copied(tmp_path, "saelens5/standard")
    before = import_dictionary(folder, SITE)
    tensors(folder, lambda t: t.update(scaling_factor=torch.ones(24)))
    assert torch.equal(import_dictionary(folder, SITE).decoder, before.decoder)


@pytest.mark.parametrize("factor", [0, -1.0, "1", None, 1e999])
def test_a_factor_of_the_input_is_a_positive_number(tmp_path, factor):
    folder = copied(tmp_path, "saelens/checkpoint_factor")
    (folder / "activation_scaler.json").write_text(json.dumps({"scaling_factor": factor}).replace("Infinity", "1e999"))
    refused_inside = pytest.raises(DictionaryFileError, match="scaling_factor")
    with refused_inside:
        import_dictionary(folder, SITE)


@pytest.mark.parametrize("name", ["saelens/topk", "dictionary_learning/topk"])
def test_a_truncated_file_is_refused(tmp_path, name):
    folder = copied(tmp_path, name)
    weights = next(path for path in folder.iterdir() if path.suffix != ".json")
    whole = weights.read_bytes()
    for size in range(0, len(whole), 97):
        weights.write_bytes(whole[:size])
        refused(folder, "safetensors|PyTorch|archive|damaged|directory")


# Pickles


def archive(path, data, compression=zipfile.ZIP_STORED, extra=()):
    """A PyTorch file with another pickle, `data`, and 48 bytes of numbers."""
    with zipfile.ZipFile(path, "w", compression) as out:
        out.writestr("a/data.pkl", data)
        out.writestr("a/byteorder", "little")
        out.writestr("a/data/0", bytes(48))
        out.writestr("a/version", "3\n")
        for name, content in extra:
            out.writestr(name, content)


def tensor_pickle(sizes, strides, numel=12, offset=0, kind="FloatStorage"):
    """The pickle of `{"a": tensor}` over storage 0, with any claims."""

    def whole(number):
        return b"\x8a\x08" + struct.pack("<q", number)

    def tuple_of(numbers):
        return b"(" + b"".join(whole(number) for number in numbers) + b"t"

    storage = b"(X\x07\x00\x00\x00storagectorch\n" + kind.encode() + b"\nX\x01\x00\x00\x000X\x03\x00\x00\x00cpu"
    storage += whole(numel) + b"tQ"
    hooks = b"\x89ccollections\nOrderedDict\n)R"
    rebuilt = b"ctorch._utils\n_rebuild_tensor_v2\n(" + storage + whole(offset) + tuple_of(sizes) + tuple_of(strides)
    return b"\x80\x02}X\x01\x00\x00\x00a" + rebuilt + hooks + b"tRs."


def test_the_tests_pickle_is_what_torch_writes(tmp_path):
    archive(tmp_path / "a.pt", tensor_pickle((4, 3), (3, 1)))
    assert torch.equal(read_pickle(tmp_path / "a.pt")["a"], torch.zeros(4, 3))


CLAIMS = {
    "sizes": {"sizes": (40_000, 30_000), "strides": (30_000, 1)},
    "sizes and storage": {"sizes": (40_000, 30_000), "strides": (30_000, 1), "numel": 1_200_000_000},
    "one number, repeated": {"sizes": (40_000, 30_000), "strides": (0, 0)},
    "negative sizes": {"sizes": (-4, 3), "strides": (3, 1)},
    "negative strides": {"sizes": (4, 3), "strides": (-3, 1)},
    "beyond the end": {"sizes": (4, 3), "strides": (3, 1), "offset": 10**12},
    "no such type": {"sizes": (4, 3), "strides": (3, 1), "kind": "ComplexFloatStorage"},
}


@pytest.mark.parametrize("claim", CLAIMS)
def test_claims_beyond_the_file_are_refused_before_memory_is_taken(tmp_path, claim):
    path = tmp_path / "a.pt"
    archive(path, tensor_pickle(**CLAIMS[claim]))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(DictionaryFileError, match="damaged|within the file|asks for"):
        state_of(path, read_pickle(path))
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 2**15  # KB


def test_views_that_add_up_to_more_than_the_file_are_refused(tmp_path):
    storage = torch.zeros(1000)
    torch.save({f"a{i}": storage.view(10, 100) for i in range(5)}, tmp_path / "a.pt")
    with pytest.raises(DictionaryFileError, match="add up"):
        state_of(tmp_path / "a.pt", read_pickle(tmp_path / "a.pt"))


class Attack:
    def __init__(self, target):
        self.target = target

    def __reduce__(self):
        return Path.touch, (self.target,)


@pytest.mark.parametrize("protocol", [0, 1, 2, 3, 4, 5])
def test_no_code_is_run(tmp_path, protocol):
    data = pickle.dumps({"state": Attack(tmp_path / "was here")}, protocol)
    archive(tmp_path / "a.pt", data)
    (tmp_path / "b.pt").write_bytes(data)
    for name in ("a.pt", "b.pt"):
        with pytest.raises(DictionaryFileError, match="asks for|zip form"):
            read_pickle(tmp_path / name)
    assert not (tmp_path / "was here").exists()


def test_what_torch_itself_would_allow_is_refused_too(tmp_path):
    """`bytearray(10**12)` is on torch's own list."""
    archive(tmp_path / "a.pt", b"\x80\x02cbuiltins\nbytearray\n\x8a\x06" + (10**12).to_bytes(6, "little") + b"\x85R.")
    with pytest.raises(DictionaryFileError, match="asks for 'builtins bytearray'"):
        read_pickle(tmp_path / "a.pt")


def test_other_archives_are_refused(tmp_path):
    path, good = tmp_path / "a.pt", tensor_pickle((4, 3), (3, 1))
    archive(path, good, zipfile.ZIP_DEFLATED)
    with pytest.raises(DictionaryFileError, match="compressed"):
        read_pickle(path)
    archive(path, good + bytes(2**18))
    with pytest.raises(DictionaryFileError, match="data.pkl of at most"):
        read_pickle(path)
    archive(path, good, extra=[("b/data.pkl", good)])
    with pytest.raises(DictionaryFileError, match="one data.pkl"):
        read_pickle(path)
    archive(path, good, extra=[(f"a/data/{i}" + "x" * 60, b"") for i in range(2000)])
    with pytest.raises(DictionaryFileError, match="a longer list"):
        read_pickle(path)
    torch.save({"a": torch.ones(3)}, path, _use_new_zipfile_serialization=False)
    with pytest.raises(DictionaryFileError, match="zip form.*torch.save it anew"):
        read_pickle(path)


def test_a_pickle_that_is_no_state_is_refused(tmp_path):
    folder = copied(tmp_path, "dictionary_learning/topk")
    for value in (torch.ones(3), [torch.ones(3)], {1: torch.ones(3)}, OrderedDict(), {"k": {}}):
        torch.save(value, folder / "ae.pt")
        refused(folder, "a state dict|tensors")
    sparse = torch.eye(3).to_sparse()
    torch.save({"a": sparse}, folder / "ae.pt")
    refused(folder, "asks for|plain tensor")


def test_settings_in_a_backup_cannot_grow(tmp_path):
    """A list that holds one list ten times, fifteen deep, is small in the file and endless when walked."""
    state = torch.load(FIXTURES / "dictionary_learning/topk_backup/ae.pt")
    bomb: list = []
    for _ in range(15):
        bomb = [bomb] * 10
    state["config"]["bomb"] = bomb
    torch.save(state, tmp_path / "ae.pt")
    kept = import_dictionary(tmp_path, SITE).provenance.training["config"]
    assert len(json.dumps(kept)) < 2**20


# orbax folders


def test_a_damaged_checkpoint_is_refused(tmp_path):
    source = FIXTURES / "flux1_saes/sae_double_l18_img-k6"
    for file in sorted(path for path in source.rglob("*") if path.is_file() and path.name != "_sharding"):
        shutil.rmtree(tmp_path / source.name, ignore_errors=True)
        folder = copied(tmp_path, "flux1_saes/sae_double_l18_img-k6")
        inside = folder / file.relative_to(source)
        inside.write_bytes(inside.read_bytes()[: inside.stat().st_size // 2])
        try:
            whole = import_dictionary(folder, SITE)
            assert torch.equal(whole.encoder, import_dictionary(source, SITE).encoder)  # a file that is not needed
        except DictionaryFileError as error:
            assert folder.name in str(error)


@pytest.mark.parametrize("field", ["shape", "chunks"])
def test_arrays_larger_than_the_checkpoint_are_refused(tmp_path, field):
    folder = copied(tmp_path, "flux1_saes/sae_single_l9_both-k6")
    file = folder / "30/default/sae_params.W_enc/.zarray"
    about = json.loads(file.read_text())
    about[field] = [2**20, 2**20]
    file.write_text(json.dumps(about))
    refused(folder, "within the folder's|damaged", "single.9.img")


def test_a_missing_array_is_named(tmp_path):
    folder = copied(tmp_path, "flux1_saes/sae_single_l9_both-k6")
    shutil.rmtree(folder / "30/default/sae_params.b_post")
    refused(folder, "no sae_params.b_post", "single.9.img")


def test_without_tensorstore_it_says_what_to_install(monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "tensorstore", None)
    refused(FIXTURES / "flux1_saes/sae_double_l18_img-k6", r"pip install 'fluxtionary\[orbax\]'")


def test_the_last_step_is_read(tmp_path):
    folder = copied(tmp_path, "flux1_saes/sae_double_l18_img-k6")
    shutil.copytree(folder / "30", folder / "4")
    assert flux1_saes.checkpoint(folder) == folder / "30/default"
