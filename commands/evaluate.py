"""`fluxtionary evaluate`: how good dictionaries are, as figures and as a page."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated

import tyro

from ..evaluation.evaluate import Evaluation
from .output import OutputError, new_folder
from .source import Source


@dataclass(frozen=True)
class Evaluate:
    """Measure dictionaries on held-out prompts, alone and spliced into the model: report.html and metrics.json."""

    dictionaries: tyro.conf.Positional[tuple[Path, ...]]
    """Dictionary files (.safetensors) of one model."""
    out: Path
    """Folder for the report."""
    held_out_share: float = 0.02
    """Share of the prompts that are held out, by a hash of their text: what a training held out is among them."""
    overwrite: bool = False
    """Replace the folder if an earlier evaluation wrote it."""
    measure: Evaluation = field(default_factory=Evaluation)
    source: Annotated[Source, tyro.conf.arg(name="")] = field(default_factory=Source)

    def run(self) -> None:
        from ..dictionaries import load_dictionary
        from ..evaluation.evaluate import evaluate

        if not 0 < self.held_out_share < 1 and self.source.prompts is not None:
            raise OutputError(f"held-out-share is a share above 0 and below 1, found {self.held_out_share}")
        if self.source.pictures != 1 or (self.source.seed and self.source.prompts is not None):
            raise OutputError(
                "evaluating draws as many pictures of each prompt as it needs tokens: leave --pictures and --seed out, "
                "and name seeds with --measure.seed"
            )
        if self.source.shards:
            raise OutputError("evaluating draws pictures with the dictionary in the model: leave --shards out")
        if not self.dictionaries:
            raise OutputError("name at least one dictionary file")
        loaded = {path.stem: load_dictionary(path) for path in self.dictionaries}
        if len(loaded) < len(self.dictionaries):
            raise OutputError("two of the dictionary files have the same name: the report tells them apart by it")
        with new_folder(self.out, self.overwrite, marker="metrics.json") as folder:
            train, held_out = self.source.captions(self.held_out_share)
            pipeline = self.source.pipeline(self.source.workers())
            sampling = self.source.sampling.resolved(self.source.model.model, pipeline)
            config = replace(self.measure, capture=self.source.capture, sampling=sampling)
            figures = evaluate(pipeline, loaded, train.prompts, held_out.prompts, config, folder)
        for name, one in figures["dictionaries"].items():
            whole = one["reconstruction"]["whole"]
            print(f"{name}: fvu {whole['fvu']:.3f}, l0 {whole['l0']:.1f}, dead {whole['dead']:.1%}")
        print(f"report: {self.out / 'report.html'}")
