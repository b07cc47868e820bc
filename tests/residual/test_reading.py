import dataclasses
import math

import pytest
import torch

from fluxtionary.dictionaries import FeatureError, SparseCode
from fluxtionary.residual import Moment, Record, Row, Site
from fluxtionary.residual.capture import Capture, CaptureError, Recording
from fluxtionary.residual.reading import View, heat_maps, pictures, ranked, seen, statistics

from ..conftest import make_dictionary

SITE = Site.parse("double.1.img")
N = 12
SIGMAS = (1.0, 0.75, 0.5, 0.25, 0.0)
GRID = (4, 6)
LEFT = (0.0, 0.0, 1.0, 0.5)
RIGHT = (0.0, 0.5, 1.0, 0.5)


def random_code(rows, tokens, seed, k=3):
    """Distinct features for each token, of both signs, some of them 0."""
    generator = torch.Generator().manual_seed(seed)
    indices = torch.rand(rows, tokens, N, generator=generator).argsort(-1)[..., :k]
    values = torch.randn(rows, tokens, k, generator=generator)
    values[torch.rand(values.shape, generator=generator) < 0.3] = 0
    return SparseCode(values, indices * (values != 0))


def call(sigma, rows, grid=GRID, watched=None, seed=0):
    """A record of one call; codes only of the rows that are watched."""
    batch = torch.tensor(range(len(rows)) if watched is None else watched)
    code = random_code(len(batch), grid[0] * grid[1], seed)
    return Record(Moment(sigma, tuple(rows), grid), batch, code=code)


def recording_of(*records, site=SITE, latent=(8, 12), **dictionary):
    own = make_dictionary(str(site), n_features=N, **dictionary)
    recording = Recording(None, SIGMAS, {site: own})
    recording.records[site] = list(records)
    recording.latent = latent
    return recording


def batch_run():
    """Four steps of two pictures, both roles in one call, of which the Tap watched all rows."""
    rows = [Row(role, picture) for role in ("cond", "uncond") for picture in (0, 1)]
    return recording_of(*(call(sigma, rows, seed=i) for i, sigma in enumerate(SIGMAS[:-1])))


def dense(recording, role="cond", picture=None, steps=range(4), site=SITE):
    """Codes `[calls, tokens, features]` of the rows that are asked for, in plain matrices."""
    return torch.stack(
        [
            record.code.dense(N)[i].double()
            for record in recording.records[site]
            for i, place in enumerate(record.batch_rows.tolist())
            for row in [record.moment.rows[place]]
            if row.role == role and picture in (None, row.picture) and SIGMAS.index(record.moment.sigma) in steps
        ]
    )


@pytest.mark.parametrize(
    ("view", "chosen"),
    [
        (View(), {}),
        (View(picture=1), {"picture": 1}),
        (View(role="uncond"), {"role": "uncond"}),
        (View(first=2), {"steps": (2, 3)}),
        (View(first=1, last=2, picture=0, role="uncond"), {"steps": (1, 2), "picture": 0, "role": "uncond"}),
        (View(last=0), {"steps": (0,)}),
    ],
)
def test_statistics_are_those_of_the_dense_codes(view, chosen):
    recording = batch_run()
    found, codes = statistics(recording, SITE, view), dense(recording, **chosen).flatten(0, 1)
    assert found.tokens == len(codes)
    assert torch.allclose(found.activation, codes.mean(0))
    assert torch.allclose(found.area, (codes != 0).double().mean(0))
    strongest = codes.abs().argmax(0)
    assert torch.allclose(found.peak, codes.gather(0, strongest[None])[0])
    assert (found.peak < 0).any() and (found.peak > 0).any()


def test_the_noise_level_of_the_peak_gives_its_strength():
    recording = batch_run()
    own = recording.dictionaries[SITE]
    codes = dense(recording)
    for one in ranked(statistics(recording, SITE), "peak", N):
        place = int(codes[..., one.feature].abs().amax(1).argmax()) // 2  # two rows of each call
        assert one.sigma == SIGMAS[place]
        expected = one.peak * float(own.direction(one.feature).norm()) / own.scale.at(one.sigma)
        assert one.strength(own) == pytest.approx(expected)
    own.scale = None
    assert one.strength(own) is None


