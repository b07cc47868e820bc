"""One dictionary put to the test, on drawn scenes of which it is known what every feature shows."""

from statistics import mean

import pytest

from fluxtionary.atlas import Atlas
from fluxtionary.demo.stand_in import StandIn
from fluxtionary.evaluation.interpreted import Interpreting, interpret
from fluxtionary.interpretation.endpoint import Endpoint
from fluxtionary.interpretation.judge import Judging
from fluxtionary.interpretation.scoring import interp_score

from .drawn_scenes import CLEAR, FEATURES, NEVER, RARE, contestant

ALL = Interpreting(FEATURES, Judging(pictures=2), located=1, shuffles=2, progress=False)
FEW = Interpreting(4, Judging(pictures=2), located=0, shuffles=2, progress=False)


@pytest.fixture(scope="module")
def endpoint():
    with StandIn() as server:
        yield Endpoint(server.url, "stand-in")


@pytest.fixture(scope="module")
def found(tmp_path_factory, endpoint):
    return interpret(contestant(), tmp_path_factory.mktemp("interpreted") / "atlas", endpoint, ALL, controls=True)


def test_features_that_were_never_active_are_not_drawn_and_rare_ones_not_asked_about(found):
    assert found.used == FEATURES - 1 and sorted(found.features) == [n for n in range(FEATURES) if n != NEVER]
    assert found.missing.keys() >= {RARE} and "active in 3 pictures" in found.missing[RARE]
    assert RARE not in found.labels and RARE not in found.qualified
    assert found.labels.keys() == set(found.features) - {RARE}
    assert found.qualifying == len(found.qualified) < found.used  # all were drawn


def test_what_judges_can_tell_scores_high_and_permuted_labels_one_half(found):
    own = interp_score(found.judgments)
    clear = [own[n].value for n in range(CLEAR) if n in own]  # of some there are too few pictures
    assert len(clear) >= CLEAR - 2 and mean(clear) > 0.75
    control = interp_score(found.shuffled)
    assert abs(mean(score.value for score in control.values()) - 0.5) < 0.1
    assert {j.score for j in found.judgments} == {"interp", "paper"} and {j.score for j in found.shuffled} == {"interp"}
    once = [j for j in found.judgments if j.score == "interp"]
    assert len(found.shuffled) == 2 * len(once)  # the same pictures, as often as was asked for


def test_everything_asked_is_counted(found):
    assert found.usage.asked == sum(map(len, (found.labels, found.judgments, found.shuffled, found.regions)))
    assert found.usage.missing == 0


def test_labels_and_scores_are_in_the_atlas(found):
    own = interp_score(found.judgments)
    with Atlas.open(found.folder) as atlas:
        for number in found.features:
            feature, label = atlas.feature(number), found.labels.get(number)
            assert (feature.label, feature.explanation) == ((label.label, label.explanation) if label else (None, None))
            assert feature.scores.get("interp") == own.get(number)
        assert {"interp", "interp_paper", "region"} <= {*atlas.feature(found.regions[0].feature).scores}


def test_only_as_much_is_asked_as_is_wanted(endpoint, tmp_path):
    plain = interpret(contestant(30), tmp_path / "plain", endpoint, FEW, controls=False)
    assert len(plain.features) == 4 and plain.judgments and not plain.shuffled and not plain.regions
    again = interpret(contestant(30, "sae_pursuit"), tmp_path / "again", endpoint, FEW, controls=True)
    assert again.features == plain.features and again.shuffled  # the same directions: judged by the same features
