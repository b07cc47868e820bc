"""Steer With Feature: add one feature of a dictionary to what Flux is thinking."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from comfy_api.latest import io

from ..dictionaries import Dictionary
from ..residual import Add, Plan, Site, Window
from ..residual.comfy_host import patch
from ..residual.edits import Rows
from .sockets import FluxDictionary


class SteerWithFeature(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        percent = {"min": 0.0, "max": 1.0, "step": 0.01}
        return io.Schema(
            node_id="FluxtionarySteerWithFeature",
            display_name="Steer With Feature",
            category="Fluxtionary",
            description="Adds a feature to the picture Flux is thinking of. Nodes can be chained, and other "
            "packs' patches go on working.",
            inputs=[
                io.Model.Input("model"),
                FluxDictionary.Input("dictionary"),
                io.Int.Input("feature", default=0, min=0, max=2**24, tooltip="The feature's number in the dictionary."),
                io.Float.Input(
                    "strength",
                    default=0.4,
                    min=-100.0,
                    max=100.0,
                    step=0.05,
                    tooltip="How much of the feature is added, as a share of the usual size of what Flux thinks there. "
                    "0 changes nothing; negative values take it away. Try 0.2 to 1.",
                ),
                io.Float.Input(
                    "start_percent",
                    default=0.0,
                    tooltip="When in sampling it begins to act: 0 is the start, where the layout is decided.",
                    **percent,
                ),
                io.Float.Input(
                    "end_percent",
                    default=0.6,
                    tooltip="When it stops acting: 1 is the end, where only fine detail changes.",
                    **percent,
                ),
                io.Combo.Input(
                    "rows",
                    options=["cond", "uncond", "both"],
                    default="cond",
                    tooltip="With cfg above 1: act on the positive prompt's half, the negative's, or both.",
                ),
                io.Mask.Input(
                    "mask", optional=True, tooltip="Where in the picture it acts; everywhere without a mask."
                ),
            ],
            outputs=[io.Model.Output()],
        )

    @classmethod
    def execute(
        cls,
        model: Any,
        dictionary: Dictionary,
        feature: int,
        strength: float,
        start_percent: float,
        end_percent: float,
        rows: Rows,
        mask: Any = None,
    ) -> io.NodeOutput:
        direction = dictionary.direction(feature)
        site = Site.parse(dictionary.site)

        def plan(percent_to_sigma: Callable[[float], float]) -> Plan:
            window = Window.from_percent(start_percent, end_percent, percent_to_sigma)
            return Plan([Add(site, direction, strength, dictionary.scale, window=window, rows=rows, mask=mask)])

        return io.NodeOutput(patch(model, plan, "Steer With Feature"))
