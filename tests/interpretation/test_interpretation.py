"""Explaining, judging and locating the drawn atlas's features with the stand-in, over HTTP."""

from statistics import mean

import pytest

from fluxtionary.demo.claims import NOTHING
from fluxtionary.interpretation.endpoint import Endpoint
from fluxtionary.interpretation.explain import explain
from fluxtionary.interpretation.judge import Judging, constant, judge, shuffled
from fluxtionary.interpretation.region import locate, region_score
from fluxtionary.interpretation.scoring import interp_score, paper_score

from .drawn_atlas import NOISE, SHOWN, write_atlas
from .trouble import Troubled, fails

ALL = range(len(SHOWN) + NOISE)


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    return Endpoint("demo", cache=tmp_path_factory.mktemp("cache") / "answers")


@pytest.fixture(scope="module")
def labels(drawn_atlas, demo):
    explained = explain(drawn_atlas, ALL, demo, progress=False)
    assert not explained.missing
    return {number: label.label for number, label in explained.labels.items()}


@pytest.fixture(scope="module")
def judged(drawn_atlas, demo, labels):
    return judge(drawn_atlas, labels, demo, Judging(pictures=4), progress=False)


def average(scores, numbers):
    return mean(scores[number].value for number in numbers)


def test_labels_name_what_features_show(labels):
    named = [SHOWN[number] in labels[number] for number in range(len(SHOWN))]
    assert sum(named) >= 0.9 * len(named)
    beside = [labels[number].endswith("on the background") for number in range(8, 14)]  # backgrounds
    assert sum(beside) >= 5
    nothing = [labels[number] == NOTHING or labels[number].startswith("on the b") for number in ALL[len(SHOWN) :]]
    assert sum(nothing) >= NOISE - 2


def test_clear_features_score_high_and_noise_one_half(judged):
    assert not judged.missing and judged.usage.missing == 0
    for scores in (interp_score(judged.judgments), paper_score(judged.judgments)):
        assert scores.keys() == set(ALL)
        assert average(scores, range(len(SHOWN))) > 0.8 and abs(average(scores, ALL[len(SHOWN) :]) - 0.5) < 0.1
        assert all(0 <= s.low <= s.value <= s.high <= 1 for s in scores.values())
    assert all(score.n == 8 for score in interp_score(judged.judgments).values())


def test_controls_score_one_half(drawn_atlas, demo, labels, judged):
    clear = {number: labels[number] for number in range(len(SHOWN))}
    alone = Judging(pictures=4, paper=False)
    means = []
    for seed in range(3):
        control = judge(drawn_atlas, shuffled(clear, seed), demo, alone, progress=False)
        assert all(judgment.score == "interp" for judgment in control.judgments)
        means.append(average(interp_score(control.judgments), clear))
    assert abs(mean(means) - 0.5) < 0.04
    for answer in (0.0, 1.0):
        scores = interp_score(constant(judged.judgments, answer))
        assert {score.value for score in scores.values()} == {0.5}
        assert {score.value for score in paper_score(constant(judged.judgments, answer)).values()} == {0.5}


def test_places_of_labels_lie_where_the_heat_is(drawn_atlas, demo, labels):
    clear = {number: labels[number] for number in range(len(SHOWN))}
    scores = region_score(locate(drawn_atlas, clear, demo, progress=False).regions)
    elsewhere = region_score(locate(drawn_atlas, shuffled(clear), demo, progress=False).regions)
    assert scores.keys() == clear.keys()
    assert average(scores, clear) > 0.55 and average(elsewhere, clear) < average(scores, clear) - 0.15


def test_what_is_asked_again_is_not_paid_again(drawn_atlas, demo, labels, judged):
    again = judge(drawn_atlas, labels, demo, Judging(pictures=4), progress=False)
    assert again.judgments == judged.judgments and again.usage.asked == 0
    some = {number: labels[number] for number in (2, 0, 17)}
    assert judge(drawn_atlas, some, demo, Judging(pictures=4), progress=False).usage.asked == 0


def test_a_broken_run_says_what_is_missing_and_goes_on_from_there(drawn_atlas, labels, tmp_path):
    some = {number: labels[number] for number in range(6)}
    broken = fails(500)
    with Troubled(lambda number, *rest: number > 20 and broken(number, *rest)) as server:
        asking = Endpoint(server.url, "any", cache=tmp_path / "answers", retries=0, concurrency=2)
        part = judge(drawn_atlas, some, asking, Judging(pictures=3, paper=False), progress=False)
        assert part.usage.asked == len(part.judgments) == 20 and part.usage.failed == 16
        assert part.missing and all("without an answer" in reason for reason in part.missing.values())
        complete = some.keys() - part.missing.keys()
        assert complete and interp_score(part.judgments).keys() >= complete
        server.trouble = lambda *_: False
        whole = judge(drawn_atlas, some, asking, Judging(pictures=3, paper=False), progress=False)
        assert not whole.missing and len(whole.judgments) == 36 and set(part.judgments) <= set(whole.judgments)
        assert len(server.paid) == len(set(server.paid)) == 36


def test_explaining_keeps_each_label_when_it_comes(drawn_atlas, tmp_path):
    kept = {}
    with Troubled() as server:
        refusing = server.says(None, "no")
        server.trouble = lambda number, *rest: number == 2 and refusing(number, *rest)
        asking = Endpoint(server.url, "any", concurrency=1)
        explained = explain(drawn_atlas, [4, 5, 6], asking, keep=kept.__setitem__, progress=False)
    assert kept == explained.labels and kept.keys() == {4, 6}
    assert explained.missing == {5: "refused: no"} and explained.usage.refused == 1


def test_features_with_too_few_pictures_are_not_asked_about(tmp_path, demo):
    with write_atlas(tmp_path / "atlas", n_scenes=30) as atlas:
        few = [f.number for f in atlas.features(limit=100) if f.pictures < 5]
        explained = explain(atlas, [f.number for f in atlas.features(limit=100)], demo, progress=False)
        assert few and set(explained.missing) == set(few)
        assert all("5 are needed" in reason for reason in explained.missing.values())
        judged = judge(atlas, dict.fromkeys(few, "red"), demo, Judging(paper=False), progress=False)
        assert set(judged.missing) == set(few) and not judged.judgments


def test_nothing_to_do_is_done_at_once(drawn_atlas):
    nowhere = Endpoint("http://127.0.0.1:9/v1", "any")
    assert explain(drawn_atlas, [], nowhere).labels == {} and judge(drawn_atlas, {}, nowhere).judgments == []


def test_judging_needs_two_pictures_of_each_sort():
    with pytest.raises(ValueError, match="at least 2 pictures"):
        Judging(pictures=1)
