import math

import pytest

from fluxtionary.evaluation.atlas_sample import AtlasSample, sample_atlas
from fluxtionary.evaluation.interpreted import Interpreted
from fluxtionary.interpretation.judge import Judgment

from .drawn_scenes import FEATURES, contestant


def judged(feature, right, score="interp"):
    """A judge's answers of five matches and five mismatches, `right` of each of them right."""
    return [
        Judgment(feature, 10 * feature + i, match, float(match == (i < right)), score)
        for match in (True, False)
        for i in range(5)
    ]


def test_an_atlas_is_built_and_some_of_its_features_are_explained_and_judged(tmp_path):
    sample = sample_atlas(contestant(), tmp_path / "atlas", 6)
    figures = sample.figures(draws=50)
    assert figures["drawn"] == 6 and figures["used"] == FEATURES - 1 and sample.n_features == FEATURES
    assert 4 <= figures["explained"] <= 6
    assert figures["interp"]["score"] > 0.6 and figures["interp"]["score"] > figures["shuffled"]["score"]
    assert {card.rank for card in sample.cards} == {"best", "middle", "worst"}
    assert all(card.label and card.pictures and card.source is None for card in sample.cards)


def test_the_papers_score_is_of_features_that_qualify_alone(tmp_path):
    found = Interpreted(tmp_path, used=9, qualifying=6, features=[1, 2, 3], qualified={1, 2})
    found.judgments = [*judged(1, 5), *judged(2, 4), *judged(3, 0)]
    found.judgments += [*judged(1, 5, "paper"), *judged(2, 5, "paper"), *judged(3, 0, "paper")]
    found.shuffled = judged(1, 2) + judged(2, 3)
    figures = AtlasSample(found, [], n_features=12).figures(draws=50)
    assert figures["interp"]["score"] == pytest.approx(9 / 15)
    assert figures["interp_paper"]["score"] == pytest.approx(1)
    assert figures["shuffled"]["score"] == pytest.approx(0.5)
    assert (figures["used"], figures["qualifying"], figures["drawn"], figures["explained"]) == (9, 0.5, 3, 0)
    assert figures["interp"]["low"] < figures["interp"]["score"] < figures["interp"]["high"]


def test_what_nobody_judged_is_no_figure(tmp_path):
    figures = AtlasSample(Interpreted(tmp_path, 1, 0, [1], set()), [], n_features=2).figures(draws=50)
    assert all(math.isnan(figures[name]["score"]) for name in ("interp", "interp_paper", "shuffled"))
