"""`fluxtionary steer`."""

from __future__ import annotations

from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Annotated

import tyro

from ..residual.edits import Rows
from ..residual.mode import END, Mode
from ..training.models import Model
from ..training.sampling import Drawing
from .output import OutputError, check_writable
from .steering_plan import DEMO, Entry, Gating, read_plan

ENDINGS = (".png", ".jpg", ".jpeg", ".webp")


@dataclass(frozen=True)
class Changes:
    """What is done, the same for every feature and vector; a plan file can say more."""

    feature: tuple[int, ...] = ()
    """Feature numbers; their directions are added one by one."""
    vector: tuple[Path, ...] = ()
    """Steering vectors: files from Save Steering Vector or `fluxtionary contrast`."""
    dictionary: str = DEMO
    """A dictionary file, or demo for the one that comes with the demo Flux."""
    mode: Mode = "add"
    """Add, take out what is there (ablate), or set how much there is (clamp)."""
    strength: tuple[float, ...] = ()
    """Size of the change, as a share of the size of the activations there (by default .6); with ablate, the share that
    is taken out (by default all). Several: one picture for each."""
    site: tuple[str, ...] = ()
    """Places in the model, such as double.18.img; by default those that the dictionary or the vector is made for."""
    start: Annotated[tuple[float, ...], tyro.conf.arg(metavar="SHARE [SHARE ...]")] = (0.0,)
    """Share of sampling after which the change begins, 0 to 1. Several, or several ends: one picture for each."""
    end: Annotated[tuple[float, ...], tyro.conf.arg(metavar="SHARE [SHARE ...]")] = (END,)
    """Share of sampling after which it ends."""
    rows: Rows = "cond"
    """With true classifier-free guidance: act on the prompt's half, on the negative prompt's (uncond), or both."""
    mask: Path | None = None
    """A picture that says where to act: where it is light; everywhere by default."""
    where: tuple[int, ...] = ()
    """Act only on tokens where one of these features is active; everywhere by default."""

    def entries(self) -> list[Entry]:
        """As the entries of a plan file."""
        gate = Gating(self.where) if self.where else None
        shared = Entry(
            dictionary=self.dictionary,
            mode=self.mode,
            strength=self.strength,
            sites=self.site,
            start=self.start,
            end=self.end,
            rows=self.rows,
            mask=self.mask,
            gate=gate,
        )
        return [replace(shared, feature=f) for f in self.feature] + [replace(shared, vector=v) for v in self.vector]

    def given(self) -> list[str]:
        """The options that differ from what they are by default."""
        return [f"--{f.name}" for f in fields(self) if getattr(self, f.name) != f.default]


@dataclass(frozen=True)
class Steer:
    """Draw a picture plain and steered, with features of a dictionary and steering vectors, and save them side by side.

    Several strengths, parts of sampling or seeds make a labelled grid.
    """

    prompt: str
    """What to draw."""
    out: Path
    """The picture to write (.png)."""
    changes: Annotated[Changes, tyro.conf.arg(name="")] = field(default_factory=Changes)
    plan: Path | None = None
    """A plan file (.json, docs/steering-plan.md) instead of --feature, --vector and what goes with them: several
    changes, each in its own way."""
    model: Annotated[Model, tyro.conf.arg(name="")] = field(default_factory=Model)
    seed: tuple[int, ...] = (0,)
    """Seed of the noise. Several: a row of pictures for each."""
    overwrite: bool = False
    """Replace the picture if there is one."""
    sampling: Drawing = field(default_factory=Drawing)

    def run(self) -> None:
        from ..demo.captions import check_caption
        from ..residual import PlanError
        from ..residual.diffusers_host import model_shape, percent_to_sigma
        from ..training.models import DEMO_MODELS, load
        from ..training.relatedness import relatedness
        from ..training.sampling import check_size
        from .sweep import read_sweep
        from .sweep_pictures import draw_sweep, grid

        check_writable(self.out, self.overwrite)
        check_size(self.model.model, self.sampling)
        if self.out.suffix.lower() not in ENDINGS:
            raise OutputError(f"{self.out}: expected a picture to write ({', '.join(ENDINGS)})")
        if not self.seed:
            raise PlanError("--seed: expected a number at least, found none")
        if self.model.model in DEMO_MODELS:
            check_caption(self.prompt)
        sweep = read_sweep(self._entries())
        pipeline = load(self.model)
        sampling = self.sampling.resolved(self.model.model, pipeline)
        to_sigma = percent_to_sigma(pipeline, sampling.height, sampling.width)
        for cell in sweep.cells():
            sweep.plan(cell, to_sigma).check(*model_shape(pipeline.transformer))
        said = [change.described() for change in sweep.changes]
        print("\n".join(said), flush=True)
        for name, vector in sweep.vectors():
            near = relatedness(vector, pipeline, self.prompt)
            unknown = "unknown: its file does not say which they were"
            print(f"{name}: relatedness of the prompt to those it was made of: {near or unknown}", flush=True)
        drawn = draw_sweep(pipeline, self.prompt, self.seed, sweep, sampling)
        for span in sweep.spans_of(drawn.idle, to_sigma):
            print(f"none of the {sampling.steps} steps begins in {span} of sampling: there nothing is changed")
        self.out.parent.mkdir(parents=True, exist_ok=True)
        grid(drawn, sweep, self.prompt, said).save(self.out)
        if len(drawn.steered) == 1:
            print(f"{self.out}: plain on the left, steered on the right")
        else:
            print(f"{self.out}: {len(drawn.plain) + len(drawn.steered)} pictures")

    def _entries(self) -> list[Entry]:
        from ..residual import PlanError

        if self.plan is not None:
            if given := self.changes.given():
                raise PlanError(f"--plan says all that is done: leave out {', '.join(given)}")
            return read_plan(self.plan)
        if not self.changes.feature and not self.changes.vector:
            raise PlanError("nothing to steer with: pass --feature, --vector or --plan")
        return self.changes.entries()
