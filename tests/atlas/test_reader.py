"""Looking things up in an atlas."""

import os
import sqlite3
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest

from fluxtionary.atlas import Atlas, AtlasError, AtlasLookupError, AtlasWriter, Example, Feature, Score
from fluxtionary.atlas.reader import ORDERS

from .atlases import FINGERPRINT, build, header, maps, pixels


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return build(tmp_path_factory.mktemp("small") / "atlas")


@pytest.fixture
def atlas(folder):
    with Atlas.open(folder) as atlas:
        yield atlas


def numbers(found):
    return [each.number for each in found]


def test_it_opens_for_its_own_dictionary_alone(folder):
    assert Atlas.open(folder, FINGERPRINT).count() == 4
    with pytest.raises(AtlasError, match="of another .sae of double.1.img with 40 features.; give this dictionary's"):
        Atlas.open(folder, "cd" * 32)


def test_a_folder_without_an_atlas_is_said(tmp_path):
    (tmp_path / "file").write_text("x")
    for path, found in ((tmp_path / "none", "no such folder"), (tmp_path, "found none"), (tmp_path / "file", "a file")):
        with pytest.raises(AtlasError, match=found):
            Atlas.open(path)


def test_an_unfinished_atlas_is_said(tmp_path):
    with pytest.raises(AtlasError, match="one still being built; go on with `fluxtionary atlas build`"):
        Atlas.open(build(tmp_path / "atlas", finish=False))


def test_any_name_of_a_folder_will_do(tmp_path):
    folder = build(tmp_path / "50% of #1? é & more")
    with Atlas.open(folder) as atlas:
        assert atlas.count() == 4


def test_a_link_to_a_folder_will_do(folder, tmp_path):
    (tmp_path / "link").symlink_to(folder)
    with Atlas.open(tmp_path / "link") as atlas:
        assert atlas.pixels(0).shape == (32, 48, 3)


def test_reading_changes_nothing(tmp_path):
    folder = build(tmp_path / "atlas")
    before = {path: path.stat().st_mtime_ns for path in sorted(folder.rglob("*"))}
    with Atlas.open(folder) as atlas:
        atlas.search("red")
        with pytest.raises(sqlite3.OperationalError, match="readonly"):
            atlas._connection.execute("DELETE FROM features")
    assert {path: path.stat().st_mtime_ns for path in sorted(folder.rglob("*"))} == before


@pytest.mark.skipif(os.name == "nt", reason="permissions of POSIX")
def test_a_folder_that_cannot_be_written_to_is_read(tmp_path):
    folder = build(tmp_path / "atlas")
    (folder / "atlas.sqlite").chmod(0o444)
    folder.chmod(0o555)
    try:
        with Atlas.open(folder) as atlas:
            assert numbers(atlas.search("blue square")) == [1, 20]
    finally:
        folder.chmod(0o755)


def test_features_come_in_any_order(atlas):
    assert numbers(atlas.features()) == [0, 1, 2, 20]
    assert numbers(atlas.features(descending=True)) == [20, 2, 1, 0]
    assert numbers(atlas.features("peak")) == [20, 2, 0, 1]  # by magnitude
    assert numbers(atlas.features("density")) == [0, 2, 1, 20]
    assert numbers(atlas.features("density", descending=False)) == [1, 20, 2, 0]
    for order in ("output_score", "interp"):  # what has no figure comes last
        first = 2 if order == "output_score" else 1
        for descending in (True, False):
            found = numbers(atlas.features(order, descending=descending))
            assert found == [first, *(number for number in (0, 1, 2, 20) if number != first)]
    for order in ("nonsense", "number; DROP TABLE features", "", "x" * 10_000):
        with pytest.raises(AtlasError, match=f"expected an order of {', '.join(ORDERS)}"):
            atlas.features(order)


def test_pages_follow_on_one_another(atlas):
    for order in (*ORDERS, "interp"):
        whole = numbers(atlas.features(order))
        assert [numbers(atlas.features(order, 1, place))[0] for place in range(4)] == whole
    assert atlas.features(limit=0) == atlas.features(offset=4) == atlas.features(limit=-3) == []
    assert numbers(atlas.features(limit=2, offset=-5)) == [0, 1]


