"""Measures of steered pictures, and the two models at matched success."""

import numpy as np
import pytest

from fluxtionary.demo.measure import UNREADABLE, Reading
from fluxtionary.evaluation.cases import Case, Judged
from fluxtionary.evaluation.harness import Asked, Candidate, Found, Result, Tried
from fluxtionary.evaluation.model_size import Course, SizeStudy, matched
from fluxtionary.evaluation.steering import Target, outcome
from fluxtionary.evaluation.study_figures import changes, first, joined, measures, method_figures, tried

PICTURE = np.zeros((1, 1, 3), np.uint8)
BEFORE = Reading("blue", "circle", "small", "top", "navy")


def result(*readings):
    case = Case("a circle", {"shape": "circle"}, 0)
    on = [Asked(Target(case, "color", "red"), Judged(case, PICTURE, BEFORE)) for _ in readings]
    steered = [Judged(case, PICTURE, reading) for reading in readings]
    return Result("a", {"strength": 1.0}, outcome([o.target for o in on], [o.plain for o in on], steered), on, steered)


HIT = BEFORE._replace(color="red")
PAINTED = HIT._replace(background="tan")
BROKEN = HIT._replace(shape="square")


def test_losses_are_of_all_that_is_not_steered():
    made = result(HIT, PAINTED, BROKEN, UNREADABLE)
    assert changes(made) == [0.0, 0.25, 0.25, 1.0]
    said = measures(made)
    assert (said["success"], said["collateral"], said["joint"]) == (0.75, 0.5, 0.5)
    assert (said["drift"], said["quality_loss"], said["changed"], said["n"]) == (0.5, 0.25, 0.375, 4)
    assert said["success_low"] < 0.75 < said["success_high"]


def test_parts_and_sums_of_results():
    made = result(HIT, PAINTED, BROKEN, UNREADABLE)
    assert first(made, 2).outcome.success.value == 1.0 and len(first(made, 2).steered) == 2
    both = joined([first(made, 2), made])
    assert both.outcome.success.n == 6 and both.outcome.success.value == pytest.approx(5 / 6)


def test_a_method_says_both_kinds_of_captions_and_what_it_searched():
    went = outcome([], [], [])
    found = Found(Candidate(), 1, (Tried({"strength": 1}, went), Tried({"strength": 2}, went)), 48)
    said = method_figures(result(HIT, HIT), result(HIT, BEFORE), found, Found(Candidate(), 0, (), 0))
    wanted = "success success_low against against_low collateral collateral_high joint drift quality_loss"
    assert said.keys() >= set(wanted.split())
    assert (said["success"], said["against"], said["against_n"]) == (1.0, 0.5, 2)
    assert said["searched"]["pictures"] == 48 and len(said["searched"]["tried"]) == 2
    assert said["searched_against"] == {"pictures": 0, "tried": []}
    assert [row["strength"] for row in tried(found)] == [1, 2]


def course(success, collateral, n=200):
    def rows(shares):
        return np.array([[float(i < share * n) for i in range(n)] for share in (0.0, *shares)])

    return Course(rows(success), rows(collateral), rows(collateral), rows(collateral))


def test_losses_at_a_share_of_success_lie_between_those_of_two_strengths():
    made = course((0.4, 0.8), (0.1, 0.3))
    assert made.at(0.6)["collateral"] == pytest.approx(0.2)
    assert made.at(0.2)["collateral"] == pytest.approx(0.05)
    assert np.isnan(made.at(0.9)["collateral"])


def test_two_sizes_are_compared_where_both_get_to():
    rows = matched(
        {"base": course((0.5, 0.95), (0.1, 0.2)), "small": course((0.5, 0.85), (0.4, 0.7))},
        SizeStudy(levels=(0.5, 0.8, 0.9), draws=200),
    )
    assert [row["success"] for row in rows] == [0.5, 0.8]
    for row in rows:
        less = row["base_minus_small"]["collateral"]
        assert less["low"] < less["mean"] < less["high"] < 0
    assert rows[0]["base_minus_small"]["collateral"]["mean"] == pytest.approx(-0.3)


def test_a_course_begins_without_a_steer():
    made = Course.of([result(HIT, BEFORE), result(HIT, UNREADABLE)])
    assert made.success.tolist() == [[0, 0], [1, 0], [1, 0]]
    assert made.collateral.tolist() == [[0, 0], [0, 0], [0, 1]]
    assert made.quality_loss.tolist() == made.collateral.tolist()
