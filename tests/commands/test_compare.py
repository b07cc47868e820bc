"""`fluxtionary compare` with a hosted endpoint: no answer is paid twice. The comparison itself is a stand-in's."""

import base64
import io

import pytest
from PIL import Image

from fluxtionary.commands.compare import Compare
from fluxtionary.evaluation import comparison, comparison_report
from fluxtionary.interpretation.endpoint import Client, Endpoint
from fluxtionary.interpretation.questions import judge_question

from ..interpretation.trouble import Troubled

SCORE = {"interp": {"score": 0.5, "low": 0.4, "high": 0.6}}
FIGURES = dict.fromkeys(("sae", "itda", "neurons"), SCORE)
FIGURES |= {"sae_minus_best_baseline": {"best": "frozen_decoder", "mean": 0.1, "low": 0.0, "high": 0.2}}


@pytest.fixture
def server():
    with Troubled() as server:
        yield server


def picture():
    file = io.BytesIO()
    Image.new("RGB", (128, 128)).save(file, "PNG")
    url = "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()
    return {"type": "image_url", "image_url": {"url": url}}


@pytest.fixture
def endpoints(monkeypatch):
    """What each comparison was given to ask; each asks three questions, and `breaks` after them."""

    class Job:
        seen, breaks = [], False

        def __init__(self, config, endpoint, folder, say):
            self.endpoint = endpoint
            Job.seen.append(endpoint)

        def run(self):
            with Client(self.endpoint) as client:
                for label in ("red", "blue", "round"):
                    client.ask(judge_question(label, [picture(), picture()]))
            if Job.breaks:
                raise OSError("disk full")
            return comparison.Findings()

        def figures(self):
            return FIGURES

        def cards(self):
            return {}

    def written(figures, stability, cards, folder):
        (folder / "summary.json").write_text("{}")

    monkeypatch.setattr(comparison, "ComparisonJob", Job)
    monkeypatch.setattr(comparison_report, "write_comparison", written)
    return Job


def test_a_run_that_is_repeated_pays_nothing(server, endpoints, tmp_path):
    compare = Compare(tmp_path / "out", overwrite=True, endpoint=Endpoint(server.url, "any"))
    for _ in range(2):  # the second replaces the folder
        compare.run()
    assert len(endpoints.seen) == 2 and len(server.paid) == 3
    assert (tmp_path / "out.answers.sqlite").exists()


def test_a_run_that_broke_off_pays_only_for_what_is_missing(server, endpoints, tmp_path):
    compare = Compare(tmp_path / "out", overwrite=True, endpoint=Endpoint(server.url, "any"))
    endpoints.breaks = True
    for _ in range(2):  # each leaves a folder of what was finished, in the place of the last
        with pytest.raises(OSError, match="disk full"):
            compare.run()
    endpoints.breaks = False
    compare.run()
    assert len(server.paid) == 3 and (tmp_path / "out" / "summary.json").exists()


def test_a_file_for_answers_that_is_named_is_taken(server, endpoints, tmp_path):
    named = tmp_path / "mine.sqlite"
    Compare(tmp_path / "out", endpoint=Endpoint(server.url, "any", cache=named)).run()
    assert named.exists() and endpoints.seen[0].cache == named
    assert not (tmp_path / "out.answers.sqlite").exists()


def test_the_stand_in_which_costs_nothing_is_asked_anew(endpoints, tmp_path, monkeypatch):
    monkeypatch.setattr(endpoints, "run", lambda self: comparison.Findings())
    Compare(tmp_path / "out").run()
    assert endpoints.seen[0].cache is None
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
