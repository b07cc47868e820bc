"""Exported folders: what SAELens and sparsify made of them when they were recorded, and what comes back of them."""

import json
import os
import subprocess
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from fluxtionary.dictionaries import ITDA, Activation, Normalization
from fluxtionary.dictionaries.exporters import ExportError, export_dictionary
from fluxtionary.dictionaries.importers import import_dictionary

from .importers.export_examples import EXAMPLES, SITE, D, M, make, thresholds

HERE = Path(__file__).parent / "importers"
IDS = [f"{format}-{name}" for format, name, _ in EXAMPLES]


@pytest.fixture(params=EXAMPLES, ids=IDS)
def example(request):
    """Format, dictionary, and the recorded folder."""
    format, name, make_one = request.param
    return format, make_one(), HERE / f"fixtures/exported_{format}" / name


def test_the_files_are_those_that_the_libraries_read(example, tmp_path):
    format, dictionary, folder = example
    export_dictionary(dictionary, tmp_path / "deep/out", format)
    assert sorted(p.name for p in (tmp_path / "deep/out").iterdir()) == sorted(p.name for p in folder.iterdir())
    for path in folder.iterdir():
        ours = tmp_path / "deep/out" / path.name
        if path.suffix == ".json":
            assert ours.read_text() == path.read_text()
            continue
        tensors, recorded = load_file(ours), load_file(path)
        assert tensors.keys() == recorded.keys()
        for name, tensor in tensors.items():  # folded in float64: other machines may round the last bit otherwise
            torch.testing.assert_close(tensor, recorded[name], rtol=1e-6, atol=1e-7)


def test_our_codes_are_what_the_libraries_made_of_the_files(example):
    _, dictionary, folder = example
    recorded = load_file(f"{folder}.recorded.safetensors")
    codes = dictionary.encode(recorded["x"]).dense(M)
    assert torch.equal(codes != 0, recorded["codes"] != 0)
    torch.testing.assert_close(codes, recorded["codes"], rtol=0, atol=1e-5)
    again = dictionary.reconstruct(recorded["x"])
    torch.testing.assert_close(again, recorded["reconstruction"], rtol=0, atol=1e-5)


def test_what_is_exported_can_be_imported(example, tmp_path):
    format, dictionary, folder = example
    export_dictionary(dictionary, tmp_path / "out", format)
    again = import_dictionary(tmp_path / "out", SITE)
    x = load_file(f"{folder}.recorded.safetensors")["x"]
    torch.testing.assert_close(again.encode(x).dense(M), dictionary.encode(x).dense(M), rtol=0, atol=1e-5)
    torch.testing.assert_close(again.reconstruct(x), dictionary.reconstruct(x), rtol=0, atol=1e-5)
    kind = "jumprelu" if dictionary.activation.name == "batchtopk" else dictionary.activation.name
    assert (again.activation.name, again.k) == (kind, None if kind == "jumprelu" else dictionary.k)
    if format == "saelens":
        assert again.groups == dictionary.groups


REFUSED = [
    ("saelens", lambda: make(Activation("groupmax", 8)), "SAELens has no groupmax"),
    ("saelens", lambda: make(Activation("topk", 8, relu=False)), "ends in a ReLU"),
    ("sparsify", lambda: make(Activation("topk", 8, relu=False)), "ends in a ReLU"),
    ("sparsify", lambda: make(Activation("jumprelu", threshold=thresholds())), "found jumprelu"),
    ("sparsify", lambda: make(Activation("topk", 8), Normalization(kind="layer_norm")), "layer_norm"),
    ("saelens", lambda: make(Activation("topk", 8), Normalization(kind="layer_norm", clip=3.0)), "clip 3.0"),
    ("saelens", lambda: make(Activation("topk", 8), Normalization(torch.ones(D), kind="center", clip=3.0)), "center"),
    ("saelens", lambda: ITDA(SITE, torch.eye(D), 3), "kind itda"),
    ("keras", lambda: make(Activation("topk", 8)), "one of saelens, sparsify; found 'keras'"),
]


@pytest.mark.parametrize(("format", "make_one", "words"), REFUSED)
def test_what_a_format_cannot_hold_is_refused(format, make_one, words, tmp_path):
    with pytest.raises(ExportError, match=words):
        export_dictionary(make_one(), tmp_path / "out", format)
    assert not list(tmp_path.iterdir())


def test_nothing_is_overwritten_or_left_half(tmp_path, monkeypatch):
    (tmp_path / "out").mkdir()
    with pytest.raises(ExportError, match="exists already"):
        export_dictionary(make(Activation("topk", 8)), tmp_path / "out", "saelens")
    assert not list((tmp_path / "out").iterdir())
    (tmp_path / "out").rmdir()
    monkeypatch.setattr(
        "fluxtionary.dictionaries.exporters.save_file", lambda *a: (_ for _ in ()).throw(OSError("full"))
    )
    with pytest.raises(OSError, match="full"):
        export_dictionary(make(Activation("topk", 8)), tmp_path / "out", "saelens")
    assert not list(tmp_path.iterdir())


def reference_python():
    """A Python that has the libraries: named by FLUXTIONARY_REFERENCE_PYTHON, or in ~/reference/.venv."""
    named = os.environ.get("FLUXTIONARY_REFERENCE_PYTHON")
    python = Path(named) if named else Path.home() / "reference/.venv/bin/python"
    return python if python.exists() else None


@pytest.mark.long
@pytest.mark.skipif(
    reference_python() is None, reason="no Python with SAELens and sparsify; their records are compared"
)
def test_the_libraries_themselves_read_what_is_exported_now(tmp_path):
    for format, name, make_one in EXAMPLES:
        export_dictionary(make_one(), tmp_path / format / name, format)
    command = [str(reference_python()), str(HERE / "record.py"), "check", str(tmp_path)]
    result = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    assert result.returncode == 0, result.stderr[-3000:]
    for format, name, make_one in EXAMPLES:
        found, dictionary = load_file(tmp_path / format / f"{name}.recorded.safetensors"), make_one()
        codes = dictionary.encode(found["x"]).dense(M)
        torch.testing.assert_close(codes, found["codes"], rtol=0, atol=1e-5)
        again = dictionary.reconstruct(found["x"])
        torch.testing.assert_close(again, found["reconstruction"], rtol=0, atol=1e-5)


def test_the_settings_say_where_it_is_from(tmp_path):
    dictionary = make(Activation("topk", 8))
    dictionary.provenance.model["name"] = "FLUX.1-schnell"
    export_dictionary(dictionary, tmp_path / "out", "saelens")
    about = json.loads((tmp_path / "out/cfg.json").read_text())["metadata"]
    assert (about["hook_name"], about["model_name"]) == (SITE, "FLUX.1-schnell")
