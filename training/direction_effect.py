"""What a direction does to a model's prediction, beside what the prompt does that it stands for."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ..dictionaries import Scale
from ..residual import Add, Plan, Site
from .embeddings import embed
from .first_steps import FirstSteps, Part, Size, Watching
from .prompt_pairs import Pair

if TYPE_CHECKING:
    from .sampling import FluxPipeline

STRENGTH = 0.6
"""Strength at which the effect of a direction is measured: one that steers well, on the demo Flux."""
PAIRS = 16
"""Pairs on which it is measured."""


def measure_effects(
    pipeline: FluxPipeline,
    pairs: Sequence[Pair],
    parts: Tensor,
    directions: Mapping[Site, Sequence[Tensor]],
    scales: Mapping[Site, Scale],
    watching: Watching,
    part: Part,
    size: Size,
) -> dict[Site, float]:
    """How alike are what adding a direction to a negative prompt changes, and what the positive prompt changes.

    The cosine of the two changes of the predicted velocity, averaged over up to `PAIRS` pairs, at the last noise level
    that was watched: 1 where the direction does what the prompt does, 0 where it does something else. Pair `i` is
    measured with `directions[site][parts[i]]`, which is to be made of other pairs, and from noise that none was made
    of.

    Why: a direction may tell activations apart that later blocks do not read. Choosing what to steer with by its
    effect on the output is what makes features steer (arXiv 2505.20063).
    """
    chosen = sorted(random.Random(0).sample(range(len(pairs)), min(PAIRS, len(pairs))))
    sums = dict.fromkeys(directions, 0.0)
    for start in range(0, len(chosen), size.batch):
        batch = chosen[start : start + size.batch]
        positive, negative = (
            embed(pipeline, [pairs[i][side] for i in batch], watching.length(pipeline)) for side in (0, 1)
        )
        seeds = [(watching.seed + watching.seeds + start + row) % 2**64 for row in range(len(batch))]
        begun = FirstSteps(pipeline, seeds, size, watching.guidance)
        for sigma, after in pairwise(part.sigmas[:-1]):
            begun.step(begun.velocity(negative, sigma), sigma, after)
        sigma = part.sigmas[-2]
        plain = begun.velocity(negative, sigma)
        wanted = (begun.velocity(positive, sigma) - plain).flatten(1)
        for site, made in directions.items():
            rows = [parts[i] for i in batch]
            plan = Plan(
                Add(
                    site,
                    direction.float(),
                    STRENGTH,
                    scales[site],
                    pictures=frozenset(row for row, own in enumerate(rows) if own == number),
                )
                for number, direction in enumerate(made)
            )
            change = (begun.velocity(negative, sigma, plan) - plain).flatten(1)
            sums[site] += float(torch.cosine_similarity(change, wanted).sum())
    pipeline.maybe_free_model_hooks()
    return {site: total / len(chosen) for site, total in sums.items()}
