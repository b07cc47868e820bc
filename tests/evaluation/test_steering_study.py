"""The study from end to end: with a model that is made up, and quickly with the demo Flux itself."""

import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from fluxtionary.demo.captions import CaptionError, named_factors
from fluxtionary.demo.measure import UNREADABLE, Reading
from fluxtionary.demo.scenes import FACTORS
from fluxtionary.dictionaries import ContrastMeter, Scale
from fluxtionary.dictionaries.scale import BINS
from fluxtionary.evaluation import harness, model_size, steering_curves, steering_study
from fluxtionary.evaluation.cases import Judged
from fluxtionary.evaluation.steering_methods import (
    TITLES,
    Directions,
    Way,
    at_random,
    contrast_choices,
    pair_directions,
    text_embedding,
)
from fluxtionary.evaluation.steering_study import LATER, SITES, SteeringStudy, StudyJob
from fluxtionary.evaluation.study_claims import best_of_sites, claims, enough_pairs, findings
from fluxtionary.evaluation.study_report import write_study
from fluxtionary.evaluation.text_shift import Shift
from fluxtionary.evaluation.value_pairs import ValueSides, wordings

COLORS = FACTORS["color"]
WIDTH = len(COLORS)
FLAT = Scale(torch.ones(BINS))
BY_METHOD = {
    *("success", "success_low", "against", "against_low", "collateral", "collateral_high"),
    *("joint", "drift", "quality_loss"),
}


def reading_of(case):
    """What is named, and for the rest something that the seed decides; words in disorder name what they name."""
    try:
        named = named_factors(case.caption)
    except CaptionError:
        named = {}
    return Reading(
        **{
            name: named.get(name, case.named.get(name, values[case.seed % len(values)]))
            for name, values in FACTORS.items()
        }
    )


def fake_judge(pipeline, cases, sampling, plan=None):
    """A strong steer along a color's own axis gives that color; much too strong, nothing is left of the scene."""
    judged = []
    for place, case in enumerate(cases):
        reading = reading_of(case)
        for edit in plan or ():
            if place in edit.pictures and edit.window.holds(0.9):
                share = edit.direction / edit.direction.norm()
                if edit.strength * float(share.max()) > 0.1 + 0.05 * (case.seed % 4):
                    reading = reading._replace(color=COLORS[int(share.argmax())])
                if edit.strength > 1.5:
                    reading = UNREADABLE
        judged.append(Judged(case, np.full((16, 16, 3), 40 * len(judged) % 255, np.uint8), reading))
    return judged


def fake_watch(pipeline, cases, factor, sites, size=None):
    """Sides that lie along the axis of the value that a caption names, with some noise."""
    captions = [wordings(case, factor) for case in cases]
    generator = torch.Generator().manual_seed(len(cases))
    meters = {site: ContrastMeter(WIDTH) for site in sites}
    for meter in meters.values():
        for pair in range(len(cases) * WIDTH):
            for positive in (True, False):
                axis = torch.eye(WIDTH)[pair % WIDTH] * positive
                noise = 0.3 * torch.randn(4, WIDTH, generator=generator)
                meter.add(axis + noise, torch.full((4,), 1.0), pair, positive)
    return ValueSides(factor, captions, meters)


def fake_methods(job):
    config = job.config
    sides = fake_watch(job.pipeline, job.pair_cases[: config.pairs], "color", SITES)
    strengths = ((0.5,), (1.0,), (1.0,))
    made = {
        name: contrast_choices(pair_directions(sides), *strengths)
        for name in ("feature", "itda", "neuron", "contrast", "probe")
    }
    made |= {name: at_random(made["contrast"], "color", WIDTH) for name in ("random_direction", "random_feature")}
    ways = [Way(name, those, job.to_sigma) for name, those in made.items()]
    shift = Shift(torch.zeros(3), torch.zeros(2))
    return (
        ways,
        text_embedding(dict.fromkeys(COLORS, shift), (1.0,)),
        sides,
        fake_watch(None, job.pair_cases[:4], "color", LATER),
    )


@pytest.fixture
def made_up(monkeypatch):
    class Transformer(torch.nn.Linear):
        inner_dim = WIDTH

    pipeline = SimpleNamespace(transformer=Transformer(2, 2))
    monkeypatch.setattr(harness, "judge", fake_judge)
    for module in (steering_study, model_size):
        monkeypatch.setattr(module, "load_pipeline", lambda name: pipeline)
        monkeypatch.setattr(module, "percent_to_sigma", lambda *_: lambda share: 1 - share)
    for module in (steering_curves, model_size):
        monkeypatch.setattr(module, "watch_values", fake_watch)
    monkeypatch.setattr(
        steering_study, "relatedness", lambda vector, _, caption: SimpleNamespace(value=1 / len(caption.split()))
    )
    monkeypatch.setattr(StudyJob, "_methods", fake_methods)


@pytest.fixture
def studied(made_up, tmp_path):
    job = StudyJob(SteeringStudy().quick(), tmp_path, say=lambda _: None)
    return job, write_study(job.run(), tmp_path), tmp_path


