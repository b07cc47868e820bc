"""Writing an atlas: what goes in comes out, and a build that is killed goes on from its last checkpoint."""

import os
import shutil
import signal
import sqlite3
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from fluxtionary.atlas import Atlas, AtlasError, AtlasWriter, Example, Feature, Maps, Score
from fluxtionary.atlas.picture_files import picture_path

from .atlases import CAPTIONS, SIZE, build, examples, features, header, maps, pixels


def files(folder):
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def test_what_goes_in_comes_out(tmp_path):
    with Atlas.open(build(tmp_path / "atlas")) as atlas:
        assert [atlas.feature(each.number) for each in features()] == features()
        assert atlas.examples(0) == examples()[0] and atlas.examples(20, "top") == examples()[20]
        assert atlas.examples(1, "spread") == [Example(4, 1.0, "spread", 0)] and atlas.examples(7) == []
        assert (atlas.count(), atlas.pictures()) == (4, [0, 1, 2, 3, 4])
        for number in atlas.pictures():
            assert tuple(atlas.picture(number)) == (number, CAPTIONS[number], 1000 + number)
            assert np.abs(atlas.pixels(number).astype(int) - pixels(number)).mean() < 4
            for found, given in zip(atlas.maps(number), maps(number), strict=True):
                assert found.dtype == given.dtype and np.allclose(found, given, rtol=5e-4)
        assert atlas.heat_map(20, 4).tolist() == [[0, 0, 0], [0, -5, 0]]
        assert np.allclose(atlas.heat_map(0, 0), [[0, 0.3, 0], [0, 2.5, 0]], rtol=5e-4)
        assert not atlas.heat_map(5, 0).any()
        assert atlas.header == header() | {"version": 1, "finished": True}


def test_a_seed_may_be_as_large_as_a_host_s(tmp_path):
    with AtlasWriter.begin(tmp_path / "atlas", header()) as writer:
        writer.add(0, "x", 2**64 - 1, pixels(0), maps(0))
        writer.finish([Feature(0)], {0: [Example(0, 1.0, "top", 0)]})
    with Atlas.open(tmp_path / "atlas") as atlas:
        assert atlas.picture(0).seed == 2**64 - 1


def test_pictures_that_no_example_needs_are_gone(tmp_path):
    folder = build(tmp_path / "atlas")
    assert files(folder) == {"atlas.sqlite"} | {f"pictures/000/00000{n}.webp" for n in range(5)}


def test_the_same_input_gives_the_same_content(tmp_path):
    first, second = (Atlas.open(build(tmp_path / name)) for name in ("a", "b"))
    other = build(tmp_path / "c")
    with AtlasWriter.annotate(other) as writer:
        writer.set_output_score(1, 0.25)
    assert first.digest() == second.digest() != Atlas.open(other).digest()


@pytest.mark.parametrize("upto", [0, 2, 4, 6])
def test_an_unfinished_atlas_is_gone_on_with(tmp_path, upto):
    build(tmp_path / "atlas", finish=False, upto=upto)
    with AtlasWriter.begin(tmp_path / "atlas", header()) as writer:
        assert writer.done == upto // 2
        assert (int(writer.state["seen"]) if upto else writer.state) == (upto or None)
        if upto:
            assert writer.state["empty"].shape == (0, 3)
            writer.add(9, "lost", 9, pixels(9), maps(9))  # nobody checkpoints it
    build(tmp_path / "atlas")
    build(tmp_path / "whole")
    assert Atlas.open(tmp_path / "atlas").digest() == Atlas.open(tmp_path / "whole").digest()
    assert files(tmp_path / "atlas") == files(tmp_path / "whole")


def killed_at(folder, step):
    """Build in a process of its own that is killed at one of its steps; whether it came to its end before."""
    child = os.fork()
    if not child:
        try:
            steps, run, write = iter(range(10**6)), AtlasWriter._run, Path.write_bytes

            def counted(work):
                def step_by_step(*values):
                    if next(steps) == step:
                        os.kill(os.getpid(), signal.SIGKILL)
                    return work(*values)

                return step_by_step

            AtlasWriter._run, Path.write_bytes = counted(run), counted(write)
            build(folder)
            os._exit(0)
        except BaseException:
            os._exit(1)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


