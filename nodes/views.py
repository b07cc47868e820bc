"""Which run, and which part of it, a reading node looks at: the inputs that all of them share."""

from __future__ import annotations

from typing import Any, NamedTuple

from comfy_api.latest import io

from ..dictionaries import Dictionary
from ..residual import Site
from ..residual.capture import Capture, CaptureError, Recording
from ..residual.reading import View
from .sockets import FluxCapture

LAST = 10_000
"""A step beyond any: the last one there is."""


class Viewed(NamedTuple):
    """One run of a capture, one of its sites, and the part that is looked at."""

    recording: Recording
    site: Site
    view: View

    @property
    def dictionary(self) -> Dictionary:
        own = self.recording.dictionaries[self.site]
        if own is None:
            raise CaptureError(
                f"at {self.site} activations were kept, not codes: give the Tap a dictionary to read features"
            )
        return own


def run_inputs() -> list[io.Input]:
    """The sampled latent and the capture: what every reading node starts from."""
    return [
        io.Latent.Input(
            "latent",
            tooltip="The latent that the sampler made, as it came out. It says which sampling run is read, and that "
            "it has ended.",
        ),
        FluxCapture.Input("capture", tooltip="From the Tap whose model went into that sampler."),
    ]


def view_inputs() -> list[io.Input]:
    """The part of a run; all of it by default."""
    return [
        io.Int.Input(
            "picture",
            default=-1,
            min=-1,
            max=4096,
            optional=True,
            tooltip="Which picture of the batch, from 0; -1 is all of them.",
        ),
        io.Combo.Input(
            "rows",
            options=["cond", "uncond"],
            default="cond",
            optional=True,
            tooltip="With cfg above 1: the positive prompt's half, or the negative's. The Tap has to watch it.",
        ),
        io.Int.Input(
            "first_step",
            default=0,
            min=0,
            max=LAST,
            optional=True,
            tooltip="The first step that is read, from 0. Early steps decide the layout.",
        ),
        io.Int.Input(
            "last_step",
            default=LAST,
            min=0,
            max=LAST,
            optional=True,
            tooltip="The last step that is read, itself included. A number beyond the end means the end.",
        ),
        io.String.Input(
            "site",
            default="",
            optional=True,
            tooltip="Which place in the model, such as double.18.img. Needed only if the Tap watches several.",
        ),
    ]


def look(
    capture: Capture,
    latent: dict[str, Any],
    picture: int = -1,
    rows: str = "cond",
    first_step: int = 0,
    last_step: int = LAST,
    site: str = "",
) -> Viewed:
    """What the shared inputs ask for. Raises `CaptureError` where the capture does not have it."""
    recording = capture.run(latent["samples"])
    view = View(
        picture=None if picture < 0 else picture,
        role=rows,
        first=first_step,
        last=None if last_step >= LAST else last_step,
    )
    return Viewed(recording, recording.site(site.strip()), view)
