"""Searches with equal budgets, pictures drawn once, and outcomes of methods: with a model that is made up."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from fluxtionary.demo.measure import UNREADABLE, Reading
from fluxtionary.demo.scenes import FACTORS
from fluxtionary.dictionaries import Scale
from fluxtionary.dictionaries.scale import BINS
from fluxtionary.evaluation import harness
from fluxtionary.evaluation.cases import Case, Judged
from fluxtionary.evaluation.harness import (
    PROMPT_EDIT,
    Candidate,
    Easel,
    Method,
    Showing,
    asked,
    figures,
    plan_for_each,
    rounds,
    search,
    show,
    show_all,
    targets_needed,
)
from fluxtionary.evaluation.steering import Target, even_targets
from fluxtionary.residual import Add, Moment, Plan, Row, Run, Site
from fluxtionary.training.sampling import Sampling

SITE = Site.parse("double.1.img")
COLORS = FACTORS["color"]
PICTURE = np.zeros((1, 1, 3), np.uint8)
FLAT = Scale(torch.ones(BINS))


def case(seed, **named):
    return Case(" ".join(named.values()), named, seed)


def steer(strength):
    """A plan whose direction says which color, so that the made-up model knows."""

    def plan(value):
        return Plan([Add(SITE, torch.eye(len(COLORS))[COLORS.index(value)], strength, FLAT)])

    return Candidate({"strength": strength}, plan)


@pytest.fixture
def model(monkeypatch):
    """Unsteered pictures show the color after their seed's, or the one that is named.

    A steer hits where its strength is above the last digit of the seed, and above 8 it breaks the background. Seeds
    from 900 are unreadable.
    """
    drawn = []

    def draw(pipeline, cases, sampling, plan=None):
        judged = []
        for place, one in enumerate(cases):
            reading = Reading(one.named.get("color", COLORS[(one.seed + 1) % 8]), "circle", "small", "top", "navy")
            for edit in plan or ():
                if place in edit.pictures and edit.strength > one.seed % 10:
                    reading = reading._replace(color=COLORS[int(edit.direction.argmax())])
                    reading = reading._replace(background="tan" if edit.strength > 8 else "navy")
            judged.append(Judged(one, PICTURE, UNREADABLE if one.seed >= 900 else reading))
            drawn.append((one.caption, one.seed, plan is not None))
        assert len(cases) <= sampling.batch or plan is None
        return judged

    monkeypatch.setattr(harness, "judge", draw)
    return drawn


@pytest.fixture
def easel(model):
    return Easel(SimpleNamespace(transformer=torch.nn.Linear(1, 1)), Sampling(batch=4))


def on(easel, count, first=0):
    plain = easel.plain([case(first + i, background="navy") for i in range(count)])
    return asked(even_targets(plain), plain)


def test_a_plain_picture_is_drawn_once(easel, model):
    cases = [case(i, shape="circle") for i in range(3)]
    assert easel.plain(cases) == easel.plain(cases[:2]) + easel.plain(cases[2:]) and len(model) == 3
    easel.remember([Judged(case(9), PICTURE, UNREADABLE)])
    assert easel.plain([case(9)])[0].reading == UNREADABLE and len(model) == 3


def test_only_as_many_are_drawn_as_it_takes_to_find_readable_ones(easel, model):
    cases = [case(900 if i == 1 else i) for i in range(40)]
    assert [one.case.seed for one in easel.readable(cases, 5)] == [0, 2, 3, 4, 5]
    assert len(model) == 6
    with pytest.raises(ValueError, match="expected 50 readable pictures, found 39"):
        easel.readable(cases, 50)


def test_targets_that_do_not_count_are_not_drawn(easel, model):
    plain = easel.plain([case(0), case(900), case(2)])
    targets = [Target(one.case, "color", value) for one, value in zip(plain, ("red", "red", COLORS[3]), strict=True)]
    some = asked(targets, plain)
    assert [one.target.case.seed for one in some] == [0]
    assert show(easel, "a", steer(5), some).outcome.success.n == 1 and len(model) == 4


def test_each_target_is_steered_to_its_own_value_over_batches(easel):
    some = on(easel, 10)
    result = show(easel, "a", steer(5), some)
    hits = [after.reading.color == one.target.value for one, after in zip(some, result.steered, strict=True)]
    assert hits == [one.target.case.seed % 10 < 5 for one in some] and result.outcome.success.value == 0.5


@pytest.mark.parametrize("count", [1, 2, 3, 4, 5, 16])
def test_a_search_draws_no_more_than_its_budget_and_nearly_all_of_it(easel, model, count):
    some = on(easel, 40)
    before = len(model)
    found = search(easel, Method("a", tuple(steer(1 + i / 100) for i in range(count))), some, 64)
    assert len(model) - before == found.pictures == sum(left * each for left, each in rounds(count, 64)) <= 64
    assert found.pictures >= (48 if count > 1 else 0)
    assert targets_needed(count, 64) <= 40 and len(found.tried) == (count if count > 1 else 0)


def test_a_search_halves_and_finds_the_best_without_collateral(easel):
    found = search(easel, Method("a", tuple(map(steer, (2, 9, 7, 4)))), on(easel, 40), 48)
    # strength 9 hits most, and breaks the background of what it hits
    assert found.candidate.settings == {"strength": 7} and found.number == 2
    seen = {one.settings["strength"]: one.outcome.success.n for one in found.tried}
    assert seen == {2: 6, 9: 6, 7: 18, 4: 18}


def test_candidates_share_batches_and_each_picture_has_its_own(easel, model, monkeypatch):
    """Eight pictures by three candidates are two batches of four, and so are those of a search's round."""
    some, sizes = on(easel, 4), []
    monkeypatch.setattr(harness, "lanes", lambda _: 1)
    drawn = harness.judge

    def judge(pipeline, cases, sampling, plan=None):
        sizes.append(len(cases))
        return drawn(pipeline, cases, sampling, plan)

    monkeypatch.setattr(harness, "judge", judge)
    wanted = [(one.target, candidate) for one in some[:3] for candidate in map(steer, (2, 9))]
    wanted += [(some[3].target, PROMPT_EDIT.candidates[0]), (some[3].target, steer(9))]
    found = easel.steered(wanted)
    assert sizes == [4, 4]
    for (target, candidate), one in zip(wanted, found, strict=True):
        hit = not candidate.edits or candidate.settings["strength"] > target.case.seed % 10
        assert (one.reading.color == target.value) == hit
    sizes.clear()
    search(easel, Method("a", tuple(map(steer, (2, 9, 7, 4)))), on(easel, 40, first=100), 48)
    assert sizes == [4] * (10 + 12), "40 unsteered pictures, then 4 candidates on 6 targets and 2 on 12"


