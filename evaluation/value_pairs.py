"""Contrastive directions for every value of a factor: pairs of captions that differ in that value alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from torch import Tensor

from ..demo.captions import STYLES, caption_of
from ..demo.scenes import FACTORS
from ..dictionaries import ContrastMeter, Provenance, Scale, SteeringVector
from ..residual import Site
from ..training.contrast import PROMPTS_KEPT, Method, maker
from ..training.first_steps import Size, Watching, part_of
from ..training.pair_sides import watch_pairs
from ..training.prompt_pairs import Pair
from .cases import Case

if TYPE_CHECKING:
    from ..training.sampling import FluxPipeline


def wordings(case: Case, factor: str) -> tuple[str, ...]:
    """The caption of a case once with every value of a factor; what else it names stays."""
    style = STYLES[1] if "," in case.caption else STYLES[0]
    named = [{name: (case.named | {factor: value}).get(name) for name in FACTORS} for value in FACTORS[factor]]
    return tuple(caption_of({name: word for name, word in one.items() if word}, style) for one in named)


@dataclass(frozen=True)
class ValueSides:
    """What the model thinks of captions that name one value of a factor, and of the same with another value.

    Pair `i` of a value is made of caption `i`; which other value is its negative side goes round.

    Attributes:
        captions: by caption, then by value, `wordings`.
        meters: by site; pair `i` of value number `v` is number `i * n_values + v`.
    """

    factor: str
    captions: Sequence[tuple[str, ...]]
    meters: Mapping[Site, ContrastMeter]

    @property
    def sites(self) -> list[Site]:
        return list(self.meters)

    def pairs(self, value: str, which: slice = slice(None)) -> list[Pair]:
        """The pairs of a value, or some of them by number."""
        number = FACTORS[self.factor].index(value)
        return [_pair(words, i, number) for i, words in enumerate(self.captions)][which]

    def directions(
        self, site: Site, which: slice = slice(None), method: Method = "mean difference"
    ) -> dict[str, Tensor]:
        """For every value the direction `[d_model]` that a method makes of its pairs, or of some by number."""
        values, make = FACTORS[self.factor], maker(method)
        sides = self.meters[site].sides().unflatten(0, (-1, len(values)))
        return {value: make(sides[which, number]) for number, value in enumerate(values)}

    def scale(self, site: Site) -> Scale:
        """The size of the activations at a site."""
        return self.meters[site].scale()

    def vector(self, site: Site, value: str) -> SteeringVector:
        """The mean difference of a value as a steering vector that knows its prompts, as one in a file does."""
        kept = self.pairs(value, slice(PROMPTS_KEPT))  # the captions are drawn at random, so are the first
        prompts = {side: [getattr(pair, side) for pair in kept] for side in Pair._fields}
        about = Provenance(training={"method": "mean difference", "pairs": len(self.captions), "prompts": prompts})
        return SteeringVector({str(site): self.directions(site)[value]}, {str(site): self.scale(site)}, about)


def watch_values(
    pipeline: FluxPipeline, cases: Sequence[Case], factor: str, sites: Sequence[Site], size: Size | None = None
) -> ValueSides:
    """Watch the captions of some cases at some sites, each with every value of a factor, as `contrast` does."""
    captions = [wordings(case, factor) for case in cases]
    pairs = [_pair(words, i, value) for i, words in enumerate(captions) for value in range(len(words))]
    watching = Watching()
    part = part_of(pipeline, watching)
    meters = watch_pairs(pipeline, pairs, sites, watching, part, size or Size(), progress=False)
    return ValueSides(factor, captions, meters)


def _pair(words: Sequence[str], number: int, value: int) -> Pair:
    other = (value + 1 + number % (len(words) - 1)) % len(words)
    return Pair(words[value], words[other])
