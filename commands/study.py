"""`fluxtionary study-steering`: when steering works."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

import tyro

from ..evaluation.steering_study import SteeringStudy
from .output import new_folder


@dataclass(frozen=True)
class StudySteering:
    """Study steering: contrastive vectors beside features, probes, prompts, controls; limits, attacks, model size."""

    out: Path
    """Folder for report.html, summary.json and tables of pictures."""
    model: Literal["demo"] = "demo"
    """The model; what pictures show is read in the drawings that the demo Flux knows."""
    quick: bool = False
    """In about 3 minutes: shows that everything runs, and nothing else."""
    overwrite: bool = False
    """Replace the folder if an earlier study wrote it."""
    study: Annotated[SteeringStudy, tyro.conf.arg(name="")] = field(default_factory=SteeringStudy)

    def run(self) -> None:
        from ..evaluation.steering_study import StudyJob
        from ..evaluation.study_claims import claims, findings
        from ..evaluation.study_report import write_study

        config = self.study.quick() if self.quick else self.study
        with new_folder(self.out, self.overwrite, marker="summary.json") as folder:
            job = StudyJob(config, folder, say=lambda text: print(text, flush=True))
            figures = write_study(job.run(), folder)
        for finding in findings(figures):
            print(f"{'' if finding.shown is None else 'shown: ' if finding.shown else 'NOT SHOWN: '}{finding.text}")
        for claim in claims(figures):
            print(f"{claim.claim}: {claim.verdict}")
        print(f"report: {self.out / 'report.html'}")