def test_a_mask_weighs_the_tokens():
    recording = batch_run()
    mask = torch.rand(GRID, generator=torch.Generator().manual_seed(7))
    mask[:, :3] = 0
    codes, weight = dense(recording), mask.flatten().double()[None, :, None]
    found = statistics(recording, SITE, mask=mask)
    assert found.tokens == pytest.approx(float(8 * mask.double().sum()))
    assert torch.allclose(found.activation, (codes * weight).sum((0, 1)) / found.tokens)
    assert torch.allclose(found.area, ((codes != 0) * weight).sum((0, 1)) / found.tokens)
    inside = (codes * (weight > 0)).flatten(0, 1)
    assert torch.allclose(found.peak, inside.gather(0, inside.abs().argmax(0)[None])[0])


def test_each_picture_has_its_own_mask_and_a_larger_one_is_averaged():
    recording = batch_run()
    masks = torch.zeros(2, 16, 24)
    masks[0, :, :12], masks[1, :, 12:] = 1, 1
    found = statistics(recording, SITE, mask=masks)
    both = [dense(recording, picture=i).unflatten(1, GRID) for i in (0, 1)]
    inside = torch.cat([both[0][:, :, :3].flatten(0, 2), both[1][:, :, 3:].flatten(0, 2)])
    assert torch.allclose(found.activation, inside.mean(0))


def test_a_mask_that_covers_nothing_is_refused():
    with pytest.raises(CaptureError, match="covers no token"):
        statistics(batch_run(), SITE, mask=torch.zeros(8, 8))


def test_rows_of_areas_lie_where_they_belong_and_what_overlaps_is_averaged():
    """A call of the whole picture, one of its left and one of its right half; a cell's mean is over what covers it."""
    whole = call(1.0, [Row("cond"), Row("uncond")], watched=[0], seed=1)
    left = call(1.0, [Row("cond", 0, LEFT)], (4, 3), seed=2)
    right = call(1.0, [Row("uncond"), Row("cond", 0, RIGHT)], (4, 3), watched=[1], seed=3)
    recording = recording_of(whole, left)
    tiles = [record.code.dense(N)[0].reshape(*record.moment.grid, N) for record in (whole, left, right)]
    for feature in range(N):
        one, two, three = (tile[..., feature] for tile in tiles)
        (found,) = heat_maps(recording, SITE, feature).maps
        expected = one.clone()
        expected[:, :3] = (one[:, :3] + two) / 2
        assert torch.allclose(found, expected)
        apart = recording_of(left, right)
        assert torch.allclose(heat_maps(apart, SITE, feature).maps[0], torch.cat([two, three], 1))
        apart.latent = None  # a run that has not said how large it was
        assert torch.allclose(heat_maps(apart, SITE, feature).maps[0], torch.cat([two, three], 1))
        lone = heat_maps(recording_of(right), SITE, feature).maps[0]
        assert not lone[:, :3].any() and torch.allclose(lone[:, 3:], three)


def test_an_area_takes_its_own_part_of_the_mask():
    right = call(1.0, [Row("cond", 0, RIGHT)], (4, 3), seed=3)
    mask = torch.zeros(8, 12)
    mask[:, 10:] = 1  # the last column of tokens
    found = statistics(recording_of(right), SITE, mask=mask)
    assert found.tokens == 4
    assert torch.allclose(found.activation, right.code.dense(N)[0].reshape(4, 3, N)[:, 2].double().mean(0))


def test_maps_are_one_for_each_step_with_the_calls_of_a_step_averaged():
    recording = recording_of(*(call(sigma, [Row("cond")], seed=i) for i, sigma in enumerate((1.0, 0.9, 0.5))))
    found = heat_maps(recording, SITE, 4)
    own = [record.code.coefficient(4)[0].reshape(GRID) for record in recording.records[SITE]]
    assert found.steps == (0, 2)
    assert torch.allclose(found.maps, torch.stack([(own[0] + own[1]) / 2, own[2]]))


def test_maps_of_a_batch_are_of_one_picture_or_of_the_mean():
    recording = batch_run()
    assert pictures(recording, SITE) == [0, 1]
    one, other, both = (heat_maps(recording, SITE, 5, View(picture=p, first=1)) for p in (0, 1, None))
    assert one.steps == (1, 2, 3)
    assert torch.allclose(one.maps, dense(recording, picture=0, steps=(1, 2, 3))[..., 5].reshape(3, *GRID).float())
    assert torch.allclose(both.maps, (one.maps + other.maps) / 2)


