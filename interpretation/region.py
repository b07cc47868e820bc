"""Whether a label says where a feature is active: a model marks the place in plain pictures."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from ..atlas import Atlas, Score
from .asking import ask_all
from .endpoint import Client, Endpoint, NoAnswer, Usage
from .pictures import Pictures
from .questions import Place, locate_question
from .scoring import mean_score
from .trials import HOT, Trials, spaced


class Region(NamedTuple):
    """How far a label's place on a picture and the feature's heat map overlap (IoU over tokens)."""

    feature: int
    picture: int
    iou: float


class Located(NamedTuple):
    """Regions by feature and picture, what of which features was not located, and what it took."""

    regions: list[Region]
    missing: dict[int, str]
    usage: Usage


def locate(
    atlas: Atlas,
    labels: Mapping[int, str],
    endpoint: Endpoint,
    pictures: int = 4,
    progress: bool = True,
    trials: Trials | None = None,
) -> Located:
    """Have labels marked on up to `pictures` held-out pictures of each feature, shown plain.

    The truth is where the heat map lies above half of its own peak; a token is marked where at least half of it is.
    """
    trials = trials or Trials(atlas)
    shown = Pictures(atlas)
    asked: list[tuple[int, int]] = []
    missing: dict[int, str] = {}
    for number in sorted(labels):
        examples = spaced(trials.held_out(number), pictures)
        if not examples:
            missing[number] = "no pictures with it that were not explained"
        asked += [(number, example.picture) for example in examples]
    regions: list[Region] = []
    reasons: dict[int, list[str]] = {}
    with Client(endpoint) as client:
        questions = (((f, p), lambda f=f, p=p: locate_question(labels[f], shown.plain(p))) for f, p in asked)
        for (feature, picture), answer in ask_all(client, questions, len(asked), "locating", progress):
            if isinstance(answer, NoAnswer):
                reasons.setdefault(feature, []).append(str(answer))
            else:
                heat = np.abs(atlas.heat_map(feature, picture))
                regions.append(Region(feature, picture, iou(marked(answer, heat.shape), heat > HOT * heat.max())))
    for number, found in sorted(reasons.items()):
        missing[number] = f"{len(found)} questions without an answer: {found[0]}"
    return Located(sorted(regions), dict(sorted(missing.items())), client.usage)


def region_score(regions: list[Region]) -> dict[int, Score]:
    """Mean IoU by feature."""
    found: dict[int, list[float]] = {}
    for region in regions:
        found.setdefault(region.feature, []).append(region.iou)
    return {number: mean_score(values) for number, values in found.items()}


def marked(place: Place, grid: tuple[int, ...]) -> np.ndarray:
    """Tokens of a grid `[rows, columns]` that lie at least half in a place: bool of that shape."""
    inside = np.zeros(grid, bool)
    for box in place.boxes:
        down = _overlap(box.top, box.bottom, grid[0])
        across = _overlap(box.left, box.right, grid[1])
        inside |= np.outer(down, across) >= 0.5
    return ~inside if place.outside else inside


def iou(one: np.ndarray, other: np.ndarray) -> float:
    """Size of the intersection over that of the union; 0 where both are empty."""
    union = int((one | other).sum())
    return int((one & other).sum()) / union if union else 0.0


def _overlap(start: float, end: float, count: int) -> np.ndarray:
    """Share of each of `count` equal parts of [0, 1] that lies between two points."""
    edges = np.linspace(0, 1, count + 1)
    return np.clip(np.minimum(end, edges[1:]) - np.maximum(start, edges[:-1]), 0, None) * count
