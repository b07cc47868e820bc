"""Ways of steering a factor of the demo Flux, and their controls: from a value to the edits that ask for it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from ..dictionaries import Dictionary
from ..residual import ALWAYS, Add, Plan, Site, Window
from .harness import Candidate, Method
from .selection import ValueFeatures


@dataclass(frozen=True)
class Recipe:
    """One rule for all values: how many features of each are summed, how strongly they are added, and when."""

    features: int = 3
    strength: float = 0.3
    window: Window = ALWAYS

    def describe(self) -> dict[str, float | int | None]:
        """Plain numbers for a report; sigma bounds are None where open."""
        bounds = [None if abs(bound) == float("inf") else bound for bound in self.window]
        return {
            "features": self.features,
            "strength": self.strength,
            "sigma_start": bounds[0],
            "sigma_end": bounds[1],
        }


def feature_plan(dictionary: Dictionary, found: ValueFeatures, value: str, recipe: Recipe) -> Plan:
    """Steer towards a value with dictionary features alone: its own, less the mean of those of all values.

    What all values' features share (that there is an object, and a large one) would otherwise be added too.
    """
    toward = {each: sum_of_features(dictionary, found, each, recipe.features) for each in found.values}
    return direction_plan(dictionary, toward[value] - torch.stack(list(toward.values())).mean(0), recipe)


def one_feature_plan(dictionary: Dictionary, found: ValueFeatures, value: str, recipe: Recipe) -> Plan:
    """Steer with the one feature that speaks most for a value."""
    return direction_plan(dictionary, dictionary.direction(found.top(value, 1)[0]), recipe)


def sum_of_features(dictionary: Dictionary, found: ValueFeatures, value: str, count: int) -> Tensor:
    """The top features of a value in the shares in which its objects have more of them, as a unit vector."""
    chosen = found.top(value, count)
    weights = found.contrast[found.values.index(value), chosen].clamp_min(1e-6)
    return F.normalize(weights @ torch.stack([dictionary.direction(feature) for feature in chosen]), dim=0)


def direction_plan(dictionary: Dictionary, direction: Tensor, recipe: Recipe) -> Plan:
    """The same rule with any other direction: what controls are steered with."""
    return Plan([Add(Site.parse(dictionary.site), direction, recipe.strength, dictionary.scale, window=recipe.window)])


def random_direction(dictionary: Dictionary, seed: int) -> Tensor:
    """A direction drawn uniformly from the sphere."""
    return torch.randn(dictionary.d_model, generator=torch.Generator().manual_seed(seed))


def random_feature(dictionary: Dictionary, found: ValueFeatures, value: str, seed: int) -> Tensor:
    """The direction of a random feature about as dense as the value's own best (within a factor of two)."""
    best = found.top(value, 1)[0]
    density = found.density
    alike = ((density > density[best] / 2) & (density < density[best] * 2)).nonzero()[:, 0]
    alike = alike[alike != best]
    if not len(alike):
        alike = torch.arange(dictionary.n_features)
    generator = torch.Generator().manual_seed(seed)
    return dictionary.direction(int(alike[torch.randint(len(alike), (1,), generator=generator)]))


def features(dictionary: Dictionary, found: ValueFeatures, rules: Sequence[Recipe]) -> Method:
    """Some features of each value, by every rule."""
    return Method(
        "features",
        tuple(Candidate(rule.describe(), partial(feature_plan, dictionary, found, recipe=rule)) for rule in rules),
    )


def one_feature(dictionary: Dictionary, found: ValueFeatures, rules: Sequence[Recipe]) -> Method:
    """The first feature of each value, as strongly and as long as rules say."""
    return Method(
        "one_feature",
        tuple(
            Candidate(rule.describe() | {"features": 1}, partial(one_feature_plan, dictionary, found, recipe=rule))
            for rule in rules
        ),
    )


def random_directions(dictionary: Dictionary, found: ValueFeatures, rules: Sequence[Recipe]) -> Method:
    """The control: as many sets of random directions, one a value, as there are rules, each at a rule's strength."""

    def plan(seed: int, rule: Recipe, value: str) -> Plan:
        return direction_plan(dictionary, random_direction(dictionary, 1000 * seed + found.values.index(value)), rule)

    return Method("random_direction", _seeded(plan, rules))


def random_features(dictionary: Dictionary, found: ValueFeatures, rules: Sequence[Recipe]) -> Method:
    """The control: likewise, with random features about as dense as each value's own best."""

    def plan(seed: int, rule: Recipe, value: str) -> Plan:
        direction = random_feature(dictionary, found, value, 1000 * seed + found.values.index(value))
        return direction_plan(dictionary, direction, rule)

    return Method("random_feature", _seeded(plan, rules))


def _seeded(plan: Callable[[int, Recipe, str], Plan], rules: Sequence[Recipe]) -> tuple[Candidate, ...]:
    return tuple(
        Candidate(rule.describe() | {"features": 1, "seed": seed}, partial(plan, seed, rule))
        for seed, rule in enumerate(rules)
    )


def contrast(site: Site, directions: Mapping[str, Tensor], strengths: Sequence[float]) -> Method:
    """One direction a value at a site, at every strength, all the way."""

    def plan(strength: float, value: str) -> Plan:
        return Plan([Add(site, directions[value], strength)])

    return Method("contrast", tuple(Candidate({"strength": s}, partial(plan, s)) for s in strengths))
