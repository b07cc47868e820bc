"""One feature of an atlas as a page: its figures, and its pictures with heat maps, all in one file."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import torch
from markupsafe import Markup
from PIL import Image
from torch import Tensor

from ..atlas import Atlas, Feature, Kind
from ..residual.overlay import enlarged, overlaid, paper_overlaid
from .page import data_uri, page
from .plots import Line, histogram, line_chart

OPACITY = 0.75
"""Of the color-blind-safe overlay where the feature is strongest."""


def feature_page(atlas: Atlas, number: int) -> str:
    """HTML of a feature that was active; whatever the atlas says is shown as text. Raises `AtlasError` for others."""
    feature = atlas.feature(number)
    return page(
        "feature_page.html",
        feature=feature,
        about=atlas.header["dictionary"],
        tops=_examples(atlas, feature, "top"),
        spread=_examples(atlas, feature, "spread"),
        plots=[Markup(plot) for plot in _plots(atlas, feature)],
    )


def _plots(atlas: Atlas, feature: Feature) -> list[str]:
    levels = list(zip(atlas.header["sigmas"], feature.profile, strict=False))
    profile = Line("density", [sigma for sigma, _ in levels], [density for _, density in levels])
    labels = "When it is active", "sigma (1 is pure noise)", "share of tokens"
    plots = [line_chart([profile], *labels, reverse_x=True, zero=True)]
    peaks = [abs(example.peak) for example in atlas.examples(feature.number, "spread")]
    if len(peaks) > 1:
        counts, edges = np.histogram(peaks, min(10, len(peaks)), (0, max(peaks)))
        title = f"Peaks in {len(peaks)} of its pictures, drawn uniformly"
        plots.append(histogram(edges.tolist(), counts.tolist(), title, "peak of the heat map", "pictures"))
    return plots


def _examples(atlas: Atlas, feature: Feature, kind: Kind) -> list[dict[str, Any]]:
    return [
        {
            "prompt": atlas.picture(example.picture).prompt,
            "picture": example.picture,
            "peak": example.peak,
            "views": _views(atlas, feature, example.picture),
        }
        for example in atlas.examples(feature.number, kind)
    ]


def _views(atlas: Atlas, feature: Feature, picture: int) -> dict[str, str]:
    """Data URIs of a picture: plain, and with the heat map as a share of the feature's peak in two colors."""
    pixels = torch.from_numpy(atlas.pixels(picture).copy()).float() / 255
    values = torch.from_numpy(np.abs(atlas.heat_map(feature.number, picture)))[None]
    shares = (values / (abs(feature.peak) or 1.0)).clamp(0, 1)
    rows, columns = atlas.grid
    whole = enlarged(shares, (2 * rows, 2 * columns), atlas.size)[0]
    return {
        "plain": data_uri(atlas.webp(picture), "webp"),
        "blue": _webp(paper_overlaid(pixels, whole)),
        "cividis": _webp(overlaid(pixels, whole, "cividis", OPACITY)),
    }


def _webp(picture: Tensor) -> str:
    out = io.BytesIO()
    Image.fromarray((picture.clamp(0, 1) * 255).round().to(torch.uint8).numpy()).save(out, "WEBP", quality=85)
    return data_uri(out.getvalue(), "webp")
