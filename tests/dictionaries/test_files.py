import json
import random
import struct
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from fluxtionary.dictionaries import DictionaryFileError, Provenance, load_dictionary, save_dictionary

from ..conftest import make_dictionary


@pytest.fixture
def saved(tmp_path, dictionary):
    dictionary.provenance = Provenance({"family": "flux1"}, {"steps": 4}, {"tokens": 10}, {"fvu": 0.2})
    path = tmp_path / "folder" / "one.safetensors"
    save_dictionary(dictionary, path)
    return path


def rewrite(path, change_header=None, change_tensors=None, metadata=None):
    """The same file with its header, tensors or metadata changed."""
    with safe_open(path, "pt") as file:
        info, tensors = file.metadata(), {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    header = json.loads(info["header"])
    (change_header or (lambda h: None))(header)
    (change_tensors or (lambda t: None))(tensors)
    save_file(tensors, path, {**info, "header": json.dumps(header), **(metadata or {})})


def test_what_is_saved_is_loaded(saved, dictionary):
    again = load_dictionary(saved)
    for name in ("encoder", "encoder_bias", "decoder", "decoder_bias", "natural"):
        assert torch.equal(getattr(again, name), getattr(dictionary, name))
    assert torch.equal(again.scale.values, dictionary.scale.values)
    assert torch.equal(again.normalization.std, dictionary.normalization.std)
    assert (again.site, again.k, again.provenance) == ("double.1.img", 8, dictionary.provenance)
    x = torch.randn(5, 128)
    assert torch.equal(again.decode(again.encode(x)), dictionary.decode(dictionary.encode(x)))
    assert [path.name for path in saved.parent.iterdir()] == ["one.safetensors"]


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="Linux says what is mapped where")
def test_matrices_are_mapped_not_copied(saved):
    again = load_dictionary(saved)
    address = again.encoder.data_ptr()
    for line in Path("/proc/self/maps").read_text().splitlines():
        low, high = (int(end, 16) for end in line.split()[0].split("-"))
        if low <= address < high:
            assert line.endswith(str(saved))
            return
    raise AssertionError("the encoder is nowhere")


def test_what_is_optional_may_be_missing(tmp_path, dictionary):
    dictionary.scale = dictionary.natural = dictionary.normalization = None
    save_dictionary(dictionary, tmp_path / "bare.safetensors")
    again = load_dictionary(tmp_path / "bare.safetensors")
    assert again.scale is None and again.natural is None and again.normalization is None


def test_a_failed_save_leaves_the_old_file(saved, dictionary, monkeypatch):
    before = saved.read_bytes()
    dictionary.provenance = Provenance(metrics={"fvu": float("nan")})
    with pytest.raises(ValueError, match="JSON"):
        save_dictionary(dictionary, saved)
    monkeypatch.setattr("fluxtionary.dictionaries.files.save_file", lambda *a: (_ for _ in ()).throw(OSError("full")))
    dictionary.provenance = Provenance()
    with pytest.raises(OSError, match="full"):
        save_dictionary(dictionary, saved)
    assert saved.read_bytes() == before
    assert len(list(saved.parent.iterdir())) == 1


def test_other_dtypes_can_be_asked_for(saved):
    assert load_dictionary(saved, dtype=torch.bfloat16).encoder.dtype == torch.bfloat16


HEADERS = [
    (lambda h: h.pop("kind"), "kind"),
    (lambda h: h.update(kind="transcoder"), "kind 'transcoder'"),
    (lambda h: h.update(kind="vector"), "one site for each direction"),
    (lambda h: h.update(kind="neurons"), "normalization none for kind neurons"),
    (
        lambda h: h.update(kind="neurons", normalization={"kind": "none"}),
        "neurons at an .mlp site",
    ),
    (lambda h: h.update(sites=[]), "one site"),
    (lambda h: h.update(sites=[3]), "one site"),
    (lambda h: h.update(d_model=-3), "positive d_model"),
    (lambda h: h.update(d_model=True), "d_model"),
    (lambda h: h.update(d_model=64.0), "d_model"),
    (lambda h: h.update(n_features=10**15), "n_features = 1000000000000000|shape"),
    (lambda h: h.update(d_model=64), r"shape \(48, 64\), found shape \(48, 128\)"),
    (lambda h: h.update(activation={"name": "topk", "k": 0}), "k = 0"),
    (lambda h: h.update(activation={"name": "topk", "k": 49}), "between 1 and 48"),
    (lambda h: h.update(activation={"name": "topk"}), "k"),
    (lambda h: h.update(activation={"name": "gelu", "k": 8}), "gelu"),
    (lambda h: h.update(activation={"name": "groupmax", "k": 7}), "groups of one size"),
    (lambda h: h.update(activation={"name": "relu", "relu": False}), "relu without"),
    (lambda h: h.update(activation={"name": "topk", "k": 8, "relu": 0}), "relu"),
    (lambda h: h.update(activation={"name": "topk", "k": 8, "groups": [40, 9]}), "add up to 48"),
    (lambda h: h.update(activation={"name": "topk", "k": 8, "groups": [48.0]}), "add up to 48"),
    (lambda h: h.update(activation={"name": "jumprelu"}), "no threshold"),
    (lambda h: h.update(normalization={"kind": "standardise", "clip": -10}), "clip"),
    (lambda h: h.update(normalization={"kind": "standardise", "clip": True}), "clip"),
    (lambda h: h.update(normalization={"kind": "batch"}), "batch"),
    (lambda h: h.update(normalization={"kind": "pca"}), "no rotation"),
    (lambda h: h.update(normalization={"kind": "none"}), "mean, std too"),
    (lambda h: h.update(sources={"columns": ["seed"]}), "sources of an itda"),
    (lambda h: h.update(metrics=[]), "metrics"),
]


