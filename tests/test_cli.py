"""The command line: what goes wrong is one clear line and exit 2, and nothing that was there is lost."""

import dataclasses
import os
import re
import signal
import sys
from pathlib import Path

import pytest
import torch
from PIL import Image

from fluxtionary import cli
from fluxtionary.demo import files
from fluxtionary.dictionaries import load_dictionary, save_dictionary

from .conftest import make_dictionary

STEER = ["steer", "--prompt", "a large circle", "--feature", "3"]


@pytest.fixture
def run(monkeypatch, capsys):
    """Run the command in this process: `run(*arguments)` gives exit code, output and errors."""

    def call(*arguments):
        monkeypatch.setattr(sys, "argv", ["fluxtionary", *map(str, arguments)])
        code = 0
        try:
            cli.main()
        except SystemExit as stop:
            code = stop.code
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return call


def test_steer_draws_plain_and_steered_side_by_side(run, tmp_path):
    out = tmp_path / "pictures" / "steered.png"
    code, printed, _ = run(*STEER, "--out", out, "--sampling.steps", 4, "--strength", 1.0)
    assert code == 0 and str(out) in printed
    picture = Image.open(out)
    assert picture.size == (256, 128)
    assert picture.crop((0, 0, 128, 128)).tobytes() != picture.crop((128, 0, 256, 128)).tobytes()


def test_strength_zero_draws_the_same_picture_twice(run, tmp_path):
    out = tmp_path / "same.png"
    assert run(*STEER, "--out", out, "--sampling.steps", 2, "--strength", 0)[0] == 0
    picture = Image.open(out)
    assert picture.crop((0, 0, 128, 128)).tobytes() == picture.crop((128, 0, 256, 128)).tobytes()


def test_train_sae_writes_a_dictionary_that_steer_loads(run, tmp_path):
    out = tmp_path / "small.safetensors"
    options = [
        "--sae.features",
        64,
        "--sae.k",
        4,
        "--sae.tokens",
        4096,
        "--sae.buffer",
        0.01,
        "--measured",
        3000,
        "--sae.batch",
        512,
        "--sampling.steps",
        2,
        "--sampling.batch",
        8,
    ]
    code, _, errors = run("train-sae", "--site", "single.0.img", "--out", out, *options)
    assert code == 0, errors
    dictionary = load_dictionary(out)
    assert (dictionary.site, dictionary.n_features, dictionary.k) == ("single.0.img", 64, 4)
    assert dictionary.provenance.capture["steps"] == 2
    metrics = dictionary.provenance.metrics
    assert metrics["tokens"] == 3000 and 0 < metrics["fvu"] < 1.5 and 0 < metrics["l0"] <= 4
    assert sorted(path.name for path in tmp_path.iterdir()) == ["small.log.jsonl", "small.safetensors"]
    picture = tmp_path / "x.png"
    assert run(*STEER, "--dictionary", out, "--out", picture, "--sampling.steps", 2)[0] == 0


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (["--feature", "99999"], "feature 99999 is out of range.*0 to"),
        (["--strength", "nan"], "strength must be a finite number, found nan"),
        (["--prompt", "a scarlet circle"], "does not know 'scarlet'.*red"),
        (["--sampling.height", "256"], "128x128 pictures only, found 128x256"),
        (["--dictionary", "missing.safetensors"], "missing.safetensors.*no such file"),
        (["--start", "0.9", "--end", "0.1"], "start <= end"),
        (["--model", "nowhere/at-all"], "cannot load a Flux pipeline from 'nowhere/at-all'"),
    ],
)
def test_bad_options_of_steer_are_named(run, tmp_path, change, words):
    out = tmp_path / "x.png"
    code, _, errors = run(*STEER, "--out", out, *change)
    assert code == 2 and "Traceback" not in errors
    last = errors.strip().splitlines()[-1]
    assert last.startswith("fluxtionary: error:") and re.search(words, last), errors
    assert not out.exists()


def test_settings_that_cannot_work_are_refused_while_options_are_read(run, tmp_path):
    code, _, errors = run(*STEER, "--out", tmp_path / "x.png", "--sampling.steps", "0")
    assert code == 2 and "steps must be at least 1, found 0" in " ".join(errors.split())


