import numpy as np
import pytest
import torch

from fluxtionary.atlas.entries import Source
from fluxtionary.dictionaries import ITDA
from fluxtionary.dictionaries.itda import Sources
from fluxtionary.interpretation.gathering import Gatherer, Gathering, source_of

from .streams import SITE, MadeUpPictures, plain_dictionary

PICTURES, FEATURES = 45, 12
SMALL = Gathering(top=4, spread=5, companions=3, sketch=1000)


@pytest.fixture(scope="module")
def stream():
    return MadeUpPictures(PICTURES, FEATURES)


@pytest.fixture(scope="module")
def codes(stream):
    """All codes, `[pictures, moments, tokens, features]`."""
    return np.stack([stream.activations(i) for i in range(PICTURES)])


def gathered(stream, config=SMALL, order=None):
    gatherer = Gatherer(plain_dictionary(stream.features), stream.grid, stream.sigmas, config)
    batches = list(stream.batches())
    maps = {}
    for number in order or range(len(batches)):
        for place, own in enumerate(gatherer.add(batches[number])):
            maps[batches[number].first + place] = own
    return gatherer, maps


@pytest.fixture(scope="module")
def whole(stream):
    return gathered(stream)


def dense(maps, tokens=12):
    out = np.zeros((FEATURES, tokens), np.float32)
    out[maps.feature, maps.token] = maps.value
    return out


def test_heat_maps_are_means_over_the_moments_that_were_read(whole, codes):
    for picture, maps in whole[1].items():
        assert np.allclose(dense(maps), codes[picture].mean(0).T, atol=1e-6)
        order = maps.feature.astype(int) * 100 + maps.token
        assert (np.diff(order) > 0).all() and (maps.value != 0).all()
        assert [column.dtype for column in maps] == [np.int32, np.int32, np.float32]


def test_figures_are_those_of_all_codes(whole, codes, stream):
    features = list(whole[0].features())
    assert [feature.number for feature in features] == list(range(FEATURES))
    heat = codes.mean(1)  # [pictures, tokens, features]
    for feature in features:
        own, map_ = codes[..., feature.number], heat[..., feature.number]
        shown = (map_ != 0).any(1)
        assert feature.pictures == shown.sum()
        assert feature.density == pytest.approx((own != 0).mean())
        assert feature.profile == pytest.approx((own != 0).mean((0, 2)))
        assert feature.mean == pytest.approx(own[own != 0].mean(), rel=1e-5)
        assert feature.peak == pytest.approx(map_.flat[np.abs(map_).argmax()], rel=1e-5)
        assert feature.coverage == pytest.approx((map_[shown] != 0).mean())
        assert feature.spread == pytest.approx(np.mean([rms_distance(map_[i]) for i in shown.nonzero()[0]]), rel=1e-4)


def rms_distance(values):
    """Of weight from its center on the 3 by 4 grid, against an even map's; written out."""
    points = [(row, column) for row in range(3) for column in range(4)]
    about = []
    for weights in (np.abs(values), np.ones(12)):
        center = np.average(points, axis=0, weights=weights)
        about.append(np.average(((points - center) ** 2).sum(1), weights=weights) ** 0.5)
    return about[0] / about[1]


def test_top_examples_are_the_pictures_with_the_largest_peaks(whole, codes):
    heat, examples = codes.mean(1), whole[0].examples()
    assert list(examples) == list(range(FEATURES))
    for feature in range(FEATURES):
        peaks = np.abs(heat[..., feature]).max(1)
        best = sorted(np.flatnonzero(peaks), key=lambda i: (-np.float32(peaks[i]), i))[:4]
        found = [example for example in examples[feature] if example.kind == "top"]
        assert [example.picture for example in found] == best
        assert [example.rank for example in found] == [0, 1, 2, 3]
        assert [abs(example.peak) for example in found] == pytest.approx(peaks[best], rel=1e-5)
    assert any(example.peak < 0 for feature in examples for example in examples[feature])


def test_examples_do_not_depend_on_the_order_of_pictures(whole, stream):
    other, _ = gathered(stream, order=[3, 0, 6, 2, 1, 5, 4])
    assert dict(other.examples()) == dict(whole[0].examples())
    assert np.array_equal(other.wanted(), whole[0].wanted())


def test_the_spread_sample_is_uniform_over_pictures(codes):
    """Of 200 features that are active in each of 60 pictures, every picture is drawn about 200 * 6 / 60 = 20 times."""
    stream = MadeUpPictures(60, 200, grid=(1, 1), sigmas=(0.5,), density=10.0)
    examples = gathered(stream, Gathering(top=1, spread=6, companions=0, sketch=1))[0].examples()
    drawn = [[example.picture for example in own if example.kind == "spread"] for own in examples.values()]
    assert len(drawn) == 200 and all(len(set(own)) == 6 for own in drawn)
    counts = np.bincount(np.concatenate(drawn), minlength=60)
    chi = ((counts - 20) ** 2 / (20 * 0.9)).sum()
    assert 30 < chi < 95, chi  # 59 degrees of freedom: 99.8 % lie there
    ranked = [own for own in examples[0] if own.kind == "spread"]
    assert [abs(one.peak) for one in ranked] == sorted((abs(one.peak) for one in ranked), reverse=True)


