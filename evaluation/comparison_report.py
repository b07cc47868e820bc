"""A comparison on disk: `summary.json` and `report.html`."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from .comparison_claims import claims, findings
from .comparison_figures import figures_of
from .contestants import BASELINES, MAIN, VARIANTS, WAYS
from .dictionary_report import numbers, title
from .feature_cards import Card, shown
from .page import page
from .plots import Line, Range, bar_chart, line_chart, range_chart

GROUPS = {"SAE, ITDA and neurons": MAIN, "Encoded otherwise": VARIANTS, "Baselines": BASELINES}


def write_comparison(
    figures: Mapping[str, Any],
    stability: Mapping[str, Sequence[Tensor]],
    cards: Mapping[str, Sequence[Card]],
    out: Path,
) -> None:
    """Write both files into a folder that is there. `cards` are by way, some features of one dictionary each."""
    (out / "summary.json").write_text(json.dumps(numbers(figures), indent=2, allow_nan=False) + "\n")
    html = page(
        "comparison_report.html",
        figures=figures,
        findings=findings(figures),
        claims=claims(figures),
        rows=table(figures),
        ways=WAYS,
        titles={way: each.title for way, each in WAYS.items()},
        groups=GROUPS,
        charts=charts(figures, stability),
        cards=cards,
        reconstruction=_reconstruction_baselines(figures),
        shown=shown,
        of=lambda way: figures_of(figures, way),
    )
    (out / "report.html").write_text(html, encoding="utf-8")


def table(figures: Mapping[str, Any]) -> dict[str, list[tuple[str, str, list[str]]]]:
    """By group of measures: what each is called, what it says, and its value for every way."""

    def row(name: str, means: str, value: Any) -> tuple[str, str, list[str]]:
        return name, means, [value(figures_of(figures, way)) for way in WAYS]

    def score(name: str) -> Any:
        return lambda one: _ranged(one[name])

    return {
        "What a judge makes of it": [
            row("Interpretation score", "balanced accuracy on pictures never explained", score("interp")),
            row(
                "The paper's score", "on the pictures that were explained, features that qualify", score("interp_paper")
            ),
            row("Qualify", "share of all features", lambda one: percent(one["qualifying"])),
            row("Interpretation, times qualify", "", lambda one: shown(one["interp_times_qualifying"])),
            row("Paper's, times qualify", "", lambda one: shown(one["interp_paper_times_qualifying"])),
            row("Region", "IoU of the label's place and the heat map", lambda one: shown(one["region"])),
            row(
                "Features judged",
                "of those drawn, all seeds",
                lambda one: "{judged} of {drawn}".format(**one["judged"]),
            ),
        ],
        "What is true of it": [
            row("F1", "best feature-value match, mean over features", lambda one: shown(one["truth"]["f1_mean"])),
            row("Mask IoU", "the same", lambda one: shown(one["truth"]["iou_mean"])),
            row("F1 of values", "best feature of each decoded value", lambda one: shown(one["truth"]["best"])),
            row("Coverage", "of what a probe decodes", lambda one: percent(one["truth"]["coverage"])),
            row("Output score", "change of the velocity by a unit", lambda one: shown(one["output_score"])),
            row("Stability", "best cosine in another seed", lambda one: shown(one["stability"])),
            row("Found again", "cosine of at least .7", lambda one: percent(one["found_again"])),
        ],
        "Reconstruction": [
            row("FVU", "variance unexplained, in its own space", lambda one: shown(one["fvu"])),
            row("FVU within", "beyond clock and place", lambda one: shown(one["fvu_within"])),
            row("L0", "active features a token", lambda one: shown(one["l0"])),
            row("Used", "share ever active on the held-out pictures", lambda one: percent(one["used"])),
        ],
        "Cost": [
            row("Features", "", lambda one: f"{one['features']:,}"),
            row("Tokens learned from", "every use counts", lambda one: f"{one['cost']['tokens']:,.0f}"),
            row("Seconds", "without drawing pictures", lambda one: shown(one["cost"]["seconds"])),
            row("Tokens a second", "encoded", lambda one: f"{one['cost']['encoded_per_second']:,.0f}"),
        ],
    }


def charts(figures: Mapping[str, Any], stability: Mapping[str, Sequence[Tensor]]) -> list[str]:
    """The plots: scores with their intervals, differences, stability, truth and what it costs to reconstruct."""
    place = {way: number for number, ways in enumerate(GROUPS.values()) for way in ways}
    drawn = [
        range_chart(
            [_range(figures_of(figures, way)[score], WAYS[way].title, place[way]) for way in WAYS],
            words,
            "score with its 95 % interval",
            0.5,
        )
        for score, words in (
            ("interp", "Interpretation score, pictures never explained"),
            ("interp_paper", "The paper's score, pictures explained"),
        )
    ]
    differences = figures["differences"]["interp"]
    drawn.append(
        range_chart(
            [
                _range(differences[f"sae_minus_{way}"], WAYS[way].title, place[way])
                for way in ("itda", "neurons", "sae_pursuit", *BASELINES)
            ],
            "SAE, its interpretation score less that of others",
            "paired difference with its 95 % interval",
            0.0,
        )
    )
    drawn.append(_stability_chart(stability))
    drawn.append(
        bar_chart(
            [(WAYS[way].title, figures_of(figures, way)["truth"]["f1_mean"]) for way in WAYS if _known(figures, way)],
            "Ground truth: best match of a feature with a value",
            "F1 on held-out scenes, mean over features",
        )
    )
    spaces = [way for way in WAYS if way not in ("neurons", "random_weight_model")]
    bars = [
        (WAYS[way].title, figures_of(figures, way)["fvu"]) for way in spaces if figures_of(figures, way)["fvu"] <= 1
    ]
    known = figures["reconstruction_baselines"].get("residual", {})
    drawn.append(
        bar_chart(
            bars + [(title(key, each), each["fvu"]) for key, each in known.items()],
            "Variance unexplained, residual stream alone",
            "FVU; ways above 1 are in the table",
        )
    )
    return drawn


def _stability_chart(stability: Mapping[str, Sequence[Tensor]]) -> str:
    """For each cosine the share of features whose best match in another seed reaches it."""
    cosines = [i / 20 for i in range(21)]
    ways = [way for way in ("sae", "itda", "frozen_decoder", "random_directions") if stability.get(way)]
    lines = [
        Line(
            WAYS[way].title,
            cosines,
            [
                sum(float((each >= at).float().mean()) for each in stability[way]) / len(stability[way])
                for at in cosines
            ],
        )
        for way in ways
    ]
    return line_chart(
        lines,
        "Stability: features found again with another seed",
        "best cosine at least",
        "share of features",
        zero=True,
    )


def _known(figures: Mapping[str, Any], way: str) -> bool:
    return not math.isnan(figures_of(figures, way)["truth"]["f1_mean"])


def _range(found: Mapping[str, float], name: str, group: int) -> Range:
    return Range(name, found["score"], found["low"], found["high"], group)


def _reconstruction_baselines(figures: Mapping[str, Any]) -> dict[str, str]:
    """In words, by space."""
    return {
        space: ", ".join(f"{title(key, each)} {shown(each['fvu'])}" for key, each in known.items())
        for space, known in figures["reconstruction_baselines"].items()
    }


def _ranged(found: Mapping[str, float]) -> str:
    if math.isnan(found["score"]):
        return "none"
    return f"{found['score']:.3f} ({found['low']:.2f} to {found['high']:.2f})"


def percent(share: float) -> str:
    return "none" if math.isnan(share) else f"{100 * share:.0f} %"
