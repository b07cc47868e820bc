"""Pictures of an atlas as a model is shown them: plain, and with a heat map over them."""

from __future__ import annotations

import base64
import io
from functools import lru_cache

import numpy as np
import torch
from PIL import Image

from ..atlas import Atlas
from ..residual.overlay import enlarged, paper_overlaid
from .questions import Part

SIDE = 512
"""Longest side of a picture that is sent, in pixels: models are paid by the pixel, and more changes no label."""
_LOSSLESS_SIDE = 256  # small pictures are as cheap without loss, and a heat map's tokens stay as they are
_HELD = 2**26  # bytes of plain pictures


class Pictures:
    """An atlas's pictures as data URLs; the last few hundred plain ones are held. May be used by many threads."""

    def __init__(self, atlas: Atlas):
        self.atlas = atlas
        height, width = (min(side, SIDE) for side in atlas.header["size"])
        self._drawn = lru_cache(max(_HELD // (3 * height * width), 16))(self._draw)

    def plain(self, picture: int) -> Part:
        return self._drawn(picture)[1]

    def pair(self, feature: int, picture: int) -> tuple[Part, Part]:
        """A picture, and the same with a feature's heat map in blue, as in arXiv 2505.24360: opacity .7 times the root
        of the value as a share of the map's own peak, one color a token. A map that is 0 everywhere changes nothing."""
        pixels, plain = self._drawn(picture)
        values = torch.from_numpy(np.abs(self.atlas.heat_map(feature, picture)))
        rows, columns = values.shape
        shares = enlarged(
            (values / values.max().clamp(min=1e-30))[None], (2 * rows, 2 * columns), pixels.shape[:2], False
        )
        shown = paper_overlaid(torch.tensor(pixels) / 255, shares[0])
        return plain, _part((shown * 255).round().byte().numpy())

    def _draw(self, picture: int) -> tuple[np.ndarray, Part]:
        pixels = self.atlas.pixels(picture)
        height, width = pixels.shape[:2]
        if max(height, width) > SIDE:
            size = (round(width * SIDE / max(height, width)), round(height * SIDE / max(height, width)))
            pixels = np.asarray(Image.fromarray(pixels).resize(size, Image.Resampling.LANCZOS))
        return pixels, _part(pixels)


def _part(pixels: np.ndarray) -> Part:
    file = io.BytesIO()
    if max(pixels.shape) <= _LOSSLESS_SIDE:
        Image.fromarray(pixels).save(file, "PNG", compress_level=1)
    else:
        Image.fromarray(pixels).save(file, "JPEG", quality=90)
    kind = "png" if max(pixels.shape) <= _LOSSLESS_SIDE else "jpeg"
    url = f"data:image/{kind};base64,{base64.b64encode(file.getvalue()).decode()}"
    return {"type": "image_url", "image_url": {"url": url}}


def pixels_of(part: Part) -> int:
    """How many pixels a picture has."""
    file = base64.b64decode(part["image_url"]["url"].partition(",")[2])
    width, height = Image.open(io.BytesIO(file)).size
    return width * height
