"""What can be seen in a drawing with a heat map over it, from pixels alone: factors, regions, and where it is hot."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from .measure import Reading, measure
from .scenes import BACKGROUNDS, COLORS, GRID, SIZE

_SIDE = SIZE // GRID
_BLUE = np.array((0.0, 0.0, 255.0), np.float32)
_OPACITY = 0.7
_FAINT = 0.02  # opacity below which a difference is rounding

_down, _across = np.mgrid[:GRID, :GRID] + 0.5
_THIRDS = {
    "top": _down < 3,
    "bottom": _down > 5,
    "left": _across < 3,
    "right": _across > 5,
}
_OF_PICTURE = {
    "top edge of the picture": _down < 1,
    "bottom edge of the picture": _down > GRID - 1,
    "left edge of the picture": _across < 1,
    "right edge of the picture": _across > GRID - 1,
    "top of the picture": _THIRDS["top"],
    "bottom of the picture": _THIRDS["bottom"],
    "left of the picture": _THIRDS["left"],
    "right of the picture": _THIRDS["right"],
    **{
        f"{vertical} {horizontal} of the picture": _THIRDS[vertical] & _THIRDS[horizontal]
        for vertical in ("top", "bottom")
        for horizontal in ("left", "right")
    },
    "middle of the picture": (abs(_down - GRID / 2) < 1) & (abs(_across - GRID / 2) < 1),
}
OBJECT, BACKGROUND = "on the object", "on the background"
_OF_OBJECT = (
    OBJECT,
    "outline of the object",
    *(f"{side} of the object" for side in ("top", "bottom", "left", "right", "middle")),
    *(f"{vertical} {horizontal} of the object" for vertical in ("top", "bottom") for horizontal in ("left", "right")),
    "next to the object",
    *(f"just {side} the object" for side in ("above", "below", "left of", "right of")),
    BACKGROUND,
)
REGIONS = (*_OF_OBJECT, *_OF_PICTURE)
"""Parts of a drawing that can be named."""


class Drawing(NamedTuple):
    """A plain drawing: its uint8 pixels, what they read as, and the regions, bool `[len(REGIONS), GRID, GRID]`.

    Regions of the object are empty where there is none to be read.
    """

    pixels: np.ndarray
    reading: Reading
    regions: np.ndarray


class Sight(NamedTuple):
    """A drawing, and how the heat over it is spread over its tokens: `[GRID, GRID]` with sum 1, or 0 without heat."""

    drawing: Drawing
    heat: np.ndarray


def look(pixels: np.ndarray) -> Drawing:
    """Read a plain drawing, uint8 `[SIZE, SIZE, 3]`. Raises `ValueError` for another size."""
    reading = measure(pixels)
    regions = np.zeros((len(REGIONS), GRID, GRID), bool)
    regions[len(_OF_OBJECT) :] = list(_OF_PICTURE.values())
    if reading.color is not None and reading.background is not None:
        found = _of_object(_share(pixels, reading.color, reading.background))
        regions[: len(_OF_OBJECT)] = [found[name] for name in _OF_OBJECT]
    return Drawing(pixels, reading, regions)


def heat_over(plain: np.ndarray, shown: np.ndarray) -> np.ndarray:
    """How strong the blue over each token is, `[GRID, GRID]` from 0 to 1: the square of its opacity.

    Both pictures are uint8 `[SIZE, SIZE, 3]`. The opacity is the one with which blue over the plain picture comes
    nearest to what is shown.
    """
    below = _tokens(plain)
    toward = _BLUE - below
    opacity = ((_tokens(shown) - below) * toward).sum((2, 3)) / np.maximum((toward**2).sum((2, 3)), 1)
    return np.where(opacity < _FAINT, 0, np.minimum(opacity / _OPACITY, 1) ** 2).reshape(GRID, GRID)


def see(drawing: Drawing, shown: np.ndarray) -> Sight:
    """A drawing under the heat that another picture of it shows."""
    heat = heat_over(drawing.pixels, shown)
    return Sight(drawing, heat / max(float(heat.sum()), 1e-9))


def _tokens(pixels: np.ndarray) -> np.ndarray:
    """Pixels by token: float32 `[GRID * GRID, 1, pixels of a token, 3]`."""
    parts = pixels.reshape(GRID, _SIDE, GRID, _SIDE, 3).swapaxes(1, 2)
    return parts.reshape(GRID * GRID, 1, _SIDE * _SIDE, 3).astype(np.float32)


def _share(pixels: np.ndarray, color: str, background: str) -> np.ndarray:
    """Share of each token that the object covers, `[GRID, GRID]`."""
    ends = np.array([COLORS[color], BACKGROUNDS[background]], np.float32)
    to_object, to_background = ((pixels - end) ** 2 for end in ends)
    inside = to_object.sum(-1) < to_background.sum(-1)
    return inside.reshape(GRID, _SIDE, GRID, _SIDE).mean((1, 3))


def _of_object(share: np.ndarray) -> dict[str, np.ndarray]:
    """Regions in and around an object that covers `share` of each token."""
    touched = share > 0.05
    weight = share / share.sum()
    row, column = float((weight * _down).sum()), float((weight * _across).sum())
    rows, columns = _down[touched], _across[touched]
    tall, wide = np.ptp(rows) + 1, np.ptp(columns) + 1
    body = share >= min(0.5, float(share.max()))
    part = {
        "top": _down < row - tall / 8,
        "bottom": _down > row + tall / 8,
        "left": _across < column - wide / 8,
        "right": _across > column + wide / 8,
    }
    near = np.zeros_like(touched)
    padded = np.pad(touched, 1)
    for down in range(3):
        for across in range(3):
            near |= padded[down : down + GRID, across : across + GRID]
    beside = near & ~body
    level = (_down >= rows.min()) & (_down <= rows.max())
    upright = (_across >= columns.min()) & (_across <= columns.max())
    return {
        OBJECT: body,
        BACKGROUND: ~touched,
        "outline of the object": touched & (share < 0.95),
        **{f"{name} of the object": touched & side for name, side in part.items()},
        "middle of the object": (abs(_down - row) <= tall / 4) & (abs(_across - column) <= wide / 4),
        **{
            f"{vertical} {horizontal} of the object": touched & part[vertical] & part[horizontal]
            for vertical in ("top", "bottom")
            for horizontal in ("left", "right")
        },
        "next to the object": beside,
        "just above the object": beside & upright & (_down < row - tall / 4),
        "just below the object": beside & upright & (_down > row + tall / 4),
        "just left of the object": beside & level & (_across < column - wide / 4),
        "just right of the object": beside & level & (_across > column + wide / 4),
    }