@pytest.mark.skipif(sys.platform != "linux", reason="needs fork")
@pytest.mark.parametrize("stride", [7, pytest.param(1, marks=pytest.mark.long)])
def test_killed_at_any_step_it_goes_on_to_the_same_atlas(tmp_path, stride):
    with Atlas.open(build(tmp_path / "whole")) as atlas:
        whole = atlas.digest()
    kills = 0
    for step in range(0, 200, stride):
        folder = tmp_path / f"{step}"
        found = killed_at(folder, step)
        if found == 0:
            break
        assert found == -signal.SIGKILL
        kills += 1
        build(folder)
        with Atlas.open(folder) as atlas:
            assert atlas.digest() == whole, step
        assert files(folder) == files(tmp_path / "whole"), step
        shutil.rmtree(folder)
    assert kills > 30 // stride


@pytest.mark.skipif(sys.platform != "linux", reason="needs fork")
def test_killed_twice_in_a_row_it_still_goes_on(tmp_path):
    with Atlas.open(build(tmp_path / "whole")) as atlas:
        whole = atlas.digest()
    for first, second in ((9, 3), (14, 8), (20, 20), (2, 16)):
        folder = tmp_path / f"{first}-{second}"
        assert killed_at(folder, first) == killed_at(folder, second) == -signal.SIGKILL
        build(folder)
        with Atlas.open(folder) as atlas:
            assert atlas.digest() == whole


def test_pictures_are_dropped_only_once_a_checkpoint_no_longer_needs_them(tmp_path):
    folder = build(tmp_path / "atlas", finish=False)
    with AtlasWriter.begin(folder, header()) as writer:
        writer.kept([1, 2])
        assert picture_path(folder, 3).exists()
    with AtlasWriter.begin(folder, header()) as writer:
        assert writer._run("SELECT count(*) FROM pictures").fetchone() == (6,)
        writer.kept([1, 2])
        writer.checkpoint(3, writer.state)
        assert writer._run("SELECT count(*) FROM pictures").fetchone() == (2,)
    assert files(folder / "pictures") == {"000/000001.webp", "000/000002.webp"}


def test_another_build_is_refused_and_changes_nothing(tmp_path):
    folder = build(tmp_path / "atlas", finish=False)
    with pytest.raises(AtlasError, match="one with another header; give another folder, or overwrite it"):
        AtlasWriter.begin(folder, header(fingerprint="cd" * 32))
    assert AtlasWriter.begin(folder, header()).done == 3


def test_an_atlas_that_another_finished_meanwhile_is_finished(tmp_path, monkeypatch, caplog):
    folder = build(tmp_path / "atlas", finish=False)
    early = AtlasWriter._opened(folder)  # as of a process that then waits for the other's transaction to end
    build(folder)
    monkeypatch.setattr(AtlasWriter, "_opened", lambda folder: early)
    with caplog.at_level("INFO"), AtlasWriter.begin(folder, header()) as writer:
        assert writer.finished
    assert "another process has finished it meanwhile" in caplog.text
    Atlas.open(folder).close()


def test_output_scores_of_different_settings_are_not_mixed(tmp_path):
    folder = build(tmp_path / "atlas")
    with Atlas.open(folder) as atlas, AtlasWriter.annotate(folder) as writer:
        with pytest.raises(AtlasError, match="found others, which it does not say; measure with the same, or all anew"):
            writer.begin_output_scores({"steps": 4})
        assert atlas.feature(2).output_score == 0.5
        writer.begin_output_scores({"steps": 4}, overwrite=True)
        assert atlas.feature(2).output_score is None
        writer.set_output_score(1, 0.25)
        for overwrite in (False, True):
            writer.begin_output_scores({"steps": 4}, overwrite)
            assert atlas.feature(1).output_score == 0.25
        with pytest.raises(AtlasError, match='measured with {"steps": 8}, found {"steps": 4}'):
            writer.begin_output_scores({"steps": 8})


