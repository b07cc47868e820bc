"""The list of what is installed, and what belongs together."""

import json
import os
import shutil

import pytest

from fluxtionary.atlas import AtlasWriter, Feature
from fluxtionary.browser import shelf as shelves
from fluxtionary.browser.answers import Browser
from fluxtionary.browser.installed import installed
from fluxtionary.browser.refusal import RefusedError
from fluxtionary.browser.shelf import Shelf, folders, plain
from fluxtionary.browser.views import Views
from fluxtionary.dictionaries import SteeringVector, load_dictionary, save_dictionary
from fluxtionary.dictionaries.fingerprint import fingerprint

from ..atlas.atlases import build, header, maps, pixels
from ..conftest import make_dictionary

SITE = "double.1.img"


@pytest.fixture
def root(tmp_path):
    (tmp_path / "atlases").mkdir()
    (tmp_path / "dictionaries").mkdir()
    return tmp_path


def shelf_of(root):
    return Shelf(
        lambda: folders([root / "atlases"]),
        lambda: {path.name: path for path in (root / "dictionaries").glob("*.safetensors")},
    )


def atlas_of(folder, path):
    """An empty atlas of a dictionary's file."""
    about = {"kind": "sae", "site": SITE, "n_features": 40, "model": {"family": "flux", "name": "tiny"}}
    own = header(fingerprint=fingerprint(load_dictionary(path)), dictionary=about)
    with AtlasWriter.begin(folder, own) as writer:
        writer.add(0, "a circle", 1, pixels(0), maps(0))
        writer.finish([Feature(0, 1)], {})


def test_what_belongs_together_is_found_by_content(root):
    for name, seed in (("one", 1), ("other", 2)):
        save_dictionary(make_dictionary(SITE, n_features=40, seed=seed), root / "dictionaries" / f"{name}.safetensors")
    atlas_of(root / "atlases" / "mine", root / "dictionaries" / "other.safetensors")
    build(root / "atlases" / "shapes")
    shelf = shelf_of(root)
    found = installed(shelf)
    while found["pending"]:
        found = installed(shelf)
    atlases = {each["id"]: each for each in found["atlases"]}
    assert atlases["mine"]["dictionary"] == "other.safetensors" and atlases["shapes"]["dictionary"] is None
    assert (atlases["mine"]["model"], atlases["mine"]["features"], atlases["mine"]["n_features"]) == ("tiny", 1, 40)
    assert atlases["shapes"]["scores"] == ["interp"] and "sigma" in atlases["shapes"]["orders"]
    dictionaries = {each["name"]: each for each in found["dictionaries"]}
    assert dictionaries["one.safetensors"]["atlas"] is None
    assert dictionaries["other.safetensors"] == {
        **{"name": "other.safetensors", "kind": "sae", "site": SITE, "n_features": 40, "model": ""},
        **{"atlas": "mine", "problem": None},
    }
    (root / "dictionaries" / "one.safetensors").replace(root / "dictionaries" / "other.safetensors")
    fresh = installed(shelf_of(root))
    assert [each["atlas"] for each in fresh["dictionaries"]] == [None]


def test_natural_values_are_those_of_the_dictionary(root):
    path = root / "dictionaries" / "own.safetensors"
    save_dictionary(make_dictionary(SITE, n_features=40), path)
    atlas_of(root / "atlases" / "mine", path)
    shelf = shelf_of(root)
    shelf.fingerprints(["own.safetensors"], 60)
    found = Browser(shelf, Views()).answer("feature", {"atlas": "mine", "feature": "0"})
    assert found["natural"] == float(load_dictionary(path).natural[0])


def test_an_atlas_of_a_dictionary_in_memory(root):
    path = root / "dictionaries" / "own.safetensors"
    save_dictionary(make_dictionary(SITE, n_features=40), path)
    atlas_of(root / "atlases" / "mine", path)
    shelf = shelf_of(root)
    own, other = load_dictionary(path), make_dictionary(SITE, n_features=40, seed=5)
    assert shelf.atlas_of(own, 60) == "mine" and shelf.atlas_of(other, 60) is None
    assert shelf.atlas_of(make_dictionary(SITE, n_features=41), 60) is None
    assert shelf.name_of(path) == "own.safetensors" and shelf.name_of(root) is None and shelf.name_of(None) is None


