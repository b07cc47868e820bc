"""`fluxtionary steer`: options, plan files and sweeps become plans, and their pictures a labelled grid."""

import json
import re
import sys

import numpy as np
import pytest
import torch
from PIL import Image

from fluxtionary import cli
from fluxtionary.commands import sweep_pictures
from fluxtionary.commands.steer import Changes
from fluxtionary.commands.steering_plan import Entry, Gating, read_plan
from fluxtionary.commands.sweep import Cell, read_mask, read_sweep
from fluxtionary.commands.sweep_pictures import draw_sweep
from fluxtionary.demo import files
from fluxtionary.dictionaries import Normalization, Scale, SteeringVector, load_dictionary, save_dictionary
from fluxtionary.dictionaries.scale import BINS
from fluxtionary.residual import Ablate, Add, Clamp, Plan, PlanError, Run, Site
from fluxtionary.residual.diffusers_host import percent_to_sigma
from fluxtionary.residual.mode import STRENGTH
from fluxtionary.residual.moment import Moment, Row
from fluxtionary.training import models
from fluxtionary.training.relatedness import Relatedness
from fluxtionary.training.sampling import Sampling, draw_pictures

from .conftest import make_dictionary

FAST = Sampling(steps=2)
PROMPT = "a large circle"


def straight(share):
    return 1 - share


@pytest.fixture
def vector_file(tmp_path):
    """A vector at two sites of the demo Flux; it knows the scale of the first alone."""
    generator = torch.Generator().manual_seed(3)
    sites = ("double.1.img", "double.0.txt")
    directions = {site: torch.randn(192, generator=generator) for site in sites}
    path = tmp_path / "tilt.safetensors"
    save_dictionary(SteeringVector(directions, {sites[0]: Scale(torch.full((BINS,), 20.0))}), path)
    return path


@pytest.fixture
def left_half(tmp_path):
    pixels = np.zeros((40, 60), np.uint8)
    pixels[:, :30] = 255
    path = tmp_path / "left.png"
    Image.fromarray(pixels).save(path)
    return path


@pytest.fixture
def run(monkeypatch, capsys, demo_flux):
    """`run(*arguments)` of steer, on the demo Flux that is loaded: exit code, output and errors."""
    monkeypatch.setattr(models, "load", lambda model: demo_flux)

    def call(*arguments):
        options = ["steer", "--prompt", PROMPT, "--sampling.steps", "2", *map(str, arguments)]
        monkeypatch.setattr(sys, "argv", ["fluxtionary", *options])
        code = 0
        try:
            cli.main()
        except SystemExit as stop:
            code = stop.code
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return call


def write_plan(folder, *edits):
    path = folder / "plan.json"
    path.write_text(json.dumps({"edits": list(edits)}))
    return path


def only(entry):
    """The one edit of one entry."""
    (item,) = read_sweep([entry]).plan(Cell(0, 0), straight)
    return item


def test_a_plan_file_says_everything_of_each_edit(tmp_path, vector_file, left_half):
    path = write_plan(
        tmp_path,
        {"feature": 5, "strength": 0.3, "start": 0.25, "end": 0.5, "mask": "left.png", "rows": "both"},
        {"vector": "tilt.safetensors", "strength": -0.2, "sites": "double.0.txt", "schedule": [1, 0], "end": 1},
        {"feature": 7, "mode": "ablate", "gate": {"features": [3, 4], "threshold": 0.5}},
        {"feature": 9, "mode": "clamp", "strength": 0.7},
    )
    added, tilted, ablated, clamped = read_sweep(read_plan(path)).plan(Cell(0, 0), straight)
    dictionary = load_dictionary(files.DICTIONARY)
    assert isinstance(added, Add) and torch.equal(added.direction, dictionary.direction(5))
    assert (added.strength, added.rows, str(added.site)) == (0.3, "both", "double.1.img")
    assert (
        added.mask.shape == (40, 60) and float(added.mask[:, :30].min()) == 1 and float(added.mask[:, 30:].max()) == 0
    )
    assert [added.window.holds(sigma) for sigma in (0.8, 0.75, 0.6, 0.5)] == [False, True, True, False]
    assert isinstance(tilted, Add) and str(tilted.site) == "double.0.txt" and tilted.scale is None
    assert (tilted.schedule.at(1.0), tilted.schedule.at(0.5), tilted.schedule.at(0.0)) == (1, 0.5, 0)
    assert isinstance(ablated, Ablate) and ablated.targets == {7: 0} and ablated.gate.features == (3, 4)
    assert ablated.gate.threshold == 0.5 and ablated.gate.dictionary is ablated.dictionary
    assert isinstance(clamped, Clamp) and clamped.targets == {9: 0.7} and clamped.scale is not None
    assert clamped.dictionary is ablated.dictionary, "edits of one dictionary share its codes"


