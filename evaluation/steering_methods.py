"""The methods that the steering study compares: directions for every value, and the settings each may choose among."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ..demo.scenes import FACTORS
from ..dictionaries import Dictionary, Neurons, Scale
from ..residual import Add, Plan, Site, Window
from .harness import Candidate, Method
from .recipes import random_feature, sum_of_features
from .selection import ValueFeatures
from .text_shift import Shift, ShiftedText
from .value_pairs import ValueSides

TITLES = {
    "feature": "SAE features",
    "itda": "ITDA atoms",
    "neuron": "MLP neurons",
    "contrast": "Contrastive vector",
    "probe": "Linear probe",
    "text_embedding": "Text-embedding difference",
    "prompt_edit": "Prompt edit",
    "random_direction": "Random directions",
    "random_feature": "Random features",
}
"""What the methods are called, in the order in which they are shown."""


class Rule(NamedTuple):
    """How strongly something is added, and in which part of sampling, by shares of it."""

    strength: float
    start: float = 0.0
    end: float = 1.0

    def window(self, to_sigma: Callable[[float], float]) -> Window:
        return Window.from_percent(self.start, self.end, to_sigma)


@dataclass(frozen=True)
class Directions:
    """One direction for each value at one site, with the size of the activations there.

    `about` is what a report says of how they were made.
    """

    site: Site
    by_value: Mapping[str, Tensor]
    scale: Scale | None
    about: Mapping[str, Any] = field(default_factory=dict)

    def candidate(self, rule: Rule, to_sigma: Callable[[float], float]) -> Candidate:
        """These directions added by a rule."""
        settings = {"site": str(self.site), **rule._asdict(), **self.about}
        return Candidate(settings, partial(self._plan, rule.strength, rule.window(to_sigma)))

    def _plan(self, strength: float, window: Window, value: str) -> Plan:
        return Plan([Add(self.site, self.by_value[value].float(), strength, self.scale, window=window)])


class Choice(NamedTuple):
    """Directions, and a rule by which they may be added: one candidate of a method."""

    directions: Directions
    rule: Rule


@dataclass(frozen=True)
class Way:
    """A method of adding directions, whose choices can be taken apart again, for curves about the one found."""

    name: str
    choices: tuple[Choice, ...]
    to_sigma: Callable[[float], float]

    @property
    def method(self) -> Method:
        return Method(
            self.name, tuple(choice.directions.candidate(choice.rule, self.to_sigma) for choice in self.choices)
        )


def feature_directions(
    dictionary: Dictionary, found: ValueFeatures, counts: Sequence[int], scale: Scale | None = None
) -> list[Directions]:
    """The sums of the features that speak most for each value, less the mean of all values' sums, for several counts.

    Neurons are added where their block writes; `scale` is the size of the activations there, for dictionaries
    that carry none.
    """
    site = Site.parse(dictionary.direction_site if isinstance(dictionary, Neurons) else dictionary.site)
    made = []
    for count in counts:
        sums = {value: sum_of_features(dictionary, found, value, count) for value in found.values}
        mean = torch.stack(list(sums.values())).mean(0)
        by_value = {value: own - mean for value, own in sums.items()}
        made.append(Directions(site, by_value, dictionary.scale or scale, {"features": count}))
    return made


def pair_directions(sides: ValueSides, method: Any = "mean difference") -> list[Directions]:
    """What a method makes of all pairs, at each site."""
    return [Directions(site, sides.directions(site, method=method), sides.scale(site)) for site in sides.sites]


def contrast_choices(
    made: Sequence[Directions], image: Sequence[float], text: Sequence[float], ends: Sequence[float]
) -> tuple[Choice, ...]:
    """Every site with every strength of its stream and every part of sampling from its beginning."""
    return tuple(choice for one in made for choice in choices([one], image if one.site.stream == "img" else text, ends))


def choices(made: Sequence[Directions], strengths: Sequence[float], ends: Sequence[float]) -> tuple[Choice, ...]:
    """Everything that was made with every strength and every part of sampling from its beginning."""
    return tuple(Choice(one, Rule(strength, end=end)) for one in made for strength in strengths for end in ends)


def at_random(like: Sequence[Choice], factor: str, d_model: int) -> tuple[Choice, ...]:
    """The control: for each choice another random direction a value, added at the same site by the same rule."""
    values, made = FACTORS[factor], []
    for seed, (directions, rule) in enumerate(like):
        drawn = torch.randn(len(values), d_model, generator=torch.Generator().manual_seed(seed))
        own = Directions(directions.site, dict(zip(values, drawn, strict=True)), directions.scale, {"seed": seed})
        made.append(Choice(own, rule))
    return tuple(made)


def of_random_features(like: Sequence[Choice], dictionary: Dictionary, found: ValueFeatures) -> tuple[Choice, ...]:
    """The control: likewise with random features about as dense as each value's own best."""
    made = []
    for seed, (directions, rule) in enumerate(like):
        drawn = {
            value: random_feature(dictionary, found, value, 1000 * seed + i) for i, value in enumerate(found.values)
        }
        made.append(Choice(Directions(directions.site, drawn, directions.scale, {"features": 1, "seed": seed}), rule))
    return tuple(made)


def text_embedding(shifts: Mapping[str, Shift], strengths: Sequence[float]) -> Method:
    """The difference of text embeddings: added to the prompt's tokens, to what is pooled of it, or to both."""

    def shift(prompt: float, pooled: float, value: str) -> Shift:
        return shifts[value].times(prompt, pooled)

    parts = {"prompt": (1.0, 0.0), "pooled": (0.0, 1.0), "both": (1.0, 1.0)}
    return Method(
        "text_embedding",
        tuple(
            ShiftedText({"strength": s, "part": name}, shift=partial(shift, s * prompt, s * pooled))
            for name, (prompt, pooled) in parts.items()
            for s in strengths
        ),
    )
