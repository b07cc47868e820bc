import random
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from fluxtionary.atlas import Atlas, AtlasError
from fluxtionary.dictionaries import load_dictionary
from fluxtionary.dictionaries.fingerprint import fingerprint
from fluxtionary.interpretation import build
from fluxtionary.interpretation.build import build_atlas
from fluxtionary.interpretation.gathering import Gathering
from fluxtionary.residual import Site
from fluxtionary.training.drawn import DrawnPictures
from fluxtionary.training.sampling import Sampling

from .. import prepared
from .streams import MadeUpPictures, plain_dictionary

CONFIG = Gathering(top=3, spread=3, companions=2)
DICTIONARY = plain_dictionary(12)
ROOT = Path(__file__).parents[2]


class CutOffError(Exception):
    pass


class Interrupted(MadeUpPictures):
    """Ends after some batches with an error, as a process does that is killed between two of them."""

    error: type[BaseException] = CutOffError

    def __init__(self, pictures, until, error=CutOffError):
        super().__init__(pictures)
        self.until, self.error, self.asked = until, error, []

    def batches(self, start=0):
        for number, drawn in enumerate(super().batches(start), start):
            if number == self.until:
                raise self.error
            self.asked.append(number)
            yield drawn


def built(stream, folder, **options):
    return build_atlas(stream, DICTIONARY, folder, CONFIG, progress=False, **options)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    return built(MadeUpPictures(50), tmp_path_factory.mktemp("atlas") / "whole")


def test_an_atlas_says_what_it_is_of(whole):
    assert whole.header["fingerprint"] == fingerprint(DICTIONARY)
    assert whole.header["dictionary"] == {"kind": "sae", "site": "double.1.img", "n_features": 12, "model": {}}
    assert (whole.header["grid"], whole.header["size"], whole.header["sigmas"]) == ([3, 4], [12, 16], [0.75, 0.25])
    assert whole.header["prompts"] == 50 and whole.header["examples"]["top"] == 3
    assert whole.count() == 12


def test_examples_come_with_their_pictures_and_heat_maps(whole):
    stream = MadeUpPictures(50)
    for number in (0, 7, 11):
        feature = whole.feature(number)
        examples = whole.examples(number)
        assert [(one.kind, one.rank) for one in examples] == [(k, r) for k in ("top", "spread") for r in range(3)]
        assert examples[0].peak == pytest.approx(feature.peak)
        for one in examples:
            picture = whole.picture(one.picture)
            assert (picture.prompt, picture.seed) == (f"picture {one.picture}", 1000 + one.picture)
            assert abs(whole.pixels(one.picture).astype(int) - one.picture).max() <= 3
            expected = stream.activations(one.picture).mean(0)[:, number].reshape(3, 4)
            assert np.allclose(whole.heat_map(number, one.picture), expected, atol=1e-3)


def test_only_pictures_that_are_examples_are_kept(whole):
    used = {one.picture for number in range(12) for one in whole.examples(number)}
    assert set(whole.pictures()) == used and len(used) < 50


@pytest.mark.parametrize("every_seconds", [0.0, 1e9], ids=["checkpoints", "no checkpoint"])
@pytest.mark.parametrize("cuts", [[3], [1, 2, 6], [7]])
def test_cut_off_at_any_batch_it_goes_on_to_the_same_atlas(whole, tmp_path, cuts, every_seconds):
    for until in cuts:
        with pytest.raises(CutOffError):
            built(Interrupted(50, until), tmp_path / "atlas", every_seconds=every_seconds)
    last = Interrupted(50, None)
    assert built(last, tmp_path / "atlas", every_seconds=every_seconds).digest() == whole.digest()
    assert last.asked == list(range(cuts[-1] if every_seconds == 0 else 0, 8))


@pytest.mark.parametrize("step", ["_add", "_save"])
def test_cut_off_in_the_middle_of_a_batch_it_goes_on_to_the_same_atlas(whole, tmp_path, monkeypatch, step):
    """Halfway through adding a batch's pictures, and after pictures were dropped but before the state was kept."""
    calls = []

    def add(self, *given):
        calls.append(given)
        if len(calls) == 30:
            raise CutOffError
        return added(self, *given)

    def checkpoint(self, done, state):
        if done == 5:
            raise CutOffError
        return kept(self, done, state)

    added, kept = build.AtlasWriter.add, build.AtlasWriter.checkpoint
    with monkeypatch.context() as patch, pytest.raises(CutOffError):
        patch.setattr(build.AtlasWriter, *(("add", add) if step == "_add" else ("checkpoint", checkpoint)))
        built(MadeUpPictures(50), tmp_path / "atlas", every_seconds=0)
    assert built(MadeUpPictures(50), tmp_path / "atlas").digest() == whole.digest()


