import pytest

from fluxtionary.interpretation.judge import Judgment
from fluxtionary.interpretation.scoring import interp_score, paper_score


def judgments(matches, others, score="interp", feature=7):
    told = [Judgment(feature, 0, True, answer, score) for answer in matches]
    return told + [Judgment(feature, 1, False, answer, score) for answer in others]


def test_interp_is_the_balanced_accuracy_at_one_half():
    scores = interp_score(judgments([0.9, 0.5, 0.4, 0.1], [0.2, 0.6]))
    assert scores[7].value == pytest.approx((2 / 4 + 1 / 2) / 2) and scores[7].n == 6
    assert interp_score(judgments([1, 1], [0, 0]))[7].value == 1
    assert interp_score(judgments([1, 1], [1, 1]))[7].value == 0.5


def test_paper_is_the_mean_agreement():
    found = judgments([0.9, 0.5], [0.2, 0.6, 0.0], "paper") + judgments([0, 0], [1, 1])
    assert paper_score(found)[7].value == pytest.approx((0.9 + 0.5 + 0.8 + 0.4 + 1.0) / 5)
    assert interp_score(found)[7].value == 0


def test_features_judged_on_one_side_alone_have_no_interp_score():
    assert interp_score(judgments([1, 1], [])) == {} == interp_score(judgments([], [0]))
    assert interp_score([]) == {} == paper_score([])


def test_intervals_are_wilson_s():
    score = interp_score(judgments([1] * 5, [0] * 5))[7]
    assert (score.low, score.high) == pytest.approx((0.7225, 1.0), abs=1e-4)
    assert score.high == 1.0
