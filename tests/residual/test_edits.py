import math

import pytest
import torch

from fluxtionary.dictionaries import Activation, FeatureError, Normalization, Scale, SparseAutoencoder, SparseCode
from fluxtionary.dictionaries.scale import BINS
from fluxtionary.residual import Ablate, Add, Clamp, Gate, Moment, Plan, PlanError, Row, Run, Site, Splice, Tap, Window
from fluxtionary.residual.site_pass import token_mask

from ..conftest import make_dictionary

SITE = Site.parse("double.1.img")
ONES = torch.ones(128)
SCALE = Scale(torch.full((BINS,), 2.0))
MOMENT = Moment(0.5, (Row("cond"), Row("uncond")), (8, 8))


def stream(dtype=torch.float32):
    return torch.randn(2, 64, 128, generator=torch.Generator().manual_seed(0)).to(dtype)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda d: Add(SITE, ONES, math.nan), "strength must be a finite number, found nan"),
        (lambda d: Add(SITE, ONES, math.inf), "strength"),
        (lambda d: Add(SITE, torch.zeros(128), 1.0), "not all 0"),
        (lambda d: Add(SITE, ONES * math.nan, 1.0), "finite"),
        (lambda d: Add(SITE, torch.ones(2, 128), 1.0), r"vector.*\(2, 128\)"),
        (lambda d: Add("double.1.img.mlp", ONES, 1.0), "tapped but not edited"),
        (lambda d: Add("double.1.txt", ONES, 1.0, mask=torch.ones(8, 8)), "image site"),
        (lambda d: Add(SITE, ONES, 1.0, mask=torch.ones(8)), "mask"),
        (lambda d: Add(SITE, ONES, 1.0, mask=torch.full((8, 8), math.nan)), "mask"),
        (lambda d: Add(SITE, ONES, 1.0, rows="all"), "cond, uncond or both"),
        (lambda d: Clamp(SITE, d, {}), "at least one feature"),
        (lambda d: Clamp(SITE, d, {1: math.nan}), "target of feature 1"),
        (lambda d: Clamp("double.0.img", d, {1: 1.0}), r"made for double\.1\.img.*double\.0\.img"),
        (lambda d: Splice("double.0.img", d), r"made for double\.1\.img.*double\.0\.img"),
        (lambda d: Splice("double.1.img.update", d), "tapped but not edited"),
        (lambda d: Tap("double.0.img", d), r"made for double\.1\.img"),
        (lambda d: Gate(d, ()), "at least one feature"),
        (lambda d: Add("double.0.img", ONES, 1.0, gate=Gate(d, (1,))), r"needs a dictionary of double\.0\.img"),
        (lambda d: Plan(["double.1.img"]), "found str"),
    ],
)
def test_plans_that_mean_nothing_are_refused(make, words, dictionary):
    with pytest.raises(PlanError, match=words):
        make(dictionary)


def test_features_out_of_range_are_refused(dictionary):
    for make in (
        lambda: Clamp(SITE, dictionary, {48: 1.0}),
        lambda: Ablate(SITE, dictionary, [-1]),
        lambda: Gate(dictionary, (99,)),
    ):
        with pytest.raises(FeatureError, match="0 to 47"):
            make()


def test_windows_end_just_above_their_end():
    window = Window(0.8, 0.3)
    assert [window.holds(s) for s in (0.81, 0.8, 0.5, 0.3, 0.1)] == [False, True, True, False, False]
    assert Window.from_percent(0, 1, lambda p: 1 - p) == Window()
    part = Window.from_percent(0.25, 0.5, lambda p: 1 - p)
    for rounding in (-1e-7, 0.0, 1e-7):  # hosts keep their schedules in float32
        assert part.holds(0.75 + rounding) and not part.holds(0.5 + rounding)
    assert part.holds(0.501) and not part.holds(0.751)
    for start, end in ((-0.1, 1), (0.5, 0.4), (0, 1.5), (math.nan, 1)):
        with pytest.raises(ValueError, match="0 <= start <= end <= 1"):
            Window.from_percent(start, end, lambda p: p)


