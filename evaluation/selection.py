"""Which features of a dictionary speak for which value of a factor, by the pictures of training captions."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from ..demo.measure import measure, object_tokens
from ..demo.scenes import FACTORS, GRID
from ..dictionaries import Dictionary, Noise
from ..residual import Site
from ..training.capture import Capture, PipelineStream, collect
from ..training.drawn import Drawn
from ..training.sampling import Sampling
from .cases import Case, sample_cases

if TYPE_CHECKING:
    from ..training.sampling import FluxPipeline


CHUNK = 8192
"""Tokens encoded at a time."""


@dataclass(frozen=True)
class ValueFeatures:
    """How much more each feature fires on objects with one value of a factor than on objects with another.

    `contrast` is its mean activation on the tokens of objects with the value, minus the mean over the other values of
    the same, float32 `[n_values, n_features]`: the mean difference of arXiv 2505.03189 in the dictionary's coordinates.
    """

    values: tuple[str, ...]
    contrast: Tensor
    density: Tensor
    """Share of tokens on which each feature is active `[n_features]`."""

    def top(self, value: str, count: int) -> list[int]:
        """The `count` features that speak most for a value."""
        return self.contrast[self.values.index(value)].topk(count).indices.tolist()


def find_value_features(dictionary: Dictionary, drawn: Iterable[Drawn], factor: str) -> ValueFeatures:
    """Read pictures, and compare features on the tokens of their objects, over all moments that were read.

    Where the object is and what value it has is read from the finished picture; unreadable ones do not count.
    """
    values, site = FACTORS[factor], Site.parse(dictionary.site)
    amount, size = torch.zeros(len(values), dictionary.n_features), torch.zeros(len(values), 1)
    active, count = torch.zeros(dictionary.n_features), 0
    for first, pictures, tokens in drawn:
        shows = torch.stack([_value_of_tokens(picture, factor) for picture in pictures])
        for rows in torch.arange(len(tokens[site].x)).split(CHUNK):
            part = tokens[site].rows(rows)
            code = dictionary.encode(part.x, moment=Noise(part.sigma))
            active += torch.bincount(code.indices[code.values != 0], minlength=dictionary.n_features)
            count += len(rows)
            shown = shows[part.picture - first, part.position]
            for i in range(len(values)):
                own = shown == i
                size[i] += own.sum()
                amount[i].index_add_(0, code.indices[own].flatten(), code.values[own].flatten().float())
    mean = amount / size.clamp_min(1)
    others = (mean.sum(0) - mean) / (len(values) - 1)
    return ValueFeatures(values, mean - others, active / max(count, 1))


def _value_of_tokens(picture: np.ndarray, factor: str) -> Tensor:
    """For each token the number of the value its object shows, -1 off the object `[tokens]`."""
    reading = measure(picture)
    value = reading.factors[factor]
    number = -1 if value is None else FACTORS[factor].index(value)
    on = object_tokens(picture, reading) if reading.readable else np.zeros(GRID * GRID, bool)
    return torch.from_numpy(np.where(on, number, -1))


def find_text_directions(
    pipeline: FluxPipeline, site: Site, cases: Sequence[Case], factor: str, sampling: Sampling
) -> dict[str, Tensor]:
    """For each value of a factor, the mean token of captions that name it minus that of the others `[d_model]`.

    Tokens are those of the first step, before the picture has told the text anything.
    """
    values = FACTORS[factor]
    captions, seeds = [case.caption for case in cases], [case.seed for case in cases]
    stream = PipelineStream(pipeline, captions, seeds, [site], Capture(moments="noise"), sampling)
    tokens = collect(batch[site] for batch in stream.batches())
    named = torch.tensor([values.index(case.named[factor]) for case in cases])[tokens.picture]
    mean = torch.stack([tokens.x[named == i].mean(0) for i in range(len(values))])
    others = (mean.sum(0) - mean) / (len(values) - 1)
    return dict(zip(values, mean - others, strict=True))


def naming_cases(each: int, seed: int, split: str, factor: str) -> list[Case]:
    """`each` cases for every value of a factor, all naming it."""
    wanted = dict.fromkeys(FACTORS[factor], each)
    kept = []
    for case in sample_cases(each * len(wanted) * 4, seed, split, always=[factor]):
        if wanted[case.named[factor]]:
            wanted[case.named[factor]] -= 1
            kept.append(case)
    if any(wanted.values()):
        raise ValueError(f"too few scenes of the {split} split name every {factor}: {wanted} are missing")
    return kept
