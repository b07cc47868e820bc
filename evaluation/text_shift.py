"""Steering by the text embedding: the mean difference of two kinds of captions is added to what the model is told."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from ..demo.scenes import FACTORS
from ..training.embeddings import embed
from .cases import Judged
from .harness import Candidate, Easel
from .steering import Target

if TYPE_CHECKING:
    from ..training.sampling import FluxPipeline


class Shift(NamedTuple):
    """What is added to every token of a prompt's T5 embedding `[d]`, and to its CLIP embedding `[d]`."""

    prompt: Tensor
    pooled: Tensor

    def times(self, prompt: float, pooled: float) -> Shift:
        return Shift(prompt * self.prompt, pooled * self.pooled)


@dataclass(frozen=True)
class ShiftedText(Candidate):
    """A candidate that changes what the model is told: from a value to what is added."""

    shift: Callable[[str], Shift] = field(kw_only=True)

    @property
    def edits(self) -> bool:
        return True


class TextEasel(Easel):
    """An easel that can draw such candidates too."""

    def _batch(self, pipeline: FluxPipeline, wanted: Sequence[tuple[Target, Candidate]]) -> list[Judged]:
        shifts = [
            candidate.shift(target.value) if isinstance(candidate, ShiftedText) else None
            for target, candidate in wanted
        ]
        with shifted(pipeline, shifts):
            return super()._batch(pipeline, wanted)


@contextmanager
def shifted(pipeline: FluxPipeline, shifts: Sequence[Shift | None]) -> Iterator[None]:
    """While inside, picture `i` of each call of the model is told `shifts[i]`, if any, more than its prompt says."""
    some = next((shift for shift in shifts if shift is not None), None)
    if some is None:
        yield
        return
    each = [some.times(0.0, 0.0) if shift is None else shift for shift in shifts]
    prompt = torch.stack([shift.prompt for shift in each])[:, None]
    pooled = torch.stack([shift.pooled for shift in each])

    def before(module: Any, args: tuple, kwargs: dict[str, Any]) -> tuple[tuple, dict[str, Any]]:
        for name, part in (("encoder_hidden_states", prompt), ("pooled_projections", pooled)):
            kwargs = kwargs | {name: kwargs[name] + part.to(kwargs[name])}
        return args, kwargs

    handle = pipeline.transformer.register_forward_pre_hook(before, with_kwargs=True)
    try:
        yield
    finally:
        handle.remove()


def text_shifts(pipeline: FluxPipeline, captions: Sequence[Sequence[str]], factor: str) -> Mapping[str, Shift]:
    """For every value the mean embedding of captions that name it less that of those that name others, over tokens.

    `captions` by caption, then by value. Each shift is as long as embeddings usually are from their mean, so that a
    factor of 1 is a strength of 1.
    """
    values = FACTORS[factor]
    flat = embed(pipeline, [words for one in captions for words in one])
    shifts = []
    for x in (flat.prompts.float(), flat.pooled.float()[:, None]):
        usual = (x - x.mean((0, 1))).square().sum(-1).mean().sqrt()
        mean = x.mean(1).unflatten(0, (-1, len(values))).mean(0)
        others = (mean.sum(0) - mean) / (len(values) - 1)
        shifts.append(usual * F.normalize(mean - others, dim=1))
    return {value: Shift(shifts[0][i], shifts[1][i]) for i, value in enumerate(values)}