def test_options_and_a_plan_file_mean_the_same(tmp_path, vector_file, left_half):
    options = Changes(
        (5, 6), (vector_file,), strength=(0.2, 0.4), end=(0.5,), mask=None, where=(3,), site=("double.1.img",)
    )
    shared = {"strength": [0.2, 0.4], "end": 0.5, "gate": {"features": 3}, "sites": ["double.1.img"]}
    of = ({"feature": 5}, {"feature": 6}, {"vector": "tilt.safetensors"})
    plans = [
        read_sweep(options.entries()),
        read_sweep(read_plan(write_plan(tmp_path, *(each | shared for each in of)))),
    ]
    for cell in plans[0].cells():
        for ours, theirs in zip(*(sweep.plan(cell, straight) for sweep in plans), strict=True):
            assert torch.equal(ours.direction, theirs.direction) and ours.gate.features == theirs.gate.features
            assert (ours.site, ours.strength, ours.window) == (theirs.site, theirs.strength, theirs.window)


WRONG = [
    ("[1, 2]", "expected a plan \\(an object with edits\\), found \\[1, 2\\]"),
    ("{", "expected JSON"),
    ('{"edits": [], "edits": []}', "'edits' twice"),
    ('{"edit": []}', "found 'edit': did you mean edits\\?"),
    ('{"edits": []}', "edits: expected a list of one edit at least, found \\[\\]"),
    ('{"edits": [{"feature": 1}, 7]}', "edits\\[1\\]: expected an edit .*found 7"),
    ('{"edits": [{}]}', "edits\\[0\\]: expected a feature or a vector, found neither"),
    ('{"edits": [{"feature": 1, "vector": "x"}]}', "found both|no such file"),
    (
        '{"edits": [{"feature": 1}, {"feature": 2, "strenght": 1}]}',
        "edits\\[1\\].*'strenght': did you mean strength\\?",
    ),
    ('{"edits": [{"feature": 1.5}]}', "edits\\[0\\].feature: expected a whole number, found 1.5"),
    ('{"edits": [{"feature": true}]}', "feature: expected a whole number, found true"),
    ('{"edits": [{"feature": 99999}]}', "edits\\[0\\]: feature 99999 is out of range"),
    ('{"edits": [{"feature": 1, "strength": "much"}]}', 'edits\\[0\\].strength: expected a number, found "much"'),
    ('{"edits": [{"feature": 1, "strength": [0.1, null]}]}', "strength\\[1\\]: expected a number, found nothing"),
    ('{"edits": [{"feature": 1, "strength": NaN}]}', "edits\\[0\\]: strength must be a finite number, found nan"),
    ('{"edits": [{"feature": 1, "strength": []}]}', "strength: expected a number, or a list of them, found an empty"),
    ('{"edits": [{"feature": 1, "mode": "remove"}]}', "mode: expected one of add, ablate, clamp, found"),
    ('{"edits": [{"feature": 1, "mode": "clamp"}]}', "edits\\[0\\]: strength: mode clamp needs one"),
    ('{"edits": [{"feature": 1, "start": 0.9, "end": 0.1}]}', "edits\\[0\\]: .*start <= end"),
    ('{"edits": [{"feature": 1, "start": [0, 0.1], "end": [0.2, 0.3, 0.4]}]}', "start and end: .*\\[2, 3\\]"),
    ('{"edits": [{"feature": 1, "sites": "double.1"}]}', "edits\\[0\\]: 'double.1' is no site"),
    ('{"edits": [{"feature": 1, "mode": "ablate", "sites": "double.1.txt"}]}', "expected double.1.img for mode ablate"),
    ('{"edits": [{"feature": 1, "sites": "double.1.txt", "gate": {"features": 3}}]}', "a gate at double.1.txt needs"),
    ('{"edits": [{"feature": 1, "gate": {}}]}', "edits\\[0\\].gate: expected features, found none"),
    ('{"edits": [{"feature": 1, "gate": {"features": [99999]}}]}', "edits\\[0\\]: feature 99999"),
    ('{"edits": [{"feature": 1, "mask": "no.png"}]}', "edits\\[0\\]: .*no.png: expected a picture as mask"),
    ('{"edits": [{"feature": 1, "dictionary": "no.safetensors"}]}', "no.safetensors.*no such file"),
    ('{"edits": [{"vector": "no.safetensors"}]}', "no.safetensors.*no such file"),
    (
        '{"edits": [{"feature": 1, "strength": [1, 2]}, {"feature": 2, "strength": [1, 2, 3]}]}',
        "strengths: those that are swept go in step.*\\[2, 3\\]",
    ),
]