def test_a_search_may_allow_some_collateral(easel):
    """Strength 9 always hits and always breaks the background, 2 seldom hits: the first wins where that is allowed."""
    methods = Method("a", tuple(map(steer, (2, 9))))
    assert search(easel, methods, on(easel, 40), 40, allowed=1.0).candidate.settings == {"strength": 9}
    assert search(easel, methods, on(easel, 40), 40, allowed=0.1).candidate.settings == {"strength": 2}


def test_of_equals_the_first_is_taken(easel):
    assert search(easel, Method("a", (steer(0), steer(0), steer(0))), on(easel, 40), 48).number == 0


def test_a_budget_too_small_and_too_few_targets_are_errors(easel):
    methods = Method("a", tuple(map(steer, range(4))))
    with pytest.raises(ValueError, match="4 candidates needs at least 8 pictures"):
        rounds(4, 7)
    with pytest.raises(ValueError, match="searching a takes 18 validation targets, found 10"):
        search(easel, methods, on(easel, 10), 48)


def test_a_prompt_edit_asks_for_another_caption_with_the_same_seed(easel, model):
    some = on(easel, 4)
    result = show(easel, PROMPT_EDIT.name, PROMPT_EDIT.candidates[0], some)
    assert [after.reading.color for after in result.steered] == [one.target.value for one in some]
    assert not any(steered for _, _, steered in model)


def test_several_settings_are_shown_together_as_each_alone(easel):
    some = on(easel, 20)
    points = show_all(easel, [Showing("a", steer(strength), some) for strength in (2, 5, 9)])
    assert [(p.outcome.success.value, p.outcome.collateral.value) for p in points] == [(0.2, 0), (0.5, 0), (0.9, 0.9)]
    assert {one.outcome.success.n for one in points} == {20}


def test_figures_are_plain_and_have_intervals(easel):
    said = figures(show(easel, "a", steer(5), on(easel, 10)))
    assert said["settings"] == {"strength": 5} and said["success"]["n"] == 10
    assert said["success"]["low"] < said["success"]["value"] < said["success"]["high"]
    assert said.keys() == {"success", "collateral", "joint", "drift", "settings"}


def test_in_a_batch_each_picture_follows_its_own_plan():
    x = torch.randn(3, 4, 128, generator=torch.Generator().manual_seed(0))
    moment = Moment(0.5, tuple(Row("cond", i) for i in range(3)), (2, 2))
    plans = [Plan([Add(SITE, torch.eye(128)[i], 1.0, FLAT)]) for i in range(2)]
    together = Run(plan_for_each(plans, [1, 0, 1])).visit(SITE, x, moment)
    alone = [Run(plan).visit(SITE, x, moment) for plan in plans]
    assert torch.equal(together, torch.stack([alone[1][0], alone[0][1], alone[1][2]]))
