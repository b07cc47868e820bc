"""What an atlas holds: features, their examples, and the pictures these are from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

import numpy as np

Kind = Literal["top", "spread"]
"""Examples are the pictures in which a feature is most active, or a uniform sample of all in which it is active."""


class Score(NamedTuple):
    """A figure in [0, 1] with its 95 % interval, and how many judgments it rests on."""

    value: float
    low: float
    high: float
    n: int


class Source(NamedTuple):
    """Where an ITDA atom comes from: a token of a picture."""

    prompt: str
    seed: int
    sigma: float
    row: int
    column: int


@dataclass(frozen=True)
class Feature:
    """One feature of a dictionary.

    A **heat map** is a feature's code on the token grid of one picture, averaged over the moments that were read;
    values are in the dictionary's own units.

    Attributes:
        number: its place in the dictionary.
        pictures: number of pictures in which it was active.
        density: share of all tokens on which it was active.
        mean: mean of its values over the tokens on which it was active.
        peak: the largest value of any of its heat maps, by magnitude.
        spread: root mean square distance of a heat map's weight from its centre, as a share of what an even map has;
            mean over its pictures. 0 is one token, 1 is everywhere.
        coverage: share of a picture's tokens on which its heat map is not 0, mean over its pictures.
        profile: density at each of the atlas's noise levels (`sigmas` of the header).
        companions: features most active together with it, each with its Jaccard similarity over (picture, token).
        output_score: relative change of the model's velocity by a unit of it; None where it was not measured.
        source: of an ITDA atom.
        label, explanation: a few words, and why; None where nobody has explained it.
        scores: figures of the label by name: `"interp"`, `"interp_paper"`, `"region"`; another label has none of them.
    """

    number: int
    pictures: int = 0
    density: float = 0.0
    mean: float = 0.0
    peak: float = 0.0
    spread: float = 0.0
    coverage: float = 0.0
    profile: tuple[float, ...] = ()
    companions: tuple[tuple[int, float], ...] = ()
    output_score: float | None = None
    source: Source | None = None
    label: str | None = None
    explanation: str | None = None
    scores: Mapping[str, Score] = field(default_factory=dict)


class Example(NamedTuple):
    """A picture in which a feature is active.

    Attributes:
        picture: its number.
        peak: the largest value of the feature's heat map there, by magnitude.
        kind: `"top"`, or `"spread"`: drawn uniformly from all pictures in which the feature is active.
        rank: place among examples of its kind, from 0, the largest peak first.
    """

    picture: int
    peak: float
    kind: Kind
    rank: int


class Picture(NamedTuple):
    """What a picture was drawn from."""

    number: int
    prompt: str
    seed: int


class Maps(NamedTuple):
    """All heat maps of one picture, sparse: entry `i` says that `feature[i]` has `value[i]` at `token[i]`.

    Sorted by feature, then token (row by row of the grid). `feature` int32, `token` int32, `value` float32, all `[n]`.
    """

    feature: np.ndarray
    token: np.ndarray
    value: np.ndarray
