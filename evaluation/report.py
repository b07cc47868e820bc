"""The demonstration on disk: summary.json, every judged picture, and report.html."""

from __future__ import annotations

import json
from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from markupsafe import Markup
from PIL import Image

from ..demo.scenes import COLORS, FACTORS
from .cases import Judged
from .demonstration import Demonstration, Findings, summary
from .feature_cards import shown
from .harness import Result
from .page import data_uri, page
from .plots import Line, line_chart
from .steering import Target


def write_report(findings: Findings, config: Demonstration, out: Path) -> dict[str, Any]:
    """Write report.html, summary.json, before-after.png and all judged pictures; returns the summary."""
    figures = summary(findings, config)
    rows = _write_pictures(findings, out)
    before_after(findings.ways["features"]).save(out / "before-after.png")
    (out / "summary.json").write_text(json.dumps(_finite(figures), indent=2, allow_nan=False) + "\n")
    groups: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        groups.setdefault(row["group"], []).append(row)
    html = page(
        "report.html",
        figures=figures,
        groups=groups,
        hero=data_uri((out / "before-after.png").read_bytes()),
        names=WAYS,
        plots=_itda_plots(findings, figures),
        cards=findings.atlas.cards if findings.atlas else [],
        shown=shown,
        colors={name: "#{:02x}{:02x}{:02x}".format(*rgb) for name, rgb in COLORS.items()},
    )
    (out / "report.html").write_text(html, encoding="utf-8")
    return figures


WAYS = {
    "features": "Dictionary features, image stream",
    "one_feature": "One feature alone, image stream",
    "text_stream": "Contrastive direction, text stream",
    "prompt_edit": "Naming the color in the caption (the ceiling)",
    "random_direction": "Best of as many random directions",
    "random_feature": "Best of as many random features",
}


def before_after(way: Result, scale: int = 2) -> Image.Image:
    """One column a color: the plain picture above, the same seed steered to that color below.

    The columns are the first targets of each color that count, hit or missed.
    """
    columns = []
    for value in FACTORS["color"]:
        pairs = (
            (one.plain, after) for one, after in zip(way.asked, way.steered, strict=True) if one.target.value == value
        )
        columns += [(before.picture, after.picture) for before, after in islice(pairs, 1)]
    side, gap, band = columns[0][0].shape[0] * scale, 6 * scale, 14 * scale
    sheet = Image.new("RGB", (len(columns) * (side + gap) - gap, 2 * side + gap + band), "white")
    for i, (pair, value) in enumerate(zip(columns, FACTORS["color"], strict=False)):
        for j, picture in enumerate(pair):
            image = Image.fromarray(picture).resize((side, side), Image.Resampling.LANCZOS)
            sheet.paste(image, (i * (side + gap), j * (side + band + gap // 2)))
        top = side + gap // 2
        sheet.paste(COLORS[value], (i * (side + gap), top, i * (side + gap) + side, top + band - gap // 2))
    return sheet


def _write_pictures(findings: Findings, out: Path) -> list[dict[str, Any]]:
    """Every judged picture as PNG, with a line of `pictures.jsonl` that says what it was and how it was read."""
    groups: list[tuple[str, Sequence[Judged], Sequence[Target] | None]] = [
        ("adherence", findings.known, None),
        ("adherence-unseen", findings.unseen, None),
    ]
    for kind, ways in (("open", findings.ways), ("against", findings.against)):
        most = ways["features"].asked  # the other ways are shown on the first of these
        groups.append((f"{kind}-plain", [one.plain for one in most], [one.target for one in most]))
        groups += [(f"{kind}-{name}", way.steered, [one.target for one in way.asked]) for name, way in ways.items()]
    rows = []
    for group, judged, targets in groups:
        folder = out / "pictures" / group
        folder.mkdir(parents=True)
        for i, one in enumerate(judged):
            target = targets[i] if targets else None
            path = folder / f"{i:03}.png"
            Image.fromarray(one.picture).save(path)
            rows.append(
                {
                    "group": group,
                    "file": path.relative_to(out).as_posix(),
                    "caption": one.case.caption,
                    "seed": one.case.seed,
                    "named": one.case.named,
                    "target": target.value if target else None,
                    "read": one.reading.factors,
                }
            )
    with (out / "pictures.jsonl").open("w") as file:
        file.writelines(json.dumps(row) + "\n" for row in rows)
    return rows


def _itda_plots(findings: Findings, figures: dict[str, Any]) -> list[Markup]:
    """Tokens looked at, atoms and fvu of the ITDA against each other."""
    assert findings.itda is not None
    course, sizes = findings.itda.course, findings.itda.sizes
    atoms = [float(size[0]) for size in sizes]
    looked_at = [line["tokens"] for line in course]
    sae = figures["dictionary"]["fvu"]
    charts = (
        line_chart(
            [
                Line("ITDA", atoms, [size[1] for size in sizes]),
                Line("random tokens", atoms, [size[2] for size in sizes]),
                Line("the SAE", [atoms[0], atoms[-1]], [sae, sae]),
            ],
            "Error by number of atoms, held-out tokens",
            "atoms",
            "fraction of variance unexplained",
        ),
        line_chart(
            [Line("atoms", looked_at, [line["atoms"] for line in course])],
            "Atoms by tokens looked at",
            "tokens",
            "atoms",
        ),
        line_chart(
            # the first batch meets no atoms yet
            [Line("fvu", looked_at[1:], [line["fvu"] for line in course[1:]])],
            "Error of new tokens before any of them is added",
            "tokens",
            "fraction of variance unexplained",
        ),
    )
    return [Markup(chart) for chart in charts]


def _finite(value: Any) -> Any:
    """NaN has no place in JSON: None instead."""
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not np.isfinite(value) else value