def test_interrupted_by_the_user_nothing_is_lost(whole, tmp_path):
    with pytest.raises(KeyboardInterrupt, match=r"4 of 8 batches are kept in .*the same command goes on"):
        built(Interrupted(50, 4, KeyboardInterrupt), tmp_path / "atlas", every_seconds=1e9)
    rest = Interrupted(50, None)
    assert built(rest, tmp_path / "atlas").digest() == whole.digest()
    assert rest.asked == [4, 5, 6, 7]


def test_another_build_does_not_go_on_with_it(tmp_path):
    folder = tmp_path / "atlas"
    with pytest.raises(CutOffError):
        built(Interrupted(50, 4), folder, every_seconds=0)
    with pytest.raises(AtlasError, match="another header"):
        built(MadeUpPictures(51), folder)
    with pytest.raises(AtlasError, match="another header"):
        build_atlas(MadeUpPictures(50), DICTIONARY, folder, replace(CONFIG, top=4), progress=False)
    smaller = MadeUpPictures(50)
    smaller.batch = 5  # the number of a batch would mean other pictures
    with pytest.raises(AtlasError, match="another header"):
        built(smaller, folder)


def test_a_finished_atlas_is_replaced_only_when_asked_to(tmp_path):
    first = built(MadeUpPictures(20), tmp_path / "atlas")
    first.close()
    with pytest.raises(AtlasError, match="another header"):
        built(MadeUpPictures(30), tmp_path / "atlas")
    assert built(MadeUpPictures(20), tmp_path / "atlas").header["prompts"] == 20
    assert built(MadeUpPictures(30), tmp_path / "atlas", overwrite=True).header["prompts"] == 30


def test_a_stream_that_ends_early_makes_no_atlas(tmp_path):
    class Short(MadeUpPictures):
        def batches(self, start=0):
            yield from list(super().batches(start))[:-1]

    with pytest.raises(ValueError, match="expected 8 batches from the stream, found 7"):
        built(Short(50), tmp_path / "atlas")
    with pytest.raises(AtlasError, match="finished"):
        Atlas.open(tmp_path / "atlas")


def test_a_dictionary_of_another_site_is_refused(tmp_path):
    dictionary = plain_dictionary(12)
    dictionary.site = "double.0.img"
    with pytest.raises(ValueError, match=r"the stream has tokens of double.1.img; found double.0.img asked for"):
        build_atlas(MadeUpPictures(10), dictionary, tmp_path / "atlas", progress=False)


def test_the_demo_s_own_dictionary(demo_flux, tmp_path):
    """Drawn for real: the features' top pictures have what they are active on."""
    from fluxtionary.demo.files import DICTIONARY as PATH

    dictionary = load_dictionary(PATH)
    prompts = ["a red circle on a black background", "a blue square on a tan background"]
    stream = DrawnPictures(demo_flux, prompts, [1, 2], [Site.parse(dictionary.site)], Sampling(4, batch=1))
    atlas = build_atlas(stream, dictionary, tmp_path / "atlas", progress=False)
    assert atlas.count() > 100 and atlas.pictures() == [0, 1]
    assert atlas.pixels(0).shape == (128, 128, 3)
    for feature in atlas.features("density", 20):
        top = atlas.examples(feature.number, "top")
        heat = atlas.heat_map(feature.number, top[0].picture)
        assert heat.shape == (8, 8) and heat.max() == pytest.approx(feature.peak, rel=1e-3)


@pytest.mark.long
def test_killed_at_any_point_it_goes_on_to_the_same_atlas(tmp_path):
    """A process of its own, killed by the system at random points, ten times and more."""
    script, said = Path(__file__).with_name("long_build.py"), tmp_path / "said"

    def start(name):
        return prepared.start(script, said, OUT=str(tmp_path / name))

    prepared.ready()
    began = time.monotonic()
    prepared.finish(start("whole"), said)
    seconds = time.monotonic() - began
    rng, kills = random.Random(0), 0
    while kills < 12:
        process = start("part")
        time.sleep(0.2 + rng.uniform(0, seconds / 6))
        if not process.is_alive():
            break
        process.kill()
        process.join()
        kills += 1
    assert kills >= 5
    prepared.finish(process if process.exitcode == 0 else start("part"), said)
    with Atlas.open(tmp_path / "whole") as whole, Atlas.open(tmp_path / "part") as part:
        assert whole.digest() == part.digest()


@pytest.mark.long
def test_memory_is_flat_in_the_number_of_pictures(tmp_path):
    """Ten times the pictures, and the same memory: the peak of a process of its own."""
    command = [sys.executable, str(ROOT / "benchmarks" / "atlas_build.py"), "--memory-of"]
    few, many = (int(subprocess.run([*command, n], check=True, capture_output=True).stdout) for n in ("1000", "10000"))
    assert many < few * 1.05, (few, many)
