import re

import pytest
import tyro

from fluxtionary.commands.contrast import ContrastPrompts
from fluxtionary.commands.output import OutputError
from fluxtionary.demo.captions import CaptionError
from fluxtionary.dictionaries import load_vector
from fluxtionary.residual import SiteError
from fluxtionary.training.models import ModelError
from fluxtionary.training.prompts import PromptError

TEMPLATE = "a {red|blue} {circle|square} on a {white|black} background"


@pytest.fixture
def run(demo_flux, monkeypatch, tmp_path):
    """The command with these options, and the file that it wrote."""
    monkeypatch.setattr("fluxtionary.training.models.load", lambda model: demo_flux)

    def call(*options):
        out = tmp_path / "made.safetensors"
        tyro.cli(ContrastPrompts, args=["--out", str(out), *options]).run()
        return load_vector(out)

    return call


def test_a_template_becomes_a_vector_at_the_best_site_and_the_sites_are_listed(run, capsys):
    vector = run("--template", TEMPLATE)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith(
        "mean difference of 4 pairs, such as 'a red circle on a white background' against 'a blue"
    )
    assert lines[1].split() == ["site", "effect", "auroc", "split", "half", "cosine", "explained", "length"]
    rows = [line.split() for line in lines[2:-1]]
    assert sorted(row[0] for row in rows) == ["double.0.img", "double.0.txt", "double.1.img", "double.1.txt"]
    effects = [float(row[1]) for row in rows]
    assert effects == sorted(effects, reverse=True)
    assert vector.sites == (rows[0][0],) and rows[0][0] in lines[-1]
    assert vector.provenance.model["name"] == "demo"
    assert vector.provenance.training["pairs"] == 4


def test_a_file_sites_moments_seeds_and_method_are_as_asked(run, tmp_path, capsys):
    pairs = tmp_path / "pairs.csv"
    pairs.write_text("with,without\n" + "".join(f"a red {s},a {s}\n" for s in ("circle", "ring", "cross")))
    vector = run(
        *("--pairs", str(pairs), "--columns", "with", "without", "--site", "single.0.img", "double.1.img"),
        *("--keep", "all", "--method", "pca", "--steps", "8", "--start", "0.25", "--end", "0.5"),
        *("--seed", "7", "--seeds", "2", "--limit", "2"),
    )
    assert set(vector.sites) == {"single.0.img", "double.1.img"}
    about = vector.provenance
    assert about.training["method"] == "pca" and about.training["pairs"] == 2
    assert about.capture["seeds"] == [7, 8] and about.capture["sigmas"] == [0.75, 0.625]
    assert "all of them" in capsys.readouterr().out


def test_pairs_that_teach_nothing_are_warned_of(run, tmp_path, caplog):
    pairs = tmp_path / "pairs.tsv"
    rows = ["a red circle\ta small ring on a tan background", "a large cross at the left\ta square", "a ring\ta ring"]
    rows += ["a circle on a black background\ta red shape at the top", "a green shape\ta large cross at the center"]
    pairs.write_text("positive\tnegative\n" + "\n".join(rows) + "\n")
    run("--pairs", str(pairs))
    assert "of 5 pairs 1 are left out: 1 the same on both sides" in caplog.text
    assert "the direction may not steer: even at the best site" in caplog.text
    assert re.search(r"\((split half cosine|auroc|effect) -?\d\.\d\d\)", caplog.text)


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ([], PromptError, "found neither"),
        (["--template", TEMPLATE, "--pairs", "a.csv"], PromptError, "found both"),
        (["--template", TEMPLATE, "--limit", "0"], PromptError, "--limit must be at least 1, found 0"),
        (["--template", "a red circle"], PromptError, "expected a slot"),
        (["--template", "a {red|blue} dragon"], CaptionError, "does not know 'dragon' in 'a red dragon'"),
        (["--template", TEMPLATE, "--site", "double.9.img"], SiteError, "no double.9.img"),
        (["--template", TEMPLATE, "--height", "256"], ModelError, "128x128 pictures only, found 128x256"),
        (["--template", TEMPLATE, "--start", "0.8"], ModelError, "found start 0.8 and end 0.5"),
        (["--pairs", "nowhere.csv"], PromptError, "nowhere.csv: expected a file of prompts, found none"),
    ],
)
def test_what_cannot_be_is_said_and_nothing_written(run, options, error, words, tmp_path):
    with pytest.raises(error, match=re.escape(words)):
        run(*options)
    assert not list(tmp_path.iterdir())


def test_a_file_that_is_there_is_kept(run, tmp_path):
    (tmp_path / "made.safetensors").write_text("precious")
    with pytest.raises(OutputError, match="exists already"):
        run("--template", TEMPLATE)
    assert (tmp_path / "made.safetensors").read_text() == "precious"
