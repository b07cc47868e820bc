"""Tap: watch what Flux thinks while it samples."""

from __future__ import annotations

import logging
import weakref
from dataclasses import dataclass
from typing import Any

from comfy_api.latest import io
from comfy_execution.utils import get_executing_context
from torch import Tensor

from ..dictionaries import Dictionary, describe_fit
from ..residual import Plan, PlanError, Record, Site, Window
from ..residual.capture import Capture, Origin, Recording
from ..residual.comfy_host import Outcome, Start, Task, model_shape, patch
from ..residual.edits import Rows
from ..residual.edits import Tap as PlanTap
from .place import when_inputs
from .say import say
from .sockets import FluxCapture, FluxDictionary

logger = logging.getLogger(__name__)


class Tap(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="FluxtionaryTap",
            display_name="Tap",
            category="Fluxtionary",
            description="Watches what Flux thinks while it samples, and changes nothing. Connect the model to a "
            "sampler, and the capture to Read Features or Feature Heat Map.",
            inputs=[
                io.Model.Input("model"),
                FluxDictionary.Input(
                    "dictionary",
                    optional=True,
                    tooltip="With a dictionary only the features that are active are kept, which takes little memory. "
                    "Its own place in the model is watched.",
                ),
                io.String.Input(
                    "sites",
                    default="",
                    optional=True,
                    tooltip="Further places to watch, such as double.18.img, separated by commas. There the plain "
                    "activations are kept: about 25 MB for each step of a 1024x1024 picture.",
                ),
                *when_inputs("watch", "watching"),
                io.Int.Input(
                    "memory",
                    default=2048,
                    min=1,
                    max=2**20,
                    optional=True,
                    tooltip="Most main memory it may hold, in MB. Older runs are let go first; what does not fit is "
                    "left out, and said.",
                ),
            ],
            outputs=[io.Model.Output(), FluxCapture.Output(display_name="capture")],
            hidden=[io.Hidden.unique_id],
            not_idempotent=True,  # or two equal Taps would share one capture
        )

    @classmethod
    def execute(
        cls,
        model: Any,
        dictionary: Dictionary | None = None,
        sites: str = "",
        start_percent: float = 0.0,
        end_percent: float = 1.0,
        rows: Rows = "cond",
        memory: int = 2048,
    ) -> io.NodeOutput:
        watched: dict[Site, Dictionary | None] = dict.fromkeys(parse_sites(sites))
        if dictionary is not None:
            watched[Site.parse(dictionary.site)] = dictionary
        if not watched:
            raise PlanError("nothing to watch: connect a dictionary, or name sites such as double.18.img in `sites`")
        Plan(PlanTap(site, own) for site, own in watched.items()).check(*model_shape(model))
        Window.from_percent(start_percent, end_percent, lambda percent: 1 - percent)
        capture = Capture(watched, memory * 2**20)
        task = TapTask(capture, (start_percent, end_percent), rows, cls.hidden.unique_id)
        return io.NodeOutput(patch(model, task), capture)


def parse_sites(text: str) -> list[Site]:
    """Sites separated by commas, semicolons or line breaks. Raises `SiteError` for one that is none."""
    return [Site.parse(name.strip()) for name in text.replace(";", ",").replace("\n", ",").split(",") if name.strip()]


@dataclass(frozen=True)
class Receiver:
    """Takes what the taps of one run see."""

    capture: Capture
    recording: Recording

    def __call__(self, tap: PlanTap, record: Record, x: Tensor) -> None:
        self.capture.add(self.recording, tap, record, x)


class TapTask(Task):
    """Watches every run of a model, for as long as somebody holds the capture."""

    name = "Tap"

    def __init__(self, capture: Capture, percents: tuple[float, float], rows: Rows, node_id: str | None):
        # the model lives in other nodes' outputs too, and must not keep the capture alive
        self.capture = weakref.ref(capture)
        self.percents, self.rows, self.node_id = percents, rows, node_id

    def plan(self, start: Start) -> Plan:
        capture = self.capture()
        if capture is None:
            return Plan()
        receiver = Receiver(capture, capture.begin(origin(), start.sigmas))
        window = Window.from_percent(*self.percents, start.to_sigma)
        return Plan(
            PlanTap(site, own, window=window, rows=self.rows, receive=receiver)
            for site, own in capture.dictionaries.items()
        )

    def finished(self, plan: Plan, outcome: Outcome) -> None:
        for item in plan:
            receiver = getattr(item, "receive", None)
            if isinstance(receiver, Receiver):
                receiver.recording.skipped = outcome.skipped
                receiver.capture.finish(receiver.recording, outcome.latent)
                lines, warnings = report(receiver.recording)
                for warning in warnings:
                    logger.warning("%s: %s", self.name, warning)
                say(self.node_id, "\n".join((*lines, *warnings)))
                return


def origin() -> Origin | None:
    """The node that samples, and the run of the graph that it samples in."""
    context = get_executing_context()
    return None if context is None else Origin((context.node_id, context.list_index), context.prompt_id)


def report(recording: Recording) -> tuple[list[str], list[str]]:
    """What was kept of a run and how well its dictionaries fit it, and what is amiss."""
    lines, warnings = [], []
    for site, records in recording.records.items():
        lines.append(f"{site}: {len(records)} model calls")
        own, meter = recording.dictionaries[site], recording.fits.get(site)
        fit = meter.fit() if meter is not None else None
        if own is not None and fit is not None:
            text, warning = describe_fit(own, fit)
            lines[-1] = f"{text}; {len(records)} model calls"
            warnings += [warning] if warning else []
    if recording.skipped:
        warnings.append(f"{recording.skipped} model calls were skipped by a cache, so nothing was seen of them")
    if recording.lost:
        warnings.append(
            f"{recording.lost} model calls found no room: raise `memory`, narrow the window, or use a dictionary, "
            "which keeps only what is active"
        )
    return lines, warnings