def test_companions_are_the_most_similar_features(whole, codes):
    """With places to spare the similarities are exact."""
    on = codes.mean(1).reshape(-1, FEATURES) != 0
    both = on.T.astype(int) @ on
    union = on.sum(0)[:, None] + on.sum(0) - both
    for feature in whole[0].features():
        jaccard = both[feature.number] / union[feature.number]
        jaccard[feature.number] = -1
        assert [value for _, value in feature.companions] == pytest.approx(np.sort(jaccard)[::-1][:3])
        assert [jaccard[other] for other, _ in feature.companions] == pytest.approx([v for _, v in feature.companions])


@pytest.mark.parametrize("cut", [0, 1, 4, 7])
def test_goes_on_from_its_state_as_if_nothing_had_happened(whole, stream, cut):
    batches = list(stream.batches())
    first = Gatherer(plain_dictionary(FEATURES), stream.grid, stream.sigmas, SMALL)
    for drawn in batches[:cut]:
        first.add(drawn)
    second = Gatherer(plain_dictionary(FEATURES), stream.grid, stream.sigmas, SMALL)
    second.restore({name: array.copy() for name, array in first.state().items()})
    for drawn in batches[cut:]:
        second.add(drawn)
    state = whole[0].state()
    assert second.state().keys() == state.keys()
    assert all(np.array_equal(second.state()[name], array) for name, array in state.items())
    assert list(second.features()) == list(whole[0].features())


def test_refuses_the_state_of_other_settings(whole, stream):
    other = Gatherer(plain_dictionary(FEATURES), stream.grid, stream.sigmas, Gathering(top=5))
    with pytest.raises(ValueError, match="other settings"):
        other.restore(whole[0].state())


def test_memory_does_not_depend_on_the_number_of_pictures(whole, stream):
    few, _ = gathered(MadeUpPictures(7, FEATURES))
    assert sum(a.nbytes for a in few.state().values()) == sum(a.nbytes for a in whole[0].state().values())


def test_features_that_were_never_active_are_left_out(stream):
    silent = MadeUpPictures(10, FEATURES, density=0)
    gatherer, maps = gathered(silent)
    assert list(gatherer.features()) == [] and len(gatherer.examples()) == 0 and len(gatherer.wanted()) == 0
    assert all(len(own.value) == 0 for own in maps.values())
    with pytest.raises(KeyError):
        gatherer.examples()[3]


def test_only_what_is_read_counts(stream, codes):
    """A stream that kept a part of the tokens: means and coverage are of these."""
    drawn = stream.drawn(range(3))
    tokens = drawn.tokens[SITE]
    keep = (tokens.position < 6) & ((tokens.sigma > 0.5) | (tokens.position < 2))
    gatherer = Gatherer(plain_dictionary(FEATURES), stream.grid, stream.sigmas, SMALL)
    (first, *_) = gatherer.add(drawn._replace(tokens={SITE: tokens.rows(keep)}))
    expected = codes[0].mean(0)
    expected[2:] = codes[0, 0, 2:]
    expected[6:] = 0
    assert np.allclose(dense(first), expected.T, atol=1e-6)
    feature = next(iter(gatherer.features()))
    assert feature.profile == pytest.approx([(codes[:3, 0, :6, 0] != 0).mean(), (codes[:3, 1, :2, 0] != 0).mean()])


def test_an_even_map_has_spread_1_and_a_single_token_0(stream):
    drawn = stream.drawn(range(1))
    tokens = drawn.tokens[SITE]
    x = torch.zeros_like(tokens.x)
    x[:, 0] = 2.0
    x[tokens.position == 5, 1] = 1.0
    gatherer = Gatherer(plain_dictionary(FEATURES), stream.grid, stream.sigmas, SMALL)
    gatherer.add(drawn._replace(tokens={SITE: tokens._replace(x=x)}))
    even, single = gatherer.features()
    assert (even.spread, even.coverage, even.peak) == (pytest.approx(1), 1, 2)
    assert (single.spread, single.coverage) == (0, pytest.approx(1 / 12))


def test_a_text_site_is_refused():
    dictionary = plain_dictionary(4)
    dictionary.site = "double.1.txt"
    with pytest.raises(ValueError, match="expected a dictionary of an img site, found double.1.txt"):
        Gatherer(dictionary, (2, 2), (0.5,))


def test_an_atom_s_source_is_told():
    columns = ("prompt", "seed", "sigma", "row", "column")
    table = torch.tensor([[0, 7, 0.5, 3, 4], [1, 8, 0.25, 0, 1]], dtype=torch.float64)
    itda = ITDA(str(SITE), torch.eye(2), 1, sources=Sources(columns, table, ("a ring", "a cross")))
    assert source_of(itda, 1) == Source("a cross", 8, 0.25, 0, 1)
    assert source_of(ITDA(str(SITE), torch.eye(2), 1), 1) is None
    assert source_of(plain_dictionary(2), 1) is None


def test_settings_that_keep_nothing_are_refused():
    with pytest.raises(ValueError, match="top must be at least 1, found 0"):
        Gathering(top=0)