def test_masks_are_averaged_over_the_area_of_each_token():
    mask = torch.zeros(16, 16)
    mask[:2, :2] = 1  # all of the first 2x2 token
    mask[0, 2] = 1  # a quarter of the second
    weights = token_mask(mask, (8, 8)).reshape(8, 8)
    assert weights[0, 0] == 1 and weights[0, 1] == 0.25 and weights.sum() == 1.25


def test_a_crop_takes_its_own_part_of_the_mask():
    mask = torch.zeros(32, 32)
    mask[:, 16:] = 1
    assert torch.equal(token_mask(mask, (8, 4), (0.0, 0.5, 1.0, 0.5)), torch.ones(1, 32))
    assert torch.equal(token_mask(mask, (8, 4), (0.0, 0.0, 1.0, 0.5)), torch.zeros(1, 32))


def test_each_row_takes_the_mask_of_its_own_picture_and_area():
    masks = torch.zeros(2, 16, 16)
    masks[1, :, 8:] = 1  # the second picture's right half
    left, right = (0.0, 0.0, 1.0, 0.5), (0.0, 0.5, 1.0, 0.5)
    rows = tuple(Row("cond", picture, area) for area in (left, right) for picture in (0, 1, 2))
    x = torch.randn(6, 8, 128, generator=torch.Generator().manual_seed(0))
    plan = Plan([Add(SITE, ONES, 1.0, SCALE, mask=masks)])
    changed = (Run(plan).visit(SITE, x, Moment(0.5, rows, (4, 2))) != x).any(-1)
    assert changed.any(1).tolist() == [False, False, False, False, True, False]
    assert changed[4].all()


def test_what_met_no_step_is_known():
    early, late = (Add(SITE, ONES, 1.0, SCALE, window=w) for w in (Window(1.0, 0.5), Window(0.4, 0.0)))
    run = Run(Plan([early, late]))
    run.visit(SITE, stream(), MOMENT._replace(sigma=0.8))
    assert run.idle() == [late]


def test_rows_outside_keep_their_bits_and_the_stream_itself_is_not_written_to():
    x = stream()
    kept = x.clone()
    y = Run(Plan([Add(SITE, ONES, 1.0, SCALE, rows="uncond")])).visit(SITE, x, MOMENT)
    assert torch.equal(x, kept)
    assert torch.equal(y[0], x[0]) and not torch.equal(y[1], x[1])


def test_half_precision_streams_stay_in_it_and_get_a_float32_delta():
    x = stream(torch.bfloat16)
    y = Run(Plan([Add(SITE, ONES, 1.0, SCALE, rows="both")])).visit(SITE, x, MOMENT)
    assert y.dtype == torch.bfloat16
    assert torch.equal(y, (x.float() + 2.0 * ONES / ONES.norm()).to(torch.bfloat16))


def test_nothing_to_do_returns_the_same_tensor(dictionary):
    x = stream()
    idle = Plan(
        [
            Tap(SITE),
            Add(SITE, ONES, 0.0, SCALE),
            Add(SITE, ONES, 1.0, SCALE, window=Window(0.2, 0.1)),
            Clamp(SITE, dictionary, {1: 2.0}, window=Window(0.2, 0.1)),
            Add("double.0.img", ONES, 1.0, SCALE),
        ]
    )
    assert Run(idle).visit(SITE, x, MOMENT) is x


def test_edits_act_in_order_and_taps_see_what_came_before():
    first, last = Tap(SITE), Tap(SITE)
    run = Run(Plan([first, Add(SITE, ONES, 1.0, SCALE, rows="both"), last]))
    x = stream()
    y = run.visit(SITE, x, MOMENT)
    assert torch.equal(run.records[first][0].activations, x)
    assert torch.equal(run.records[last][0].activations, y)
    y.add_(1.0)  # what a tap keeps is a copy
    assert not torch.equal(run.records[last][0].activations, y)