def test_dictionaries_for_other_models_are_refused(run, tmp_path):
    for name, dictionary, words in [
        ("wide", make_dictionary("double.1.img", d_model=64), "192 wide.*64 wide"),
        ("deep", make_dictionary("double.18.img", d_model=192), "no double.18.img.*2 double"),
    ]:
        path = tmp_path / f"{name}.safetensors"
        save_dictionary(dictionary, path)
        code, _, errors = run(*STEER, "--dictionary", path, "--out", tmp_path / "x.png")
        assert code == 2 and re.search(words, errors), errors


def test_a_truncated_dictionary_is_named(run, tmp_path):
    path = tmp_path / "cut.safetensors"
    save_dictionary(make_dictionary("double.1.img", d_model=192), path)
    path.write_bytes(path.read_bytes()[:1000])
    code, _, errors = run(*STEER, "--dictionary", path, "--out", tmp_path / "x.png")
    assert code == 2 and "cut.safetensors" in errors and "damaged" in errors


def test_existing_outputs_are_kept_unless_asked(run, tmp_path):
    out = tmp_path / "mine.png"
    out.write_text("precious")
    code, _, errors = run(*STEER, "--out", out)
    assert code == 2 and "exists already" in errors and "--overwrite" in errors
    assert out.read_text() == "precious"
    assert run(*STEER, "--out", out, "--overwrite", "--sampling.steps", 1)[0] == 0
    assert run("train-sae", "--out", tmp_path)[0] == 2
    assert run(*STEER, "--out", tmp_path / "mine.png" / "x.png")[0] == 2


def test_the_demo_replaces_only_folders_that_a_demo_wrote(run, tmp_path):
    (tmp_path / "thesis.tex").write_text("precious")
    for options in ([], ["--overwrite"]):
        code, _, errors = run("demo", "--out", tmp_path, *options)
        assert code == 2 and "exists already" in errors
    assert (tmp_path / "thesis.tex").read_text() == "precious"


def test_a_folder_that_cannot_be_written_is_named(run, tmp_path):
    locked = tmp_path / "locked"
    locked.mkdir(mode=0o500)
    if os.geteuid() == 0:  # permissions do not stop root, but no one can write here
        locked = Path("/proc/sys")
    code, _, errors = run("train-sae", "--out", locked / "x.safetensors")
    assert code == 2 and "cannot be written" in errors and str(locked) in errors
    code, _, errors = run("demo", "--out", locked / "output")
    assert code == 2 and "cannot be written" in errors


@pytest.mark.parametrize("error", [KeyboardInterrupt, OSError("disk full")])
def test_an_interrupted_demo_keeps_what_is_finished_and_what_was_there(run, tmp_path, monkeypatch, error):
    from fluxtionary.evaluation import demonstration

    def stop(job, folder):
        (folder / "double.1.img.safetensors").write_text("finished")
        raise error

    monkeypatch.setattr(demonstration.MainJob, "run", stop)
    out = tmp_path / "output"
    out.mkdir()
    (out / "summary.json").write_text("the last run")
    code, _, errors = run("demo", "--out", out, "--overwrite")
    assert code == (130 if error is KeyboardInterrupt else 2) and "output.unfinished" in errors
    assert (tmp_path / "output.unfinished" / "double.1.img.safetensors").read_text() == "finished"
    assert (out / "summary.json").read_text() == "the last run"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["output", "output.unfinished"]


def test_prompts_are_checked_before_anything_is_loaded(run, tmp_path):
    prompts = tmp_path / "prompts.txt"
    out = tmp_path / "x.safetensors"
    for text, words in (("a red circle\na dog\n", "'dog'"), ("\n\n", "found none")):
        prompts.write_text(text)
        code, _, errors = run("train-sae", "--prompts", prompts, "--out", out)
        assert code == 2 and words in errors
    assert run("train-sae", "--prompts", tmp_path / "no.txt", "--out", out)[0] == 2
    code, _, errors = run("train-sae", "--model", "some/flux", "--out", out)
    assert code == 2 and "--prompts is needed" in errors
    code, _, errors = run("train-sae", "--site", "double.1.image", "--out", out)
    assert code == 2 and "double.18.img" in errors
    code, _, errors = run("train-sae", "--site", "single.9.img", "--out", out)
    assert code == 2 and "2 double and 4 single blocks" in errors


