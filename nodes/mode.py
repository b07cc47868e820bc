"""What steering does with a direction: add it, take it out, or set how much of it there is."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal, get_args

from comfy_api.latest import io
from torch import Tensor

from ..dictionaries import Dictionary, Neurons
from ..residual import Ablate, Add, Clamp, PlanError, Site
from ..residual.comfy_host import ToSigma
from .place import Place

Mode = Literal["add", "ablate", "clamp"]


def strength_input() -> io.Input:
    return io.Float.Input(
        "strength",
        default=0.4,
        min=-100.0,
        max=100.0,
        step=0.05,
        tooltip="How much is added, as a share of the usual size of what Flux thinks there. 0 changes nothing; "
        "negative values take it away. Try 0.2 to 1. With mode ablate: how far it is taken out, 1 is entirely. With "
        "mode clamp: what it is set to.",
    )


def mode_input() -> io.Input:
    return io.Combo.Input(
        "mode",
        options=list(get_args(Mode)),
        default="add",
        optional=True,
        tooltip="add: adds the strength to what is there. ablate: takes out what is there; strength 1 is entirely, 0.5 "
        "half. clamp: sets it to the strength, wherever it stands; 0 switches it off.",
    )


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


def edit(
    mode: Mode, dictionary: Dictionary, feature: int, strength: float, site: Site, place: Place, to_sigma: ToSigma
) -> Add | Clamp:
    """The edit of one feature at a site, in a run with this schedule."""
    scale = dictionary.scale if has_scale(dictionary, site) else None
    if mode == "add":
        direction = dictionary.direction(feature)
        return Add(site, direction, strength, scale, noise_gain(dictionary), **place.options(to_sigma))
    if mode == "ablate":
        return Ablate(site, dictionary, [feature], **place.options(to_sigma, strength))
    return Clamp(site, dictionary, {feature: strength}, scale, **place.options(to_sigma))


def described(mode: Mode, strength: float, unscaled: Iterable[str]) -> str:
    """What is done, in words; `unscaled` are the sites of which the file does not know the scale."""
    if mode == "ablate":
        return f"taking out {strength:.0%}"
    sites = " and ".join(unscaled)
    if mode == "add":
        return f"adding {strength:.2f}" + (f" (of a scale measured in each run at {sites})" if sites else "")
    return f"setting it to {strength:.2f}" + (f" (as a code: the file has no scale for {sites})" if sites else "")


def model_name(dictionary_or_vector: object) -> str:
    """The name of the model that a file was made for, without its owner; empty where the file does not say."""
    return str(getattr(dictionary_or_vector, "model", {}).get("name", "")).rsplit("/", 1)[-1]
