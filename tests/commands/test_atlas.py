"""`fluxtionary atlas build`, `output-score`, `search` and `show`, over one small atlas of the demo."""

import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from fluxtionary.atlas import Atlas, AtlasError, AtlasWriter
from fluxtionary.commands.atlas import BuildAtlas, ScoreOutputs, SearchAtlas, ShowFeature
from fluxtionary.commands.find import Find
from fluxtionary.commands.interpret import ExplainAtlas, ScoreAtlas
from fluxtionary.commands.output import OutputError
from fluxtionary.commands.source import Source
from fluxtionary.interpretation import output_score
from fluxtionary.interpretation.endpoint import Endpoint, EndpointError
from fluxtionary.interpretation.output_score import OutputScoring
from fluxtionary.residual import PlanError
from fluxtionary.training.capture import Capture
from fluxtionary.training.models import Model
from fluxtionary.training.sampling import Drawing

EFFECT = OutputScoring(pictures=1, moments=1, batch=4)
DRAWING = Drawing(steps=2, batch=2)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("atlas")
    prompts = folder / "prompts.txt"
    prompts.write_text("a red circle\na blue ring\na green square\na pink cross\n")
    source = Source(prompts=prompts, sampling=DRAWING)
    BuildAtlas("demo", folder / "atlas", limit=3, read=2, output_scores=4, effect=EFFECT, source=source).run()
    return folder / "atlas"


def test_build_draws_the_first_prompts_and_scores_some_features(folder):
    with Atlas.open(folder) as atlas:
        assert atlas.pictures() == [0, 1, 2] and len(atlas.header["sigmas"]) == 2
        assert [atlas.picture(i).prompt for i in range(3)] == ["a red circle", "a blue ring", "a green square"]
        scored = [f for f in atlas.features(limit=2000) if f.output_score is not None]
        assert len(scored) == 4 and all(f.output_score > 0 for f in scored)
        assert atlas.header["model"]["name"] == "demo"


def test_output_scores_go_on_with_features_that_have_none(folder):
    with Atlas.open(folder) as atlas:
        before = {f.number: f.output_score for f in atlas.features("output_score", 4)}
    ScoreOutputs(folder, "demo", features=6, sampling=DRAWING, effect=EFFECT).run()
    with Atlas.open(folder) as atlas:
        after = {f.number: f.output_score for f in atlas.features(limit=2000) if f.output_score is not None}
    assert len(after) == 6 and before.items() <= after.items()


def test_output_scores_of_other_settings_are_refused_or_measured_anew(folder, tmp_path):
    copy = shutil.copytree(folder, tmp_path / "atlas")
    other = ScoreOutputs(copy, "demo", features=4, sampling=DRAWING, effect=EFFECT, guidance=1.0)
    for change in (other, replace(other, guidance=None, sampling=Drawing(steps=3, batch=2))):
        with pytest.raises(AtlasError, match="--overwrite"):
            change.run()
    with Atlas.open(copy) as atlas:
        before = {f.number: f.output_score for f in atlas.features("output_score", 4)}
    replace(other, guidance=None, sampling=Drawing(steps=3, batch=2), overwrite=True).run()
    with Atlas.open(copy) as atlas:
        after = {f.number: f.output_score for f in atlas.features(limit=2000) if f.output_score is not None}
    assert len(after) == 4 and not after.items() & before.items()


def test_output_scores_of_a_build_are_told_its_guidance(folder, tmp_path, monkeypatch):
    told = []

    def measured(*given):
        told.append(given[-1])
        return iter(())

    monkeypatch.setattr(output_score, "output_scores", measured)
    source = Source(prompts=folder.parent / "prompts.txt", sampling=DRAWING, capture=Capture(guidance=1.5))
    BuildAtlas("demo", tmp_path / "atlas", limit=1, read=1, effect=EFFECT, source=source).run()
    ScoreOutputs(tmp_path / "atlas", "demo", sampling=DRAWING, effect=EFFECT).run()  # as the pictures were drawn
    assert told == [1.5, 1.5]


def test_a_dictionary_of_another_model_is_refused_before_anything_is_made(tmp_path):
    small = Model("demo-small")
    with pytest.raises(PlanError, match="it was made for another model"):
        BuildAtlas("demo", tmp_path / "atlas", source=Source(small, sampling=DRAWING)).run()
    assert not (tmp_path / "atlas").exists()
    with pytest.raises(PlanError, match="it was made for another model"):
        Find("demo", "red circle", model=small, sampling=DRAWING).run()


def test_what_is_shown_is_no_command_to_a_terminal(folder, tmp_path, capsys):
    copy = shutil.copytree(folder, tmp_path / "atlas")
    with Atlas.open(copy) as atlas, AtlasWriter.annotate(copy) as writer:
        number = atlas.features(limit=1)[0].number
        writer.set_label(number, "zebra\x1b[2J\0\r\n\u202e", "\x9b31m\0")
    SearchAtlas(copy, "zebra").run()
    ShowFeature(copy, number, tmp_path / "page.html").run()
    said = capsys.readouterr().out.replace("\n", "")
    assert "zebra [2J" in said and said.isprintable()
    assert "\0" not in (tmp_path / "page.html").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("command", "said"),
    [
        (BuildAtlas("demo", Path("nowhere"), output_scores=-560), "output-scores must be at least 0, found -560"),
        (ScoreOutputs(Path("nowhere"), "demo", features=-1524), "features must be at least 1, found -1524"),
        (SearchAtlas(Path("nowhere"), "red", limit=0), "limit must be at least 1, found 0"),
        (ExplainAtlas(Path("nowhere"), Endpoint("demo"), features=-1500), "features must be at least 1, found -1500"),
        (ScoreAtlas(Path("nowhere"), Endpoint("demo"), regions=-1), "regions must be at least 0, found -1"),
    ],
)
def test_counts_below_the_least_are_refused(command, said):
    with pytest.raises((OutputError, EndpointError), match=said):
        command.run()


def test_search_and_show(folder, tmp_path, capsys):
    SearchAtlas(folder, "red circle", limit=3).run()
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 3 and all("pictures" in line for line in lines)
    assert "(a red circle)" in lines[0]
    ShowFeature(folder, int(lines[0].split()[0]), tmp_path / "new" / "page.html").run()
    assert "a red circle" in capsys.readouterr().out
    assert "data:image/webp" in (tmp_path / "new" / "page.html").read_text()
    with pytest.raises(OutputError, match="--overwrite"):
        ShowFeature(folder, int(lines[0].split()[0]), tmp_path / "new" / "page.html").run()
    SearchAtlas(folder, "zebra").run()
    assert "no feature has anything of 'zebra'" in capsys.readouterr().out


def test_what_cannot_be_built_is_refused_at_once(folder, tmp_path):
    build = BuildAtlas("demo", tmp_path / "atlas")
    with pytest.raises(OutputError, match="leave --shards out"):
        replace(build, source=Source(shards=(tmp_path,))).run()
    with pytest.raises(OutputError, match="leave --moments and --share out"):
        replace(build, source=Source(capture=Capture(moments="noise"))).run()
    with pytest.raises(OutputError, match="limit must be at least 1, found 0"):
        replace(build, limit=0).run()
    with pytest.raises(AtlasError, match="expected an atlas"):
        SearchAtlas(tmp_path, "red").run()
