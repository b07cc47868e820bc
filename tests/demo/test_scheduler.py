"""The demo Flux's sampler: fresh noise in every step, and yet the same picture from the same seed."""

import itertools

import pytest
import torch

from fluxtionary.demo.scheduler import EARLY, HOLD, RenewingScheduler


@pytest.fixture
def renewing(random_flux):
    plain = random_flux.scheduler
    random_flux.scheduler = RenewingScheduler.from_config(plain.config)
    yield random_flux
    random_flux.scheduler = plain


def test_a_seed_draws_one_picture_whatever_else_draws_random_numbers(renewing, draw):
    first = draw(renewing)
    state = torch.get_rng_state()
    torch.manual_seed(99)
    assert torch.equal(torch.as_tensor(first), torch.as_tensor(draw(renewing)))
    torch.set_rng_state(state)


def test_it_draws_from_no_global_state(renewing, draw):
    before = torch.get_rng_state()
    draw(renewing)
    assert torch.equal(before, torch.get_rng_state())


def test_a_picture_does_not_depend_on_its_batch(renewing, draw):
    alone = torch.as_tensor(draw(renewing, ["a red circle"]))
    both = torch.as_tensor(draw(renewing, ["a red circle", "a blue ring"]))
    assert torch.allclose(alone[0], both[0], atol=1e-4) and not torch.allclose(both[0], both[1], atol=1e-2)


def test_each_step_renews_its_share_of_the_noise_and_keeps_the_clean_picture():
    scheduler = RenewingScheduler(shift=1.0)
    scheduler.set_timesteps(4)
    sample = torch.randn(2, 500, 64, generator=torch.Generator().manual_seed(0))
    clean = torch.ones_like(sample)
    noises = [sample]
    for t in scheduler.timesteps[:3]:
        sigma = scheduler.sigmas[scheduler.step_index or 0]
        sample = scheduler.step((sample - clean) / sigma, t, sample, return_dict=False)[0]
        left = scheduler.sigmas[scheduler.step_index]
        noises.append((sample - (1 - left) * clean) / left)
    assert all(abs(noise.std() - 1) < 0.03 and abs(noise.mean()) < 0.03 for noise in noises)
    kept = [float((a * b).mean()) for a, b in itertools.pairwise(noises)]
    assert scheduler.sigmas[1] > HOLD > scheduler.sigmas[2]
    assert kept == pytest.approx([(1 - EARLY**2) ** 0.5, 0.0, 0.0], abs=0.03)
    assert abs((noises[1][0] * noises[1][1]).mean()) < 0.05, "each picture has noise of its own"