@pytest.mark.parametrize(("change", "words"), HEADERS)
def test_headers_that_lie_are_refused(saved, change, words):
    rewrite(saved, change_header=change)
    with pytest.raises(DictionaryFileError, match=words) as caught:
        load_dictionary(saved)
    assert str(saved) in str(caught.value)


TENSORS = [
    (lambda t: t.pop("encoder"), "no encoder"),
    (lambda t: t.update(extra=torch.zeros(2)), "extra"),
    (lambda t: t.update(decoder=t["decoder"].T.contiguous()), r"found shape \(128, 48\)"),
    (lambda t: t.update(decoder=t["decoder"].int()), "floating"),
    (lambda t: t["decoder"].fill_(float("nan")), "finite numbers in decoder"),
    (lambda t: t["std"].zero_(), "std must be positive"),
    (lambda t: t["scale"].neg_(), "positive finite number"),
]


@pytest.mark.parametrize(("change", "words"), TENSORS)
def test_tensors_that_do_not_fit_are_refused(saved, change, words):
    rewrite(saved, change_tensors=change)
    with pytest.raises(DictionaryFileError, match=words):
        load_dictionary(saved)


@pytest.mark.parametrize(
    ("metadata", "words"),
    [
        ({"format": "pt"}, "format 'pt'"),
        ({"schema": "2"}, "schema '2'.*newer"),
        ({"header": "["}, "JSON"),
        ({"header": "[1]"}, "JSON object"),
        ({"header": "[" * 100_000}, "JSON"),
        ({"header": '{"kind": NaN}'}, "NaN is no JSON"),
        ({"header": " " * 3_000_000}, "at most 2097152 bytes"),
    ],
)
def test_other_files_are_refused(saved, metadata, words):
    rewrite(saved, metadata=metadata)
    with pytest.raises(DictionaryFileError, match=words):
        load_dictionary(saved)


def test_missing_files_and_folders_are_named(tmp_path):
    with pytest.raises(DictionaryFileError, match=r"nothing\.safetensors.*no such file"):
        load_dictionary(tmp_path / "nothing.safetensors")
    with pytest.raises(DictionaryFileError, match="a folder"):
        load_dictionary(tmp_path)


def test_damage_anywhere_is_an_error_or_the_same_shapes(saved):
    """Truncations and flipped bytes: never another exception, never a dictionary of another shape."""
    whole = saved.read_bytes()
    rng = random.Random(0)
    header_length = struct.unpack("<Q", whole[:8])[0]
    for trial in range(300):
        data = bytearray(whole)
        if trial % 2:
            del data[rng.randrange(len(data)) :]
        else:
            for _ in range(rng.randint(1, 4)):
                data[rng.randrange(8 + header_length)] = rng.randrange(256)
        saved.write_bytes(bytes(data))
        try:
            again = load_dictionary(saved)
        except DictionaryFileError:
            continue
        assert (again.n_features, again.d_model) == (48, 128)


def test_only_dictionaries_can_be_saved(tmp_path):
    with pytest.raises(TypeError, match="str"):
        save_dictionary("dictionary", tmp_path / "x.safetensors")


def test_files_are_small_headers_and_plain_tensors(saved):
    assert saved.stat().st_size < 4 * (2 * 48 * 128 + 2000) + 4000


def test_make_dictionary_is_repeatable():
    assert torch.equal(make_dictionary("double.1.img").encoder, make_dictionary("double.1.img").encoder)
