"""`fluxtionary demo`."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from ..evaluation.demonstration import Demonstration
from .output import new_folder


@contextmanager
def _quiet(name: str) -> Iterator[None]:
    """Warnings alone: each of hundreds of runs would say how its directions were scaled."""
    logger = logging.getLogger(name)
    before = logger.level
    logger.setLevel(logging.WARNING)
    try:
        yield
    finally:
        logger.setLevel(before)


@dataclass(frozen=True, kw_only=True)
class Demo(Demonstration):
    """The main job: judge the demo Flux, train a dictionary of its residual stream, steer pictures, report."""

    out: Path
    """Folder for report.html, summary.json and every judged picture."""
    overwrite: bool = False
    """Replace the folder if an earlier demo wrote it."""

    def run(self) -> None:
        from ..evaluation.demonstration import MainJob
        from ..evaluation.report import write_report

        with new_folder(self.out, self.overwrite, marker="summary.json") as folder, _quiet("fluxtionary.residual"):
            job = MainJob(self, say=lambda text: print(text, flush=True))
            figures = write_report(job.run(folder), self, folder)
        steering, dictionary = figures["steering"], figures["dictionary"]
        print(
            f"steering: {steering['success']:.1%} take the color asked for (n = {steering['n']}), "
            f"collateral {steering['collateral']:.1%}\n"
            f"dictionary: fvu {dictionary['fvu']:.3f}, PCA {figures['baselines']['pca']['fvu']:.3f}\n"
            f"report: {self.out / 'report.html'}"
        )