def test_feature_edits_share_one_encoding_of_the_incoming_stream(dictionary):
    """An Add between two Clamps does not change what the second one takes for the feature's value."""
    x = stream()
    moved = Add(SITE, 50 * ONES, 5.0, SCALE, rows="both")
    with_add = Run(
        Plan([Clamp(SITE, dictionary, {1: 2.0}, rows="both"), moved, Clamp(SITE, dictionary, {2: 3.0}, rows="both")])
    )
    code = dictionary.encode(x)
    expected = x + 5.0 * 2.0 * ONES / ONES.norm()
    for feature, target in ((1, 2.0), (2, 3.0)):
        expected = expected + (target - code.coefficient(feature))[..., None] * dictionary.direction(feature)
    assert torch.allclose(with_add.visit(SITE, x, MOMENT), expected, atol=1e-3)


def test_two_dictionaries_at_one_site_do_not_share_codes(dictionary):
    other = make_dictionary("double.1.img", seed=5)
    x = stream()
    y = Run(Plan([Ablate(SITE, dictionary, [1], rows="both"), Ablate(SITE, other, [1], rows="both")])).visit(
        SITE, x, MOMENT
    )
    expected = x
    for one in (dictionary, other):
        expected = expected - one.encode(x).coefficient(1)[..., None] * one.direction(1)
    assert torch.allclose(y, expected, atol=1e-4)


def test_a_clamp_is_in_the_units_of_each_token(dictionary):
    """A dictionary that normalizes by token: setting a feature moves its share of the reconstruction, no more."""
    own = SparseAutoencoder(
        str(SITE),
        dictionary.encoder,
        dictionary.encoder_bias,
        dictionary.decoder,
        dictionary.decoder_bias,
        Activation("topk", 8),
        Normalization(kind="layer_norm"),
    )
    x = 30 * stream() + 4
    y = Run(Plan([Clamp(SITE, own, {4: 6.0}, rows="both")])).visit(SITE, x, MOMENT)
    code, frame = own.encode(x), own.frame(x)
    extra = torch.full((*code.values.shape[:-1], 1), 0) + 4
    change = (6.0 - code.coefficient(4))[..., None]
    more = SparseCode(torch.cat([code.values, change], -1), torch.cat([code.indices, extra], -1))
    assert torch.allclose(y - x, own.decode(more, frame) - own.decode(code, frame), rtol=1e-3, atol=1e-2)


def test_a_mask_scales_a_clamp(dictionary):
    x = stream()
    mask = torch.full((8, 8), 0.5)
    y = Run(Plan([Clamp(SITE, dictionary, {4: 6.0}, mask=mask, rows="both")])).visit(SITE, x, MOMENT)
    change = 0.5 * (6.0 - dictionary.encode(x).coefficient(4))
    assert torch.allclose(y - x, change[..., None] * dictionary.direction(4), atol=1e-4)


def test_an_edit_may_act_on_some_pictures_of_the_batch_alone():
    rows = tuple(Row(role, picture) for role in ("cond", "uncond") for picture in range(3))
    x = torch.randn(6, 64, 128, generator=torch.Generator().manual_seed(0))
    plan = Plan([Add(SITE, ONES, 0.5, SCALE, rows="both", pictures=frozenset({0, 2}))])
    out = Run(plan).visit(SITE, x, Moment(0.5, rows, (8, 8)))
    everywhere = Run(Plan([Add(SITE, ONES, 0.5, SCALE, rows="both")])).visit(SITE, x, Moment(0.5, rows, (8, 8)))
    for i, row in enumerate(rows):
        assert torch.equal(out[i], x[i] if row.picture == 1 else everywhere[i])
    nowhere = Plan([Add(SITE, ONES, 0.5, SCALE, pictures=frozenset({7}))])
    assert Run(nowhere).visit(SITE, x, Moment(0.5, rows, (8, 8))) is x


