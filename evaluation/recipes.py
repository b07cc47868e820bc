"""Ways of steering a factor of the demo Flux, and their controls: from a value to the edits that ask for it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor

from ..dictionaries import Dictionary
from ..residual import ALWAYS, Add, Plan, Site, Window
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
    toward = {each: _sum_of_features(dictionary, found, each, recipe.features) for each in found.values}
    return direction_plan(dictionary, toward[value] - torch.stack(list(toward.values())).mean(0), recipe)


def one_feature_plan(dictionary: Dictionary, found: ValueFeatures, value: str, recipe: Recipe) -> Plan:
    """Steer with the one feature that speaks most for a value."""
    return direction_plan(dictionary, dictionary.direction(found.top(value, 1)[0]), recipe)


def _sum_of_features(dictionary: Dictionary, found: ValueFeatures, value: str, count: int) -> Tensor:
    """The top features of a value in the shares in which its objects have more of them, as a unit vector."""
    chosen = found.top(value, count)
    weights = found.contrast[found.values.index(value), chosen].clamp_min(1e-6)
    return F.normalize(weights @ torch.stack([dictionary.direction(feature) for feature in chosen]), dim=0)


def direction_plan(dictionary: Dictionary, direction: Tensor, recipe: Recipe) -> Plan:
    """The same rule with any other direction: what controls are steered with."""
    return Plan([Add(Site.parse(dictionary.site), direction, recipe.strength, dictionary.scale, window=recipe.window)])


def plan_for_each(plans: Sequence[Plan], numbers: Sequence[int]) -> Plan:
    """One plan for a batch in which picture `i` follows `plans[numbers[i]]`."""
    return Plan(
        replace(item, pictures=frozenset(i for i, number in enumerate(numbers) if number == own))
        for own, plan in enumerate(plans)
        for item in plan
    )


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
