import base64
import io
from types import SimpleNamespace

import numpy as np
from PIL import Image

from fluxtionary.interpretation.pictures import SIDE, Pictures, pixels_of


def decoded(part):
    kind, _, data = part["image_url"]["url"].partition(";base64,")
    return kind, np.asarray(Image.open(io.BytesIO(base64.b64decode(data))).convert("RGB"))


def test_a_pair_is_the_picture_and_the_paper_s_blue_over_its_tokens(drawn_atlas):
    example = drawn_atlas.examples(0, "top")[3]
    (kind, plain), (_, shown) = map(decoded, Pictures(drawn_atlas).pair(0, example.picture))
    pixels, heat = drawn_atlas.pixels(example.picture), drawn_atlas.heat_map(0, example.picture)
    assert kind == "data:image/png" and np.array_equal(plain, pixels)
    opacity = 0.7 * np.sqrt(np.kron(heat / heat.max(), np.ones((16, 16))))[..., None]
    assert abs(shown - (pixels * (1 - opacity) + np.array([0, 0, 255]) * opacity)).max() <= 1
    assert opacity.max() > 0.69 and (opacity == 0).mean() > 0.5


def atlas_of(pixels, heat):
    return SimpleNamespace(
        header={"size": pixels.shape[:2]}, pixels=lambda number: pixels, heat_map=lambda feature, picture: heat
    )


def test_large_pictures_are_sent_smaller(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (1024, 768, 3)).astype(np.uint8)
    plain, shown = Pictures(atlas_of(pixels, np.ones((64, 48), np.float32))).pair(0, 0)
    assert decoded(plain)[0] == "data:image/jpeg"
    assert decoded(plain)[1].shape == decoded(shown)[1].shape == (SIDE, SIDE * 3 // 4, 3)
    assert pixels_of(plain) == SIDE * SIDE * 3 // 4


def test_negative_values_are_heat_and_a_map_of_zeros_is_none():
    pixels = np.full((32, 32, 3), 200, np.uint8)
    negative, zero = np.array([[-2.0, 0], [0, 1.0]], np.float32), np.zeros((2, 2), np.float32)
    plain, shown = map(decoded, Pictures(atlas_of(pixels, negative)).pair(0, 0))
    changed = (plain[1] != shown[1]).any(-1)
    assert changed[:16, :16].all() and changed[16:, 16:].all() and changed.sum() == 512
    assert abs(int(shown[1][0, 0, 0]) - 60) <= 1  # 200 * (1 - .7)
    plain, shown = Pictures(atlas_of(pixels, zero)).pair(0, 0)
    assert plain == shown
