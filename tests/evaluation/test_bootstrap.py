import math

import numpy as np
import pytest

from fluxtionary.evaluation.bootstrap import Arm, Bootstrap, Interval


def judged(rate, seeds=3, features=20, each=5, offset=0.0, seed=0, directions="some", by_seed=0.0):
    """An arm whose answers are right with chance `rate`, which differs from seed to seed by up to `by_seed`."""
    rng = np.random.default_rng(seed)
    rows = []
    for dictionary in range(seeds):
        chance = rate + by_seed * (dictionary - (seeds - 1) / 2)
        for feature in range(features):
            for match in (True, False):
                for _ in range(each):
                    right = rng.random() < chance
                    rows.append((dictionary, feature, int(rng.integers(100)), match, float(right == match)))
    return Arm.of(rows, directions)


def interval(arm, measure="balanced_accuracy", **options):
    return Bootstrap({"one": arm}, measure, **({"draws": 300} | options)).interval("one")


def test_the_score_is_that_of_the_data_and_lies_in_its_interval():
    found = interval(judged(0.8))
    assert abs(found.score - 0.8) < 0.05
    assert found.low < found.score < found.high
    assert 0.02 < found.high - found.low < 0.2


def test_a_judge_without_errors_has_no_uncertainty_and_a_constant_one_has_half():
    assert interval(judged(1.0)) == Interval(1.0, 1.0, 1.0)
    constant = judged(0.5)
    yes = Arm(**{**vars(constant), "answer": np.ones_like(constant.answer)})
    assert interval(yes) == Interval(0.5, 0.5, 0.5)
    assert interval(yes, "paper") == Interval(0.5, 0.5, 0.5)


def test_half_is_no_yes_for_balanced_accuracy_and_half_right_for_the_paper():
    rows = [(0, 0, 0, True, 0.5), (0, 0, 1, False, 0.5)]
    assert interval(Arm.of(rows, "some")).score == 0.5
    graded = [(0, 0, 0, True, 0.9), (0, 0, 1, False, 0.3)]
    assert interval(Arm.of(graded, "some")).score == 1.0
    assert interval(Arm.of(graded, "some"), "paper").score == pytest.approx(0.8)


def test_every_feature_counts_the_same_however_often_it_was_judged():
    many = [(0, 0, n, match, float(match)) for n in range(40) for match in (True, False)]  # right
    few = [(0, 1, n, match, float(not match)) for n in range(2) for match in (True, False)]  # wrong
    assert interval(Arm.of(many + few, "some")).score == pytest.approx(0.5)


def test_seeds_that_differ_make_the_interval_wide():
    alike, unlike = judged(0.75, features=60), judged(0.75, features=60, by_seed=0.2)
    narrow, wide = interval(alike), interval(unlike)
    assert wide.high - wide.low > 2 * (narrow.high - narrow.low)
    assert len(Bootstrap({"one": unlike}, "balanced_accuracy", 10).by_seed("one")) == 3


def test_the_interval_holds_the_truth_about_as_often_as_it_says():
    held = 0
    for trial in range(40):
        found = interval(judged(0.7, features=15, seed=trial), draws=150, seed=trial)
        held += found.low <= 0.7 <= found.high
    assert held >= 35


def test_differences_of_arms_with_the_same_directions_are_paired():
    rng = np.random.default_rng(1)
    base = judged(0.7, seed=2)
    flipped = rng.random(len(base.answer)) < 0.03
    other = Arm(**{**vars(base), "answer": np.where(flipped, 1 - base.answer, base.answer)})
    elsewhere = Arm(**{**vars(other), "directions": "others"})
    paired = Bootstrap({"one": base, "other": other}, "balanced_accuracy", 300).difference("one", "other")
    unpaired = Bootstrap({"one": base, "other": elsewhere}, "balanced_accuracy", 300).difference("one", "other")
    assert paired.score == unpaired.score
    assert paired.high - paired.low < 0.7 * (unpaired.high - unpaired.low)
    none = Bootstrap({"one": base, "other": base}, "balanced_accuracy", 50).difference("one", "other")
    assert none == Interval(0.0, 0.0, 0.0)


def test_against_the_best_of_several_the_best_is_found_in_every_draw():
    arms = {"sae": judged(0.9, directions="sae"), "a": judged(0.7, seed=1, directions="a")}
    arms |= {"b": judged(0.7, seed=2, directions="b"), "c": judged(0.55, seed=3, directions="c")}
    found = Bootstrap(arms, "balanced_accuracy", 300)
    best = found.minus_best("sae", ["a", "b", "c"])
    assert best.score == min(found.difference("sae", name).score for name in ("a", "b", "c"))
    assert best.high < max(found.difference("sae", name).high for name in ("a", "b"))
    assert best.low > 0


def test_an_arm_that_nobody_judged_has_no_score_and_spoils_no_other():
    found = Bootstrap({"one": judged(0.8), "none": Arm.of([], "none")}, "balanced_accuracy", 50)
    assert math.isnan(found.interval("none").score) and math.isnan(found.difference("one", "none").low)
    assert found.minus_best("one", ["none"]).score != found.minus_best("one", ["none"]).score
    assert found.interval("one").low > 0.5 and found.by_seed("none") == []
    assert found.minus_best("none", ["one"]).score != 0
    assert not math.isnan(
        Bootstrap({"a": judged(0.9), "b": judged(0.6), "none": Arm.of([], "x")}, "paper", 50)
        .minus_best("a", ["b", "none"])
        .low
    )