def test_what_cannot_be_read_is_listed_with_what_is_wrong(root):
    for name in ("empty", "broken", "future", "cut", "huge"):
        build(root / "atlases" / name)
    file = {path.name: path / "atlas.sqlite" for path in (root / "atlases").iterdir()}
    file["empty"].unlink()
    file["broken"].write_bytes(b"<script>alert(1)</script>" * 100)
    file["future"].write_bytes(file["future"].read_bytes().replace(b"FLXA", b"FLXB"))
    file["cut"].write_bytes(file["cut"].read_bytes()[:5000])
    shutil.rmtree(root / "atlases" / "huge")
    with AtlasWriter.begin(root / "atlases" / "huge", header(size=[4096, 4096])) as writer:
        writer.finish([], {})
    save_dictionary(SteeringVector({SITE: make_dictionary(SITE).decoder[0]}), root / "dictionaries" / "v.safetensors")
    (root / "dictionaries" / "none.safetensors").write_bytes(b"no dictionary at all")
    found = installed(shelf_of(root))
    problems = {each["id"]: each["problem"] for each in found["atlases"]}
    assert problems.keys() == {"empty", "broken", "future", "cut", "huge"}
    for name, part in {
        "empty": "expected an atlas, a folder with atlas.sqlite, found none",
        "broken": "expected an SQLite database",
        "future": "another program's database",
        "cut": "cut off",
        "huge": "expected pictures of at most 4,194,304 pixels, found 4096x4096; build it with smaller pictures",
    }.items():
        assert problems[name].startswith(f"{name}: expected ") and part in problems[name]
    said = {each["name"]: each["problem"] for each in found["dictionaries"]}
    assert "a steering vector: move it" in said["v.safetensors"] and "damaged" in said["none.safetensors"]
    assert str(root) not in json.dumps(found)


def test_the_first_place_wins_and_hidden_folders_are_left_out(tmp_path):
    for name in ("one/shapes", "two/shapes", "two/cats", "two/.git"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "two" / "file").write_text("no folder")
    found = folders([tmp_path / "one", tmp_path / "none", tmp_path / "two"])
    assert found == {"shapes": tmp_path / "one" / "shapes", "cats": tmp_path / "two" / "cats"}


@pytest.mark.skipif(os.name == "nt", reason="file names are text there")
def test_names_that_are_no_text_are_spelled_out(tmp_path):
    try:
        os.mkdir(os.fsencode(tmp_path) + b"/a\xff")  # noqa: PTH102 - bytes
    except OSError:
        pytest.skip("this file system takes no such name")
    (name,) = folders([tmp_path])
    assert name == "a\\xff" == plain(name) and json.dumps(name).isascii()


def test_an_atlas_that_was_built_anew_is_read_anew(root):
    build(root / "atlases" / "shapes")
    shelf = shelf_of(root)
    old = shelf.atlas("shapes")
    assert shelf.atlas("shapes") is old
    with AtlasWriter.annotate(root / "atlases" / "shapes") as writer:
        writer.set_label(0, "something else", "because")
    assert shelf.atlas("shapes").feature(0).label == "something else"
    shutil.rmtree(root / "atlases" / "shapes")
    shelf._atlases._until = 0
    with pytest.raises(RefusedError, match="found none called 'shapes'"):
        shelf.atlas("shapes")


def test_few_are_held_open(root, monkeypatch):
    monkeypatch.setattr(shelves, "OPEN", 2)
    for number in range(4):
        build(root / "atlases" / f"a{number}")
    shelf = shelf_of(root)
    opened = [shelf.atlas(f"a{number}") for number in range(4)]
    assert len(shelf._open) == 2 and opened[0].count() == 4  # who uses one still may
