"""Feature Heat Map: where in the picture a feature is active, to look at and as a mask."""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import Any

import torch
from comfy_api.latest import io
from torch import Tensor

from ..residual.capture import Capture
from ..residual.overlay import COLORS, enlarged, overlaid
from ..residual.reading import heat_maps, pictures
from .say import say
from .views import Viewed, look, run_inputs, view_inputs

logger = logging.getLogger(__name__)

GROUND = 0.12
"""Brightness of what a map is laid on where there is no picture."""


class FeatureHeatMap(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        share = {"min": 0.0, "max": 1.0, "step": 0.05}
        return io.Schema(
            node_id="FluxtionaryFeatureHeatMap",
            display_name="Feature Heat Map",
            category="Fluxtionary",
            description="Shows where in the picture a feature is active. The mask makes a segmentation of it.",
            inputs=[
                *run_inputs(),
                io.Int.Input(
                    "feature",
                    default=0,
                    min=0,
                    max=2**24,
                    tooltip="The feature's number. Wire the features of Read Features in to get a map of each.",
                ),
                io.Image.Input(
                    "image", optional=True, tooltip="The picture to lay the map over; a dark ground without one."
                ),
                io.Combo.Input(
                    "steps",
                    options=["average", "each"],
                    default="average",
                    optional=True,
                    tooltip="One map, the average of all steps; or one for each step, as a batch.",
                ),
                *colors_inputs(),
                io.Float.Input(
                    "threshold",
                    default=0.3,
                    optional=True,
                    tooltip="The mask is 1 where the feature reaches this share of its peak. 0 gives a soft mask: "
                    "the value itself as a share of the peak.",
                    **share,
                ),
                *view_inputs(),
            ],
            outputs=[io.Image.Output(), io.Mask.Output()],
            hidden=[io.Hidden.unique_id],
        )

    @classmethod
    def execute(
        cls,
        latent: dict[str, Any],
        capture: Capture,
        feature: int,
        image: Tensor | None = None,
        steps: str = "average",
        colors: str = "viridis",
        opacity: float = 0.8,
        smooth: bool = True,
        threshold: float = 0.3,
        **view: Any,
    ) -> io.NodeOutput:
        seen = look(capture, latent, **view)
        parts = [maps if steps == "each" else maps.mean(0, keepdim=True) for maps in of_pictures(seen, feature)]
        shares = torch.cat(parts).abs()
        peak = float(shares.max())
        if not peak:
            text = f"feature {feature} is never active here: the mask is empty"
            logger.info("Feature Heat Map: %s", text)
            say(cls.hidden.unique_id, text)
        shares = shares / (peak or 1.0)
        ground = grounds(image, latent)
        shares = enlarged(shares, latent_size(latent), (ground.shape[1], ground.shape[2]), smooth)
        mask = (shares >= threshold).float() if threshold and peak else shares
        numbers = [number for number, part in zip(shown_pictures(seen), parts, strict=True) for _ in part]
        drawn = [
            overlaid(ground[number % len(ground)], share, colors, opacity)
            for number, share in zip(numbers, shares, strict=True)
        ]
        return io.NodeOutput(torch.stack(drawn), mask)


def colors_inputs() -> list[io.Input]:
    """How a map is drawn."""
    return [
        io.Combo.Input(
            "colors",
            options=list(COLORS),
            default="viridis",
            optional=True,
            tooltip="viridis and cividis can be read by color-blind eyes too; heat is black, red, yellow, white.",
        ),
        io.Float.Input(
            "opacity",
            default=0.8,
            min=0.0,
            max=1.0,
            step=0.05,
            optional=True,
            tooltip="How much of the picture the map covers where the feature is strongest.",
        ),
        io.Boolean.Input(
            "smooth",
            default=True,
            optional=True,
            tooltip="Blend between Flux's tokens of 16x16 pixels; off shows them as squares.",
        ),
    ]


def shown_pictures(seen: Viewed) -> list[int]:
    """Numbers of the pictures that are shown: the one that is asked for, or all."""
    return pictures(seen.recording, seen.site) if seen.view.picture is None else [seen.view.picture]


def of_pictures(seen: Viewed, feature: int) -> list[Tensor]:
    """Maps of a feature `[steps, rows, columns]` for each picture that is shown."""
    return [
        heat_maps(seen.recording, seen.site, feature, replace(seen.view, picture=number)).maps
        for number in shown_pictures(seen)
    ]


def latent_size(latent: dict[str, Any]) -> tuple[int, int]:
    return tuple(latent["samples"].shape[-2:])


def grounds(image: Tensor | None, latent: dict[str, Any]) -> Tensor:
    """What maps are laid on, `[n, h, w, 3]`: the pictures, or a dark one of the size that the latent decodes to."""
    if image is not None:
        return image[..., :3].float().cpu()
    height, width = latent_size(latent)
    return torch.full((1, 8 * height, 8 * width, 3), GROUND)
