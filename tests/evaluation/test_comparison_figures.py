import json
import math

import pytest

from fluxtionary.evaluation.comparison_figures import figures_of, summary
from fluxtionary.evaluation.contestants import BASELINES, MAIN, VARIANTS, WAYS

from .findings import RATES, invented


@pytest.fixture(scope="module")
def figures():
    return summary(invented(), 3, 200)


def test_the_summary_has_the_names_of_the_issue(figures):
    for way in MAIN:
        for name in ("fvu", "l0", "used", "qualifying", "stability"):
            assert isinstance(figures[way][name], float), (way, name)
        for score in ("interp", "interp_paper"):
            assert figures[way][score].keys() >= {"score", "low", "high"}
        assert figures[way]["truth"].keys() >= {"f1_mean", "iou_mean", "coverage"}
    for way in ("random_directions", "frozen_decoder", "random_weight_model"):
        assert 0 < figures["baselines"][way]["interp"]["score"] < 1
    assert figures["controls"].keys() >= {"shuffled", "constant_judge"}
    assert figures["sae_minus_best_baseline"].keys() >= {"mean", "low", "high"}
    json.dumps(figures)


def test_scores_are_those_that_judges_had(figures):
    for way, rate in RATES.items():
        found = figures_of(figures, way)["interp"]
        assert abs(found["score"] - rate) < 0.06
        assert found["low"] < rate < found["high"]
        assert len(found["by_seed"]) == 3  # also neurons, whose features are dealt out to the seeds
    assert abs(figures["controls"]["shuffled"] - 0.5) < 0.03
    assert figures["controls"]["constant_judge"] == pytest.approx(0.5)
    assert figures["sae_minus_best_baseline"]["best"] == "frozen_decoder"
    assert {*figures["variants"]} == {*VARIANTS} and {*figures["baselines"]} == {*BASELINES}


def test_the_papers_score_is_of_features_that_qualify_alone():
    found = invented()
    for result in found.of("sae"):
        kept = result.found.qualified
        result.found.judgments = [
            j._replace(answer=float(j.match)) if j.score == "paper" and j.feature in kept else j
            for j in result.found.judgments
        ]
    figures = summary(found, 3, 50)
    assert figures["sae"]["interp_paper"]["score"] == 1.0
    assert figures["sae"]["interp_paper_times_qualifying"] == pytest.approx(0.6)
    assert figures["sae"]["qualifying"] == pytest.approx(0.6)


def test_a_judge_that_never_answered_leaves_gaps_and_no_error():
    found = invented()
    for result in found.results:
        if result.way in ("itda", "frozen_decoder"):
            result.found.judgments, result.found.shuffled, result.found.regions = [], [], []
            result.found.missing = dict.fromkeys(result.found.features, "5 questions without an answer: refused")
    figures = summary(found, 3, 50)
    assert math.isnan(figures["itda"]["interp"]["score"]) and math.isnan(figures["itda"]["region"])
    judged = figures["itda"]["judged"]
    assert judged["drawn"] == judged["missing"] == 90 and judged["judged"] == judged["judgments"] == 0
    assert judged["reasons"] == {"n questions without an answer": 90}
    assert figures["sae_minus_best_baseline"]["best"] != "frozen_decoder"
    assert not math.isnan(figures["sae_minus_best_baseline"]["low"])
    assert [*WAYS] == [*dict.fromkeys(result.way for result in found.results)]
