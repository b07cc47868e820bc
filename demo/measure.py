"""Reading a scene's factors back from pixels alone, or saying that they cannot be read.

A picture is readable when one object of one named color, on one named background, explains it: noise, blank
pictures, blends and second objects are *unreadable*. Each further factor is read only where it is clear: an object of
no known shape still has a color and a place, and its shape is None.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from scipy import ndimage

from .scenes import BACKGROUNDS, CENTERS, COLORS, GRID, POSITIONS, RADII, SHAPES, SIZE, edge_distance, shape_coverage

COLOR_TOLERANCE = 0.18
"""Largest RGB distance (channels in [0, 1]) from a named color; about half the distance between the closest two."""
ONE_OBJECT = 0.95
"""Smallest share of the object's pixels that must hang together."""
FIT = 0.80
"""Smallest overlap (IoU) of the object with the shape it is read as."""
ERROR_SHARE = 0.01
"""Largest share of the picture's 4x4 blocks that may differ from the redrawn reading by more than `ERROR_SIZE`."""
ERROR_SIZE = 0.10
OFF_CENTER = 10.0
"""Farthest, in pixels either way, that an object may lie from the position it is read as."""
OFF_SIZE = 4.0
"""Largest difference, in pixels, from the radius of the size it is read as."""

_EDGE = 2.5  # pixels either side of an edge, which every decoder draws its own way
_FRAME = 4  # pixels at the border that no object ever touches


class Reading(NamedTuple):
    """Factors read from a picture, None where one cannot be told; all are None where the picture is not readable."""

    color: str | None = None
    shape: str | None = None
    size: str | None = None
    position: str | None = None
    background: str | None = None

    @property
    def readable(self) -> bool:
        return self.color is not None

    @property
    def factors(self) -> dict[str, str | None]:
        return self._asdict()


UNREADABLE = Reading()


def measure(image: np.ndarray) -> Reading:
    """Read the factors of one picture: uint8, or float in [0, 1], `[SIZE, SIZE, 3]` RGB."""
    image = np.asarray(image)
    if image.shape != (SIZE, SIZE, 3):
        raise ValueError(f"measure reads pictures of {SIZE}x{SIZE} RGB, found an array of shape {image.shape}")
    pixels = image.astype(np.float32) / (255 if image.dtype == np.uint8 else 1)

    frame = np.ones((SIZE, SIZE), bool)
    frame[_FRAME:-_FRAME, _FRAME:-_FRAME] = False
    outside = np.median(pixels[frame], axis=0)
    background = _nearest(outside, BACKGROUNDS)
    if background is None:
        return UNREADABLE

    # The object's color is the median of what clearly differs from the background.
    away = np.linalg.norm(pixels - outside, axis=-1)
    differs = away > 0.18
    if not 150 <= differs.sum() <= 3500:
        return UNREADABLE
    inside = np.median(pixels[away > 0.7 * np.quantile(away[differs], 0.8)], axis=0)
    color = _nearest(inside, COLORS)
    if color is None:
        return UNREADABLE

    contrast = inside - outside
    coverage = np.clip((pixels - outside) @ contrast / (contrast @ contrast), 0, 1)
    mask = coverage > 0.5
    pieces, count = ndimage.label(mask, np.ones((3, 3)))
    if not count or np.bincount(pieces[mask]).max() < ONE_OBJECT * mask.sum():
        return UNREADABLE
    depth = ndimage.distance_transform_edt(mask) - ndimage.distance_transform_edt(~mask)
    if _unexplained(pixels, outside, inside, -depth) > ERROR_SHARE:
        return UNREADABLE

    shape: str | None
    shape, placement, overlap = _best_shape(coverage)
    if overlap < FIT or _unexplained(pixels, outside, inside, edge_distance(shape, *placement)) > ERROR_SHARE:
        shape, placement = None, _extent(pieces == np.bincount(pieces[mask]).argmax())
    return Reading(color, shape, *_size_and_position(*placement), background)


