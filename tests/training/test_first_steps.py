import math
import re

import pytest
import torch

from fluxtionary.residual import Plan, Site, Tap
from fluxtionary.training.embeddings import embed
from fluxtionary.training.first_steps import FirstSteps, Size, Watching, part_of
from fluxtionary.training.sampling import ModelError


class Model:
    """As much of a pipeline as a schedule asks for."""

    def __init__(self, guidance_embeds):
        self.transformer = self
        self.config = self
        self.guidance_embeds = guidance_embeds


def test_the_watched_part_is_what_begins_in_it():
    assert part_of(Model(False), Watching()).watched == [1.0, 0.75]
    part = part_of(Model(False), Watching(steps=8, start=0.25, end=0.75))
    assert part.watched == pytest.approx([0.75, 0.625, 0.5, 0.375])
    assert part.sigmas == pytest.approx((1.0, 0.875, 0.75, 0.625, 0.5, 0.375, 0.25)) and part.first == 2
    assert part_of(Model(False), Watching(steps=1)).sigmas == (1.0, 0.0)
    assert part_of(Model(False), Watching(steps=2, end=1.0)).sigmas == (1.0, 0.5, 0.0)


def test_the_schedule_is_comfyui_s_with_its_shift_and_its_rounding():
    assert part_of(Model(False), Watching(steps=3, end=1.0)).sigmas == pytest.approx((1.0, 0.667, 0.334, 0.0))
    dev = part_of(Model(True), Watching(steps=4, end=1.0)).sigmas
    assert dev[2] == pytest.approx(math.exp(1.15) / (math.exp(1.15) + 1))  # .76: half of sampling at shift 1.15
    assert part_of(Model(True), Watching(steps=4, end=1.0, shift=0.0)).sigmas[2] == pytest.approx(0.5)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"steps": 0}, "steps must be at least 1, found 0"),
        ({"seeds": 0}, "seeds must be at least 1"),
        ({"start": 0.6}, "found start 0.6 and end 0.5"),
        ({"end": 1.1}, "found start 0.0 and end 1.1"),
        ({"start": 0.3, "end": 0.4}, "in which one of the 4 steps begins, found none from 0.3 to 0.4"),
    ],
)
def test_a_part_without_a_step_is_refused(options, words):
    with pytest.raises(ModelError, match=re.escape(words)):
        part_of(Model(False), Watching(**options))


def test_the_steps_are_those_of_euler_in_diffusers(random_flux, draw):
    prompts = ["a red circle", "a blue ring"]
    text = embed(random_flux, prompts)
    begun = FirstSteps(random_flux, [3, 4], Size(), 3.5)
    for sigma in (1.0, 0.5):
        begun.step(begun.velocity(text, sigma), sigma, sigma - 0.5)
    assert torch.allclose(begun.x, draw(random_flux, prompts, seed=3), atol=1e-4)


def test_a_picture_begins_with_its_own_noise_and_in_its_own_shape(random_flux):
    both, alone = (FirstSteps(random_flux, seeds, Size(96, 160), 3.5).x for seeds in ([7, 8], [8]))
    assert both.shape == (2, 6 * 10, 64)
    assert torch.equal(both[1], alone[0])
    noise = torch.randn(1, 16, 12, 20, generator=torch.Generator().manual_seed(7))
    assert torch.equal(both[:1], random_flux._pack_latents(noise, *noise.shape))


def test_watching_ends_after_the_last_site(random_flux):
    seen = []
    tap = Tap(Site.parse("double.0.txt"), receive=lambda tap, record, x: seen.append(x.shape))
    later = []
    handle = random_flux.transformer.transformer_blocks[1].register_forward_hook(lambda *_: later.append(1))
    try:
        begun = FirstSteps(random_flux, [1], Size(), 3.5)
        begun.watch(embed(random_flux, ["a ring"]), 1.0, Plan([tap]))
        assert [tuple(shape[:2]) for shape in seen] == [(1, 16)] and not later
        begun.velocity(embed(random_flux, ["a ring"]), 1.0, Plan([tap]))
        assert len(seen) == 2 and later
    finally:
        handle.remove()
