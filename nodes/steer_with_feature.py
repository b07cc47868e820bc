"""Steer With Feature: one feature of a dictionary, added to what Flux is thinking, taken out of it, or set."""

from __future__ import annotations

from typing import Any, Literal, get_args

from comfy_api.latest import io

from ..dictionaries import Dictionary
from ..residual import Plan, PlanError, Site
from ..residual.comfy_host import ToSigma, patch
from ..residual.mode import Mode, check_mode, edit, has_scale, home, noise_gain
from .mode import described, mode_input, model_name, strength_input
from .place import Place, check_finite, place_inputs
from .say import say
from .sockets import FluxDictionary

Stream = Literal["as the dictionary", "img", "txt", "both"]
OWN: Stream = "as the dictionary"


class SteerWithFeature(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="FluxtionarySteerWithFeature",
            display_name="Steer With Feature",
            category="Fluxtionary",
            description="Adds a feature to the picture Flux is thinking of, takes it out, or sets how much of it there "
            "is. Nodes can be chained, and other packs' patches go on working.",
            inputs=[
                io.Model.Input("model"),
                FluxDictionary.Input("dictionary", tooltip="From Load Dictionary."),
                io.Int.Input("feature", default=0, min=0, max=2**24, tooltip="The feature's number in the dictionary."),
                strength_input(),
                *place_inputs(),
                mode_input(),
                io.Combo.Input(
                    "stream",
                    options=list(get_args(Stream)),
                    default=OWN,
                    optional=True,
                    tooltip="Which of Flux's two streams mode add acts on, at the dictionary's block: what it thinks "
                    "of the picture (img), of the prompt (txt), or both.",
                ),
            ],
            outputs=[
                io.Model.Output(),
                io.String.Output(display_name="about", tooltip="What is done, and the feature's natural strength."),
            ],
            hidden=[io.Hidden.unique_id],
        )

    @classmethod
    def execute(
        cls,
        model: Any,
        dictionary: Dictionary,
        feature: int,
        strength: float,
        mode: Mode = "add",
        stream: Stream = OWN,
        **shared: Any,
    ) -> io.NodeOutput:
        place = Place(**shared)
        check_finite("strength", strength)
        dictionary.check_feature(feature)
        check_mode(mode, dictionary)
        sites = sites_of(dictionary, mode, stream)

        def plan(to_sigma: ToSigma) -> Plan:
            return Plan(edit(mode, dictionary, feature, strength, site, **place.options(to_sigma)) for site in sites)

        steered = patch(model, plan, "Steer With Feature")
        text = about(dictionary, feature, mode, strength, sites) + place.described()
        say(cls.hidden.unique_id if cls.hidden else None, text)
        return io.NodeOutput(steered, text)


def sites_of(dictionary: Dictionary, mode: Mode, stream: Stream) -> list[Site]:
    """Where a feature acts. Raises `PlanError` where it can only be added."""
    own = home(dictionary)
    streams = {OWN: [own.stream], "both": ["img", "txt"]}.get(stream, [stream])
    if mode != "add" and streams != [own.stream]:
        raise PlanError(
            f"stream: expected {OWN} ({own.stream}) for mode {mode}, found {stream}. How much of a feature there is "
            "can be read only from the stream that its dictionary was made for; with mode add it acts on any"
        )
    return [own._replace(stream=name) for name in streams]


def about(dictionary: Dictionary, feature: int, mode: Mode, strength: float, sites: list[Site]) -> str:
    """What is done with a feature, beside how strong it is by itself."""
    name = ".".join(filter(None, (model_name(dictionary), dictionary.site)))
    done = described(mode, strength, [str(site) for site in sites if not has_scale(dictionary, site)])
    if [str(site) for site in sites] != [dictionary.site]:
        done += f" at {' and '.join(map(str, sites))}"
    if mode == "add" and noise_gain(dictionary) is not None:
        done += ", along a direction that follows the noise level"
    return f"feature {feature} of {name}: {natural_strength(dictionary, feature)}; {done}"


def natural_strength(dictionary: Dictionary, feature: int) -> str:
    if dictionary.natural is None:
        return "natural strength not in the file"
    value = float(dictionary.natural[feature])
    return f"natural strength {value:.2f}" if value else "no natural strength, as it was never active when measured"
