import math
from collections import Counter

import numpy as np
import pytest

from fluxtionary.demo.captions import named_factors
from fluxtionary.demo.measure import UNREADABLE, Reading
from fluxtionary.demo.scenes import FACTORS, Scene
from fluxtionary.evaluation.cases import Case, Judged, adherence, sample_cases
from fluxtionary.evaluation.intervals import Share
from fluxtionary.evaluation.steering import Target, against_targets, open_targets, outcome

PICTURE = np.zeros((1, 1, 3), np.uint8)
PLAIN = Reading("red", "circle", "small", "top", "navy")


def one(target, before, after, named=None):
    """The outcome of a single case: success, collateral, joint, drift (None where it does not count)."""
    case = Case("", named if named is not None else {"shape": "circle", "background": "navy"}, 0)
    went = outcome([Target(case, "color", target)], [Judged(case, PICTURE, before)], [Judged(case, PICTURE, after)])
    return [
        None if share.n == 0 else bool(share.value) for share in (went.success, went.collateral, went.joint, went.drift)
    ]


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [
        (PLAIN, PLAIN._replace(color="blue"), [True, False, True, False]),
        (PLAIN, PLAIN, [False, False, False, False]),
        (PLAIN, PLAIN._replace(color="blue", background="tan"), [True, True, False, False]),
        (PLAIN, PLAIN._replace(color="blue", size="large"), [True, False, True, True]),
        (PLAIN, UNREADABLE, [False, True, False, True]),
        (PLAIN._replace(color="blue"), PLAIN, [None] * 4),
        (UNREADABLE, PLAIN._replace(color="blue"), [None] * 4),
        # a factor that was wrong already cannot be broken
        (PLAIN._replace(shape="ring"), PLAIN._replace(shape="cross", color="blue"), [True, False, True, False]),
    ],
)
def test_outcomes_are_what_the_design_says(before, after, expected):
    assert one("blue", before, after) == expected


def test_the_steered_factor_is_never_collateral():
    assert one("blue", PLAIN, PLAIN._replace(color="blue"), {"color": "red", "shape": "circle"}) == [
        True,
        False,
        True,
        False,
    ]


@pytest.mark.parametrize("make", [open_targets, against_targets])
def test_targets_are_even_and_of_their_split(make):
    targets = make(160, 3, "test")
    counts = Counter(target.value for target in targets)
    assert set(counts) == set(FACTORS["color"])
    assert max(counts.values()) - min(counts.values()) <= (0 if make is open_targets else 20)
    for target in targets:
        assert named_factors(target.case.caption) == target.case.named
        if make is open_targets:
            assert "color" not in target.case.named
        else:
            assert target.case.named["color"] != target.value


def test_a_prompt_edit_names_the_value_and_changes_nothing_else():
    for target in (*open_targets(40, 1, "test"), *against_targets(40, 1, "test")):
        edit = target.prompt_edit
        assert named_factors(edit.caption) == edit.named == target.case.named | {"color": target.value}
        assert edit.seed == target.case.seed
        assert ("," in edit.caption) <= ("," in target.case.caption or len(target.case.named) <= 1)


def test_cases_of_different_splits_share_neither_scene_nor_seed():
    cases = {split: sample_cases(100, 0, split, always=list(FACTORS)) for split in ("train", "test", "unseen")}
    seeds = [{case.seed for case in some} for some in cases.values()]
    assert not (seeds[0] & seeds[1] or seeds[0] & seeds[2] or seeds[1] & seeds[2])
    for split, some in cases.items():
        assert {Scene(**case.named).split for case in some} == {split}


def test_adherence_counts_named_factors_and_unreadable_as_wrong():
    case = Case("", {"color": "red", "shape": "ring"}, 0)
    judged = [Judged(case, PICTURE, PLAIN), Judged(case, PICTURE, UNREADABLE)]
    found = adherence(judged)
    assert (found["color"], found["shape"], found["readable"]) == (0.5, 0.0, 0.5)
    assert math.isnan(found["size"])


def test_wilson_intervals():
    share = Share.of([True] * 8 + [False] * 2)
    assert share.low == pytest.approx(0.4902, abs=1e-3) and share.high == pytest.approx(0.9433, abs=1e-3)
    assert Share.of([True] * 5).high == pytest.approx(1.0) and Share.of([True] * 5).low < 0.6
    nothing = Share.of([])
    assert math.isnan(nothing.value) and (nothing.low, nothing.high) == (0.0, 1.0)
