"""How far a prompt is from those that a steering vector was made of: steering works in distribution only."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from ..dictionaries import SteeringVector
from .embeddings import Embedded, embed
from .prompt_pairs import Pair, groups

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
    """How near `prompt` is to those that `vector` was made of; None where its file has not two pairs of prompts.

    A prompt stands where the model's own text encoders put it: T5's mean over its words beside CLIP's pooled text,
    each of length 1, without the part along the vector's own contrast (the mean difference of the pairs), for what is
    steered is not to count. Its distance to the nearest prompt of the file is compared with the usual distance of these
    to the nearest of another pair: `value` is usual / distance, at most 1.

    Steering with contrastive vectors is reliable in distribution only (arXiv 2505.03189). The demo Flux cannot show it:
    every caption it understands is in its distribution, and vectors steer those that are far from theirs as well.
    """
    pairs = kept_pairs(vector)
    if len(pairs) < 2:
        return None
    group = {each: number for pair, number in zip(pairs, groups(pairs), strict=True) for each in pair}
    prompts = list(group)
    row = {each: number for number, each in enumerate(prompts)}
    places = _places(embed(pipeline, [*prompts, prompt]))
    contrast = torch.stack([places[row[pair.positive]] - places[row[pair.negative]] for pair in pairs]).mean(0)
    along = F.normalize(contrast, dim=0)
    free = places - (places @ along)[:, None] * along
    own, asked = free[:-1], free[-1:]
    distance, nearest = torch.cdist(asked, own)[0].min(0)
    usual = _usual_distance(own, torch.tensor([group[each] for each in prompts]))
    value = 1.0 if float(distance) <= usual else usual / float(distance)
    return Relatedness(value, prompts[int(nearest)], len(prompts))


def kept_pairs(vector: SteeringVector) -> list[Pair]:
    """The pairs of prompts that a vector's file keeps; none in a file from elsewhere, whatever it has there."""
    kept = vector.provenance.training.get("prompts")
    sides = [kept.get(side) for side in Pair._fields] if isinstance(kept, dict) else []
    if not all(isinstance(side, list) and all(isinstance(each, str) for each in side) for side in sides):
        return []
    return [Pair(*each) for each in zip(*sides, strict=False)]


def _places(text: Embedded) -> Tensor:
    """One row for each prompt, float64."""
    words = text.words.double()[:, :, None]
    mean = (text.prompts.double() * words).sum(1) / words.sum(1)
    return torch.cat([F.normalize(mean, dim=1), F.normalize(text.pooled.double(), dim=1)], 1)


def _usual_distance(own: Tensor, group: Tensor) -> float:
    """The median distance from a prompt to the nearest of another group of pairs."""
    apart = torch.cdist(own, own).masked_fill(group[:, None] == group[None, :], torch.inf)
    return float(apart.min(1).values.median())
