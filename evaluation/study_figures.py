"""The figures of the steering study, from what was drawn."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from ..demo.scenes import FACTORS
from .harness import Found, Result
from .intervals import Share


def measures(result: Result) -> dict[str, Any]:
    """Every measure of some steered pictures, with 95 % Wilson bounds.

    `quality_loss` is the share that no longer reads as a scene, of pictures that all did unsteered; `changed` the mean
    share of the factors, other than the steered one, that read differently, all of them where nothing can be read.
    """
    went, lost = result.outcome, _quality_loss(result)
    return {
        "n": went.success.n,
        "success": went.success.value,
        "success_low": went.success.low,
        "success_high": went.success.high,
        "collateral": went.collateral.value,
        "collateral_low": went.collateral.low,
        "collateral_high": went.collateral.high,
        "joint": went.joint.value,
        "joint_low": went.joint.low,
        "joint_high": went.joint.high,
        "drift": went.drift.value,
        "quality_loss": lost.value,
        "quality_loss_high": lost.high,
        "changed": float(np.mean(changes(result))) if result.asked else math.nan,
    }


def _quality_loss(result: Result) -> Share:
    """Share of the pictures that no longer read as a scene."""
    return Share.of([not after.reading.readable for after in result.steered])


def changes(result: Result) -> list[float]:
    """For each picture the share of the factors not steered that read differently from the unsteered picture."""
    shares = []
    for one, after in zip(result.asked, result.steered, strict=True):
        others = [name for name in FACTORS if name != one.target.factor]
        before = one.plain.reading.factors
        differs = [before[name] != after.reading.factors[name] or not after.reading.readable for name in others]
        shares.append(sum(differs) / len(others))
    return shares


def method_figures(open_captions: Result, against: Result, searched: Found, searched_against: Found) -> dict[str, Any]:
    """What `by_method` says of one method: open captions, then `against`, with the settings each search chose."""
    opposed = measures(against)
    return {
        **measures(open_captions),
        "against": opposed["success"],
        "against_low": opposed["success_low"],
        "against_high": opposed["success_high"],
        "against_collateral": opposed["collateral"],
        "against_collateral_high": opposed["collateral_high"],
        "against_joint": opposed["joint"],
        "against_n": opposed["n"],
        "settings": dict(open_captions.settings),
        "against_settings": dict(against.settings),
        "searched": _searched(searched),
        "searched_against": _searched(searched_against),
    }


def _searched(found: Found) -> dict[str, Any]:
    """How much was searched, and what came of each candidate."""
    return {"pictures": found.pictures, "tried": tried(found)}


def tried(found: Found) -> list[dict[str, Any]]:
    """What a search saw of each candidate on validation targets."""
    return [
        {
            **dict(one.settings),
            "n": one.outcome.success.n,
            "success": one.outcome.success.value,
            "collateral": one.outcome.collateral.value,
            "joint": one.outcome.joint.value,
        }
        for one in found.tried
    ]


def joined(results: Sequence[Result]) -> Result:
    """Several results as one: the same targets may be in it more than once."""
    on = [one for result in results for one in result.asked]
    steered = [one for result in results for one in result.steered]
    return Result.of(results[0].name, results[0].settings, on, steered)


def first(result: Result, count: int) -> Result:
    """The first targets of a result alone."""
    return Result.of(result.name, result.settings, result.asked[:count], result.steered[:count])
