"""Read Features: which features of a dictionary were active while a picture was made."""

from __future__ import annotations

import json
import math
from typing import Any

import torch
from comfy_api.latest import io
from comfy_execution.graph_utils import ExecutionBlocker

from ..dictionaries import Dictionary
from ..residual.capture import Capture, CaptureError
from ..residual.reading import MEASURES, Measure, Reading, Statistics, ranked, statistics
from .panels import image_input, shown
from .say import say
from .sockets import FluxCapture
from .tap import report
from .views import Viewed, look, run_inputs, view_inputs


class ReadFeatures(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="FluxtionaryReadFeatures",
            display_name="Read Features",
            category="Fluxtionary",
            description="Lists the features that Flux used most while it made a picture, or those that differ most "
            "between two runs.",
            inputs=[
                *run_inputs(),
                io.Combo.Input(
                    "by",
                    options=list(MEASURES),
                    default="activation",
                    tooltip="What counts: the mean activation over all of the picture, the peak at any one place, or "
                    "the area, which is the share of the picture where the feature is active.",
                ),
                io.Int.Input("count", default=10, min=1, max=10_000, tooltip="How many features are listed."),
                FluxCapture.Input(
                    "against",
                    optional=True,
                    tooltip="The capture of another run, or the same capture again: lists what differs, this run "
                    "minus that one. Needs against_latent.",
                ),
                io.Latent.Input(
                    "against_latent", optional=True, tooltip="The latent of the run to compare with. Needs against."
                ),
                io.Mask.Input(
                    "mask", optional=True, tooltip="Only this part of the picture counts; all of it without a mask."
                ),
                *view_inputs(),
                image_input(),
            ],
            outputs=[
                io.Latent.Output(display_name="latent", tooltip="As it came in."),
                io.Int.Output(
                    display_name="features",
                    is_output_list=True,
                    tooltip="The numbers of the features. Wired into another node, that node runs once for each.",
                ),
                io.String.Output(display_name="text", tooltip="A table to read, for Preview as Text."),
                io.String.Output(display_name="json", tooltip="The same for programs."),
            ],
            hidden=[io.Hidden.unique_id],
            is_output_node=True,
        )

    @classmethod
    def execute(
        cls,
        latent: dict[str, Any],
        capture: Capture,
        by: Measure,
        count: int,
        against: Capture | None = None,
        against_latent: dict[str, Any] | None = None,
        mask: torch.Tensor | None = None,
        image: torch.Tensor | None = None,
        **view: Any,
    ) -> io.NodeOutput:
        seen = look(capture, latent, **view)
        now = statistics(seen.recording, seen.site, seen.view, mask)
        then = compared(seen, against, against_latent, mask, view)
        readings = ranked(now, by, count, then)
        found = describe(seen, by, readings, mask is not None, then is not None)
        text = table(found)
        say(cls.hidden.unique_id, text)
        # the host would fail on an empty list that is wired into a node
        numbers = [one.feature for one in readings] or [ExecutionBlocker("Read Features found no feature")]
        ui = {"text": [text], "features": [found], **shown(seen, latent["samples"], image)}
        return io.NodeOutput(latent, numbers, text, json.dumps(found, allow_nan=False, indent=1), ui=ui)


def compared(
    seen: Viewed,
    capture: Capture | None,
    latent: dict[str, Any] | None,
    mask: torch.Tensor | None,
    view: dict[str, Any],
) -> Statistics | None:
    """The same part of the other run; None without one. Raises `CaptureError` where the two do not compare."""
    if capture is None and latent is None:
        return None
    if capture is None or latent is None:
        missing = "against" if capture is None else "against_latent"
        raise CaptureError(
            f"`against` and `against_latent` go together: connect `{missing}` too, or take out the other"
        )
    other = look(capture, latent, **view)
    if other.site != seen.site or not same(other.dictionary, seen.dictionary):
        raise CaptureError(
            f"two runs compare only through one dictionary: give both Taps the same. Here are one of {seen.site} with "
            f"{seen.dictionary.n_features} features and another of {other.site} with {other.dictionary.n_features}"
        )
    return statistics(other.recording, other.site, other.view, mask)


def same(one: Dictionary, other: Dictionary) -> bool:
    """Whether two dictionaries are one: the same object, or loaded twice."""
    return one is other or (one.site == other.site and torch.equal(one.decoder, other.decoder))


def describe(seen: Viewed, by: Measure, readings: list[Reading], masked: bool, difference: bool) -> dict[str, Any]:
    """All that is known, as JSON has it: no NaN, None instead."""
    recording, dictionary = seen.recording, seen.dictionary
    lines, warnings = report(recording)
    meter = recording.fits.get(seen.site)
    fit = meter.fit() if meter is not None else None
    steps = recording.steps - 1
    found = {
        "site": str(seen.site),
        "dictionary": {
            "model": dictionary.model,
            "kind": dictionary.kind,
            "n_features": dictionary.n_features,
        },
        "run": {"steps": recording.steps, "sigmas": list(recording.sigmas)},
        "view": {
            "picture": seen.view.picture,
            "rows": seen.view.role,
            "first_step": seen.view.first,
            "last_step": steps if seen.view.last is None else min(seen.view.last, steps),
            "masked": masked,
        },
        "fit": None if fit is None else fit._asdict(),
        "report": lines,
        "warnings": warnings,
        "by": by,
        "difference": difference,
        "features": [
            {
                "feature": one.feature,
                "activation": one.activation,
                "peak": one.peak,
                "area": one.area,
                "strength": one.strength(dictionary),
                "natural": None if dictionary.natural is None else float(dictionary.natural[one.feature]),
            }
            for one in readings
        ],
    }
    return plain(found)


def plain(value: Any) -> Any:
    """A value that JSON has: None for NaN and infinity, wherever they are."""
    if isinstance(value, dict):
        return {name: plain(inner) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [plain(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def table(found: dict[str, Any]) -> str:
    """What was found, to read: how well the dictionary fits, then a line for each feature."""
    view, sign = found["view"], "+" if found["difference"] else ""
    picture = "all pictures" if view["picture"] is None else f"picture {view['picture']}"
    parts = [f"{picture}, {view['rows']} rows, steps {view['first_step']} to {view['last_step']}"]
    parts += ["only under the mask"] if view["masked"] else []
    parts += ["this run minus the other"] if found["difference"] else []
    head = [*found["report"], *(f"Warning: {warning}" for warning in found["warnings"]), "; ".join(parts), ""]
    if not found["features"]:
        return "\n".join([*head, "no difference" if found["difference"] else "no feature is active here"])

    def short(value: float | None, sign: str = "") -> str:
        return "-" if value is None else f"{value:{sign}.3g}"

    rows = [("feature", "mean", "peak", "area", "strength", "natural")]
    rows += [
        (
            f"#{one['feature']}",
            short(one["activation"], sign),
            short(one["peak"], sign),
            "-" if one["area"] is None else f"{one['area']:{sign}.1%}",
            short(one["strength"]),
            short(one["natural"]),
        )
        for one in found["features"]
    ]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join([*head, *("  ".join(map(str.rjust, row, widths)) for row in rows)])
