"""Feature Grid: the features of a picture at a glance, each with its heat map."""

from __future__ import annotations

from typing import Any

from comfy_api.latest import io
from torch import Tensor

from ..residual.capture import Capture, CaptureError
from ..residual.overlay import enlarged, overlaid
from ..residual.reading import MEASURES, Measure, Reading, ranked, statistics
from .feature_heat_map import colors_inputs, grounds, latent_size, of_pictures, shown_pictures
from .pictures import Tile, grid, resized
from .views import Viewed, look, run_inputs, view_inputs

SHEET = 2048
"""Pixels that the tiles of a row share."""
SMALL, USUAL, LARGE = 192, 288, 512
"""Pixels of the longer side of a tile: at least, so that its caption can be read; of small pictures; at most."""


class FeatureGrid(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="FluxtionaryFeatureGrid",
            display_name="Feature Grid",
            category="Fluxtionary",
            description="Shows the features that Flux used most in a picture, each with its heat map, as one picture.",
            inputs=[
                *run_inputs(),
                io.Image.Input(
                    "image", optional=True, tooltip="The picture to lay the maps over; a dark ground without one."
                ),
                io.Combo.Input(
                    "by",
                    options=list(MEASURES),
                    default="activation",
                    tooltip="Which features are shown, as in Read Features: those of the largest mean activation, of "
                    "the highest peak, or active on the largest area.",
                ),
                io.Int.Input("count", default=12, min=1, max=64, tooltip="How many features are shown."),
                io.Int.Input("columns", default=4, min=1, max=16, tooltip="How many lie side by side."),
                *colors_inputs(),
                *view_inputs(),
            ],
            outputs=[io.Image.Output()],
        )

    @classmethod
    def execute(
        cls,
        latent: dict[str, Any],
        capture: Capture,
        by: Measure,
        count: int,
        columns: int,
        image: Tensor | None = None,
        colors: str = "viridis",
        opacity: float = 0.8,
        smooth: bool = True,
        **view: Any,
    ) -> io.NodeOutput:
        seen = look(capture, latent, **view)
        readings = ranked(statistics(seen.recording, seen.site, seen.view), by, count)
        if not readings:
            raise CaptureError("no feature of the dictionary is active here, so there is nothing to show")
        ground = grounds(image, latent)
        ground = resized(ground, tile_size(ground.shape[1], ground.shape[2], min(columns, len(readings))))
        tiles = [tile(seen, one, ground, latent_size(latent), (colors, opacity, smooth)) for one in readings]
        return io.NodeOutput(grid(tiles, columns, colors)[None])


def tile_size(height: int, width: int, columns: int) -> tuple[int, int]:
    """Height and width at which pictures are shown, in so many columns."""
    longer = max(height, width)
    room = 0.92 * SHEET / columns  # the rest is for what lies between them
    factor = min(max(min(max(longer, USUAL), room), SMALL), LARGE) / longer
    return max(round(factor * height), 1), max(round(factor * width), 1)


def tile(seen: Viewed, one: Reading, ground: Tensor, latent: tuple[int, int], style: tuple[str, float, bool]) -> Tile:
    """A feature's map, average over the steps, on that picture of the batch on which it is strongest."""
    colors, opacity, smooth = style
    maps = [maps.mean(0).abs() for maps in of_pictures(seen, one.feature)]
    place = max(range(len(maps)), key=lambda i: float(maps[i].max()))
    peak = float(maps[place].max())
    values = enlarged(maps[place][None] / (peak or 1.0), latent, (ground.shape[1], ground.shape[2]), smooth)[0]
    number = shown_pictures(seen)[place]
    title = f"#{one.feature} (picture {number})" if len(maps) > 1 else f"#{one.feature}"
    detail = f"mean {one.activation:.2g}, peak {one.peak:.3g}, area {one.area:.0%}"
    return Tile(overlaid(ground[number % len(ground)], values, colors, opacity), title, detail, peak)
