"""What steering does with a direction, as inputs and in words."""

from __future__ import annotations

from collections.abc import Iterable
from typing import get_args

from comfy_api.latest import io

from ..residual.mode import STRENGTH, Mode


def strength_input() -> io.Input:
    return io.Float.Input(
        "strength",
        default=STRENGTH,
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
