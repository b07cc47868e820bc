"""Reading a scene's factors back from pixels alone, or saying that they cannot be read.

The reading is checked by drawing it again: what was read must explain the picture, so noise, blends, half
painted objects and second objects are *unreadable* rather than guessed at.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from .scenes import BACKGROUNDS, CENTERS, COLORS, POSITIONS, RADII, SHAPES, SIZE, edge_distance, shape_coverage

COLOR_TOLERANCE = 0.18
"""Largest RGB distance (channels in [0, 1]) from a named colour; about half the distance between the closest two."""
FIT = 0.80
"""Smallest overlap (IoU) of the object with the shape it is read as."""
ERROR_SHARE = 0.01
"""Largest share of the picture's 4x4 blocks that may differ from the redrawn reading by more than `ERROR_SIZE`."""
ERROR_SIZE = 0.10

_EDGE = 2.5  # pixels either side of an edge, which every decoder draws its own way
_FRAME = 4  # pixels at the border that no object ever touches


class Reading(NamedTuple):
    """Factors read from a picture; `readable` is False, and every factor None, where none can be told."""

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

    # The object's colour is the median of what clearly differs from the background.
    away = np.linalg.norm(pixels - outside, axis=-1)
    differs = away > 0.18
    if not 150 <= differs.sum() <= 5000:
        return UNREADABLE
    inside = np.median(pixels[away > 0.7 * np.quantile(away[differs], 0.8)], axis=0)
    color = _nearest(inside, COLORS)
    if color is None:
        return UNREADABLE

    contrast = inside - outside
    coverage = np.clip((pixels - outside) @ contrast / (contrast @ contrast), 0, 1)
    shape, placement, overlap = _best_shape(coverage)
    if shape is None or overlap < FIT:
        return UNREADABLE
    if _unexplained(pixels, outside, inside, shape, placement) > ERROR_SHARE:
        return UNREADABLE

    x, y, radius = placement
    size = min(RADII, key=lambda name: abs(RADII[name] - radius))
    cell = tuple(int(np.argmin([abs(center - at) for center in CENTERS])) for at in (x, y))
    position = next(name for name, where in POSITIONS.items() if where == cell)
    return Reading(color, shape, size, position, background)


def _unexplained(
    pixels: np.ndarray, outside: np.ndarray, inside: np.ndarray, shape: str, placement: tuple[float, float, float]
) -> float:
    """Share of the picture's 4x4 blocks whose mean colour is not that of the redrawn scene, edges left out."""
    distance = edge_distance(shape, *placement)
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


def _best_shape(coverage: np.ndarray) -> tuple[str | None, tuple[float, float, float], float]:
    """The shape that overlaps most with an object, where it must then lie, and the overlap (IoU).

    Each shape is fitted by centre of mass and area, which a softened corner hardly moves.
    """
    mask = coverage > 0.5
    weight = np.where(coverage > 0.2, coverage, 0)  # below that it is noise; above, it places edges between pixels
    area = float(weight.sum())
    best: tuple[str | None, tuple[float, float, float], float] = (None, (0.0, 0.0, 0.0), 0.0)
    if not mask.any():
        return best
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
