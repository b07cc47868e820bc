import math
from collections import Counter

import numpy as np
import pytest

from fluxtionary.demo.captions import named_factors
from fluxtionary.demo.measure import UNREADABLE, Reading
from fluxtionary.demo.scenes import FACTORS, Scene
from fluxtionary.evaluation.cases import Case, Judged, adherence, sample_cases
from fluxtionary.evaluation.intervals import Share
from fluxtionary.evaluation.steering import Target, against_targets, counts, even_targets, outcome

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


def unsteered(n, split="test"):
    """Open cases whose pictures show the color of their scene, so that some show the value they would be given."""
    rng = np.random.default_rng(0)
    cases = sample_cases(n, 3, split, never=["color"])
    return [Judged(case, PICTURE, PLAIN._replace(color=str(rng.choice(FACTORS["color"])))) for case in cases]


def test_every_value_is_a_target_equally_often_and_none_is_shown_already():
    plain = unsteered(160)
    targets = even_targets(plain)
    assert Counter(target.value for target in targets) == dict.fromkeys(FACTORS["color"], 20)
    assert [target.case for target in targets] == [judged.case for judged in plain]
    assert all(counts(target, judged) for target, judged in zip(targets, plain, strict=True))
    around = [FACTORS["color"][i % 8] for i in range(160)]
    clashes = [judged.reading.color == value for judged, value in zip(plain, around, strict=True)]
    assert 10 < sum(clashes) < 30  # only these are given another than their turn
    assert [target.value == value for target, value in zip(targets, around, strict=True)] == [not c for c in clashes]


def test_a_value_that_no_other_can_be_exchanged_for_does_not_count():
    plain = [Judged(Case("", {}, i), PICTURE, PLAIN) for i in range(8)]  # all red
    targets = even_targets(plain)
    assert [counts(target, judged) for target, judged in zip(targets, plain, strict=True)] == [False] + [True] * 7
    assert not counts(Target(Case("", {}, 0), "color", "blue"), Judged(Case("", {}, 0), PICTURE, UNREADABLE))
    assert even_targets([]) == []


def test_targets_against_the_caption_go_through_all_other_values():
    cases = sample_cases(160, 3, "test", always=["color"])
    targets = against_targets(cases)
    count = Counter(target.value for target in targets)
    assert set(count) == set(FACTORS["color"]) and max(count.values()) - min(count.values()) <= 20
    assert all(target.case.named["color"] != target.value for target in targets)


def test_a_prompt_edit_names_the_value_and_changes_nothing_else():
    opposed = against_targets(sample_cases(40, 1, "test", always=["color"]))
    for target in (*even_targets(unsteered(40)), *opposed):
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
