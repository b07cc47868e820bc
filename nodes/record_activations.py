"""Record Activations: shards that dictionaries are trained on, from any workflow."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import folder_paths
import torch
from comfy_api.latest import io

from ..dictionaries.schema import shown
from ..residual import Plan, Site, SiteError, Window
from ..residual.block_chain import token_grid
from ..residual.comfy_host import Outcome, Start, Task, model_shape, patch
from ..residual.edits import Record, Rows
from ..residual.edits import Tap as PlanTap
from ..residual.recorder import About, Recorder, new_run
from ..residual.shard_manifest import DTYPES
from ..residual.shards import ShardError
from .names import inside
from .place import when_inputs
from .say import say
from .tap import parse_sites

logger = logging.getLogger(__name__)

CELL, PATCH = 8, 2
"""Pixels of a latent pixel, and latent pixels of a token, along a side."""
PRECISIONS = ("bfloat16", "float16", "float32")


class RecordActivations(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="FluxtionaryRecordActivations",
            display_name="Record Activations",
            category="Fluxtionary",
            description="Writes what Flux thinks while it samples to disk, for training dictionaries. It changes "
            "nothing in the picture. Each sampling run becomes a folder of its own.",
            inputs=[
                io.Model.Input("model"),
                io.String.Input(
                    "sites",
                    default="double.18.img",
                    multiline=True,
                    tooltip="The places to record, such as double.18.img or single.9.txt, separated by commas or line "
                    "breaks. Each takes about 25 MB for each step of a 1024x1024 picture.",
                ),
                io.String.Input(
                    "folder",
                    default="my-activations",
                    tooltip="Folder below output/fluxtionary, in which each run becomes run-00001, run-00002 and so "
                    "on. Record into the same folder with the same sites and precision to train on all runs together.",
                ),
                io.String.Input(
                    "prompt",
                    default="",
                    multiline=True,
                    optional=True,
                    tooltip="What the pictures show, written as where the activations come from. Training holds out "
                    "some of the prompts to measure on; without prompts it holds out nothing.",
                ),
                *when_inputs("record", "recording"),
                io.Float.Input(
                    "share",
                    default=1.0,
                    min=0.001,
                    max=1.0,
                    step=0.001,
                    optional=True,
                    tooltip="Share of the tokens that is kept, drawn by the sampler's seed. A tenth of ten times as "
                    "many pictures teaches a dictionary more.",
                ),
                io.Combo.Input(
                    "precision",
                    options=list(PRECISIONS),
                    default=PRECISIONS[0],
                    optional=True,
                    tooltip="Type of the numbers on disk. bfloat16 is enough for training; float32 takes twice the "
                    "room; float16 is too small for some of Flux's activations, and says so.",
                ),
                io.String.Input(
                    "model_name",
                    default="",
                    optional=True,
                    tooltip="Name of the model, written into the files: ComfyUI does not say which file it is.",
                ),
            ],
            outputs=[
                io.Model.Output(),
                io.String.Output(display_name="folder", tooltip="Where the runs are, for the command that trains."),
            ],
            hidden=[io.Hidden.unique_id],
        )

    @classmethod
    def execute(
        cls,
        model: Any,
        sites: str,
        folder: str,
        prompt: str = "",
        start_percent: float = 0.0,
        end_percent: float = 1.0,
        rows: Rows = "cond",
        share: float = 1.0,
        precision: str = PRECISIONS[0],
        model_name: str = "",
    ) -> io.NodeOutput:
        if not 0 < share <= 1:
            raise ValueError(f"share: expected a number above 0 and at most 1, found {share}")
        if precision not in PRECISIONS:
            raise ValueError(f"precision: expected one of {', '.join(PRECISIONS)}, found {shown(precision)}")
        recording = Recording(
            folder=place(folder),
            sites=named_sites(sites),
            prompt=prompt.encode(
                errors="replace"
            ).decode(),  # halves of characters are no text for the tools that read it
            percents=(start_percent, end_percent),
            rows=rows,
            share=share,
            precision=precision,
            model_name=model_name,
        )
        recording.plan(lambda percent: 1 - percent).check(*model_shape(model))
        return io.NodeOutput(patch(model, RecordTask(recording, cls.hidden.unique_id)), str(recording.folder))


def place(name: str) -> Path:
    """The folder of runs that `name` means, below the output folder.

    Raises `ValueError` for a name that is no plain one.
    """
    root = Path(folder_paths.get_output_directory()) / "fluxtionary"
    return inside(root, name, "folder", "portraits/first")


def named_sites(text: str) -> tuple[Site, ...]:
    """Each site of the text once. Raises `SiteError` where one is none, or there is none."""
    try:
        found = tuple(dict.fromkeys(parse_sites(text)))
    except SiteError as error:
        raise SiteError(f"sites: {error}") from error
    if not found:
        raise SiteError(f"sites: expected at least one site, such as double.18.img, found {shown(text)}")
    return found


@dataclass(frozen=True)
class Recording:
    """What is recorded of every run of a model."""

    folder: Path
    sites: tuple[Site, ...]
    prompt: str
    percents: tuple[float, float]
    rows: Rows
    share: float
    precision: str
    model_name: str

    def plan(self, to_sigma: Any, receive: Any = None) -> Plan:
        window = Window.from_percent(*self.percents, to_sigma)
        return Plan(PlanTap(site, window=window, rows=self.rows, receive=receive) for site in self.sites)

    def about(self, start: Start) -> About:
        pictures, (height, width) = start.shape[0], start.shape[-2:]
        prompts = [self.prompt] * pictures
        header = {
            "host": "comfyui",
            "sigmas": list(start.sigmas),
            "steps": max(len(start.sigmas) - 1, 0),
            "height": height * CELL,
            "width": width * CELL,
            "start_percent": self.percents[0],
            "end_percent": self.percents[1],
            "rows": self.rows,
            "share": self.share,
            "padding": "kept: the host does not say which text tokens are padding",
            "prompts_sha256": hashlib.sha256("\n".join(prompts).encode()).hexdigest(),
        }
        return About(
            sites=self.sites,
            dtype=DTYPES[self.precision],
            share=self.share,
            model={"family": "flux1", "name": self.model_name},
            header=header,
            prompts=prompts,
            seeds=[start.seed or 0] * pictures,
            grid=token_grid(height, width, PATCH),
        )


class RecordTask(Task):
    """Writes every run of a model into a folder of its own, which a run that does not end well takes with it."""

    name = "Record Activations"

    def __init__(self, recording: Recording, node_id: str | None):
        self.recording, self.node_id = recording, node_id
        self._open: dict[Plan, Recorder] = {}

    def plan(self, start: Start) -> Plan:
        with self._named():
            recorder = Recorder(new_run(self.recording.folder), self.recording.about(start))
        plan = self.recording.plan(start.to_sigma, partial(self._receive, recorder))
        self._open[plan] = recorder
        return plan

    def finished(self, plan: Plan, outcome: Outcome) -> None:
        recorder = self._open[plan]
        with self._named():
            whole = recorder.finish()
        del self._open[plan]
        self._say(recorder, whole, outcome.skipped)

    def abandoned(self, plan: Plan) -> None:
        if recorder := self._open.pop(plan, None):
            recorder.discard()

    def _receive(self, recorder: Recorder, tap: PlanTap, record: Record, x: torch.Tensor) -> None:
        with self._named():
            recorder.receive(tap, record, x)

    @contextmanager
    def _named(self) -> Iterator[None]:
        """Errors of writing say where, and what to do."""
        try:
            yield
        except (OSError, ShardError) as error:
            refused = error if isinstance(error, OSError) else error.__cause__
            if not isinstance(refused, OSError):
                raise ValueError(f"{self.name}: {error}") from error
            raise ValueError(
                f"{self.name}: cannot write to {self.recording.folder}: {refused.strerror or refused}. Make room or "
                "allow writing there, or choose another folder or a smaller share, and sample again; nothing of this "
                "run is kept"
            ) from error

    def _say(self, recorder: Recorder, whole: bool, skipped: int) -> None:
        """What was written, under the node; what is amiss, in the log too."""
        lines = [f"{count:,} tokens of {site}" for site, count in recorder.tokens.items()] if whole else []
        warnings = [] if whole else ["nothing was recorded: no call of the model had all sites within the window"]
        if missed := max(skipped, recorder.partial):
            warnings.append(f"{missed} model calls were skipped by a cache, wholly or in part, and not recorded")
        for warning in warnings:
            logger.warning("%s: %s", self.name, warning)
        say(self.node_id, "\n".join(([str(recorder.folder)] if whole else []) + lines + warnings))
