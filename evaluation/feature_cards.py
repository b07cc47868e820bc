"""Some features of a dictionary as a reader sees them: pictures with heat maps, label, scores, and an atom's source."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from ..atlas import Atlas, Feature
from ..atlas.entries import Source
from ..interpretation.pictures import Pictures
from .page import picture_uri

SHOWN = 4
"""Top pictures of each feature."""
Drawer = Callable[[Source], np.ndarray]
"""Draws the picture that an atom's source token is from: uint8 `[h, w, 3]`."""


@dataclass(frozen=True)
class Card:
    """One feature; pictures are data URLs.

    Attributes:
        rank: where it stands among the judged features of its dictionary: `"best"`, `"middle"` or `"worst"`.
        source: in words, of an ITDA atom; `source_picture` is its picture with the token marked.
    """

    number: int
    rank: str
    label: str
    scores: dict[str, float]
    density: float
    pictures: list[str] = field(default_factory=list)
    captions: list[str] = field(default_factory=list)
    source: str | None = None
    source_picture: str | None = None


def feature_cards(folder: Path, features: Sequence[int], drawer: Drawer, each: int = 2) -> list[Card]:
    """The `each` best, middle and worst of some judged features of an atlas, by their interpretation score.

    All three, because the best alone would show what nobody doubts.
    """
    with Atlas.open(folder) as atlas:
        pictures = Pictures(atlas)
        judged = [feature for feature in map(atlas.feature, features) if "interp" in feature.scores]
        judged.sort(key=lambda feature: (-feature.scores["interp"].value, feature.number))
        middle = max(len(judged) // 2 - each // 2, 0)
        parts = {"best": judged[:each], "middle": judged[middle : middle + each], "worst": judged[-each:]}
        shown: dict[int, Card] = {}
        for rank, some in parts.items():
            for feature in some:
                if feature.number not in shown:
                    shown[feature.number] = _card(atlas, pictures, feature, rank, drawer)
    return list(shown.values())


def _card(atlas: Atlas, pictures: Pictures, feature: Feature, rank: str, drawer: Drawer) -> Card:
    top = atlas.examples(feature.number, "top")[:SHOWN]
    source = feature.source
    return Card(
        feature.number,
        rank,
        feature.label or "",
        {name: score.value for name, score in feature.scores.items()},
        feature.density,
        [pictures.pair(feature.number, example.picture)[1]["image_url"]["url"] for example in top],
        [atlas.picture(example.picture).prompt for example in top],
        None if source is None else _described(source),
        None if source is None else _marked(drawer(source), source, tuple(atlas.header["grid"])),
    )


def _described(source: Source) -> str:
    place = f"row {source.row}, column {source.column}, sigma {source.sigma:.2f}"
    return f"“{source.prompt or 'no caption'}”, seed {source.seed}, {place}"


def _marked(pixels: np.ndarray, source: Source, grid: tuple[int, int]) -> str:
    """The picture with a frame about the token."""
    image = Image.fromarray(pixels)
    height, width = (pixels.shape[axis] / grid[axis] for axis in (0, 1))
    x, y = source.column * width, source.row * height
    pen = ImageDraw.Draw(image)
    for inset, color in ((0, "black"), (1, "white")):
        pen.rectangle((x + inset, y + inset, x + width - 1 - inset, y + height - 1 - inset), outline=color)
    return picture_uri(image)


def shown(value: float) -> str:
    if math.isnan(value):
        return "no figure"
    return f"{value:.1f}" if abs(value) >= 10 else f"{value:.3f}"