def object_tokens(image: np.ndarray, reading: Reading) -> np.ndarray:
    """Which image tokens of a readable uint8 picture are mostly object: bool `[GRID * GRID]`, row by row."""
    assert reading.color is not None and reading.background is not None
    pixels = image.astype(np.float32)
    to_object = np.linalg.norm(pixels - np.array(COLORS[reading.color]), axis=-1)
    to_background = np.linalg.norm(pixels - np.array(BACKGROUNDS[reading.background]), axis=-1)
    side = SIZE // GRID
    share = (to_object < to_background).reshape(GRID, side, GRID, side).mean((1, 3))
    return (share > 0.5).flatten()


def _extent(mask: np.ndarray) -> tuple[float, float, float]:
    """Centre x, centre y and half the longer side of the box around an object."""
    rows, columns = (np.flatnonzero(mask.any(axis)) for axis in (1, 0))
    bottom, right = rows[-1] + 1, columns[-1] + 1
    return (columns[0] + right) / 2, (rows[0] + bottom) / 2, max(right - columns[0], bottom - rows[0]) / 2


def _size_and_position(x: float, y: float, radius: float) -> tuple[str | None, str | None]:
    size = min(RADII, key=lambda name: abs(RADII[name] - radius))
    cell = tuple(int(np.argmin([abs(center - at) for center in CENTERS])) for at in (x, y))
    off = max(abs(CENTERS[index] - at) for index, at in zip(cell, (x, y), strict=True))
    position = next(name for name, where in POSITIONS.items() if where == cell)
    return size if abs(RADII[size] - radius) <= OFF_SIZE else None, position if off <= OFF_CENTER else None


def _unexplained(pixels: np.ndarray, outside: np.ndarray, inside: np.ndarray, distance: np.ndarray) -> float:
    """Share of the picture's 4x4 blocks whose mean color is not that of the redrawn scene, edges left out.

    `distance` is that of each pixel from the object's edge, negative inside.
    """
    error = pixels - np.where((distance < 0)[..., None], inside, outside)
    clear = (abs(distance) > _EDGE).astype(np.float32)
    blocks = (SIZE // 4, 4, SIZE // 4, 4)
    count = clear.reshape(blocks).sum((1, 3))
    total = (error * clear[..., None]).reshape(*blocks, 3).sum((1, 3))
    wrong = np.linalg.norm(total, axis=-1) > ERROR_SIZE * np.maximum(count, 4)
    return float(wrong.mean())


def _nearest(rgb: np.ndarray, names: dict[str, tuple[int, int, int]]) -> str | None:
    distances = {name: float(np.linalg.norm(rgb - np.array(value) / 255)) for name, value in names.items()}
    name = min(distances, key=lambda key: distances[key])
    return name if distances[name] <= COLOR_TOLERANCE else None


def _best_shape(coverage: np.ndarray) -> tuple[str, tuple[float, float, float], float]:
    """The shape that overlaps most with an object, where it must then lie, and the overlap (IoU).

    Each shape is fitted by centre of mass and area, which a softened corner hardly moves.
    """
    mask = coverage > 0.5
    weight = np.where(coverage > 0.2, coverage, 0)  # below that it is noise; above, it places edges between pixels
    area = float(weight.sum())
    best = ("", (0.0, 0.0, 0.0), -1.0)
    along = np.arange(SIZE) + 0.5
    x, y = float(weight.sum(0) @ along) / area, float(weight.sum(1) @ along) / area
    for shape, (unit_area, unit_drop) in _MOMENTS.items():
        radius = float(np.sqrt(area / unit_area))
        placement = (x, y - unit_drop * radius, radius)
        drawn = shape_coverage(shape, *placement) > 0.5
        overlap = float((drawn & mask).sum() / (drawn | mask).sum())
        if overlap > best[2]:
            best = (shape, placement, overlap)
    return best


def _moments(shape: str) -> tuple[float, float]:
    """Area and downward offset of the centre of mass of a shape of radius 1, from a drawing of it."""
    radius, center = 60.0, SIZE / 2
    coverage = shape_coverage(shape, center, center, radius)
    drop = (coverage.sum(1) * (np.arange(SIZE) + 0.5 - center)).sum() / coverage.sum()
    return float(coverage.sum()) / radius**2, float(drop) / radius


_MOMENTS = {shape: _moments(shape) for shape in SHAPES}
