"""What is asked of the demo Flux when it is judged: captions with seeds, and what their pictures read as."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ..demo.captions import STYLES, caption_of
from ..demo.measure import Reading, measure
from ..demo.scenes import FACTORS, Scene, sample_scenes
from ..residual import Plan
from ..training.sampling import Sampling, draw_pictures

if TYPE_CHECKING:
    from ..training.sampling import FluxPipeline


@dataclass(frozen=True)
class Case:
    """One picture to ask for: a caption, the factors it names, the seed of the noise."""

    caption: str
    named: dict[str, str]
    seed: int


@dataclass(frozen=True)
class Judged:
    """A case with the picture that came of it and what `measure` reads there."""

    case: Case
    picture: np.ndarray
    reading: Reading

    def right(self, factor: str) -> bool:
        """Whether a named factor reads as named."""
        return self.reading.factors[factor] == self.case.named[factor]


def sample_cases(n: int, seed: int, split: str, always: Sequence[str] = (), never: Sequence[str] = ()) -> list[Case]:
    """Cases from one split, each naming a random subset of the factors (at least one) of one of its scenes.

    `always` and `never` are factors that every, or no, caption names. The noise seed is the scene's.
    """
    rng = np.random.default_rng([seed, 11])
    cases = []
    for scene in sample_scenes(n, seed, split):
        free = [name for name in FACTORS if name not in always and name not in never]
        while True:
            chosen = {*always, *(name for name in free if rng.random() < 0.6)}
            if chosen:
                break
        cases.append(case_of(scene, {name for name in FACTORS if name in chosen}, STYLES[int(rng.random() < 0.3)]))
    return cases


def case_of(scene: Scene, factors: set[str], style: str = "sentence") -> Case:
    named = {name: value for name, value in scene.factors.items() if name in factors}
    return Case(caption_of(named, style), named, scene.seed % 2**31)


def judge(pipeline: FluxPipeline, cases: Sequence[Case], sampling: Sampling, plan: Plan | None = None) -> list[Judged]:
    """Draw every case under a plan and read the pictures."""
    pictures = draw_pictures(pipeline, [c.caption for c in cases], [c.seed for c in cases], sampling, plan)
    return [Judged(case, picture, measure(picture)) for case, picture in zip(cases, pictures, strict=True)]


def adherence(judged: Sequence[Judged]) -> dict[str, float]:
    """Share of pictures in which each factor reads as its caption names it; unreadable counts as wrong."""
    shares = {}
    for factor in FACTORS:
        named = [j for j in judged if factor in j.case.named]
        shares[factor] = sum(j.right(factor) for j in named) / len(named) if named else float("nan")
    shares["readable"] = sum(j.reading.readable for j in judged) / len(judged)
    return shares
