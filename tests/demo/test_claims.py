import numpy as np
import pytest

from fluxtionary.demo.claims import ANYWHERE, NOTHING, Claims, claims_of, common, fit, place, words_of
from fluxtionary.demo.scenes import Scene, draw, sample_scenes
from fluxtionary.demo.sight import BACKGROUND, OBJECT, REGIONS, Sight, look

RNG = np.random.default_rng(0)


def sight(scene, name=None):
    """A scene with all heat in one region; without heat where there is none."""
    drawing = look(draw(scene))
    heat = drawing.regions[REGIONS.index(name)].astype(float) if name else np.zeros((8, 8))
    return Sight(drawing, heat / max(heat.sum(), 1))


def scenes(n=5, seed=0, **fixed):
    return [Scene(**{**scene.factors, **fixed}, seed=scene.seed) for scene in sample_scenes(n, seed, "train")]


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize(
    ("fixed", "name", "label"),
    [
        ({"color": "red"}, OBJECT, "red object: on the object"),
        ({"background": "tan"}, BACKGROUND, "tan background: on the background"),
        ({"shape": "ring", "size": "large"}, "outline of the object", "large ring: outline of the object"),
        ({}, "left edge of the picture", "left edge of the picture"),
        ({"color": "pink"}, "top of the object", "pink object: top of the object"),
        ({"position": "top left"}, OBJECT, "object at the top left: on the object"),
    ],
)
def test_what_pictures_share_is_found(fixed, name, label, seed):
    found = common([sight(scene, name) for scene in scenes(seed=seed, **fixed)])
    assert set(fixed.items()) <= {(factor, values[0]) for factor, values in found.factors.items() if len(values) == 1}
    assert found.region == name
    if found.factors.keys() == fixed.keys():
        assert words_of(found) == label


def test_what_is_shared_by_chance_is_seldom_claimed():
    claimed = [len(common([sight(scene) for scene in scenes(seed=seed)]).factors) for seed in range(100, 130)]
    assert np.mean(claimed) < 0.25


def test_random_heat_says_nothing_of_a_part():
    found = []
    for seed in range(20):
        sights = [s._replace(heat=np.eye(64)[RNG.integers(64)].reshape(8, 8)) for s in map(sight, scenes(seed=seed))]
        found.append(common(sights).region)
    assert sum(region in (None, BACKGROUND) for region in found) > 13


def test_words_are_read_back_as_they_were_meant():
    for claims in (
        Claims({}, None),
        Claims({}, "top left of the picture"),
        Claims({"color": ("red", "orange"), "shape": ("cross",)}, OBJECT),
        Claims({"position": ("top left", "top", "top right"), "background": ("gray",)}, None),
        Claims({"color": ("green",)}, None),
        Claims({"background": ("black", "navy")}, BACKGROUND),
        Claims({"size": ("small",), "position": ("left",)}, "just left of the object"),
    ):
        assert claims_of(words_of(claims)) == claims, words_of(claims)
    assert words_of(Claims({}, None)) == NOTHING
    assert words_of(Claims({"color": ("green",)}, None)) == f"green object: {ANYWHERE}"


@pytest.mark.parametrize(
    ("label", "factors", "region"),
    [
        ("Red circles", {"color": ("red",), "shape": ("circle",)}, OBJECT),
        ("crosses at the top right", {"shape": ("cross",), "position": ("top right",)}, OBJECT),
        ("Tan background.", {"background": ("tan",)}, BACKGROUND),
        (
            "a red square on a white background",
            {"color": ("red",), "shape": ("square",), "background": ("white",)},
            None,
        ),
        ("the Top of the Object", {}, "top of the object"),
        ("portraits of a standing woman", {}, None),
        ("", {}, None),
    ],
)
def test_other_people_s_labels_are_read_as_far_as_they_go(label, factors, region):
    assert claims_of(label) == Claims(factors, region)


def test_pictures_fit_what_they_show_and_nothing_else():
    claims = claims_of("red object: on the object")
    red, blue = scenes(1, color="red")[0], scenes(1, color="blue")[0]
    assert fit(claims, sight(red, OBJECT)) > 0.7
    assert fit(claims, sight(blue, OBJECT)) < 0.4
    assert fit(claims, sight(red, BACKGROUND)) < 0.4
    assert fit(claims, sight(blue, BACKGROUND)) < 0.1
    assert fit(claims_of(NOTHING), sight(red, OBJECT)) == 0.5


def test_places_are_regions_of_the_drawing():
    drawing = look(draw(scenes(1)[0]))
    assert (place(claims_of("red circle"), drawing) == drawing.regions[REGIONS.index(OBJECT)]).all()
    assert (place(claims_of("gray background"), drawing) == drawing.regions[REGIONS.index(BACKGROUND)]).all()
    assert (place(claims_of("top of the picture"), drawing)[:3]).all()
