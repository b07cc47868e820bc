"""Drawn scenes with known factors: the world the demo Flux was trained on.

A scene is one object on a plain background. Five factors describe it; its seed moves the object by a few
pixels. `draw` makes the picture, `token_coverage` says which image tokens the object lies on, and `split_of`
says which part of the data a combination of factors belongs to. Reading the factors back from pixels is
`demo.measure`; putting them into words is `demo.captions`.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cached_property

import numpy as np

SIZE = 128
"""Side of a picture in pixels."""
GRID = 8
"""Side of the token grid: one Flux image token covers 16x16 pixels (8x VAE, 2x2 packing)."""

COLORS = {
    "red": (220, 40, 40),
    "orange": (245, 140, 20),
    "yellow": (250, 225, 50),
    "green": (40, 165, 70),
    "cyan": (70, 215, 225),
    "blue": (50, 80, 230),
    "purple": (140, 50, 190),
    "pink": (250, 140, 200),
}
BACKGROUNDS = {
    "black": (16, 16, 20),
    "gray": (128, 128, 132),
    "white": (244, 244, 240),
    "navy": (24, 40, 110),
    "brown": (104, 64, 32),
    "tan": (200, 170, 125),
}
SHAPES = ("circle", "square", "triangle", "cross", "ring")
RADII = {"small": 15.0, "large": 25.0}
CENTERS = (32.0, 64.0, 96.0)
"""Two tokens apart, and on a corner of four: a small object fills 2x2 tokens, a large one 4x4, the same way at every
position, so that the demo Flux need not learn each shape nine times."""
POSITIONS = {
    "top left": (0, 0),
    "top": (1, 0),
    "top right": (2, 0),
    "left": (0, 1),
    "center": (1, 1),
    "right": (2, 1),
    "bottom left": (0, 2),
    "bottom": (1, 2),
    "bottom right": (2, 2),
}
"""Column and row of each position in a 3x3 grid of `CENTERS`."""

FACTORS: dict[str, tuple[str, ...]] = {
    "color": tuple(COLORS),
    "shape": SHAPES,
    "size": tuple(RADII),
    "position": tuple(POSITIONS),
    "background": tuple(BACKGROUNDS),
}
SPLITS = ("train", "validation", "test", "unseen")

_JITTER = 1.0  # pixels, either way, of the centre; the radius varies by 3 %
_PIXELS = np.arange(SIZE) + 0.5


@dataclass(frozen=True)
class Scene:
    """The five factors of a drawing and the seed of its small displacement."""

    color: str
    shape: str
    size: str
    position: str
    background: str
    seed: int = 0

    @property
    def factors(self) -> dict[str, str]:
        return {name: getattr(self, name) for name in FACTORS}

    @property
    def split(self) -> str:
        return split_of(self.factors)

    @cached_property
    def placement(self) -> tuple[float, float, float]:
        """Centre x, centre y and radius in pixels, displaced by the seed."""
        draw = np.random.default_rng([self.seed, 7]).uniform(-1, 1, 3)
        column, row = POSITIONS[self.position]
        x, y = CENTERS[column] + _JITTER * draw[0], CENTERS[row] + _JITTER * draw[1]
        return x, y, RADII[self.size] * (1 + 0.03 * draw[2])


def split_of(factors: dict[str, str]) -> str:
    """The split of a combination: a tenth is `unseen`, the rest 70/15/15 `train`, `validation`, `test`.

    It depends on the factors alone (a hash of them), so no seed can move a combination from one to another.
    """
    text = "|".join(factors[name] for name in FACTORS)
    share = int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") / 2**64
    if share < 0.1:
        return "unseen"
    rest = (share - 0.1) / 0.9
    return "train" if rest < 0.70 else "validation" if rest < 0.85 else "test"


def sample_scenes(n: int, seed: int, split: str) -> list[Scene]:
    """`n` scenes drawn uniformly from the combinations of one split.

    The split is part of the seed, so equal seeds of two splits share no displacement.
    """
    if split not in SPLITS:
        raise ValueError(f"unknown split {split!r}: expected one of {', '.join(SPLITS)}")
    rng = np.random.default_rng([SPLITS.index(split), seed])
    scenes: list[Scene] = []
    while len(scenes) < n:
        factors = {name: values[rng.integers(len(values))] for name, values in FACTORS.items()}
        if split_of(factors) == split:
            scenes.append(Scene(**factors, seed=int(rng.integers(2**62))))
    return scenes


def shape_coverage(shape: str, x: float, y: float, radius: float) -> np.ndarray:
    """How much of each pixel a shape covers: float32 `[SIZE, SIZE]` in [0, 1], anti-aliased over one pixel."""
    return np.clip(0.5 - edge_distance(shape, x, y, radius), 0, 1).astype(np.float32)


def edge_distance(shape: str, x: float, y: float, radius: float) -> np.ndarray:
    """Distance of each pixel's centre from a shape's edge in pixels, negative inside: `[SIZE, SIZE]`."""
    dx, dy = _PIXELS[None, :] - x, _PIXELS[:, None] - y
    if shape == "circle":
        return np.hypot(dx, dy) - radius
    if shape == "square":
        return np.maximum(abs(dx), abs(dy)) - 0.86 * radius
    if shape == "triangle":
        # apex at the top; the slanted sides run from (0, -r) to (+-r, 0.75 r)
        slant = (abs(dx) * 1.75 - (dy + radius)) / np.hypot(1.75, 1.0)
        return np.maximum(slant, dy - 0.75 * radius)
    if shape == "cross":
        upright = np.maximum(abs(dx) - 0.32 * radius, abs(dy) - radius)
        level = np.maximum(abs(dx) - radius, abs(dy) - 0.32 * radius)
        return np.minimum(upright, level)
    if shape == "ring":
        from_center = np.hypot(dx, dy)
        return np.maximum(from_center - radius, 0.55 * radius - from_center)
    raise ValueError(f"unknown shape {shape!r}: expected one of {', '.join(SHAPES)}")


def draw(scene: Scene) -> np.ndarray:
    """The picture of a scene: uint8 `[SIZE, SIZE, 3]`, RGB."""
    coverage = shape_coverage(scene.shape, *scene.placement)[..., None]
    inside = np.array(COLORS[scene.color], np.float32)
    outside = np.array(BACKGROUNDS[scene.background], np.float32)
    return (coverage * inside + (1 - coverage) * outside).round().astype(np.uint8)


def token_coverage(scene: Scene) -> np.ndarray:
    """Share of each image token that the object covers: float32 `[GRID, GRID]`, row by row as Flux orders them."""
    side = SIZE // GRID
    return shape_coverage(scene.shape, *scene.placement).reshape(GRID, side, GRID, side).mean((1, 3))