def test_the_difference_of_two_runs_is_signed_and_ranked_by_size():
    now, then = batch_run(), recording_of(call(1.0, [Row("cond")], seed=40))
    measures = [statistics(one, SITE) for one in (now, then)]
    for by in ("activation", "peak", "area"):
        difference = getattr(measures[0], by) - getattr(measures[1], by)
        found = ranked(measures[0], by, 5, measures[1])
        assert [one.feature for one in found] == difference.abs().argsort(descending=True)[:5].tolist()
        for one in found:
            assert getattr(one, by) == pytest.approx(float(difference[one.feature]))
            assert one.sigma is None and one.strength(now.dictionaries[SITE]) is None
    assert {math.copysign(1, one.activation) for one in ranked(measures[0], "activation", N, measures[1])} == {-1, 1}
    assert ranked(measures[0], "activation", N, measures[0]) == []


def test_only_active_features_are_listed():
    code = SparseCode(torch.tensor([[[2.0, -3.0]] * 24]), torch.tensor([[[4, 9]] * 24]))
    recording = recording_of(dataclasses.replace(call(1.0, [Row("cond")]), code=code))
    found = ranked(statistics(recording, SITE), "activation", 10)
    assert [(one.feature, one.activation, one.peak, one.area) for one in found] == [(9, -3, -3, 1), (4, 2, 2, 1)]


def test_runs_of_dictionaries_of_other_sizes_do_not_compare():
    small = Recording(None, SIGMAS, {SITE: make_dictionary(str(SITE), n_features=9)})
    code = SparseCode(torch.ones(1, 24, 1), torch.zeros(1, 24, 1).long())
    small.records[SITE] = [dataclasses.replace(call(1.0, [Row("cond")]), code=code)]
    with pytest.raises(CaptureError, match="through one dictionary"):
        ranked(statistics(batch_run(), SITE), "activation", 3, statistics(small, SITE))


def test_a_view_of_nothing_says_what_there_is():
    run = batch_run()
    run.records[SITE] = run.records[SITE][1:3]
    cases = (
        (
            View(picture=7),
            "picture 7, cond rows, steps 0 to the last: it saw pictures 0 to 1, cond and uncond rows",
        ),
        (View(first=3, last=9), "any picture, cond rows, steps 3 to 9: .* steps 1 to 2$"),
    )
    for view, words in cases:
        with pytest.raises(CaptureError, match=words):
            statistics(run, SITE, view)
    cond = recording_of(call(1.0, [Row("cond"), Row("uncond")], watched=[0]))
    with pytest.raises(CaptureError, match="uncond rows.*it saw pictures 0, cond rows and steps 0$"):
        heat_maps(cond, SITE, 1, View(role="uncond"))


def test_a_run_without_records_or_codes_says_so():
    with pytest.raises(CaptureError, match="no step fell into the Tap's window$"):
        statistics(recording_of(), SITE)
    full = recording_of()
    full.lost = 3
    with pytest.raises(CaptureError, match="and 3 calls found no room in memory"):
        statistics(full, SITE)
    capture = Capture({SITE: None}, 2**20)
    with pytest.raises(CaptureError, match="activations were kept, not codes: give the Tap a dictionary"):
        list(seen(capture.begin(None, SIGMAS), SITE, View()))


def test_text_has_no_place_in_the_picture():
    site = Site.parse("double.0.txt")
    text = recording_of(call(1.0, [Row("cond")]), site=site)
    assert statistics(text, site).tokens == 24
    with pytest.raises(CaptureError, match=r"double\.0\.txt is of the text"):
        heat_maps(text, site, 1)
    with pytest.raises(CaptureError, match="needs an image site"):
        statistics(text, site, mask=torch.ones(4, 4))


def test_parts_of_unknown_place_are_read_but_not_drawn():
    """Tiled sampling calls the model on parts and does not say which; its tokens still count."""
    tiled = recording_of(call(1.0, [Row("cond")], (4, 3), seed=1), call(1.0, [Row("cond")], (4, 3), seed=2))
    assert statistics(tiled, SITE).tokens == 24
    for read in (lambda: heat_maps(tiled, SITE, 1), lambda: statistics(tiled, SITE, mask=torch.ones(4, 4))):
        with pytest.raises(CaptureError, match="4x6 tokens, but the model was called on parts of 4x3"):
            read()


def test_a_run_that_is_not_finite_is_refused():
    broken = batch_run()
    broken.records[SITE][2].code.values[0, 3, 0] = math.nan
    feature = int(broken.records[SITE][2].code.indices[0, 3, 0])
    for read in (lambda: statistics(broken, SITE), lambda: heat_maps(broken, SITE, feature)):
        with pytest.raises(CaptureError, match="not finite.*another precision"):
            read()


def test_a_feature_out_of_range_is_refused():
    with pytest.raises(FeatureError, match="0 to 11"):
        heat_maps(batch_run(), SITE, 12)