def test_inspect_says_what_a_file_is(run):
    code, printed, _ = run("inspect", files.DICTIONARY)
    assert code == 0
    for words in ("sparse autoencoder: topk, k 16", "double.1.img", "family flux1", "1,536 of width", "standardise"):
        assert words in printed, words


def test_a_dictionary_leaves_and_comes_back(run, tmp_path):
    folder, out = tmp_path / "foreign", tmp_path / "back.safetensors"
    assert run("export", files.DICTIONARY, "--format", "saelens", "--out", folder)[0] == 0
    code, printed, _ = run("inspect", folder)
    assert code == 0 and "saelens" in printed and "fluxtionary import" in printed
    code, printed, _ = run("import", folder, "--site", "double.1.img", "--out", out)
    assert code == 0 and "sparse autoencoder: topk, k 16" in printed
    x = torch.randn(6, 192, generator=torch.Generator().manual_seed(0)) * 5
    before, after = load_dictionary(files.DICTIONARY), load_dictionary(out)
    assert torch.allclose(before.encode(x).dense(1536), after.encode(x).dense(1536), atol=1e-4)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("inspect", "nothing.safetensors"), "no such file"),
        (("inspect", "README.md"), "damaged"),
        (("import", "docs", "--site", "double.1.img", "--out", "x.safetensors"), "one of the formats"),
        (("import", "docs", "--site", "double.1", "--out", "x.safetensors"), "is no site"),
        (("export", "nothing.safetensors", "--format", "sparsify", "--out", "x"), "no such file"),
    ],
)
def test_files_that_are_none_are_one_line(run, monkeypatch, arguments, words):
    monkeypatch.chdir(Path(__file__).parents[1])
    code, _, errors = run(*arguments)
    assert code == 2 and words in errors and errors.count("\n") == 1
    assert not Path("x.safetensors").exists()


SMALL = ["--sae.features", 64, "--sae.k", 4, "--sae.tokens", 4096, "--sae.batch", 512, "--sae.buffer", 0.01]
FEW = ["--sampling.steps", 2, "--sampling.batch", 8, "--measured", 2000]


@pytest.mark.long
def test_several_dictionaries_come_from_one_pass(run, tmp_path):
    sites = ["--site", "double.0.img", "double.0.txt", "--widths", 64, 96]
    code, _, errors = run("train-sae", *sites, "--out", tmp_path / "all", *SMALL, *FEW, "--held-out", 0)
    assert code == 0, errors
    found = {path.name for path in (tmp_path / "all").glob("*.safetensors")}
    assert found == {f"double.0.{s}.{w}.k4.safetensors" for s in ("img", "txt") for w in (64, 96)}


def test_from_captions_to_shards_to_dictionaries_to_a_report(run, tmp_path):
    """The whole way with a caption file, as for real Flux."""
    captions = tmp_path / "captions.csv"
    rows = [
        f"a {size} {color} {shape}"
        for size in ("small", "large")
        for color in ("red", "blue", "green", "pink")
        for shape in ("circle", "ring", "cross", "square")
    ]
    captions.write_text("id,caption\n" + "".join(f"{i},{row}\n" for i, row in enumerate(rows)))
    prompts = ["--prompts", captions, "--sampling.steps", 2]
    shards = tmp_path / "shards"
    code, printed, errors = run("capture", *prompts, "--out", shards, "--site", "double.1.img", "--shard-tokens", 2000)
    assert code == 0 and f"{32 * 2 * 64:,} tokens of double.1.img" in printed, errors
    again = run("capture", *prompts, "--out", shards, "--site", "double.1.img", "--shard-tokens", 2000)
    assert again[0] == 2
    held_out = ["--held-out", 0.3, "--measured", 1000]
    sae, itda, other = (tmp_path / f"{name}.safetensors" for name in ("sae", "itda", "other"))
    code, _, errors = run("train-sae", "--shards", shards, "--out", sae, *SMALL, *held_out)
    assert code == 0, errors
    build = ["--shards", shards, "--itda.atoms", 48, "--itda.k", 4, "--itda.tokens", 1500, *held_out]
    assert run("build-itda", *build, "--out", itda)[0] == 0
    assert run("build-itda", *build, "--reorder", 1, "--out", other)[0] == 0
    code, printed, _ = run("compare-itda", itda, other)
    assert code == 0 and "jaccard" in printed
    assert run("compare-itda", itda, sae)[0] == 2
    assert load_dictionary(itda).sources.of(0)["prompt"] in rows
    out = tmp_path / "report"
    measure = ["--measure.held-out", 500, "--measure.train", 1000, "--measure.pictures", 1, "--held-out-share", 0.3]
    code, printed, errors = run("evaluate", sae, itda, "--out", out, *prompts, *measure)
    assert code == 0, errors
    assert "sae: fvu" in printed and "itda: fvu" in printed and (out / "report.html").exists()
    code, _, errors = run(
        "train-sae", "--shards", shards, "--site", "single.0.img", "--out", tmp_path / "x.safetensors"
    )
    assert code == 2 and "expected activations of single.0.img, found those of double.1.img" in errors


