"""Schedules: how a change runs through a part of sampling."""

import math

import pytest
import torch

from fluxtionary.dictionaries import Activation, Normalization, Scale, SparseAutoencoder, SteeringVector
from fluxtionary.dictionaries.scale import BINS, between_bins
from fluxtionary.residual import Ablate, Add, Clamp, Moment, Plan, PlanError, Row, Run, Schedule, Site, Splice

SITE = Site.parse("double.1.img")
ONES = torch.ones(128)
SCALE = Scale(torch.linspace(1, 3, BINS))
MOMENT = Moment(0.5, (Row("cond"), Row("uncond")), (8, 8))


def down(percent):
    return 1 - percent


def shifted(percent):
    """A schedule of Flux dev: most of sampling happens at high noise."""
    return 3 * (1 - percent) / (1 + 2 * (1 - percent))


def half(factor=0.5):
    return Schedule((1.0,), (factor,))


def stream(dtype=torch.float32):
    return torch.randn(2, 64, 128, generator=torch.Generator().manual_seed(0)).to(dtype)


def visited(*items, x=None, moment=MOMENT):
    return Run(Plan(items)).visit(SITE, stream() if x is None else x, moment)


def normalized(dictionary, normalization):
    return SparseAutoencoder(
        str(SITE),
        dictionary.encoder,
        dictionary.encoder_bias,
        dictionary.decoder,
        dictionary.decoder_bias,
        Activation("topk", 8),
        normalization,
    )


@pytest.mark.parametrize("to_sigma", [down, shifted])
@pytest.mark.parametrize(
    "shape", [lambda share: share, lambda share: 1 - share, lambda share: (1 + math.cos(math.pi * share)) / 2]
)
def test_a_shape_runs_from_start_to_end_by_the_runs_own_schedule(shape, to_sigma):
    schedule = Schedule.from_percent(shape, 0.2, 0.8, to_sigma)
    for percent in torch.linspace(0.2, 0.8, 41).tolist():
        assert schedule.at(to_sigma(percent)) == pytest.approx(shape((percent - 0.2) / 0.6), abs=2e-3)


def test_beyond_its_ends_a_schedule_is_flat():
    schedule = Schedule.from_percent(lambda share: 2 + share, 0.25, 0.5, down)
    assert [schedule.at(sigma) for sigma in (math.inf, 1.0, 0.75)] == [2.0] * 3
    assert [schedule.at(sigma) for sigma in (0.5, 0.1, 0.0, -1.0)] == [3.0] * 4
    assert half().at(1.0) == half().at(0.3) == 0.5


@pytest.mark.parametrize("count", [2, 3, 20, 30, 65, 100, 500])
@pytest.mark.parametrize("to_sigma", [down, shifted])
def test_factors_are_met_exactly_where_they_lie(count, to_sigma):
    factors = [(-1.0) ** i * i for i in range(count)]
    schedule = Schedule.of_steps(factors, 0.1, 0.9, to_sigma)
    found = [schedule.at(to_sigma(0.1 + 0.8 * i / (count - 1))) for i in range(count)]
    assert found == pytest.approx(factors, abs=1e-6 * count)


def test_between_two_factors_it_is_linear():
    schedule = Schedule.of_steps([1.0, 0.0, 4.0], 0.0, 1.0, down)
    assert [schedule.at(sigma) for sigma in (1.0, 0.75, 0.5, 0.25, 0.0)] == pytest.approx([1.0, 0.5, 0.0, 2.0, 4.0])


def test_one_factor_is_the_same_everywhere():
    schedule = Schedule.of_steps([0.3], 0.2, 0.6, down)
    assert {schedule.at(sigma) for sigma in (1.0, 0.7, 0.5, 0.1)} == {0.3}


def test_a_part_without_length_has_a_factor_too():
    schedule = Schedule.of_steps([1.0, 2.0], 0.5, 0.5, down)
    assert schedule.at(0.6) == 1.0 and schedule.at(0.4) == 2.0


def test_factors_that_are_none_are_refused():
    with pytest.raises(PlanError, match="at least one factor"):
        Schedule.of_steps([], 0, 1, down)
    for bad in (math.nan, math.inf):
        with pytest.raises(PlanError, match="finite"):
            Schedule.of_steps([1.0, bad], 0, 1, down)
        with pytest.raises(PlanError, match="finite"):
            Schedule.from_percent(lambda share, bad=bad: bad, 0, 1, down)


