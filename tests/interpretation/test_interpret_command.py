"""`atlas explain` and `atlas score` on an atlas of drawn scenes, with the stand-in and with servers in trouble."""

import _thread
import shutil

import pytest

from fluxtionary.atlas import Atlas
from fluxtionary.commands.interpret import ExplainAtlas, ScoreAtlas
from fluxtionary.interpretation.endpoint import Endpoint, EndpointError
from fluxtionary.interpretation.judge import Judging

from .trouble import Troubled, fails


@pytest.fixture
def folder(drawn_atlas, tmp_path):
    return shutil.copytree(drawn_atlas.folder, tmp_path / "atlas")


def test_labels_and_scores_are_in_the_atlas(folder, capsys):
    ExplainAtlas(folder, Endpoint("demo"), features=6).run()
    said = capsys.readouterr().out
    assert "6 features have labels now" in said and "6 questions asked" in said
    with Atlas.open(folder) as atlas:
        labelled = [f for f in atlas.features(limit=100) if f.label]
        assert len(labelled) == 6 and all(f.explanation for f in labelled)
        assert any(f.label and "red" in f.label for f in atlas.search("red object")) == any(
            "red" in f.label for f in labelled
        )
    ScoreAtlas(folder, Endpoint("demo"), regions=1, shuffled=True, judging=Judging(pictures=2)).run()
    said = capsys.readouterr().out
    assert all(
        name in said for name in ("interp: 0.", "interp_paper: 0.", "region: 0.", "interp of shuffled labels: 0.")
    )
    with Atlas.open(folder) as atlas:
        scored = [f for f in atlas.features(limit=100) if f.scores]
        assert {f.number for f in scored} == {f.number for f in labelled}
        assert all(f.scores.keys() == {"interp", "interp_paper", "region"} for f in scored)
        best = atlas.features("interp", limit=3)
        assert best[0].scores["interp"].value >= best[2].scores["interp"].value > 0.5
    assert (folder.parent / "atlas.answers.sqlite").exists()  # not in the folder, which a new build clears


def test_a_run_that_breaks_off_keeps_its_labels_and_goes_on(folder, capsys):
    broken = fails(500)
    with Troubled(lambda number, *rest: number > 3 and broken(number, *rest)) as server:
        command = ExplainAtlas(folder, Endpoint(server.url, "any", retries=0, concurrency=1), numbers=tuple(range(9)))
        command.run()
        said = capsys.readouterr().out
        assert "3 features have labels now" in said and "6 features are not complete" in said and "run it again" in said
        with Atlas.open(folder) as atlas:
            assert sum(bool(f.label) for f in atlas.features(limit=100)) == 3
        server.trouble = lambda *_: False
        command.run()
        assert "9 features have labels now" in capsys.readouterr().out
        assert len(server.paid) == 9 == len(set(server.paid))


def test_an_interrupted_run_keeps_its_labels(folder):
    def interrupt(number, handler, request):
        if number == 6:
            _thread.interrupt_main()
        return False

    with Troubled(interrupt) as server:
        command = ExplainAtlas(folder, Endpoint(server.url, "any", concurrency=1), numbers=tuple(range(12)))
        with pytest.raises(KeyboardInterrupt):
            command.run()
        with Atlas.open(folder) as atlas:
            assert 3 <= sum(bool(f.label) for f in atlas.features(limit=100)) < 12
        command.run()
        with Atlas.open(folder) as atlas:
            assert sum(bool(f.label) for f in atlas.features(limit=100)) == 12
        assert len(server.paid) == 12 == len(set(server.paid))


def test_there_must_be_labels_to_score(folder):
    with pytest.raises(EndpointError, match="expected labels to score"):
        ScoreAtlas(folder, Endpoint("demo")).run()
