"""Ways of steering a factor of the demo Flux, and their controls: from a value to the edits that ask for it."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from ..dictionaries import Dictionary
from ..residual import ALWAYS, Add, Gate, Plan, Site, Window
from .selection import ValueFeatures


@dataclass(frozen=True)
class Recipe:
    """One rule for all values: what is added, how strongly, when, and where.

    `features` directions are summed, weighted by their scores. With `gate` features a value, the addition acts only
    on tokens where such a feature, of any value, is active: on the object, wherever it is.
    """

    features: int = 3
    strength: float = 0.3
    gate: int = 0
    window: Window = ALWAYS

    def describe(self) -> dict[str, float | int | None]:
        """Plain numbers for a report; sigma bounds are None where open."""
        start, end = self.window
        bounds = [None if abs(bound) == float("inf") else bound for bound in (start, end)]
        return {
            "features": self.features,
            "strength": self.strength,
            "gate": self.gate,
            "sigma_start": bounds[0],
            "sigma_end": bounds[1],
        }


def feature_plan(dictionary: Dictionary, found: ValueFeatures, value: str, recipe: Recipe) -> Plan:
    """Steer towards a value with dictionary features alone."""
    chosen = found.top(value, recipe.features)
    weights = found.score[found.values.index(value), chosen].clamp_min(1e-6)
    directions = torch.stack([F.normalize(dictionary.direction(f), dim=0) for f in chosen])
    return direction_plan(dictionary, found, weights @ directions, recipe)


def direction_plan(dictionary: Dictionary, found: ValueFeatures, direction: Tensor, recipe: Recipe) -> Plan:
    """The same rule with any other direction: what controls are steered with."""
    site = Site.parse(dictionary.site)
    gate = Gate(dictionary, found.everyone(recipe.gate)) if recipe.gate else None
    return Plan([Add(site, direction, recipe.strength, dictionary.scale, window=recipe.window, gate=gate)])


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