def test_dictionaries_come_from_several_captures_and_folders_of_them(run, tmp_path):
    shapes = ("circle", "ring", "cross", "square")
    for name, color in (("runs/run-00001", "red"), ("more", "blue")):
        captions = tmp_path / f"{color}.txt"
        captions.write_text("".join(f"a large {color} {shape}\n" for shape in shapes))
        assert run("capture", "--prompts", captions, "--sampling.steps", 2, "--out", tmp_path / name)[0] == 0
    shards = ["--shards", tmp_path / "runs", tmp_path / "more"]
    out, itda = tmp_path / "sae.safetensors", tmp_path / "itda.safetensors"
    code, _, errors = run("train-sae", *shards, "--out", out, *SMALL, "--held-out", 0.3, "--measured", 200)
    assert code == 0, errors
    about = load_dictionary(out).provenance
    assert about.capture["captures"] == 2 and about.capture["steps"] == 2 and about.metrics["tokens"] == 200
    build = ["build-itda", *shards, "--itda.atoms", 256, "--itda.k", 4, "--itda.tokens", 1024, "--held-out", 0]
    code, _, errors = run(*build, "--out", itda)
    assert code == 0, errors
    sources = load_dictionary(itda).sources
    prompts = [sources.of(atom)["prompt"] for atom in range(len(sources.table))]
    assert {prompt.split()[2] for prompt in prompts} == {"red", "blue"}
    code, _, errors = run("train-sae", *shards, tmp_path / "no", "--out", tmp_path / "x.safetensors", *SMALL)
    assert code == 2 and "no: expected a folder of activation shards" in errors


@pytest.mark.long
def test_a_run_that_was_cut_off_is_neither_lost_nor_resumed_unasked(run, tmp_path, monkeypatch):
    from fluxtionary.training.trainer import Trainer

    out = tmp_path / "x.safetensors"
    options = ["train-sae", "--out", out, *SMALL, *FEW, "--held-out", 0]
    original = Trainer.step

    def interrupted(trainer, x, measure=False):
        if trainer.number == 4:
            signal.raise_signal(signal.SIGINT)
        return original(trainer, x, measure)

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "step", interrupted)
        assert run(*options)[0] == 130
    code, _, errors = run(*options)
    assert code == 2 and "--resume goes on with it" in errors
    assert run(*options, "--resume")[0] == 0
    finished = out.read_bytes()
    assert run(*options, "--resume")[0] == 2 and out.read_bytes() == finished  # nothing is left to go on with
    assert run("train-sae", "--out", tmp_path / "y.safetensors", *SMALL, *FEW, "--held-out", 0)[0] == 0
    assert torch.equal(load_dictionary(out).decoder, load_dictionary(tmp_path / "y.safetensors").decoder)


def test_evaluating_measures_on_no_more_than_training_held_out():
    """A larger share would hold prompts that the dictionary was trained on."""
    from fluxtionary.commands.evaluate import Evaluate
    from fluxtionary.commands.make import Run

    shares = {field.name: field.default for field in dataclasses.fields(Evaluate)}
    assert shares["held_out_share"] <= Run().held_out


def test_options_that_would_be_ignored_are_not_offered(run):
    code, _, errors = run("evaluate", "x.safetensors", "--out", "x", "--measure.sampling.steps", 3)
    assert code == 2 and "--measure.sampling.steps" in errors
