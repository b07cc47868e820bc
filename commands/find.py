"""`fluxtionary find`: which features of a dictionary a phrase moves."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated

import tyro

from ..training.capture import Capture
from ..training.models import DEMO_MODELS, Model, ModelError, load
from ..training.sampling import Drawing, check_size
from .atlas import check_fits
from .source import dictionary_named


@dataclass(frozen=True)
class Find:
    """Search a dictionary by words, without labels: draw pictures with and without a phrase, and compare."""

    dictionary: tyro.conf.Positional[str]
    """A dictionary file (.safetensors), or demo for the one that comes with the demo Flux."""
    phrase: tyro.conf.Positional[str]
    """What to look for, such as "red circle"; for a background of the demo, "tan background"."""
    top: int = 10
    """Features to show."""
    pairs: int = 24
    """Pairs of pictures, with the phrase and without: more tell features apart better."""
    seed: int = 0
    """Seed of the pictures."""
    model: Annotated[Model, tyro.conf.arg(name="")] = field(default_factory=Model)
    capture: Annotated[Capture, tyro.conf.arg(name="")] = field(default_factory=Capture)
    sampling: Drawing = field(default_factory=Drawing)

    def __post_init__(self) -> None:
        if self.top < 1 or self.pairs < 2:
            raise ModelError(f"top must be at least 1 and pairs at least 2, found {self.top} and {self.pairs}")
        check_size(self.model.model, self.sampling)

    def run(self) -> None:
        from ..interpretation.query import pairs_in_contexts, pairs_of_scenes, rank_features

        dictionary = dictionary_named(self.dictionary)
        make = pairs_of_scenes if self.model.model in DEMO_MODELS else pairs_in_contexts
        pairs = make(self.phrase, self.pairs, self.seed)
        pipeline = load(self.model)
        check_fits(dictionary, pipeline)
        sampling = self.sampling.resolved(self.model.model, pipeline)
        found = rank_features(pipeline, dictionary, pairs, sampling, self.capture)
        raised = [one for one in found if one.score > 0]
        if not raised:
            print(f"{self.phrase!r} raises no feature of the dictionary {self.dictionary}")
            return
        print("feature   score  raised in  difference")
        for one in raised[: self.top]:
            print(f"{one.feature:7d} {one.score:7.2f} {one.pairs:9.0%}  {one.difference:.3g}")
