"""Pictures as a browser shows them: maps as PNG with see-through ground, pictures as WebP."""

from __future__ import annotations

import io
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ..residual.overlay import FLOOR, colored

COLORS, SIDE, QUALITY = "viridis", 1024, 90
"""The colors of maps, the longest side of a picture in pixels, and how well it is kept."""


class Picture(NamedTuple):
    """A file in memory, and what kind it is."""

    data: bytes
    kind: str


def map_picture(values: Tensor, peak: float) -> Picture:
    """A map `[rows, columns]` on the token grid, one pixel a token: by its share of a peak, see-through where it is 0.

    Signs are left out: what counts is how active a feature is.
    """
    shares = (values.float().abs() / (abs(peak) or 1.0)).clamp(0, 1)
    cover = torch.where(shares > 0, FLOOR + (1 - FLOOR) * shares * (2 - shares), torch.zeros(()))
    pixels = torch.cat([colored(shares, COLORS), cover[..., None]], dim=-1)
    return _file(Image.fromarray(_bytes(pixels)), "png")


def webp(pixels: Tensor) -> Picture:
    """A picture `[h, w, 3]` of values in [0, 1], made smaller where it is very large."""
    image = Image.fromarray(_bytes(pixels.detach().float().cpu()))
    image.thumbnail((SIDE, SIDE))
    return _file(image, "webp", quality=QUALITY, method=2)


def _bytes(pixels: Tensor) -> np.ndarray:
    return (torch.nan_to_num(pixels).clamp(0, 1) * 255).round().to(torch.uint8).numpy()


def _file(image: Image.Image, kind: str, **how: Any) -> Picture:
    out = io.BytesIO()
    image.save(out, kind, **how)
    return Picture(out.getvalue(), f"image/{kind}")
