import numpy as np
import pytest
from PIL import Image

from fluxtionary.training.pictures import opened
from fluxtionary.training.sampling import ModelError

RAMP = np.linspace(0, 65535, 64).astype(np.uint16).reshape(8, 8)


def test_sixteen_bits_are_scaled_and_not_cut_off(tmp_path):
    Image.fromarray(RAMP).save(tmp_path / "deep.png")
    Image.fromarray((RAMP // 257).astype(np.uint8)).save(tmp_path / "plain.png")
    deep, plain = (np.asarray(opened(tmp_path / f"{name}.png"), int) for name in ("deep", "plain"))
    assert deep.shape == (8, 8, 3) and np.abs(deep - plain).max() <= 1


def test_pictures_are_upright(tmp_path):
    picture = Image.new("RGB", (20, 10))
    exif = picture.getexif()
    exif[0x0112] = 6  # turned by a quarter
    picture.save(tmp_path / "turned.jpg", exif=exif)
    assert opened(tmp_path / "turned.jpg").size == (10, 20)


@pytest.mark.parametrize("damage", ["cut", "none"])
def test_a_damaged_picture_is_named(tmp_path, damage):
    path = tmp_path / "holiday.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 40, 3), np.uint8)).save(path)
    path.write_bytes(path.read_bytes()[:2000] if damage == "cut" else b"no picture")
    with pytest.raises(ModelError, match=r"holiday\.png: expected a picture"):
        opened(path)