@pytest.mark.parametrize(("text", "words"), WRONG)
def test_what_is_wrong_in_a_plan_file_is_named_with_its_place(tmp_path, text, words):
    path = tmp_path / "plan.json"
    path.write_text(text)
    with pytest.raises(ValueError) as error:
        read_sweep(read_plan(path))
    assert re.search(words, str(error.value)), error.value


def test_a_plan_file_that_is_none_is_named(tmp_path):
    (tmp_path / "plan.json").write_bytes(b"\xff\xfe\x00")
    for path, words in (
        (tmp_path, "a folder"),
        (tmp_path / "x.json", "no such file"),
        (tmp_path / "plan.json", "JSON"),
    ):
        with pytest.raises(PlanError, match=words):
            read_plan(path)


def test_a_vector_acts_at_all_of_its_sites_and_at_no_others(vector_file):
    plan = read_sweep([Entry(vector=vector_file)]).plan(Cell(0, 0), straight)
    assert [str(item.site) for item in plan] == ["double.1.img", "double.0.txt"]
    with pytest.raises(
        PlanError, match="expected some of the vector's own, double.1.img, double.0.txt, found single.0"
    ):
        read_sweep([Entry(vector=vector_file, sites=("single.0.img",))])


def test_modes_have_strengths_of_their_own():
    assert only(Entry(feature=1)).strength == STRENGTH
    assert only(Entry(feature=1, mode="ablate")).schedule.at(0.5) == 1
    half = only(Entry(feature=1, mode="ablate", strength=(0.5,), end=(1.0,), schedule=(1.0, 0.0)))
    assert half.schedule.at(1.0) == 0.5 and half.schedule.at(0.5) == 0.25


def test_a_direction_normalized_by_noise_level_is_turned_as_the_dictionary_is(tmp_path):
    """Added as it lies in the file it would be another direction than the one that the dictionary decodes."""
    generator = torch.Generator().manual_seed(1)
    x, sigma = torch.randn(4000, 192, generator=generator), torch.rand(4000, generator=generator)
    x = x * (1 + 5 * sigma[:, None] * torch.rand(192, generator=generator))
    dictionary = make_dictionary("double.1.img", 192)
    dictionary.normalization = Normalization.fit(x, "sigma", None, sigma)
    path = tmp_path / "noisy.safetensors"
    save_dictionary(dictionary, path)
    added = only(Entry(feature=3, dictionary=str(path), strength=(1.0,), end=(1.0,)))
    stream, moment = torch.zeros(1, 4, 192), Moment(0.4, (Row("cond"),), (2, 2))
    moved = Run(Plan([added])).visit(Site.parse("double.1.img"), stream, moment)[0, 0]
    turned = load_dictionary(path).frame(stream, moment).gain.reshape(-1) * dictionary.direction(3)
    assert torch.cosine_similarity(moved, turned, dim=0) > 0.9999
    assert torch.cosine_similarity(moved, dictionary.direction(3), dim=0) < 0.99


def test_masks_act_where_they_are_light_and_not_clear(tmp_path):
    pixels = np.zeros((4, 4, 4), np.uint8)
    pixels[0] = (255, 255, 255, 255)
    pixels[1] = (128, 128, 128, 255)
    pixels[2] = (255, 255, 255, 0)
    pixels[3] = (0, 0, 0, 255)
    Image.fromarray(pixels).save(tmp_path / "mask.png")
    mask = read_mask(tmp_path / "mask.png")
    assert mask[:, 0].tolist() == pytest.approx([1, 128 / 255, 0, 0])
    Image.new("P", (8, 8), 1).save(tmp_path / "black.gif")
    Image.fromarray(np.full((4, 4), 60000, np.uint16)).save(tmp_path / "deep.png")
    (tmp_path / "text.png").write_text("no picture")
    for name, words in (("black.gif", "black everywhere"), ("deep.png", "8 bits"), ("text.png", "expected a picture")):
        with pytest.raises(PlanError, match=words):
            read_mask(tmp_path / name)