def items(dictionary, schedule):
    options = {"rows": "both", "schedule": schedule}
    return {
        "Add": Add(SITE, ONES, 0.7, SCALE, **options),
        "Clamp": Clamp(SITE, dictionary, {4: 6.0}, **options),
        "Ablate": Ablate(SITE, dictionary, [4, 7], **options),
        "Splice": Splice(SITE, dictionary, **options),
    }


KINDS = ("Add", "Clamp", "Ablate", "Splice")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("factor", [0.25, 2.0, -1.0])
def test_a_schedule_scales_every_edit(dictionary, kind, factor):
    x = stream()
    whole = visited(items(dictionary, None)[kind]) - x
    assert torch.allclose(visited(items(dictionary, half(factor))[kind]) - x, factor * whole, atol=1e-4)


@pytest.mark.parametrize("kind", KINDS)
def test_a_factor_of_1_is_no_schedule(dictionary, kind):
    found, expected = (visited(items(dictionary, schedule)[kind]) for schedule in (half(1.0), None))
    assert torch.equal(found, expected)


@pytest.mark.parametrize("kind", KINDS)
def test_a_factor_of_0_changes_nothing_to_the_bit(dictionary, kind):
    x = stream(torch.bfloat16)
    x[0, 0, :4] = -0.0  # 0 added to it would be +0
    assert visited(items(dictionary, half(0.0))[kind], x=x) is x


@pytest.mark.parametrize("kind", KINDS)
def test_a_schedule_multiplies_a_mask(dictionary, kind):
    x, mask = stream(), torch.zeros(8, 8)
    mask[:, 4:] = 0.5
    item = items(dictionary, half())[kind]
    object.__setattr__(item, "mask", mask)
    whole = visited(items(dictionary, None)[kind]) - x
    expected = 0.5 * mask.flatten()[None, :, None] * whole
    assert torch.allclose(visited(item) - x, expected, atol=1e-4)


@pytest.mark.parametrize("kind", ["none", "layer_norm", "token_norm", "sigma"])
@pytest.mark.parametrize("sigma", [0.2, 0.9])
def test_a_clamp_with_a_scale_sets_a_length(dictionary, kind, sigma):
    """`code * |direction|` of the feature is then `target * scale(sigma)`, in each token's own frame."""
    mean, std = torch.linspace(0, 1, BINS)[:, None].repeat(1, 128), torch.linspace(1, 2, 128).repeat(BINS, 1)
    own = normalized(
        dictionary, Normalization(mean, std, kind="sigma") if kind == "sigma" else Normalization(kind=kind)
    )
    moment, x = MOMENT._replace(sigma=sigma), 30 * stream() + 4
    y = visited(Clamp(SITE, own, {4: 0.8}, SCALE, rows="both"), x=x, moment=moment)
    frame = own.frame(x, moment)
    direction = own.direction(4) if frame is None else frame.gain * own.direction(4)
    direction = direction.expand_as(x)
    change = ((y - x) * direction).sum(-1) / direction.square().sum(-1)
    code = own.encode(x, moment=moment).coefficient(4) + change
    length = torch.full((2, 64), 0.8 * SCALE.at(sigma))
    assert torch.allclose(code * direction.norm(dim=-1), length, rtol=1e-3, atol=1e-2)
    assert torch.allclose(y - x, change[..., None] * direction, rtol=1e-3, atol=1e-2)


def test_a_direction_may_follow_the_noise_level():
    direction = torch.linspace(-1, 2, 128)
    gain = torch.rand(BINS, 128, generator=torch.Generator().manual_seed(1)) + 0.1
    for sigma in (0.025, 0.31, 0.9):
        y = visited(Add(SITE, direction, 0.7, SCALE, gain, rows="both"), moment=MOMENT._replace(sigma=sigma))
        here = between_bins(gain, sigma) * direction
        assert torch.allclose(y - stream(), 0.7 * SCALE.at(sigma) * here / here.norm(), atol=1e-5)


def test_taking_a_vector_out_twice_is_taking_it_out_once():
    vector, x = SteeringVector({str(SITE): torch.linspace(-1, 2, 128)}), stream()
    ablate = [Ablate(SITE, vector.at(str(SITE)), [0], rows="both") for _ in range(2)]
    y = visited(*ablate, x=x)
    assert torch.allclose(y, visited(ablate[0], x=x), atol=1e-5)
    assert float((y @ torch.linspace(-1, 2, 128)).abs().max()) < 1e-3


def test_edits_of_one_feature_in_a_row_take_the_last(dictionary):
    twice = [Clamp(SITE, dictionary, {4: target}, rows="both") for target in (6.0, 2.0)]
    assert torch.allclose(visited(*twice), visited(twice[1]), atol=1e-4)
