"""Splice Dictionary: what a dictionary makes of Flux's thoughts, in their place."""

from __future__ import annotations

from typing import Any, Literal, get_args

from comfy_api.latest import io

from ..dictionaries import Dictionary
from ..residual import Plan, Site, Splice
from ..residual.comfy_host import ToSigma, patch
from .place import Place, place_inputs
from .sockets import FluxDictionary

Error = Literal["drop", "keep"]


class SpliceDictionary(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="FluxtionarySpliceDictionary",
            display_name="Splice Dictionary",
            category="Fluxtionary",
            description="What does the dictionary miss? Draws with what the dictionary makes of Flux's thoughts, "
            "instead of the thoughts themselves: what the picture loses, the dictionary has no features for.",
            inputs=[
                io.Model.Input("model"),
                FluxDictionary.Input("dictionary", tooltip="From Load Dictionary."),
                io.Combo.Input(
                    "error",
                    options=list(get_args(Error)),
                    default="drop",
                    tooltip="drop: only what the dictionary can say goes on. keep: what it misses is added back, so "
                    "that alone it changes nothing, and of the nodes before it goes on what the dictionary can say.",
                ),
                *place_inputs(end_percent=1.0),
            ],
            outputs=[io.Model.Output()],
        )

    @classmethod
    def execute(cls, model: Any, dictionary: Dictionary, error: Error = "drop", **shared: Any) -> io.NodeOutput:
        place, site = Place(**shared), Site.parse(dictionary.site)

        def plan(to_sigma: ToSigma) -> Plan:
            return Plan([Splice(site, dictionary, error == "keep", **place.options(to_sigma))])

        return io.NodeOutput(patch(model, plan, "Splice Dictionary"))
