import sys
from types import SimpleNamespace

import pytest

from fluxtionary.dictionaries import DictionaryFileError
from fluxtionary.training.hub import local_folder


@pytest.fixture
def hub(monkeypatch, tmp_path):
    """A hub that has one repository with a folder `layers.5`, and remembers what it was asked for."""
    asked = []

    def snapshot_download(repository, allow_patterns):
        asked.append((repository, allow_patterns))
        if repository != "owner/name":
            raise ConnectionError("no route to host\nand a long story")
        (tmp_path / "layers.5").mkdir(exist_ok=True)
        return str(tmp_path)

    monkeypatch.setitem(sys.modules, "huggingface_hub", SimpleNamespace(snapshot_download=snapshot_download))
    return asked


def test_a_local_path_is_itself(hub, tmp_path, monkeypatch):
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path)
    assert local_folder("here").samefile(tmp_path / "here")
    (tmp_path / "here/cfg.json").touch()
    assert local_folder(str(tmp_path / "here/cfg.json")).is_file()
    assert not hub


def test_a_folder_of_a_repository_alone_is_fetched(hub, tmp_path):
    assert local_folder("owner/name/layers.5") == tmp_path / "layers.5"
    assert hub == [("owner/name", ["layers.5/*"])]


def test_at_a_repository_s_root_only_what_a_dictionary_has_is_fetched(hub, tmp_path):
    assert local_folder("owner/name") == tmp_path
    ((_, patterns),) = hub
    assert {"cfg.json", "sae.safetensors", "ae.pt", "state_dict.pth", "activation_scaler.json"} <= set(patterns)
    assert not any("*" in pattern for pattern in patterns)


def test_what_the_hub_has_not_is_said(hub):
    with pytest.raises(DictionaryFileError, match="a folder layers.6 in the hub's owner/name"):
        local_folder("owner/name/layers.6")


def test_no_network_is_said(hub):
    with pytest.raises(DictionaryFileError, match="no such local folder, and ConnectionError: no route to host$"):
        local_folder("owner/other")


@pytest.mark.parametrize("source", ["/no/such/folder", "./nothing", "nothing", "owner/name/../../etc", "owner/na me"])
def test_what_is_neither_is_refused(hub, source):
    with pytest.raises(DictionaryFileError, match="neither"):
        local_folder(source)
    assert not hub


def test_without_the_library_it_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(DictionaryFileError, match=r"pip install 'fluxtionary\[train\]'"):
        local_folder("owner/name")
