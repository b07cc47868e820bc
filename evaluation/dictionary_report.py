"""What was measured of dictionaries, on disk: metrics.json and a self-contained report.html."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from .page import page, picture_uri
from .plots import Line, bar_chart, histogram, line_chart
from .spliced import PlainRun, SpliceErrors

SIDE = 224
"""Longest side of a picture in the report, in pixels."""

# Each row of the table: a title, what it means in one clause, and where in a dictionary's figures the number lies.
MEASURES = {
    "Reconstruction": [
        ("FVU", "share of variance missed, each channel divided by its deviation; lower is better", "whole.fvu"),
        ("FVU raw", "the same without the division: a few large channels dominate it", "whole.fvu_raw"),
        ("FVU within", "the same against what sigma and position alone explain", "whole.fvu_within"),
        ("Cosine", "mean cosine of a token and its reconstruction, both about the training mean", "whole.cosine"),
        ("Bias", "best common factor between the two: below 1, reconstructions are too short", "whole.bias"),
    ],
    "Sparsity": [
        ("l0", "mean number of active features a token", "whole.l0"),
        ("Used", "share of features active on at least one held-out token", "whole.used"),
        ("Dead", "share of features active on none", "whole.dead"),
        ("Tokens", "held-out tokens measured", "whole.tokens"),
    ],
    "Baselines": [
        ("PCA", "FVU of as many principal components as the dictionary has active features", "baselines.pca.fvu"),
        ("k-means", "FVU of the nearest centre", "baselines.kmeans.fvu"),
        ("Random tokens", "FVU of pursuit over randomly drawn tokens", "baselines.random_tokens.fvu"),
    ],
    "Spliced into the model": [
        ("Velocity error", "relative squared error of the model's prediction, step by step", "splice.velocity"),
        ("Mean: velocity error", "the same with the site replaced by its training mean: the floor", "mean.velocity"),
        ("Recovered", "1 less the ratio of the two: how much of what the mean breaks is kept", "recovered.velocity"),
        ("Latent error", "relative squared error of the finished latent, all steps spliced", "splice.latent"),
        ("Latent recovered", "of what the mean breaks there", "recovered.latent"),
        ("Pixel difference", "mean absolute difference from the plain picture, of 255", "splice.pixel"),
        ("PSNR", "of the spliced picture against the plain one, in dB", "splice.psnr"),
    ],
}


def write_dictionary_report(
    figures: Mapping[str, Any],
    plain: PlainRun | None,
    spliced: Mapping[str, tuple[SpliceErrors, SpliceErrors]],
    out: Path,
) -> None:
    """Write `metrics.json` and `report.html` into the folder `out`.

    `figures` is what `evaluate` returns; `spliced` has by dictionary what splicing it, and what the mean, changed.
    """
    out.mkdir(parents=True, exist_ok=True)
    (out / "metrics.json").write_text(json.dumps(figures, indent=1, allow_nan=False) + "\n")
    found = figures["dictionaries"]
    html = page(
        "dictionary_report.html",
        figures=figures,
        measures={
            group: [(title, means, [shown(_at(one, path)) for one in found.values()]) for title, means, path in rows]
            for group, rows in MEASURES.items()
        },
        charts={name: charts(name, one) for name, one in found.items()},
        pictures={name: _pictures(plain, *errors) for name, errors in spliced.items() if plain is not None},
        shown=shown,
    )
    (out / "report.html").write_text(html, encoding="utf-8")


def charts(name: str, one: Mapping[str, Any]) -> list[str]:
    """The plots of one dictionary, `one` of `figures["dictionaries"]`."""
    reconstruction, whole = one["reconstruction"], one["reconstruction"]["whole"]
    bins, pca = reconstruction["by_sigma"], one["baselines"]["pca"]
    x_label = "sigma, from noise to picture"
    drawn = [
        line_chart(
            [
                Line(name, [part["sigma"] for part in bins], [part["fvu"] for part in bins]),
                Line(f"PCA, {pca['size']} components", *_columns(pca["by_sigma"])),
            ],
            "Variance unexplained by noise level",
            x_label,
            "FVU",
            reverse_x=True,
            zero=True,
        ),
        bar_chart(
            [(name, whole["fvu"]), *((title(key, each), each["fvu"]) for key, each in one["baselines"].items())],
            "Variance unexplained, beside the baselines",
            "FVU",
        ),
        histogram(
            reconstruction["histogram"]["log10_edges"],
            reconstruction["histogram"]["features"],
            "How often features are active",
            "log10 of the share of tokens",
            "features",
        ),
    ]
    if one["spliced"] is not None:
        drawn.append(
            line_chart(
                [
                    Line(name, *_columns(one["spliced"]["splice"]["velocity_by_sigma"])),
                    Line("mean of the site", *_columns(one["spliced"]["mean"]["velocity_by_sigma"])),
                ],
                "What splicing does to the prediction",
                x_label,
                "relative squared error",
                log_y=True,
                reverse_x=True,
            )
        )
    return drawn


def title(key: str, baseline: Mapping[str, Any]) -> str:
    """A baseline's name with its size."""
    words = {"pca": "PCA, {:,} components", "kmeans": "k-means, {:,} centres", "random_tokens": "{:,} random tokens"}
    return words[key].format(baseline["size"])


def numbers(value: Any) -> Any:
    """Plain JSON of figures: dataclasses as objects, NaN and infinity as None, of paths only the name."""
    if is_dataclass(value) and not isinstance(value, type):
        return {field.name: numbers(getattr(value, field.name)) for field in fields(value)}
    if isinstance(value, Mapping):
        return {key: numbers(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [numbers(item) for item in value]
    if isinstance(value, Path):
        return value.name
    return None if isinstance(value, float) and not math.isfinite(value) else value


def shown(value: float | int | None) -> str:
    """A figure as the report writes it."""
    if value is None:
        return "none"
    if isinstance(value, int):
        return f"{value:,}"
    return f"{value:.2f}" if abs(value) >= 10 else f"{value:.3g}" if abs(value) < 0.01 else f"{value:.3f}"


def _at(one: Mapping[str, Any], path: str) -> Any:
    """A number by its dotted path in a dictionary's figures; None where it was not measured."""
    first, *rest = path.split(".")
    part = {**one, "whole": one["reconstruction"]["whole"], **(one["spliced"] or {})}.get(first)
    for key in rest:
        part = None if part is None else part[key]
    return part


def _columns(rows: list[list[float]]) -> tuple[list[float], list[float]]:
    return [row[0] for row in rows], [row[1] for row in rows]


def _pictures(plain: PlainRun, splice: SpliceErrors, mean: SpliceErrors) -> list[dict[str, Any]]:
    groups = zip(plain.prompts, plain.seeds, plain.pictures, splice.pictures, mean.pictures, strict=True)
    return [
        {"caption": prompt, "seed": seed, "plain": _uri(one), "spliced": _uri(two), "mean": _uri(three)}
        for prompt, seed, one, two, three in groups
    ]


def _uri(picture: np.ndarray) -> str:
    image = Image.fromarray(picture)
    image.thumbnail((SIDE, SIDE))
    return picture_uri(image)