def test_a_study_leaves_all_figures_a_report_and_pictures(studied):
    _, figures, out = studied
    said = json.loads((out / "summary.json").read_text())
    assert said == figures and set(said["by_method"]) == set(TITLES)
    for name, one in said["by_method"].items():
        assert one.keys() >= BY_METHOD and None not in [one[key] for key in BY_METHOD], name
    assert {"pairs_curve", "window_curve", "relatedness", "adversarial", "model_size", "recommended"} <= said.keys()
    assert said["adversarial"].keys() >= {"nullified", "reversed", "unsteered_control"}
    page = (out / "report.html").read_text()
    assert all(title in page for title in TITLES.values())
    assert page.count("<svg") == 12 and page.count("data:image/png") == 5
    for name in ("methods", "strength-contrast", "strength-feature", "windows", "adversarial"):
        assert Image.open(out / f"{name}.png").width > 200


def test_what_works_is_told_from_what_does_not(studied):
    _, figures, _ = studied
    by = figures["by_method"]
    assert by["contrast"]["success"] > 0.9 > 0.5 > by["random_direction"]["success"]
    assert by["prompt_edit"]["success"] == 1.0 and by["text_embedding"]["success"] == 0.0
    strong = figures["strength_curve"]["contrast"]
    assert [row["strength"] for row in strong] == sorted(row["strength"] for row in strong)
    assert {row["site"] for row in figures["site_curve"]} == {str(site) for site in (*SITES, *LATER)}
    late = figures["window_curve"][1]
    assert (late["start"], late["success"]) == (0.5, 0.0)
    assert [row["pairs"] for row in figures["pairs_curve"]] == [1, 2, 4, 8]
    assert figures["pairs_curve"][-1]["cosine"] == pytest.approx(1.0)
    rows = figures["relatedness"]["rows"]
    assert [row["vector"] for row in rows] == ["broad"] * 3 + ["narrow"] * 3
    assert all(row["relatedness"] is not None and row["n"] for row in rows)
    assert len(findings(figures)) == 5 and len(claims(figures)) == 6
    assert figures["recommended"]["site"] in {str(site) for site in SITES}


def test_targets_and_budgets_are_as_planned(studied):
    job, figures, _ = studied
    config = job.config
    for name, one in figures["by_method"].items():
        main = name in ("contrast", "prompt_edit")
        assert one["n"] == (config.targets if main else config.compared), name
        assert one["against_n"] == (config.against if main else config.against_compared)
        assert one["searched"]["pictures"] <= config.search
        if name != "prompt_edit":
            assert one["searched"]["pictures"] > config.search / 2
    splits = {one.target.case.seed for one in job.findings.shown["contrast"].open.asked}
    assert not splits & {case.seed for case in job.pair_cases}


def test_narrow_prompts_name_what_their_level_says(made_up, tmp_path):
    job = StudyJob(SteeringStudy().quick(), tmp_path, say=lambda _: None)
    curves = steering_curves.CurveJob(None, job.config.curves, "color", None, None, None, {}, {}, [], None)
    same = {
        level: [(c.named["shape"] == "circle", c.named["background"] == "black") for c in cases]
        for level, cases in curves._narrow_cases().items()
    }
    assert set(same["in distribution"]) == {(True, True)} and set(same["unrelated"]) == {(False, False)}
    assert set(same["new combinations"]) == {(True, False), (False, True)}
    assert {(c.named["shape"], c.named["background"]) for c in curves._narrow_pairs()} == {("circle", "black")}
    assert not any("color" in c.named for cases in curves._narrow_cases().values() for c in cases)


@pytest.mark.parametrize(
    ("shares", "enough"), [((0.2, 0.9, 0.5, 0.91, 0.9), 8), ((0.9, 0.9, 0.9), 1), ((0.1, 0.5, 0.9), 4)]
)
def test_pairs_are_enough_from_where_success_stays(shares, enough):
    assert enough_pairs([{"pairs": 2**i, "success": share} for i, share in enumerate(shares)]) == enough


def test_sites_are_ranked_by_their_best_strength():
    rows = [
        {"site": "a", "strength": 1, "joint": 0.3},
        {"site": "b", "strength": 1, "joint": 0.5},
        {"site": "a", "strength": 2, "joint": 0.7},
    ]
    assert [(row["site"], row["strength"]) for row in best_of_sites(rows)] == [("a", 2), ("b", 1)]


def test_a_method_adds_its_own_direction_for_each_value():
    made = Directions(SITES[0], dict(zip(COLORS, torch.eye(WIDTH), strict=True)), FLAT)
    (choice,) = contrast_choices([made], (9.0,), (0.5,), (1.0,))
    candidate = choice.directions.candidate(choice.rule, lambda share: 1 - share)
    for i, value in enumerate(COLORS):
        (edit,) = candidate.plan(value)
        assert int(edit.direction.argmax()) == i and edit.strength == 0.5 and edit.scale is FLAT


@pytest.mark.long
def test_the_quick_study_runs_with_the_demo_flux(tmp_path):
    from fluxtionary.commands.study import StudySteering

    StudySteering(tmp_path / "study", quick=True).run()
    figures = json.loads((tmp_path / "study" / "summary.json").read_text())
    assert set(figures["by_method"]) == set(TITLES)
    assert [row["pairs"] for row in figures["pairs_curve"]] == [1, 2, 4, 8]
    assert len((tmp_path / "study" / "report.html").read_bytes()) > 100_000
    assert set(figures["model_size"]["sizes"]) == {"base", "small"}
