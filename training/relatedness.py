"""How far a prompt is from those that a steering vector was made of: steering works in distribution only."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from ..dictionaries import SteeringVector
from .embeddings import Embedded, embed

if TYPE_CHECKING:
    from .sampling import FluxPipeline


class Relatedness(NamedTuple):
    """A prompt beside the prompts of a vector's pairs.

    Attributes:
        value: from 0 to 1; 1 where the prompt is as near to those of the pairs as these are to one another.
        nearest: the closest of them.
        prompts: how many it was compared with.
    """

    value: float
    nearest: str
    prompts: int

    def __str__(self) -> str:
        return f"{self.value:.2f} (1 is as its own prompts are; nearest of {self.prompts}: {self.nearest!r})"


def relatedness(vector: SteeringVector, pipeline: FluxPipeline, prompt: str) -> Relatedness | None:
    """How near `prompt` is to the prompts that `vector` was made of; None where its file does not say which.

    A prompt stands where the model's own text encoders put it: T5's mean over its words beside CLIP's pooled text,
    each of length 1, without the part along the vector's own contrast (the mean difference of the pairs), for what is
    steered is not to count. Its distance to the nearest prompt of the file, against the usual distance of these to the
    nearest of another pair: `value` is usual / distance, at most 1. Of one pair the usual distance is that of its sides.

    Steering with contrastive vectors is reliable in distribution only (arXiv 2505.03189).
    """
    kept = _prompts(vector.provenance.training)
    if kept is None:
        return None
    positive, negative = kept
    places = _places(embed(pipeline, [*positive, *negative, prompt]))
    count = len(positive)
    contrast = places[:count] - places[count : 2 * count]
    along = F.normalize(contrast.mean(0), dim=0)
    free = places - (places @ along)[:, None] * along
    own, asked = free[:-1], free[-1:]
    distance, nearest = torch.cdist(asked, own)[0].min(0)
    usual = _usual_distance(own, count) if count > 1 else float(contrast.norm())
    value = 1.0 if float(distance) <= usual else usual / float(distance)
    return Relatedness(value, [*positive, *negative][int(nearest)], 2 * count)


def _places(text: Embedded) -> Tensor:
    """One row for each prompt, float64."""
    words = text.words.double()[:, :, None]
    mean = (text.prompts.double() * words).sum(1) / words.sum(1)
    return torch.cat([F.normalize(mean, dim=1), F.normalize(text.pooled.double(), dim=1)], 1)


def _usual_distance(own: Tensor, pairs: int) -> float:
    """The median distance from a prompt to the nearest of another pair."""
    apart = torch.cdist(own, own)
    pair = torch.arange(pairs).repeat(2)
    return float(apart.masked_fill(pair[:, None] == pair[None, :], torch.inf).min(1).values.median())


def _prompts(training: dict[str, Any]) -> tuple[list[str], list[str]] | None:
    """Both sides of the pairs that a header keeps; a file from elsewhere may have anything there."""
    kept = training.get("prompts")
    sides = [kept.get(name) for name in ("positive", "negative")] if isinstance(kept, dict) else []
    if not all(isinstance(side, list) and side and all(isinstance(one, str) for one in side) for side in sides):
        return None
    return (sides[0], sides[1]) if sides and len(sides[0]) == len(sides[1]) else None
