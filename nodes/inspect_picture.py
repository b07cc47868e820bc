"""Inspect Picture: what Flux thinks of a picture that is already there."""

from __future__ import annotations

import sys
from typing import Any

from comfy_api.latest import io
from torch import Tensor

from ..dictionaries import Dictionary
from ..residual import Plan, Site, Tap
from ..residual.capture import Capture
from ..residual.comfy_host import Outcome, model_shape, patch
from .panels import image_input, shown
from .sampling import check_acts, forward, within_range
from .sockets import FluxCapture, FluxDictionary
from .tap import TapTask
from .views import look as look_at


class InspectPicture(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="FluxtionaryInspectPicture",
            display_name="Inspect Picture",
            category="Fluxtionary",
            description="Which features of a dictionary are active when Flux sees a picture that is already there. "
            "Flux is called once and nothing is drawn. Read the result with Read Features or Feature Heat Map.",
            inputs=[
                io.Model.Input("model", tooltip="A Flux 1 model. Steering nodes on it act here too."),
                FluxDictionary.Input("dictionary", tooltip="The features to look for, at the dictionary's own place."),
                io.Latent.Input("latent", tooltip="The picture, from VAE Encode with this model's VAE; or a batch."),
                io.Conditioning.Input(
                    "conditioning",
                    tooltip="The prompt that Flux sees beside the picture. An empty one, or a description of it.",
                ),
                io.Float.Input(
                    "noise_percent",
                    default=0.5,
                    min=0.0,
                    max=1.0,
                    step=0.01,
                    tooltip="How much noise covers the picture when Flux sees it. This is the sigma itself: 0.5 is "
                    "half picture, half noise; 1 is noise alone; 0 is the least noise that the model knows.",
                ),
                io.Int.Input("seed", default=0, min=0, max=2**64 - 1, tooltip="Which noise, as the seed of a sampler."),
                image_input(),
            ],
            outputs=[
                io.Latent.Output(display_name="latent", tooltip="The picture as it came in."),
                FluxCapture.Output(display_name="capture", tooltip="Its features, for the nodes that read captures."),
            ],
            hidden=[io.Hidden.unique_id],
        )

    @classmethod
    def execute(
        cls,
        model: Any,
        dictionary: Dictionary,
        latent: dict[str, Any],
        conditioning: list,
        noise_percent: float,
        seed: int,
        image: Tensor | None = None,
    ) -> io.NodeOutput:
        if not 0 <= noise_percent <= 1:
            raise ValueError(f"noise_percent: expected a number from 0 to 1, found {noise_percent}")
        site = Site.parse(dictionary.site)
        Plan([Tap(site, dictionary)]).check(*model_shape(model))
        sigma = within_range(model, noise_percent)
        check_acts("conditioning", model, conditioning, [sigma])
        # the codes of one call are smaller than what the model needs for it, so they need no limit of their own
        capture = Capture({site: dictionary}, limit=sys.maxsize)
        look = Look(capture, latent["samples"], cls.hidden.unique_id)
        forward(patch(model, look), latent, conditioning, sigma, seed)
        return io.NodeOutput(latent, capture, ui=shown(look_at(capture, latent), latent["samples"], image) or None)


class Look(TapTask):
    """Watches one call of the model up to the dictionary's site, and files it under the picture that was looked at."""

    name = "Inspect Picture"
    stops = True

    def __init__(self, capture: Capture, picture: Tensor, node_id: str | None):
        super().__init__(capture, (0.0, 1.0), "cond", node_id)
        self.picture = picture

    def finished(self, plan: Plan, outcome: Outcome) -> None:
        super().finished(plan, outcome._replace(latent=self.picture))