def test_many_features_are_paged(tmp_path):
    large = header(dictionary=header()["dictionary"] | {"n_features": 3000})
    with AtlasWriter.begin(tmp_path / "atlas", large) as writer:
        writer.add(0, "x", 0, pixels(0), maps(0))
        scores = {"interp": Score(0.5, 0.5, 0.5, 1), "region": Score(0.25, 0.0, 1.0, 1)}
        features = [replace(Feature(n, mean=(n * 7919) % 3000 / 3000), scores=scores) for n in range(3000)]
        writer.finish(features, {n: [Example(0, 1.0, "top", 0)] for n in range(3000)})
    with Atlas.open(tmp_path / "atlas") as atlas:
        assert atlas.features("mean", 1200, 900) == sorted(features, key=lambda each: -each.mean)[900:2100]


@pytest.mark.parametrize("number", [-1, 40, 2**70, 1.0, "1", None])
def test_features_there_are_not_are_said(atlas, number):
    for ask in (atlas.feature, atlas.examples, lambda number: atlas.heat_map(number, 0)):
        with pytest.raises(AtlasError, match="expected a feature from 0 to 39"):
            ask(number)


def test_a_feature_that_was_never_active_is_said(atlas):
    with pytest.raises(AtlasError, match="expected feature 7 among those that were active, found none"):
        atlas.feature(7)


@pytest.mark.parametrize("number", [-1, 5, 10**6, 2**70, "../../x", None])
def test_pictures_there_are_not_are_said(atlas, number):
    for ask in (atlas.picture, atlas.pixels, atlas.webp, atlas.maps, lambda number: atlas.heat_map(0, number)):
        with pytest.raises(AtlasError, match="picture"):
            ask(number)


def test_numbers_may_be_numpy_s(atlas):
    assert atlas.feature(np.int64(1)) == atlas.feature(1)
    assert atlas.picture(np.int32(1)).number == 1


def test_many_threads_read_at_once(atlas):
    def ask(_):
        found = (numbers(atlas.search("red")), numbers(atlas.features("peak")), numbers(atlas.features("interp")))
        return atlas.feature(1), found, atlas.pixels(3).tobytes()

    expected = ask(None)
    with ThreadPoolExecutor(8) as pool:
        assert all(found == expected for found in pool.map(ask, range(80)))


def test_a_closed_atlas_says_so(folder):
    atlas = Atlas.open(folder)
    atlas.close()
    with pytest.raises(AtlasError, match="expected an open atlas"):
        atlas.count()


def test_one_may_read_while_another_writes(folder, tmp_path):
    folder = build(tmp_path / "atlas")
    with AtlasWriter.annotate(folder) as writer, Atlas.open(folder) as atlas:
        writer._run("BEGIN IMMEDIATE")
        writer._run("UPDATE features SET mean = 9")
        assert atlas.feature(0).mean == 0.5
        writer._run("COMMIT")
        assert atlas.feature(0).mean == 9


def test_numbers_are_all_those_that_pages_are_cut_from(folder):
    with Atlas.open(folder) as atlas:
        for order in (*ORDERS, "interp"):
            assert atlas.numbers(order).tolist() == [one.number for one in atlas.features(order)]
        assert atlas.found("blue").tolist() == [one.number for one in atlas.search("blue")]
        assert atlas.found("blue", "density").tolist() == [one.number for one in atlas.search("blue", order="density")]
        assert [one.number for one in atlas.those([20, 3, 0])] == [20, 0]
        assert atlas.first_pictures([20, 3, 0, 2]) == [4, None, 0, 2]
        assert atlas.score_names() == ["interp"]
        numbers = atlas.numbers()
        numbers[:] = 0  # a copy: what the atlas keeps stays as it is
        assert atlas.numbers().tolist() == [0, 1, 2, 20]


def test_the_noise_level_of_a_feature_is_where_it_is_most_often_active(folder):
    with Atlas.open(folder) as atlas:
        assert atlas.most_active_at(atlas.feature(0)) == 0.5
        assert atlas.most_active_at(atlas.feature(1)) is None
        assert atlas.numbers("sigma").tolist() == [0, 1, 2, 20]


def test_what_is_not_there_is_told_from_what_is_damaged(tmp_path):
    folder = build(tmp_path / "atlas")
    with Atlas.open(folder) as atlas:
        questions = (
            lambda: atlas.feature(5),
            lambda: atlas.feature(-1),
            lambda: atlas.picture(77),
            lambda: atlas.heat_map(0, 77),
            lambda: atlas.features("by name"),
        )
        for question in questions:
            with pytest.raises(AtlasLookupError):
                question()
    (folder / "pictures" / "000" / "000000.webp").unlink()
    with Atlas.open(folder) as atlas, pytest.raises(AtlasError) as error:
        atlas.webp(0)
    assert not isinstance(error.value, AtlasLookupError)
