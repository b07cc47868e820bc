"""The figures of a comparison, out of what was found of every dictionary: `summary.json`."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from torch import Tensor

from ..interpretation.judge import Judgment, constant
from ..interpretation.region import region_score
from .bootstrap import Arm, Bootstrap, Interval
from .contestants import BASELINES, MAIN, VARIANTS, WAYS
from .interpreted import Interpreted
from .reconstruction import BaselineFigures, Measures
from .stability import SAME

if TYPE_CHECKING:
    from ..interpretation.truth import Truth

APART = 1_000_000
"""More than any dictionary here has features: keeps those of two ways apart where they are put together."""


@dataclass
class Result:
    """Everything found of one dictionary.

    Attributes:
        way, seed: which it is of `contestants.WAYS`.
        kind: the file's kind.
        tokens, seconds: what it learned from, and for how long.
        encoded: tokens a second that it encodes.
        measures: its reconstruction of held-out tokens, in the space of its own site and model.
        truth: what its features say of drawn scenes; None where that was not asked.
    """

    way: str
    seed: int
    kind: str
    site: str
    n_features: int
    tokens: int
    seconds: float
    encoded: float
    measures: Measures
    found: Interpreted
    truth: Truth | None


@dataclass
class Findings:
    """Everything a comparison found.

    Attributes:
        stability: of each way the best matches of every dictionary's features, by seed (`stability.stability`).
        shared_sources: Jaccard similarity of the atoms' sources, for every pair of ITDA dictionaries.
        baselines: PCA, k-means and random tokens beside dictionaries of the residual stream, and of the neurons' space.
        seconds: by stage.
    """

    results: list[Result] = field(default_factory=list)
    stability: dict[str, list[Tensor]] = field(default_factory=dict)
    shared_sources: list[float] = field(default_factory=list)
    baselines: dict[str, dict[str, BaselineFigures]] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)

    def of(self, way: str) -> list[Result]:
        return [result for result in self.results if result.way == way]


NOTE = (
    "Measured on the demo Flux, a tiny model of drawn scenes, and judged by a stand-in that reads the pixels of these "
    "drawings: a test of the pipeline and of the method. It says nothing about vision-language models, and verdicts on "
    "Flux 1 need Flux 1."
)


def summary(findings: Findings, seeds: int, draws: int) -> dict[str, Any]:
    """What `summary.json` holds; NaN where nothing was measured. Scores with `seeds` dictionaries of each way."""
    ways = [way for way in WAYS if findings.of(way)]
    interp = Bootstrap({way: _arm(findings, way, "interp", seeds) for way in ways}, "balanced_accuracy", draws)
    paper = Bootstrap({way: _arm(findings, way, "paper", seeds) for way in ways}, "paper", draws)
    figures = {way: _figures(findings, way, interp, paper) for way in ways}
    best = max(BASELINES, key=lambda way: _or(interp.scores.get(way, math.nan), -math.inf))
    against = interp.minus_best("sae", BASELINES)
    return {
        **{way: figures[way] for way in MAIN},
        "variants": {way: figures[way] for way in VARIANTS},
        "baselines": {way: figures[way] for way in BASELINES},
        "controls": _controls(findings, draws),
        "sae_minus_best_baseline": {"mean": against.score, "low": against.low, "high": against.high, "best": best},
        "differences": {
            name: {f"{one}_minus_{other}": _interval(drawn.difference(one, other)) for one, other in PAIRS}
            for name, drawn in (("interp", interp), ("interp_paper", paper))
        },
        "probe": _probe(findings),
        "reconstruction_baselines": {
            space: {name: {"size": each.size, "fvu": each.fvu} for name, each in known.items()}
            for space, known in findings.baselines.items()
        },
        "seeds": seeds,
        "seconds": findings.seconds,
        "note": NOTE,
    }


PAIRS = (
    ("sae", "itda"),
    ("sae", "neurons"),
    ("itda", "neurons"),
    ("sae", "sae_pursuit"),
    ("itda_encoder", "itda"),
    *(("sae", baseline) for baseline in BASELINES),
)
"""Differences that the report gives with their intervals."""


def _figures(findings: Findings, way: str, interp: Bootstrap, paper: Bootstrap) -> dict[str, Any]:
    results = findings.of(way)
    score, as_paper = interp.interval(way), paper.interval(way)
    qualifying = _mean(result.found.qualifying / result.n_features for result in results)
    measures = {
        name: _mean(getattr(result.measures, name) for result in results)
        for name in ("fvu", "fvu_raw", "fvu_within", "cosine", "l0")
    }
    return {
        **measures,
        "used": _mean(result.found.used / result.n_features for result in results),
        "interp": {**_interval(score), "by_seed": interp.by_seed(way)},
        "interp_paper": {**_interval(as_paper), "by_seed": paper.by_seed(way)},
        "qualifying": qualifying,
        "interp_times_qualifying": score.score * qualifying,
        "interp_paper_times_qualifying": as_paper.score * qualifying,
        "region": _mean(s.value for result in results for s in region_score(result.found.regions).values()),
        "truth": _truth([result.truth for result in results if result.truth is not None]),
        **_stability(findings.stability.get(way, [])),
        "output_score": _mean(value for result in results for value in result.found.output_scores.values()),
        "cost": {
            "seconds": _mean(result.seconds for result in results),
            "tokens": _mean(result.tokens for result in results),
            "encoded_per_second": _mean(result.encoded for result in results),
        },
        "features": results[0].n_features,
        "site": results[0].site,
        "judged": _judged(results),
    } | ({"shared_sources": _mean(findings.shared_sources)} if way == "itda" else {})


def _judged(results: Sequence[Result]) -> dict[str, Any]:
    found = [result.found for result in results]
    return {
        "drawn": sum(len(each.features) for each in found),
        "explained": sum(len(each.labels) for each in found),
        "judged": sum(len({j.feature for j in each.judgments if j.score == "interp"}) for each in found),
        "judgments": sum(len(each.judgments) for each in found),
        "missing": sum(len(each.missing) for each in found),
        "reasons": dict(Counter(_kind(reason) for each in found for reason in each.missing.values())),
        "tokens": sum(each.usage.tokens_in + each.usage.tokens_out for each in found),
    }


def _kind(reason: str) -> str:
    """Why a feature was not judged, or not wholly, without the numbers in it: like reasons are counted together."""
    return re.sub(r"\d+", "n", reason.split(":")[0])


def _stability(values: Sequence[Tensor]) -> dict[str, float]:
    return {
        "stability": _mean(float(each.mean()) for each in values),
        "found_again": _mean(float((each >= SAME).float().mean()) for each in values),
    }


def _truth(truths: Sequence[Truth]) -> dict[str, float]:
    names = ("f1_mean", "iou_mean", "coverage", "best")
    return {name: _mean(getattr(truth, name) for truth in truths) for name in names}


def _probe(findings: Findings) -> dict[str, Any]:
    """What stands beside the features that match decoded values best: mean F1 over these, residual stream.

    Of the supervised probe, of a detector that says yes everywhere, and of the best of as many random directions.
    """
    truths = [result.truth for result in findings.of("sae") if result.truth is not None]
    names = ("probe", "prevalence", "random_direction")
    return {name: _mean(getattr(truth, name) for truth in truths) for name in names} | {
        "decoded": _mean(len(truth.decoded) for truth in truths)
    }


def _controls(findings: Findings, draws: int) -> dict[str, Any]:
    """Permuted labels of SAE and ITDA under the same judge, and a judge that always says yes."""
    rows, same = [], []
    for place, way in enumerate(("sae", "itda")):
        for result in findings.of(way):
            rows += _rows(result.found.shuffled, result.seed, place * APART)
            judgments = [j for j in result.found.judgments if j.score == "interp"]
            same += _rows(constant(judgments), result.seed, place * APART)
    drawn = Bootstrap({"shuffled": Arm.of(rows, "both"), "constant": Arm.of(same, "both")}, "balanced_accuracy", draws)
    shuffled = drawn.interval("shuffled")
    return {
        "shuffled": shuffled.score,
        "constant_judge": drawn.scores["constant"],
        "shuffled_interval": _interval(shuffled),
        "judgments": len(rows),
    }


def _arm(findings: Findings, way: str, score: str, seeds: int) -> Arm:
    """Judgments of all dictionaries of a way; the paper's score is of features that qualify alone.

    What is there once (neurons) has its features dealt out to the seeds, so that its interval is taken like the others.
    """
    results, rows = findings.of(way), []
    for result in results:
        wanted = [
            j
            for j in result.found.judgments
            if j.score == score and (score == "interp" or j.feature in result.found.qualified)
        ]
        if len(results) == 1 and seeds > 1:
            place = {feature: i % seeds for i, feature in enumerate(result.found.features)}
            for seed in range(seeds):
                rows += _rows([j for j in wanted if place[j.feature] == seed], seed)
        else:
            rows += _rows(wanted, result.seed)
    return Arm.of(rows, WAYS[way].directions)


def _rows(judgments: Iterable[Judgment], seed: int, apart: int = 0) -> list[tuple[int, int, int, bool, float]]:
    return [(seed, apart + j.feature, j.picture, j.match, j.answer) for j in judgments]


def _interval(found: Interval) -> dict[str, float]:
    return found._asdict()


def _mean(values: Iterable[float]) -> float:
    known = [value for value in values if value is not None and not math.isnan(value)]
    return float(np.mean(known)) if known else math.nan


def _or(value: float, other: float) -> float:
    return other if math.isnan(value) else value


def figures_of(figures: Mapping[str, Any], way: str) -> Mapping[str, Any]:
    """Those of one way, wherever they stand in a summary."""
    for part in (figures, figures["variants"], figures["baselines"]):
        if way in part:
            return part[way]
    raise KeyError(way)
