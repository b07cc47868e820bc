"""What pictures under heat maps have in common, as words, and whether words fit a picture: naive Bayes over few claims.

This is how the stand-in for a vision-language model (`demo.stand_in`) thinks. It knows the factors of drawings and some
regions of them, and compares what it sees with what chance would give.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from itertools import combinations
from typing import NamedTuple

import numpy as np

from .scenes import BACKGROUNDS, COLORS, FACTORS, POSITIONS, RADII, SHAPES
from .sight import BACKGROUND, OBJECT, REGIONS, Drawing, Sight

_TRUE = 0.85
"""How often a claim that is true holds in a picture; drawings are read wrongly at times, and features are not pure."""
_PAIRS = ("color", "background")  # factors of which a claim may name two values
_LINES = {
    **{
        f"in the {name} row": tuple(p for p, (_, row) in POSITIONS.items() if row == i)
        for i, name in enumerate(("top", "middle", "bottom"))
    },
    **{
        f"in the {name} column": tuple(p for p, (column, _) in POSITIONS.items() if column == i)
        for i, name in enumerate(("left", "middle", "right"))
    },
}
NOTHING, ANYWHERE = "no clear pattern", "anywhere in the picture"
_CHANCE = 0.5  # largest chance of a claim: what something is compared with is seldom drawn at random


class Claims(NamedTuple):
    """What a label says: for some factors the values that the drawing may have, and the region where the heat lies."""

    factors: dict[str, tuple[str, ...]]
    region: str | None


def common(sights: Sequence[Sight]) -> Claims:
    """What some pictures have in common beyond chance: a claim must earn more than choosing it among others costs."""
    factors = {}
    for factor in FACTORS:
        seen = [sight.drawing.reading.factors[factor] for sight in sights]
        best = max(_choices(factor), key=lambda choice: _gain(factor, choice, seen))
        if _gain(factor, best, seen) > 0:
            factors[factor] = best
    warm = [sight for sight in sights if sight.heat.any()]
    gains = sum((_region_gains(sight) for sight in warm), np.zeros(len(REGIONS)))
    best_region = int(gains.argmax())
    enough = gains[best_region] > math.log(len(REGIONS)) / 2
    return Claims(factors, REGIONS[best_region] if enough else None)


def fit(claims: Claims, sight: Sight) -> float:
    """How likely it is that claims hold in a picture, 0 to 1; one half where they claim nothing."""
    odds = _odds(claims, sight.drawing)
    if claims.region is not None and sight.heat.any():
        inside = sight.drawing.regions[REGIONS.index(claims.region)]
        odds += _weighed(float(sight.heat[inside].sum()), float(inside.mean()))
    return 1 / (1 + math.exp(-odds))


def place(claims: Claims, drawing: Drawing) -> np.ndarray:
    """The tokens of a drawing that claims speak of, bool `[GRID, GRID]`."""
    region = claims.region or (OBJECT if claims.factors.keys() - {"background"} else BACKGROUND)
    return drawing.regions[REGIONS.index(region)]


def words_of(claims: Claims) -> str:
    """Claims as a label; `claims_of` reads it back."""
    named = {factor: " or ".join(values) for factor, values in claims.factors.items()}
    noun = [named[factor] for factor in ("size", "color") if factor in named]
    if noun or "shape" in named or "position" in named:
        noun.append(named.get("shape", "object"))
    if "position" in named:
        lines = [line for line, values in _LINES.items() if values == claims.factors["position"]]
        noun.append(lines[0] if lines else f"at the {named['position']}")
    if "background" in named:
        noun.append(f"on a {named['background']} background" if noun else f"{named['background']} background")
    if not noun:
        return claims.region or NOTHING
    return f"{' '.join(noun)}: {claims.region or ANYWHERE}"


def claims_of(label: str) -> Claims:
    """What a label says of drawings, as far as it is in words that are known here."""
    if label == NOTHING:
        return Claims({}, None)
    text = re.sub(r"[^a-z]+", " ", label.lower())
    region = next((name for name in sorted(REGIONS, key=len, reverse=True) if name in text), None)
    text = text.replace(region, " ") if region else text
    factors: dict[str, tuple[str, ...]] = {}
    for line, values in _LINES.items():
        if line in text:
            factors["position"], text = values, text.replace(line, " ")
    at = re.search(r"\b(?:at|in|on) the ((?:top|bottom) (?:left|right)|top|bottom|left|right|center)\b", text)
    if at and "position" not in factors:
        factors["position"] = (at[1],)
    words = {form for word in text.split() for form in (word, word.removesuffix("s"), word.removesuffix("es"))}
    for factor, known in (("color", COLORS), ("shape", SHAPES), ("size", RADII), ("background", BACKGROUNDS)):
        named = tuple(value for value in known if value in words)
        if named:
            factors[factor] = named
    if (
        region is None and factors and ANYWHERE not in text
    ):  # "red circle" means the circle, "tan background" the background
        region = BACKGROUND if factors.keys() == {"background"} else OBJECT if "background" not in factors else None
    return Claims({factor: factors[factor] for factor in FACTORS if factor in factors}, region)


def _choices(factor: str) -> list[tuple[str, ...]]:
    values = FACTORS[factor]
    pairs = list(combinations(values, 2)) if factor in _PAIRS else []
    lines = list(_LINES.values()) if factor == "position" else []
    return [*((value,) for value in values), *pairs, *lines]


def _gain(factor: str, choice: tuple[str, ...], seen: Sequence[str | None]) -> float:
    """Evidence that pictures share a choice of values, less what choosing it among its like costs."""
    chance = len(choice) / len(FACTORS[factor])
    rivals = sum(len(other) == len(choice) for other in _choices(factor))
    read = [value in choice for value in seen if value is not None]
    return sum(_evidence(float(holds), chance) for holds in read) - math.log(rivals) - 1


def _region_gains(sight: Sight) -> np.ndarray:
    regions = sight.drawing.regions
    inside = (regions * sight.heat).sum((1, 2))
    area = np.clip(regions.mean((1, 2)), 0.01, _CHANCE)
    return inside * np.log(_TRUE / area) + (1 - inside) * np.log((1 - _TRUE) / (1 - area))


def _odds(claims: Claims, drawing: Drawing) -> float:
    """Evidence for the factors that are claimed; what cannot be read says nothing."""
    seen = drawing.reading.factors
    return sum(
        _weighed(float(seen[factor] in values), len(values) / len(FACTORS[factor]))
        for factor, values in claims.factors.items()
        if seen[factor] is not None
    )


def _evidence(holds: float, chance: float) -> float:
    """Logarithm of how much likelier an observation is if a claim is true than by chance; `holds` may be a share."""
    chance = min(max(chance, 0.01), _CHANCE)
    return holds * math.log(_TRUE / chance) + (1 - holds) * math.log((1 - _TRUE) / (1 - chance))


def _weighed(holds: float, chance: float) -> float:
    """Evidence from one picture alone, where a rare value that is there says less than one that is missing."""
    return min(_evidence(holds, chance), 1.0)
