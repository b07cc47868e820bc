"""The steering study on disk: `summary.json`, `report.html`, and tables of its pictures."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from ..demo.scenes import FACTORS
from .dictionary_report import numbers
from .harness import Asked, Result
from .page import data_uri, page
from .picture_table import Column, Row, picture_table
from .plots import Line, Range, bar_chart, line_chart, range_chart
from .steering_methods import TITLES
from .steering_study import FACTOR, Findings
from .study_claims import best_of_sites, claims, findings

EXAMPLES = 4
"""Targets that tables of strengths and parts of sampling show."""


def write_study(found: Findings, out: Path) -> dict[str, Any]:
    """Write everything into a folder that is there; returns the figures, as `summary.json` holds them."""
    figures: dict[str, Any] = numbers(found.figures)
    (out / "summary.json").write_text(json.dumps(figures, indent=2, allow_nan=False) + "\n")
    tables = pictures(found)
    for name, (table, _) in tables.items():
        table.save(out / f"{name}.png")
    html = page(
        "study_report.html",
        figures=figures,
        titles=TITLES,
        findings=findings(figures),
        claims=claims(figures),
        charts=charts(figures),
        pictures=[(name, words, data_uri((out / f"{name}.png").read_bytes())) for name, (_, words) in tables.items()],
    )
    (out / "report.html").write_text(html, encoding="utf-8")
    return figures


def pictures(found: Findings) -> dict[str, tuple[Image.Image, str]]:
    """Tables of pictures by file name, with what they show. All are of the first test captions, hit or missed."""
    shown, tables = found.shown, {}
    least = min((len(one.open.asked) for one in shown.values()), default=0)
    first: dict[str, int] = {}
    for place, one in enumerate(shown["contrast"].open.asked[:least]):
        first.setdefault(one.target.value, place)
    on = [first[value] for value in FACTORS[FACTOR] if value in first]
    columns = [Column("unsteered"), *(Column(title) for title in TITLES.values())]
    rows = []
    for place in on:
        one = shown["contrast"].open.asked[place]
        steered = [shown[name].open.steered[place].picture for name in TITLES]
        rows.append(Row([one.plain.picture, *steered], f"to {one.target.value}", one.target.case.caption))
    words = "The first test caption of each color, which none of them names, and what each method makes of it"
    tables["methods"] = (picture_table(columns, rows, "Every method at its chosen setting", words), words)
    for name, title, label in (
        ("strength contrast", "The contrastive vector by strength", lambda one: f"{one.settings['strength']:.2g}"),
        ("strength feature", "SAE features by strength", lambda one: f"{one.settings['strength']:.2g}"),
        ("windows", "The contrastive vector by part of sampling", _span),
    ):
        if results := found.curves.get(name):
            table = _curve_table(results, [label(one) for one in results], title)
            tables[name.replace(" ", "-")] = (table, f"{title}, on the first test captions")
    if found.adversarial:
        examples = found.figures["adversarial"]["examples"]
        rows = [
            Row(
                [plain, steered],
                f"to {one['value']}, {'' if one['reached'] else 'not '}{one['goal']}",
                one["caption"],
            )
            for one, (steered, plain) in zip(examples, found.adversarial, strict=True)
        ]
        words = "Captions found by evolution, on noise that their search never saw"
        columns = [Column("unsteered"), Column("steered")]
        tables["adversarial"] = (picture_table(columns, rows, "Adversarial captions", words), words)
    return tables


def _span(result: Result) -> str:
    return f"{result.settings['start']:.2g} to {result.settings['end']:.2g}"


def _curve_table(results: Sequence[Result], labels: Sequence[str], title: str) -> Image.Image:
    on: Sequence[Asked] = results[0].asked[:EXAMPLES]
    rows = [
        Row(
            [one.plain.picture, *(result.steered[place].picture for result in results)],
            f"to {one.target.value}",
            one.target.case.caption,
        )
        for place, one in enumerate(on)
    ]
    return picture_table([Column("unsteered"), *map(Column, labels)], rows, title)


def charts(figures: Mapping[str, Any]) -> list[str]:
    """The plots of the report."""
    by, curve = figures["by_method"], figures["strength_curve"]
    drawn = [
        range_chart(
            [_range(TITLES[name], by[name], measure, name) for name in TITLES], title, "share with its 95 % interval"
        )
        for measure, title in (
            ("success", "Success, captions that leave the color open"),
            ("against", "Success against a caption that names another color"),
            ("collateral", "Collateral, open captions"),
            ("joint", "Joint success, open captions"),
        )
    ]
    for names, title in (
        (("contrast", "probe", "feature", "itda", "neuron"), "Success and collateral, by strength"),
        (("contrast", "random_direction", "random_feature"), "The same, with the controls"),
    ):
        drawn.append(
            line_chart([_trade(name, curve[name]) for name in names], title, "collateral", "success", zero=True)
        )
    own = curve["contrast"]
    drawn.append(
        line_chart(
            [
                Line(name.replace("_", " "), [row["strength"] for row in own], [row[name] for row in own])
                for name in ("success", "collateral", "quality_loss", "changed")
            ],
            "The contrastive vector by strength",
            "strength",
            "share",
            zero=True,
        )
    )
    sites = best_of_sites(figures["site_curve"])
    drawn.append(
        bar_chart([(row["site"], row["joint"]) for row in sites], "Contrastive vector by site", "joint, best strength")
    )
    drawn.append(
        range_chart(
            [_range(f"{row['start']:.2f} to {row['end']:.2f}", row, "joint", "") for row in figures["window_curve"]],
            "By part of sampling: joint success",
            "share with its 95 % interval",
        )
    )
    drawn.append(
        range_chart(
            [_range(f"{row['pairs']} pairs", row, "success", "") for row in figures["pairs_curve"]],
            "By number of pairs: success",
            "share with its 95 % interval",
        )
    )
    drawn.append(
        range_chart(
            [
                _range(f"{row['vector']}, {row['prompts']}", row, "success", row["vector"])
                for row in figures["relatedness"]["rows"]
            ],
            "By relatedness of the prompt: success",
            "share with its 95 % interval",
        )
    )
    sizes = figures["model_size"]["sizes"]
    drawn.append(
        line_chart(
            [_trade(name, one["curve"]) for name, one in sizes.items()],
            "Two sizes of the demo Flux",
            "collateral",
            "success",
            zero=True,
        )
    )
    return drawn


def _trade(name: str, rows: Sequence[Mapping[str, Any]]) -> Line:
    """From no steer at all to the strongest."""
    return Line(
        name.replace("_", " "), [0.0, *(row["collateral"] for row in rows)], [0.0, *(row["success"] for row in rows)]
    )


def _range(name: str, row: Mapping[str, Any], measure: str, kind: str) -> Range:
    group = 1 if kind == "prompt_edit" else 2 if kind.startswith("random") or kind == "narrow" else 0
    return Range(name, row[measure], row[f"{measure}_low"], row[f"{measure}_high"], group)
