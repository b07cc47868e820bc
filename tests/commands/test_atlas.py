"""`fluxtionary atlas build`, `output-score`, `search` and `show`, over one small atlas of the demo."""

from dataclasses import replace

import pytest

from fluxtionary.atlas import Atlas, AtlasError
from fluxtionary.commands.atlas import BuildAtlas, ScoreOutputs, SearchAtlas, ShowFeature
from fluxtionary.commands.output import OutputError
from fluxtionary.commands.source import Source
from fluxtionary.interpretation.output_score import OutputScoring
from fluxtionary.training.capture import Capture
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