def test_a_finished_atlas_is_left_as_it_is_or_overwritten(tmp_path):
    folder = build(tmp_path / "atlas")
    with AtlasWriter.annotate(folder) as writer:
        writer.set_label(1, "red", "much red")
    with AtlasWriter.begin(folder, header()) as writer:
        assert writer.finished
    with Atlas.open(folder) as atlas:
        assert atlas.feature(1).label == "red"
    with pytest.raises(AtlasError, match="one with another header"):
        AtlasWriter.begin(folder, header(prompts=9))
    with AtlasWriter.begin(folder, header(prompts=9), overwrite=True) as writer:
        assert (writer.done, writer.state, files(folder)) == (
            0,
            None,
            {"atlas.sqlite", "atlas.sqlite-journal"} & files(folder),
        )


@pytest.mark.parametrize("overwrite", [False, True])
def test_a_folder_with_something_else_is_left_alone(tmp_path, overwrite):
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(AtlasError):
        AtlasWriter.begin(tmp_path, header(), overwrite)
    build(tmp_path / "mixed")
    (tmp_path / "mixed" / "thesis.txt").write_text("years of work")
    with pytest.raises(AtlasError, match="expected an atlas, or nothing"):
        AtlasWriter.begin(tmp_path / "mixed", header(), overwrite=True)
    assert files(tmp_path) >= {"thesis.txt", "mixed/thesis.txt", "mixed/atlas.sqlite"}
    with pytest.raises(AtlasError):
        AtlasWriter.begin(tmp_path / "thesis.txt", header(), overwrite)


def test_nobody_else_writes_meanwhile(tmp_path):
    with AtlasWriter.begin(tmp_path / "atlas", header()) as writer:
        other = sqlite3.connect(tmp_path / "atlas" / "atlas.sqlite", timeout=0)
        with pytest.raises(sqlite3.OperationalError, match="locked"):
            other.execute("BEGIN IMMEDIATE")
        writer.checkpoint(1, {})
        with pytest.raises(sqlite3.OperationalError, match="locked"):
            other.execute("BEGIN IMMEDIATE")


def flat(feature=(0, 0, 1), token=(0, 1, 0), value=(1.0, 2.0, 3.0)):
    return Maps(np.array(feature), np.array(token), np.array(value, np.float32))


@pytest.mark.parametrize(
    "given",
    [
        flat(token=(1, 0, 0)),
        flat(token=(1, 1, 0)),
        flat(token=(0, 6, 0)),
        flat(feature=(0, 0, 40)),
        flat(feature=(-1, 0, 1)),
        flat(value=(1, np.nan, 1)),
        flat(value=(1, 0, 1)),
        Maps(np.zeros(2, int), np.zeros(3, int), np.ones(3)),
        Maps(np.zeros(1), np.zeros(1, int), np.ones(1)),
    ],
)
def test_maps_that_do_not_fit_are_refused(tmp_path, given):
    with AtlasWriter.begin(tmp_path / "atlas", header()) as writer, pytest.raises(AtlasError):
        writer.add(0, "x", 0, pixels(0), given)


@pytest.mark.parametrize(
    "change",
    [
        {"number": -1},
        {"number": 10**7},
        {"seed": -1},
        {"seed": 2**64},
        {"prompt": "x" * 100_001},
        {"prompt": "\ud800"},
        {"pixels": np.zeros((*SIZE, 3), np.float32)},
        {"pixels": np.zeros((*SIZE, 4), np.uint8)},
        {"pixels": np.zeros((16, 16, 3), np.uint8)},
    ],
)
def test_pictures_that_do_not_fit_are_refused(tmp_path, change):
    given = {"number": 0, "prompt": "x", "seed": 0, "pixels": pixels(0), "maps": maps(0)} | change
    with AtlasWriter.begin(tmp_path / "atlas", header()) as writer:
        with pytest.raises(AtlasError):
            writer.add(**given)
        writer.add(1, "x", 0, pixels(0), maps(0))
        with pytest.raises(AtlasError, match="expected each picture once, found picture 1 again"):
            writer.add(1, "x", 0, pixels(0), maps(0))


