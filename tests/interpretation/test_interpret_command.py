"""`atlas explain` and `atlas score` on an atlas of drawn scenes, with the stand-in and with servers in trouble."""

import shutil
import signal
import threading
import time

import pytest

from fluxtionary.atlas import Atlas, AtlasError, AtlasWriter
from fluxtionary.commands.interpret import ExplainAtlas, ScoreAtlas
from fluxtionary.interpretation.endpoint import Endpoint, EndpointError
from fluxtionary.interpretation.judge import Judging

from .trouble import Troubled, fails


def interrupt():
    """As Ctrl-C does, which wakes a main thread that waits."""
    signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)


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
    def interrupting(number, handler, request):
        if number == 6:
            interrupt()
        return False

    with Troubled(interrupting) as server:
        command = ExplainAtlas(folder, Endpoint(server.url, "any", concurrency=1), numbers=tuple(range(12)))
        with pytest.raises(KeyboardInterrupt):
            command.run()
        with Atlas.open(folder) as atlas:
            assert 3 <= sum(bool(f.label) for f in atlas.features(limit=100)) < 12
        command.run()
        with Atlas.open(folder) as atlas:
            assert sum(bool(f.label) for f in atlas.features(limit=100)) == 12
        assert len(server.paid) == 12 == len(set(server.paid))


def test_an_interrupted_run_does_not_wait_for_the_next_try(folder):
    def limited(number, handler, request):
        if number == 5:
            threading.Timer(0.5, interrupt).start()
        return number > 3 and fails(429, {"Retry-After": "30"})(number, handler, request)

    with Troubled(limited) as server:
        command = ExplainAtlas(folder, Endpoint(server.url, "any", concurrency=2), numbers=tuple(range(12)))
        started = time.monotonic()
        with pytest.raises(KeyboardInterrupt, match="what was answered is kept"):
            command.run()
        assert time.monotonic() - started < 20 and server.asked == 5
    with Atlas.open(folder) as atlas:
        assert sum(bool(f.label) for f in atlas.features(limit=100)) == 3 == len(server.paid)


@pytest.mark.parametrize("again", [False, True], ids=["once", "twice"])
def test_what_is_under_way_when_interrupted_is_waited_for_unless_interrupted_again(folder, again):
    answered = threading.Event()

    def slow(number, handler, request):
        if number == 4:
            threading.Timer(0.5, interrupt).start()
            threading.Timer(1.5, interrupt if again else answered.set).start()
        return number > 3 and not answered.wait(40)

    with Troubled(slow) as server:
        command = ExplainAtlas(folder, Endpoint(server.url, "any", concurrency=1), numbers=tuple(range(12)))
        started = time.monotonic()
        with pytest.raises(KeyboardInterrupt, match="what was answered is kept"):
            command.run()
        assert time.monotonic() - started < 20 and server.asked == 4
        answered.set()
    with Atlas.open(folder) as atlas:
        assert sum(bool(f.label) for f in atlas.features(limit=100)) == (3 if again else 4)


def test_a_label_that_the_atlas_refuses_keeps_no_other_out(folder, capsys, monkeypatch):
    def refusing(self, number, label, explanation):
        if number == 1:
            raise AtlasError(folder, "a label", "none")
        put(self, number, label, explanation)

    put = AtlasWriter.set_label
    monkeypatch.setattr(AtlasWriter, "set_label", refusing)
    ExplainAtlas(folder, Endpoint("demo"), numbers=(0, 1, 2)).run()
    said = capsys.readouterr().out
    assert "2 features have labels now" in said and "1 x" in said and "expected a label, found none" in said
    with Atlas.open(folder) as atlas:
        assert [bool(atlas.feature(number).label) for number in range(3)] == [True, False, True]
    with pytest.raises(AtlasError, match="expected a label, found none"):
        ExplainAtlas(folder, Endpoint("demo"), numbers=(1,)).run()


def test_a_run_without_any_answer_is_an_error(folder, capsys):
    with Troubled(fails(401)) as server:
        asking = Endpoint(server.url, "any", retries=0, key_variable="NO_SUCH_KEY")
        with pytest.raises(EndpointError, match=r"found none to any of 3 questions: .*\$NO_SUCH_KEY"):
            ExplainAtlas(folder, asking, numbers=(0, 1, 2)).run()
    assert "3 without an answer" in capsys.readouterr().out


def test_there_must_be_labels_to_score(folder):
    with pytest.raises(EndpointError, match="expected labels to score"):
        ScoreAtlas(folder, Endpoint("demo")).run()
