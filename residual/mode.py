"""What steering does with a direction: add it, take it out, or set how much of it there is."""

from __future__ import annotations

from typing import Any, Literal

from torch import Tensor

from ..dictionaries import Dictionary, Neurons
from .edits import Ablate, Add, Clamp
from .moment import PlanError, Schedule
from .site import Site

Mode = Literal["add", "ablate", "clamp"]

STRENGTH, END = 0.45, 0.6
"""How much is added, and the share of sampling after which a steer ends, where none is asked for: what the steering
study chose for contrastive vectors and for features of the demo Flux (docs/steering.md)."""


def edit(
    mode: Mode,
    dictionary: Dictionary,
    feature: int,
    strength: float,
    site: Site,
    schedule: Schedule | None = None,
    **place: Any,
) -> Add | Clamp:
    """The edit of one feature at a site; `place` are the other fields of an `Edit`, such as window, mask and gate.

    `strength` is how much is added; with ablate the share that is taken out; with clamp the target, in units of
    strength where the file knows the scale there, else a code value. Raises `PlanError` where this is impossible.
    """
    check_mode(mode, dictionary)
    scale = dictionary.scale if has_scale(dictionary, site) else None
    if mode == "ablate":
        part = schedule or Schedule((1.0,), (1.0,))
        return Ablate(site, dictionary, [feature], schedule=part.times(strength), **place)
    if mode == "clamp":
        return Clamp(site, dictionary, {feature: strength}, scale, schedule=schedule, **place)
    gain = noise_gain(dictionary)
    return Add(site, dictionary.direction(feature), strength, scale, gain, schedule=schedule, **place)


def noise_gain(dictionary: Dictionary) -> Tensor | None:
    """What turns a feature's direction into residual units, channel by channel and by noise level, where it differs.

    A dictionary that normalizes each token does so by one number for all channels, which turns no direction.
    """
    normalization = dictionary.normalization
    return normalization.std if normalization is not None and normalization.kind == "sigma" else None


def home(dictionary: Dictionary) -> Site:
    """Where a dictionary's directions lie: its site, or that of the residual stream that its neurons write to."""
    return Site.parse(dictionary.direction_site if isinstance(dictionary, Neurons) else dictionary.site)


def has_scale(dictionary: Dictionary, site: Site) -> bool:
    """Whether the file says how large activations are at `site`: it does for the dictionary's own alone."""
    return dictionary.scale is not None and str(site) == dictionary.site


def check_mode(mode: Mode, dictionary: Dictionary) -> None:
    """Raise `PlanError` where a dictionary has nothing to take out or to set."""
    if mode != "add" and isinstance(dictionary, Neurons):
        raise PlanError(
            f"mode: expected add for a dictionary of neurons, found {mode}. A neuron is a unit inside the block, and "
            "what it writes passes a gate first: how much of it is in the residual stream cannot be read or set"
        )