@pytest.mark.parametrize(
    "change",
    [
        {"density": float("nan")},
        {"peak": float("inf")},
        {"number": 40},
        {"profile": (float("nan"),)},
        {"companions": ((99, 0.5),)},
        {"label": "x" * 1001},
        {"scores": {"": Score(0.5, 0, 1, 3)}},
        {"scores": {"interp": Score(1.5, 0, 1, 3)}},
    ],
)
def test_features_that_do_not_fit_are_refused(tmp_path, change):
    folder = build(tmp_path / "atlas", finish=False)
    with AtlasWriter.begin(folder, header()) as writer, pytest.raises(AtlasError):
        writer.finish([replace(features()[0], **change)], {})
    build(folder)  # nothing of it is left


def test_examples_need_their_pictures(tmp_path):
    folder = build(tmp_path / "atlas", finish=False)
    with AtlasWriter.begin(folder, header()) as writer, pytest.raises(AtlasError, match=r"found none of \[77\]"):
        writer.finish(features(), {0: [Example(77, 1.0, "top", 0)]})


@pytest.mark.parametrize(
    "change", [{"fingerprint": "x"}, {"grid": [300, 300]}, {"size": [0, 4]}, {"sigmas": [float("nan")]}, {"capture": 3}]
)
def test_headers_that_do_not_fit_are_refused(tmp_path, change):
    with pytest.raises(AtlasError):
        AtlasWriter.begin(tmp_path / "atlas", header(**change))
    assert not (tmp_path / "atlas").exists()


def test_labels_and_scores_are_added_to_a_finished_atlas(tmp_path):
    folder = build(tmp_path / "atlas")
    with Atlas.open(folder) as atlas, AtlasWriter.annotate(folder) as writer:
        assert [each.number for each in atlas.features("output_score")] == [2, 0, 1, 20]
        writer.set_label(0, "a dancing bear", "It dances.")
        writer.set_scores(0, {"interp": Score(0.75, 0.5, 1.0, 10)})
        writer.set_scores(0, {"region": Score(0.25, 0.0, 0.5, 10)})
        writer.set_output_score(0, 0.9)
        found = atlas.feature(0)  # another's changes are seen at once
        assert (found.label, found.explanation, found.output_score) == ("a dancing bear", "It dances.", 0.9)
        assert found.scores == {"interp": Score(0.75, 0.5, 1.0, 10), "region": Score(0.25, 0.0, 0.5, 10)}
        assert [each.number for each in atlas.features("output_score")] == [0, 2, 1, 20]
        assert [each.number for each in atlas.search("dance bear")] == [0]
        writer.set_label(0, "a blue whale", "")
        assert atlas.search("dance bear") == [] and atlas.search("whale")[0].number == 0
        for work in (
            lambda: writer.set_label(9, "x", ""),
            lambda: writer.set_scores(9, {}),
            lambda: writer.set_output_score(9, 1),
        ):
            with pytest.raises(AtlasError, match="feature 9 among those that were active"):
                work()
        with pytest.raises(AtlasError):
            writer.set_scores(1, {"interp": Score(0.5, 0.5, 0.5, 1), "bad": Score(2.0, 0.0, 1.0, 1)})
        assert atlas.feature(1).scores == {"interp": Score(0.5, 0.25, 0.75, 8)}  # all or nothing


def test_scores_go_with_the_label_that_they_are_of(tmp_path):
    folder = build(tmp_path / "atlas")
    with Atlas.open(folder) as atlas, AtlasWriter.annotate(folder) as writer:
        writer.set_output_score(1, 0.5)
        writer.set_label(1, "blue things", "The same label, explained anew.")
        assert atlas.feature(1).scores == {"interp": Score(0.5, 0.25, 0.75, 8)}
        writer.set_label(1, "green things", "All are green.")
        assert atlas.feature(1).scores == {} and atlas.feature(1).output_score == 0.5


def test_an_unfinished_atlas_is_not_annotated(tmp_path):
    folder = build(tmp_path / "atlas", finish=False)
    with pytest.raises(AtlasError, match="expected a finished atlas, found one still being built"):
        AtlasWriter.annotate(folder)


def test_a_folder_that_cannot_be_written_to_is_said(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(AtlasError, match="expected a folder to write in"):
        AtlasWriter.begin(tmp_path / "file" / "atlas", header())
