"""Drawing: labelled grids of pictures, with what every ComfyUI has."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from ..residual.overlay import colored


def resized(pictures: Tensor, size: tuple[int, int]) -> Tensor:
    """Pictures `[n, h, w, 3]` at another size, averaged where they shrink."""
    if pictures.shape[1:3] == size:
        return pictures
    planes = pictures[..., :3].movedim(-1, 1).float()
    return F.interpolate(planes, size=size, mode="bilinear", antialias=True).movedim(1, -1).clamp(0, 1)


class Tile(NamedTuple):
    """One field of a grid: a picture `[h, w, 3]`, what it is called, what is said of it, and its highest value."""

    picture: Tensor
    title: str
    detail: str
    peak: float


GROUND, BRIGHT, DIM = (24, 25, 28), (240, 241, 243), (158, 162, 170)


def grid(tiles: Sequence[Tile], columns: int, colors: str) -> Tensor:
    """Tiles of one size side by side, each with a caption and its own scale of colors: one picture `[h, w, 3]`."""
    height, width = tiles[0].picture.shape[:2]
    columns = min(columns, len(tiles))
    size = max(width // 14, 12)
    gap, line = max(round(0.7 * size), 8), round(size * 1.35)
    cell = (width + gap, height + gap // 2 + 2 * line + gap)
    rows = -(-len(tiles) // columns)
    sheet = Image.new("RGB", (columns * cell[0] + gap, rows * cell[1] + gap), GROUND)
    pen = ImageDraw.Draw(sheet)
    for number, tile in enumerate(tiles):
        left, top = gap + number % columns * cell[0], gap + number // columns * cell[1]
        sheet.paste(_image(tile.picture), (left, top))
        _caption(sheet, pen, tile, (left, top + height + gap // 2), width, size, colors)
    return torch.from_numpy(np.asarray(sheet).copy()).float() / 255


def _caption(
    sheet: Image.Image,
    pen: ImageDraw.ImageDraw,
    tile: Tile,
    place: tuple[int, int],
    width: int,
    size: int,
    colors: str,
) -> None:
    """Title, scale of colors up to the peak, and below what is said, in letters of `size` that fit into `width`."""
    (left, top), line = place, round(size * 1.35)
    title, peak = _fitting(tile.title, 0.55 * width, size), _fitting(f"{tile.peak:.3g}", 0.25 * width, size)
    pen.text((left, top), tile.title, BRIGHT, title)
    pen.text((left + width - peak.getlength(f"{tile.peak:.3g}"), top), f"{tile.peak:.3g}", BRIGHT, peak)
    begin = left + round(title.getlength(tile.title)) + size
    end = left + width - round(peak.getlength(f"{tile.peak:.3g}")) - size // 2
    if end - begin > size:
        scale = colored(torch.linspace(0, 1, end - begin), colors).expand(max(size // 2, 5), -1, -1)
        sheet.paste(_image(scale), (begin, top + round(0.42 * size)))
    pen.text((left, top + line), tile.detail, DIM, _fitting(tile.detail, width, round(0.85 * size)))


def _fitting(text: str, width: float, size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    """The host's own font in a size at which a text fits."""
    while True:
        font = ImageFont.load_default(size=size)
        if size <= 6 or font.getlength(text) <= width:
            return font
        size -= 1


def _image(picture: Tensor) -> Image.Image:
    return Image.fromarray((picture.clamp(0, 1) * 255).round().to(torch.uint8).cpu().numpy())
