import itertools

import numpy as np
import pytest
import torch

from fluxtionary.demo.measure import measure, object_tokens
from fluxtionary.demo.scenes import BACKGROUNDS, Scene, draw, sample_scenes, token_coverage

RNG = np.random.default_rng(0)


def share(flags):
    return float(np.mean(list(flags)))


def test_clean_drawings_are_read_right():
    scenes = sample_scenes(1000, 11, "test")
    assert share(measure(draw(scene)).factors == scene.factors for scene in scenes) >= 0.999


def test_drawings_are_read_right_after_the_vae(demo_flux):
    from fluxtionary.demo.train_vae import to_tensor

    scenes = sample_scenes(100, 12, "test")
    right = []
    for start in range(0, len(scenes), 50):
        part = scenes[start : start + 50]
        with torch.inference_mode():
            latents = demo_flux.vae.encode(to_tensor(np.stack([draw(scene) for scene in part]))).latents
            pictures = demo_flux.vae.decode(latents).sample.clamp(-1, 1).permute(0, 2, 3, 1).numpy() / 2 + 0.5
        right += [measure(picture).factors == scene.factors for picture, scene in zip(pictures, part, strict=True)]
    assert share(right) >= 0.995


def noise(kind):
    if kind == "uniform":
        return RNG.integers(0, 256, (128, 128, 3)).astype(np.uint8)
    if kind == "gaussian":
        return np.clip(RNG.normal(0.5, 0.2, (128, 128, 3)), 0, 1)
    return np.kron(RNG.random((8, 8, 3)), np.ones((16, 16, 1)))


@pytest.mark.parametrize("kind", ["uniform", "gaussian", "blocks"])
def test_noise_is_unreadable(kind):
    assert share(not measure(noise(kind)).readable for _ in range(300)) >= 0.99


def test_blank_pictures_are_unreadable():
    assert (
        share(not measure(np.full((128, 128, 3), RNG.integers(0, 256, 3), np.uint8)).readable for _ in range(300))
        >= 0.99
    )


@pytest.mark.parametrize("weight", [0.35, 0.5, 0.65])
def test_blends_of_two_scenes_are_unreadable(weight):
    pictures = [draw(scene) / 255 for scene in sample_scenes(500, 13, "test")]
    blends = [weight * a + (1 - weight) * b for a, b in itertools.pairwise(pictures)]
    assert share(not measure(blend).readable for blend in blends) >= 0.99


def test_half_an_object_or_two_are_unreadable():
    left, right = (draw(scene) for scene in sample_scenes(2, 14, "test"))
    assert not measure(np.concatenate([left[:, :64], right[:, 64:]], axis=1)).readable


def test_an_object_of_no_known_shape_still_has_a_color_and_a_place():
    picture = draw(Scene("red", "circle", "large", "top left", "white"))
    picture[32:64, 32:64] = BACKGROUNDS["white"]  # three quarters of a circle
    reading = measure(picture)
    assert reading == ("red", None, "large", "top left", "white") and reading.readable


def test_two_objects_of_one_color_are_unreadable():
    pictures = [draw(Scene("red", shape, "small", "left", "white")) for shape in ("circle", "square")]
    two = np.concatenate([pictures[0][:, :64], pictures[1][:, :64]], axis=1)
    assert measure(pictures[0]).readable and not measure(two).readable


@pytest.mark.parametrize("shift", [0, 16])
def test_an_object_between_two_places_has_no_position(shift):
    picture = np.roll(draw(Scene("red", "square", "small", "left", "white")), shift, axis=1)
    assert measure(picture) == ("red", "square", "small", None if shift else "left", "white")


def test_object_tokens_are_those_the_object_covers():
    for scene in sample_scenes(50, 15, "test"):
        picture = draw(scene)
        found = object_tokens(picture, measure(picture)).reshape(8, 8)
        covered = token_coverage(scene)
        assert found[covered > 0.6].all() and not found[covered < 0.4].any()


def test_a_picture_of_another_size_is_refused():
    with pytest.raises(ValueError, match=r"128x128.*\(64, 64, 3\)"):
        measure(np.zeros((64, 64, 3), np.uint8))
