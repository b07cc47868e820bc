"""Ways of steering a factor of the demo Flux, and their controls: from a value to the edits that ask for it."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ..dictionaries import Dictionary
from ..residual import ALWAYS, Add, Plan, Site, Window
from .selection import ValueFeatures


@dataclass(frozen=True)
class Recipe:
    """One rule for all values: the sum of how many features is added, how strongly, and when."""

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
    """Steer towards a value with dictionary features alone, in the shares in which its objects have more of them."""
    chosen = found.top(value, recipe.features)
    weights = found.contrast[found.values.index(value), chosen].clamp_min(1e-6)
    return direction_plan(dictionary, weights @ torch.stack([dictionary.direction(f) for f in chosen]), recipe)


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
