import numpy as np
import pytest

from fluxtionary.demo.scenes import Scene, draw, sample_scenes, token_coverage
from fluxtionary.demo.sight import BACKGROUND, OBJECT, REGIONS, heat_over, look, see

SCENE = Scene("blue", "square", "large", "center", "navy")


def region(drawing, name):
    return drawing.regions[REGIONS.index(name)]


def overlaid(pixels, heat):
    """The paper's blue over a drawing, as uint8."""
    cover = 0.7 * np.sqrt(np.kron(heat, np.ones((16, 16))))[..., None]
    return (pixels * (1 - cover) + np.array([0, 0, 255]) * cover).round().astype(np.uint8)


@pytest.mark.parametrize("color", ["blue", "red", "cyan"])
@pytest.mark.parametrize("background", ["navy", "white", "black"])
def test_heat_is_read_from_pixels_on_blue_things_too(color, background):
    pixels = draw(Scene(color, "circle", "large", "left", background))
    heat = np.random.default_rng(0).random((8, 8)) * (np.random.default_rng(1).random((8, 8)) < 0.4)
    heat.flat[0] = 1
    assert abs(heat_over(pixels, overlaid(pixels, heat)) - heat).max() < 0.03
    assert not heat_over(pixels, pixels).any()


def test_regions_of_an_object_are_where_it_was_drawn():
    for scene in sample_scenes(20, 3, "train"):
        drawing, share = look(draw(scene)), token_coverage(scene)
        assert drawing.reading.factors == scene.factors
        assert region(drawing, OBJECT)[share > 0.55].all() and not region(drawing, OBJECT)[share < 0.05].any()
        assert region(drawing, BACKGROUND)[share < 0.02].all() and not region(drawing, BACKGROUND)[share > 0.2].any()
        assert not (region(drawing, "next to the object") & region(drawing, OBJECT)).any()


def test_parts_lie_on_their_side():
    drawing = look(draw(SCENE))
    rows, columns = np.mgrid[:8, :8]
    for name, along, less in (("top", rows, True), ("bottom", rows, False), ("left", columns, True)):
        part = region(drawing, f"{name} of the object")
        assert part.any() and ((along[part] < 3.5) == less).all()
        assert not (part & region(drawing, BACKGROUND)).any()
    assert region(drawing, "just above the object").any() and rows[region(drawing, "just above the object")].max() < 3
    assert region(drawing, "top edge of the picture")[0].all() and region(drawing, "top edge of the picture").sum() == 8


def test_what_cannot_be_read_has_regions_of_the_picture_alone():
    noise = np.random.default_rng(0).integers(0, 256, (128, 128, 3)).astype(np.uint8)
    drawing = look(noise)
    assert not drawing.reading.readable and not region(drawing, OBJECT).any()
    assert region(drawing, "left of the picture").any()
    sight = see(drawing, noise)
    assert not sight.heat.any()
    with pytest.raises(ValueError, match="128x128"):
        look(noise[:64])
