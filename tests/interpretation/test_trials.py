from collections import Counter
from types import SimpleNamespace

import numpy as np
import pytest

from fluxtionary.atlas import Example
from fluxtionary.interpretation.trials import Trials, explained, qualifies, sample_features, spaced

from .drawn_atlas import SHOWN


@pytest.fixture(scope="module")
def trials(drawn_atlas):
    return Trials(drawn_atlas)


def test_no_picture_that_was_explained_is_judged(drawn_atlas, trials):
    for number in range(len(SHOWN)):
        seen = {example.picture for example in explained(drawn_atlas, number)}
        judged = trials.interp(number, 5)
        assert len(seen) == 5 and judged and not seen & {trial.picture for trial in judged}
        assert len({trial.picture for trial in judged}) == len(judged)


def test_matches_spread_over_the_values_and_mismatches_are_as_many(drawn_atlas, trials):
    for number in range(len(SHOWN)):
        judged = trials.interp(number, 5)
        matches = [trial for trial in judged if trial.match]
        assert 2 * len(matches) == len(judged) == 10
        peaks = [abs(drawn_atlas.heat_map(number, trial.picture)).max() for trial in matches]
        held_out = [example.peak for example in trials.held_out(number)]
        assert peaks == sorted(peaks, reverse=True)
        assert peaks[0] >= np.quantile(held_out, 0.7) and peaks[-1] <= np.quantile(held_out, 0.3)


def test_mismatches_show_another_feature_where_this_one_is_not_active(drawn_atlas, trials):
    for number in range(len(SHOWN)):
        for trial in trials.interp(number, 5):
            assert drawn_atlas.heat_map(trial.shown, trial.picture).any()
            assert trial.match or not drawn_atlas.heat_map(number, trial.picture).any()


def test_every_feature_stands_in_for_others_as_often_as_others_for_it(drawn_atlas, trials):
    # a judge who ignores labels answers mismatches as it answers matches, because they are the same heat maps
    judged = [trial for number in range(drawn_atlas.count()) for trial in trials.interp(number, 4)]
    owners = Counter(trial.feature for trial in judged if not trial.match)
    shown = Counter(trial.shown for trial in judged if not trial.match)
    assert abs(np.array([owners[n] - shown[n] for n in owners])).mean() <= 1
    drawn = np.array([np.mean([not t.match for t in judged if t.shown == n]) for n in owners])
    assert abs(drawn - 0.5).mean() < 0.1


def test_mismatches_are_of_features_that_are_active_together():
    # two families that share pictures among themselves alone; numbers alternate between them
    companions = {n: tuple((m, 0.5) for m in range(20) if m != n and m % 2 == n % 2) for n in range(20)}
    pictures = {n: [100 * n + i for i in range(10)] for n in range(20)}
    atlas = SimpleNamespace(
        examples=lambda n, kind: [Example(p, 1.0, kind, rank) for rank, p in enumerate(pictures[n])],
        maps=lambda picture: SimpleNamespace(feature=np.array([picture // 100])),
        features=lambda limit: [SimpleNamespace(number=n, companions=companions[n], pictures=10) for n in range(20)],
        count=lambda: 20,
    )
    trials = Trials(atlas)
    kin = [trial.shown % 2 == n % 2 for n in range(20) for trial in trials.interp(n, 4) if not trial.match]
    assert np.mean(kin) > 0.8


def test_trials_do_not_depend_on_what_else_is_judged_and_paper_s_draw_on_the_seed(drawn_atlas, trials):
    other = Trials(drawn_atlas, seed=1)
    assert [trials.interp(n, 5) for n in (3, 0)] == [other.interp(3, 5), other.interp(0, 5)]
    assert trials.paper(3) == Trials(drawn_atlas).paper(3) != other.paper(3)


def test_the_paper_judges_what_was_explained_against_top_pictures_of_other_features(drawn_atlas, trials):
    shown = Counter()
    for number in range(len(SHOWN)):
        judged = trials.paper(number)
        assert [trial.picture for trial in judged if trial.match] == [
            example.picture for example in explained(drawn_atlas, number)
        ]
        others = [trial for trial in judged if not trial.match]
        assert len(others) == 5
        for trial in others:
            shown[trial.shown] += 1
            assert trial.picture in {example.picture for example in explained(drawn_atlas, trial.shown)}
    many = [feature.number for feature in drawn_atlas.features("pictures", 8)]
    few = [feature.number for feature in drawn_atlas.features("pictures", 8, descending=False)]
    assert sum(shown[n] for n in many) > 1.5 * sum(shown[n] for n in few)


def test_a_feature_that_is_always_active_or_hardly_ever_has_no_trials():
    def examples(number, kind):
        pictures = range(40) if number == 0 else range(6) if number == 1 else range(number, 40, 2)
        return [Example(p, 1.0, kind, rank) for rank, p in enumerate(list(pictures)[:20])]

    active = {p: [n for n in range(6) if p in {e.picture for e in examples(n, "top")} or n == 0] for p in range(40)}
    atlas = SimpleNamespace(
        examples=examples,
        maps=lambda picture: SimpleNamespace(feature=np.array(active[picture])),
        features=lambda limit: [SimpleNamespace(number=n, companions=(), pictures=20) for n in range(6)],
        count=lambda: 6,
    )
    trials = Trials(atlas)
    assert trials.interp(0, 4) == [] and trials.interp(1, 4) == [] and len(trials.interp(2, 4)) == 8


def heat(*hot, grid=16):
    values = np.zeros(grid * grid, np.float32)
    values[: len(hot)] = hot
    return values.reshape(grid, grid)


@pytest.mark.parametrize(
    ("maps", "expected"),
    [
        ([heat(*[1.0] * 6)] * 5, True),
        ([heat(*[1.0] * 6)] * 4, False),  # too few pictures
        ([heat(*[1.0] * 6)] * 4 + [heat(*[1.0] * 5)] * 4, False),  # too few tokens
        ([heat(*[1.0] * 5)] * 3 + [heat(*[0.8] * 6)] * 5, True),
        ([heat(*[1.0] * 6)] * 4 + [heat(*[0.5] * 6)] * 4, False),  # too weak
        ([-heat(*[1.0] * 6)] * 5, True),
        ([heat(1.0, 1.0, grid=8)] * 5, True),  # 6 of 256 tokens are 1.5 of 64
        ([heat(1.0, grid=8)] * 5, False),
    ],
)
def test_a_feature_qualifies_by_pictures_and_tokens(maps, expected):
    atlas = SimpleNamespace(
        header={"grid": maps[0].shape},
        examples=lambda feature, kind: [Example(i, float(m.flat[0]), kind, i) for i, m in enumerate(maps)],
        heat_map=lambda feature, picture: maps[picture],
    )
    assert qualifies(atlas, 0) is expected


def test_samples_grow_and_are_spaced_evenly(drawn_atlas):
    assert sample_features(drawn_atlas, 10)[:4] == sample_features(drawn_atlas, 4)
    assert sample_features(drawn_atlas, 10) != sample_features(drawn_atlas, 10, seed=1)
    assert sorted(sample_features(drawn_atlas, 10_000)) == [f.number for f in drawn_atlas.features(limit=10_000)]
    assert spaced(list(range(20)), 4) == [2, 7, 12, 17] and spaced([1, 2], 4) == [1, 2] and spaced([], 4) == []
