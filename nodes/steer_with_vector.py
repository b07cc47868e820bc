"""Steer With Vector: a steering vector, added to what Flux is thinking, taken out of it, or set."""

from __future__ import annotations

from typing import Any

from comfy_api.latest import io

from ..dictionaries import SteeringVector
from ..residual import Plan, PlanError, Site
from ..residual.comfy_host import ToSigma, patch
from ..residual.mode import Mode, edit
from .mode import described, mode_input, model_name, strength_input
from .place import Place, check_finite, place_inputs
from .say import say
from .sockets import FluxSteeringVector


class SteerWithVector(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="FluxtionarySteerWithVector",
            display_name="Steer With Vector",
            category="Fluxtionary",
            description="Moves what Flux is thinking along a steering vector, at every place in the model that the "
            "vector is made for.",
            inputs=[
                io.Model.Input("model"),
                FluxSteeringVector.Input("vector", tooltip="From Load Steering Vector, or made by Vector Arithmetic."),
                strength_input(),
                *place_inputs(),
                mode_input(),
                io.String.Input(
                    "site",
                    default="",
                    optional=True,
                    tooltip="One of the vector's places in the model, such as double.18.img. Empty: all of them.",
                ),
            ],
            outputs=[
                io.Model.Output(),
                io.String.Output(display_name="about", tooltip="What is done, and at which places in the model."),
            ],
            hidden=[io.Hidden.unique_id],
        )

    @classmethod
    def execute(
        cls,
        model: Any,
        vector: SteeringVector,
        strength: float,
        mode: Mode = "add",
        site: str = "",
        **shared: Any,
    ) -> io.NodeOutput:
        place = Place(**shared)
        check_finite("strength", strength)
        parts = [vector.at(name) for name in sites_of(vector, site)]

        def plan(to_sigma: ToSigma) -> Plan:
            return Plan(
                edit(mode, part, 0, strength, Site.parse(part.site), **place.options(to_sigma)) for part in parts
            )

        steered = patch(model, plan, "Steer With Vector")
        text = about(vector, mode, strength, [part.site for part in parts]) + place.described()
        say(cls.hidden.unique_id if cls.hidden else None, text)
        return io.NodeOutput(steered, text)


def sites_of(vector: SteeringVector, site: str) -> list[str]:
    """The asked site of a vector, or all. Raises `PlanError` for one that it has not."""
    name = site.strip()
    if name and name not in vector.sites:
        raise PlanError(f"site: expected one of {', '.join(vector.sites)}, or nothing for all of them, found {name!r}")
    return [name] if name else list(vector.sites)


def about(vector: SteeringVector, mode: Mode, strength: float, sites: list[str]) -> str:
    """What is done with a vector, and where."""
    name = model_name(vector)
    done = described(mode, strength, [site for site in sites if site not in vector.scales])
    return f"vector{f' of {name}' if name else ''} at {' and '.join(sites)}: {done}"
