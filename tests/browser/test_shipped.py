"""The atlas that ships with the demo: it is of the shipped dictionary, whole, and small."""

import subprocess
from pathlib import Path

import pytest

from fluxtionary.atlas import Atlas
from fluxtionary.demo.files import ATLASES, DICTIONARY
from fluxtionary.dictionaries import load_dictionary
from fluxtionary.dictionaries.fingerprint import fingerprint
from fluxtionary.interpretation.trials import qualifies

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def folder():
    (only,) = ATLASES.iterdir()
    return only


@pytest.fixture(scope="module")
def atlas(folder):
    with Atlas.open(folder, fingerprint(load_dictionary(DICTIONARY))) as atlas:
        yield atlas


def test_it_is_of_the_shipped_dictionary(atlas):
    assert atlas.header["dictionary"]["n_features"] == load_dictionary(DICTIONARY).n_features
    assert atlas.header["dictionary"]["model"] == load_dictionary(DICTIONARY).model


def test_every_feature_that_qualifies_is_explained_and_all_but_a_few_are_scored(atlas):
    features = atlas.features(limit=atlas.count())
    qualifying = {feature.number for feature in features if qualifies(atlas, feature.number)}
    labelled = {feature.number for feature in features if feature.label}
    assert labelled == qualifying and len(labelled) > 100
    scored = {feature.number for feature in features if "interp" in feature.scores}
    assert scored <= labelled and len(scored) > 0.85 * len(labelled)  # others are active in too many pictures, or few
    assert all(feature.output_score is not None for feature in features)


def test_its_pictures_and_maps_are_there(atlas):
    for number in atlas.pictures():
        assert atlas.pixels(number).shape == (*atlas.size, 3) and len(atlas.maps(number).value)


def test_it_is_small_and_part_of_the_package(folder):
    files = [path for path in folder.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) < 4.5e6
    assert {path.suffix for path in files} == {".sqlite", ".webp"}
    names = [str(path.relative_to(ROOT)) for path in files]
    ignored = subprocess.run(["git", "check-ignore", *names], cwd=ROOT, capture_output=True, text=True)
    assert ignored.stdout == ""
    assert '"fluxtionary.demo" = ["models/**/*"]' in (ROOT / "pyproject.toml").read_text()
