"""Whether the larger of two models bears steering better: collateral and quality loss at matched success."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ..residual import Site
from ..residual.diffusers_host import percent_to_sigma
from ..training.models import load_pipeline
from ..training.sampling import Sampling
from .cases import Case
from .harness import PROMPT_EDIT, Asked, Easel, Result, Showing, search, show, show_all, targets_needed
from .steering import outcome
from .steering_methods import Way, contrast_choices, pair_directions
from .study_figures import changes, measures
from .study_targets import open_targets
from .value_pairs import watch_values

MODELS = {"base": "demo", "small": "demo-small"}
SITES = tuple(map(Site.parse, ("double.0.txt", "double.1.txt", "double.0.img", "double.1.img")))
"""Blocks that both sizes have."""
LOSSES = ("collateral", "quality_loss", "changed")


@dataclass(frozen=True)
class SizeStudy:
    """How much is drawn with each of the two sizes."""

    pairs: int = 64
    """Pairs a value that each model's vectors are made of."""
    search: int = 96
    """Validation pictures by which site, strength and part of sampling are chosen."""
    targets: int = 40
    """Test captions of each point."""
    factors: tuple[float, ...] = (0.25, 0.5, 0.75, 1.0, 1.5)
    """Of the chosen strength, rising."""
    levels: tuple[float, ...] = (0.5, 0.6, 0.7, 0.8, 0.9)
    """Shares of success at which the two are compared, as far as both reach them."""
    draws: int = 1000
    """Resamplings of the targets, for the intervals of differences."""

    def quick(self) -> SizeStudy:
        return replace(self, pairs=8, search=24, targets=6, factors=(0.5, 1.0), draws=50)


@dataclass(frozen=True)
class Course:
    """One model's figures by strength, from none on: what came of each target, `[strengths, targets]`."""

    success: np.ndarray
    collateral: np.ndarray
    quality_loss: np.ndarray
    changed: np.ndarray

    @classmethod
    def of(cls, results: Sequence[Result]) -> Course:
        """From results on the same targets by rising strength; without a steer nothing changes."""
        rows: dict[str, list[list[float]]] = {name: [] for name in ("success", *LOSSES)}
        for result in results:
            broke = [_broke(one, after) for one, after in zip(result.asked, result.steered, strict=True)]
            rows["success"].append(
                [
                    float(after.reading.factors[one.target.factor] == one.target.value)
                    for one, after in zip(result.asked, result.steered, strict=True)
                ]
            )
            rows["collateral"].append([float(one) for one in broke])
            rows["quality_loss"].append([float(not after.reading.readable) for after in result.steered])
            rows["changed"].append(changes(result))
        nothing = [[0.0] * len(results[0].asked)]
        return cls(**{name: np.array(nothing + row) for name, row in rows.items()})

    def at(self, level: float, targets: np.ndarray | None = None) -> dict[str, float]:
        """The losses where success first reaches a level, linear between strengths; nan where it never does."""
        pick = slice(None) if targets is None else targets
        success = self.success[:, pick].mean(1)
        losses = {name: getattr(self, name)[:, pick].mean(1) for name in LOSSES}
        place = int(np.argmax(success >= level))
        if success[place] < level:
            return dict.fromkeys(LOSSES, float("nan"))
        if place == 0:
            return {name: float(row[0]) for name, row in losses.items()}
        share = (level - success[place - 1]) / (success[place] - success[place - 1])
        return {name: float(row[place - 1] + share * (row[place] - row[place - 1])) for name, row in losses.items()}


def study_sizes(
    base: Easel,
    pair_cases: Sequence[Case],
    factor: str,
    config: SizeStudy,
    sampling: Sampling,
    strengths: tuple[Sequence[float], Sequence[float], Sequence[float]],
) -> dict[str, Any]:
    """Both sizes with vectors of their own, made of the same pairs, chosen alike and shown on the same captions.

    `strengths` are those at image sites, at text sites, and the shares of sampling after which adding ends. Two models
    show a difference and no trend.
    """
    courses, sizes = {}, {}
    for name, model in MODELS.items():
        easel = base if name == "base" else Easel(load_pipeline(model), sampling)
        to_sigma = percent_to_sigma(easel.pipeline, sampling.height, sampling.width)
        sides = watch_values(easel.pipeline, pair_cases[: config.pairs], factor, SITES)
        way = Way("contrast", contrast_choices(pair_directions(sides), *strengths), to_sigma)
        wanted = targets_needed(len(way.choices), config.search)
        validation, on = open_targets(easel, wanted, config.targets, factor)
        found = search(easel, way.method, validation, config.search)
        directions, rule = way.choices[found.number]
        rules = [rule._replace(strength=part * rule.strength) for part in config.factors]
        results = show_all(easel, [Showing(name, directions.candidate(one, to_sigma), on) for one in rules])
        courses[name] = Course.of(results)
        edit = show(easel, "prompt_edit", PROMPT_EDIT.candidates[0], on)
        sizes[name] = {
            "parameters": sum(weight.numel() for weight in easel.pipeline.transformer.parameters()),
            "settings": dict(found.candidate.settings),
            "curve": [
                {"strength": part * rule.strength, **measures(result)}
                for part, result in zip(config.factors, results, strict=True)
            ],
            "prompt_edit": measures(edit),
        }
    return {"sizes": sizes, "matched": matched(courses, config)}


def matched(courses: Mapping[str, Course], config: SizeStudy) -> list[dict[str, Any]]:
    """At each level of success that both reach: the losses of each, and those of the base less those of the small one.

    Intervals are a bootstrap over the targets of each, 95 %.
    """
    rows = []
    for level in config.levels:
        at = {name: course.at(level) for name, course in courses.items()}
        if any(np.isnan(one["collateral"]) for one in at.values()):
            continue
        rng = np.random.default_rng(0)
        drawn: dict[str, list[float]] = {name: [] for name in LOSSES}
        for _ in range(config.draws):
            again = {}
            for name, course in courses.items():
                targets = course.success.shape[1]
                again[name] = course.at(level, rng.integers(0, targets, (targets,)))
            for name in LOSSES:
                drawn[name].append(again["base"][name] - again["small"][name])
        difference = {
            name: {
                "mean": at["base"][name] - at["small"][name],
                "low": float(np.nanquantile(drawn[name], 0.025)),
                "high": float(np.nanquantile(drawn[name], 0.975)),
            }
            for name in LOSSES
        }
        rows.append({"success": level, **at, "base_minus_small": difference})
    return rows


def _broke(one: Asked, after: Any) -> bool:
    """Whether one steered picture is collateral, as `steering.outcome` has it."""
    return bool(outcome([one.target], [one.plain], [after]).collateral.value)