def test_a_sweep_draws_what_each_of_its_plans_draws_alone(demo_flux, monkeypatch):
    """Many plans in one batch, and over the border of batches."""
    swept = Entry(feature=1318, strength=(0.5, 1.0), end=(0.4, 1.0))
    sweep = read_sweep([swept, Entry(feature=7, mode="ablate")])
    calls, original = [], sweep_pictures.run_batches

    def counted(pipeline, captions, *others, **options):
        calls.append(len(captions))
        return original(pipeline, captions, *others, **options)

    monkeypatch.setattr(sweep_pictures, "run_batches", counted)
    drawn = draw_sweep(demo_flux, PROMPT, [4], sweep, Sampling(steps=2, batch=3))
    assert calls == [3, 2] and list(drawn.plain) == [4]
    to_sigma = percent_to_sigma(demo_flux, 128, 128)
    for (seed, cell), picture in drawn.steered.items():
        alone = draw_pictures(demo_flux, [PROMPT], [seed], FAST, sweep.plan(cell, to_sigma))[0]
        assert far(picture, alone) <= 1
    different = [*drawn.plain.values(), *drawn.steered.values()]
    assert len(different) == 5 and all(far(a, b) > 3 for i, a in enumerate(different) for b in different[:i])


def far(a, b):
    return int(np.abs(a.astype(int) - b).max())


def test_a_scale_that_is_missing_is_measured_on_the_plain_picture(demo_flux, tmp_path):
    """As a run of one picture measures it, though a strong edit of another picture stands before it in the batch."""
    path = tmp_path / "tilt.safetensors"
    save_dictionary(
        SteeringVector({"single.1.img": torch.randn(192, generator=torch.Generator().manual_seed(3))}), path
    )
    tilt = Entry(vector=path, strength=(0.7,))
    drawn = draw_sweep(demo_flux, PROMPT, [4], read_sweep([Entry(feature=1318, strength=(0.0, 5.0)), tilt]), FAST)
    alone = draw_pictures(demo_flux, [PROMPT], [4], FAST, Plan([only(tilt)]))[0]
    assert far(drawn.steered[4, Cell(0, 0)], alone) <= 1


def test_a_sweep_becomes_a_labelled_grid(run, tmp_path):
    out = tmp_path / "grid.png"
    strengths = ["--feature", 1318, "--strength", 0, 0.8]
    code, printed, errors = run(*strengths, "--end", 0.4, 1, "--out", out)
    assert code == 0, errors
    assert "feature 1318 at double.1.img: adding 0, 0.8, in 0 to 0.4, 0 to 1 of sampling" in printed
    assert f"{out}: 5 pictures" in printed
    wide = Image.open(out)
    code, _, errors = run(*strengths, "--seed", 1, 2, "--out", tmp_path / "seeds.webp")
    assert code == 0, errors
    assert wide.width > 3 * 256 and wide.height > 2 * 256 and Image.open(tmp_path / "seeds.webp").height > 2 * 256


def test_a_part_of_sampling_without_a_step_is_said(run, tmp_path):
    code, printed, _ = run("--feature", 5, "--start", 0.1, "--end", 0.2, "--out", tmp_path / "x.png")
    assert code == 0 and "none of the 2 steps begins in 0.1 to 0.2 of sampling" in printed


def test_vectors_are_said_to_be_near_or_far_before_the_run(run, tmp_path, vector_file, monkeypatch):
    from fluxtionary.training import relatedness

    for found, words in ((Relatedness(0.25, "a cat", 12), "nearest of 12: 'a cat')"), (None, "unknown")):
        monkeypatch.setattr(relatedness, "relatedness", lambda vector, pipeline, prompt, found=found: found)
        out = tmp_path / "x.png"
        code, printed, errors = run("--vector", vector_file, "--out", out, "--overwrite")
        assert code == 0, errors
        assert words in printed and "of a scale measured now at double.0.txt" in printed


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ([], "pass --feature, --vector or --plan"),
        (["--plan", "p.json", "--feature", 3, "--strength", 1], "leave out --feature, --strength"),
        (["--plan", "p.json"], "p.json: expected a plan"),
        (["--vector", "v.safetensors"], "v.safetensors.*no such file"),
        (["--feature", 3, "--site", "single.3.txt"], "would do nothing"),
        (["--feature", 3, "--site", "double.9.img"], "no double.9.img"),
        (["--feature", 3, "--out", "x.tiff"], "expected a picture to write"),
        (["--feature", 3, "--mask", "no.png"], "no.png: expected a picture as mask"),
        (["--feature", 3, "--strength", 1, 2, "--start", 0, 0.1, "--end", 1, 1, 1], "start and end"),
    ],
)
def test_options_that_cannot_work_are_named(run, tmp_path, options, words):
    out = [] if "--out" in options else ["--out", tmp_path / "x.png"]
    code, _, errors = run(*options, *out)
    assert code == 2 and "Traceback" not in errors
    assert re.search(words, errors.strip().splitlines()[-1]), errors


def test_the_gate_of_the_options_is_of_their_dictionary():
    (entry,) = Changes((5,), where=(3, 4)).entries()
    assert entry.gate == Gating((3, 4)) and only(entry).gate.features == (3, 4)
