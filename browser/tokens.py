"""Which features a part of a picture is about."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ..dictionaries import Dictionary
from ..residual.reading import Statistics, statistics
from ..residual.reading import View as Part
from .views import View


def features_of_tokens(view: View, part: Part, box: tuple[int, int, int, int], count: int) -> list[dict[str, Any]]:
    """The features that are most specific to tokens `[top, bottom) x [left, right)` of one picture, those first.

    Only features that are active there.
    """
    top, left, bottom, right = box
    mask = torch.zeros(view.grid)
    mask[top:bottom, left:right] = 1
    inside = statistics(view.recording, view.site, part, mask)
    outside = statistics(view.recording, view.site, part, 1 - mask) if bool((mask == 0).any()) else None
    there = torch.nonzero(inside.area > 0).flatten()
    sigmas = view.recording.sigmas[:-1][part.first : None if part.last is None else part.last + 1]
    how = specific(view.dictionary, inside, outside, there, sum(sigmas) / max(len(sigmas), 1))
    order = how.argsort(descending=True, stable=True)[:count]
    return [_said(view, inside, int(there[place]), float(how[place])) for place in order]


def specific(
    dictionary: Dictionary, inside: Statistics, outside: Statistics | None, features: Tensor, sigma: float
) -> Tensor:
    """By how much stronger features are inside than outside, `[n]`: `|mean inside| - |mean outside|` in units of
    strength at a noise level, so that features compare by what they add to the stream, not by the units of their codes.

    On pictures of 143 train and validation captions of the demo Flux the color of an object was among the first five
    for 92 % of clicks on it, for 93 % on its middle, and for 95 % of boxes around it. Natural values for units, or
    shares of tokens, did no better; deviations did worse. Where a dictionary has no strength (`Reading.strength`),
    codes are compared as they are.
    """
    away = torch.zeros_like(inside.activation) if outside is None else outside.activation
    more = inside.activation[features].abs() - away[features].abs()
    scale, normalization = dictionary.scale, dictionary.normalization
    if scale is None or dictionary.kind == "neurons" or (normalization is not None and normalization.per_call):
        return more
    return more * dictionary.decoder[features].float().norm(dim=1).double().cpu() / scale.at(sigma)


def _said(view: View, found: Statistics, feature: int, specific: float) -> dict[str, Any]:
    reading = found.reading(feature)
    return {
        "feature": feature,
        "activation": reading.activation,
        "peak": reading.peak,
        "area": reading.area,
        "strength": reading.strength(view.dictionary),
        "specific": specific,
    }
