"""Drawing: color maps, maps laid over pictures, and labelled grids, with what every ComfyUI has."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

COLORS: dict[str, tuple[str, ...]] = {
    "viridis": (
        *("440154", "482475", "414487", "355f8d", "2a788e", "21918c"),
        *("22a884", "44bf70", "7ad151", "bddf26", "fde725"),
    ),
    "cividis": ("00224e", "123570", "3b496c", "575d6d", "707173", "8a8678", "a59c74", "c3b369", "e1cc55", "fee838"),
    "heat": ("000000", "5a0000", "b40000", "f01e00", "ff7800", "ffbe00", "fff05a", "ffffff"),
}
"""Color maps as colors at equal distances, from lowest to highest. The first two are made for color-blind eyes too
(matplotlib, CC0)."""

FLOOR = 0.1
"""How much of an overlay's opacity the value 0 has: enough to see that a map lies there."""


def colored(values: Tensor, colors: str) -> Tensor:
    """Values `[...]` in [0, 1] as colors `[..., 3]`, linear between the anchors of a color map."""
    anchors = torch.tensor([[int(code[i : i + 2], 16) / 255 for i in (0, 2, 4)] for code in COLORS[colors]])
    place = values.float().clamp(0, 1) * (len(anchors) - 1)
    low = place.floor().long().clamp(max=len(anchors) - 2)
    share = (place - low)[..., None]
    return anchors[low] * (1 - share) + anchors[low + 1] * share


def enlarged(maps: Tensor, latent: tuple[int, int], size: tuple[int, int], smooth: bool = True) -> Tensor:
    """Maps on the token grid `[n, rows, columns]` at a picture's size in pixels: `[n, height, width]`.

    A token is 2 by 2 latent pixels. Where the `latent` is odd, the last row or column of tokens reaches beyond the
    picture, and that part is cut off.
    """
    rows, columns = maps.shape[-2:]
    covered = (round(size[0] * 2 * rows / latent[0]), round(size[1] * 2 * columns / latent[1]))
    mode = {"mode": "bilinear", "align_corners": False} if smooth else {"mode": "nearest"}
    return F.interpolate(maps[:, None].float(), size=covered, **mode)[:, 0, : size[0], : size[1]]


def overlaid(picture: Tensor, values: Tensor, colors: str, opacity: float) -> Tensor:
    """A map `[h, w]` of values in [0, 1] laid over a picture `[h, w, 3]`, the more opaque the higher the value."""
    values = values.float().clamp(0, 1)
    rise = values * (2 - values)  # steeper than the value, so that what is weak is seen, but without an edge at 0
    cover = (opacity * (FLOOR + (1 - FLOOR) * rise))[..., None]
    return picture * (1 - cover) + colored(values, colors) * cover


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
