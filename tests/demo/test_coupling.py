"""Noise and scenes in pairs: the noise stays Gaussian, decides the open layout, and nothing else."""

import numpy as np
import pytest
import torch

from fluxtionary.demo.captions import named_factors
from fluxtionary.demo.coupling import LAYOUT, Coupling
from fluxtionary.demo.scenes import FACTORS, sample_scenes

SCENES = sample_scenes(6000, 0, "train")
TOKENS, CHANNELS = 16, 8


@pytest.fixture(scope="module")
def coupling():
    """Made up latents: a random pattern for every value of every factor, and the scene's number in one place."""
    generator = torch.Generator().manual_seed(0)
    pattern = {
        (name, value): torch.randn(TOKENS, CHANNELS, generator=generator)
        for name, values in FACTORS.items()
        for value in values
    }
    latents = torch.stack([sum(pattern[item] for item in scene.factors.items()) for scene in SCENES])
    latents[:, 0, 0] = torch.arange(len(SCENES))
    made = Coupling(SCENES, latents)
    made._total[..., 0] = 0  # the number is for the test, not a part of the picture
    return made


def examples(coupling, free, size=1500):
    generator = torch.Generator().manual_seed(1)
    clean, noise, captions = coupling.batch(size, np.random.default_rng(1), generator, full=0.3, free=free)
    return [SCENES[int(number)] for number in clean[:, 0, 0]], noise, captions


def test_captions_are_true_and_the_open_layout_is_what_the_noise_looks_like(coupling):
    scenes, noise, captions = examples(coupling, free=False)
    for scene, one, caption in zip(scenes, noise, captions, strict=True):
        named = named_factors(caption)
        layout = coupling.layout(one, named)
        assert named.items() <= scene.factors.items() and layout.items() <= scene.factors.items()
        assert layout.keys() == set(LAYOUT)


def test_the_noise_stays_gaussian_and_every_scene_is_of_the_train_split(coupling):
    scenes, noise, _ = examples(coupling, free=False)
    assert {scene.split for scene in scenes} == {"train"}
    assert abs(noise.mean()) < 0.005 and abs(noise.std() - 1) < 0.005
    assert noise.flatten(1).mean(0).abs().max() < 0.13  # five deviations of a mean of 1,500


def test_a_noise_that_looks_like_a_value_gets_it(coupling):
    noise = torch.randn(TOKENS, CHANNELS, generator=torch.Generator().manual_seed(2))
    for name in LAYOUT:
        for value, look in zip(FACTORS[name], coupling._looks(name, {}), strict=True):
            assert coupling.layout(noise + 20 * look.view(TOKENS, CHANNELS), {})[name] == value


def test_color_is_left_free_and_without_coupling_everything_is(coupling):
    shares = {}
    for free in (False, True):
        scenes, noise, captions = examples(coupling, free)
        for name in ("color", "position"):
            looks = coupling._looks(name, {})
            agree = [
                FACTORS[name][int((looks @ one.flatten()).argmax())] == getattr(scene, name)
                for scene, one, caption in zip(scenes, noise, captions, strict=True)
                if name not in named_factors(caption)
            ]
            shares[free, name] = np.mean(agree)
    assert shares[False, "position"] > 0.7
    assert max(shares[False, "color"], shares[True, "color"], shares[True, "position"]) < 0.2