def test_a_splice_replaces_the_stream_by_its_reconstruction(dictionary):
    x = stream()
    y = Run(Plan([Splice(SITE, dictionary)])).visit(SITE, x, MOMENT)
    assert torch.allclose(y[0], dictionary.reconstruct(x[0]), atol=1e-5)
    assert torch.equal(y[1], x[1])  # the uncond row
    assert (y[0] - x[0]).abs().mean() > 0.1


def test_a_splice_that_keeps_the_error_changes_nothing_but_rounding(dictionary):
    x = stream()
    y = Run(Plan([Splice(SITE, dictionary, keep_error=True, rows="both")])).visit(SITE, x, MOMENT)
    assert torch.allclose(y, x, atol=1e-5)


def test_what_edits_before_a_splice_did_goes_through_the_dictionary(dictionary):
    x = stream()
    add = Add(SITE, ONES, 1.0, SCALE, rows="both")
    moved = x + 2.0 * ONES / ONES.norm()
    dropped = Run(Plan([add, Splice(SITE, dictionary, rows="both")])).visit(SITE, x, MOMENT)
    assert torch.allclose(dropped, dictionary.reconstruct(moved), atol=1e-4)
    kept = Run(Plan([add, Splice(SITE, dictionary, keep_error=True, rows="both")])).visit(SITE, x, MOMENT)
    error = x - dictionary.reconstruct(x)
    assert torch.allclose(kept, dictionary.reconstruct(moved) + error, atol=1e-4)
    assert not torch.allclose(kept, moved, atol=0.01)


def test_a_clamp_after_a_splice_sets_a_coefficient_of_the_spliced_code(dictionary):
    x = stream()
    plan = Plan([Splice(SITE, dictionary, rows="both"), Clamp(SITE, dictionary, {4: 6.0}, rows="both")])
    y = Run(plan).visit(SITE, x, MOMENT)
    code = dictionary.encode(x)
    extra = torch.full((*code.values.shape[:-1], 1), 4)
    change = (6.0 - code.coefficient(4))[..., None]
    edited = SparseCode(torch.cat([code.values, change], -1), torch.cat([code.indices, extra], -1))
    assert torch.allclose(y, dictionary.decode(edited), atol=1e-4)


def test_a_splice_keeps_to_its_mask_and_window_and_type(dictionary):
    x = stream(torch.bfloat16)
    mask = torch.zeros(8, 8)
    mask[:, 4:] = 1
    y = Run(Plan([Splice(SITE, dictionary, mask=mask, rows="both")])).visit(SITE, x, MOMENT)
    changed = (y != x).any(-1)
    assert y.dtype == torch.bfloat16
    assert torch.equal(changed.reshape(2, 8, 8), mask.bool().expand(2, 8, 8))
    expected = dictionary.reconstruct(x.float()).to(torch.bfloat16)
    assert torch.allclose(y[changed].float(), expected[changed].float(), rtol=0.01, atol=1e-4)
    outside = Plan([Splice(SITE, dictionary, window=Window(0.2, 0.1), rows="both")])
    assert Run(outside).visit(SITE, x, MOMENT) is x


def test_a_splice_knows_the_noise_level(dictionary):
    mean, std = torch.linspace(0, 1, BINS)[:, None].repeat(1, 128), torch.ones(BINS, 128)
    own = SparseAutoencoder(
        str(SITE),
        dictionary.encoder,
        dictionary.encoder_bias,
        dictionary.decoder,
        dictionary.decoder_bias,
        Activation("topk", 8),
        Normalization(mean, std, kind="sigma"),
    )
    x = stream()
    for sigma in (0.2, 0.9):
        moment = MOMENT._replace(sigma=sigma)
        y = Run(Plan([Splice(SITE, own, rows="both")])).visit(SITE, x, moment)
        assert torch.allclose(y, own.reconstruct(x, moment), atol=1e-5)
