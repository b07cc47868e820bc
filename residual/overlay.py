"""Heat maps laid over pictures: color maps, and the way the paper draws them."""

from __future__ import annotations

import torch
import torch.nn.functional as F
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

PAPER_BLUE, PAPER_OPACITY = (0.0, 0.0, 1.0), 0.7


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


def paper_overlaid(picture: Tensor, values: Tensor) -> Tensor:
    """A map `[h, w]` of values in [0, 1] laid over a picture `[h, w, 3]` in blue, as in arXiv 2505.24360 (its code).

    The opacity is 0.7 times the root of the value, so that where a feature is not active the picture is untouched.
    """
    cover = (PAPER_OPACITY * values.float().clamp(0, 1).sqrt())[..., None]
    return picture * (1 - cover) + torch.tensor(PAPER_BLUE) * cover
