"""`fluxtionary compare`: SAE, ITDA and neurons side by side."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

import tyro

from ..evaluation.comparison import Comparison
from ..interpretation.endpoint import DEMO, Endpoint
from .output import new_folder


@dataclass(frozen=True)
class Compare:
    """Compare SAE, ITDA and neurons: reconstruction, interpretability, truth, stability; with baselines, controls."""

    out: Path
    """Folder for report.html, summary.json, the dictionaries and their atlases."""
    model: Literal["demo"] = "demo"
    """The model; truth is measured on the drawings that the demo Flux knows."""
    quick: bool = False
    """In about a minute: shows that everything runs, and nothing else."""
    overwrite: bool = False
    """Replace the folder if an earlier comparison wrote it."""
    endpoint: Endpoint = field(default_factory=lambda: Endpoint(DEMO))
    compare: Annotated[Comparison, tyro.conf.arg(name="")] = field(default_factory=Comparison)

    def run(self) -> None:
        from ..evaluation.comparison import ComparisonJob
        from ..evaluation.comparison_report import write_comparison

        config = self.compare.quick() if self.quick else self.compare
        # the stand-in costs nothing, and is at another address each time
        endpoint = self.endpoint if self.endpoint.url == DEMO else self.endpoint.kept_beside(self.out)
        with new_folder(self.out, self.overwrite, marker="summary.json") as folder:
            job = ComparisonJob(config, endpoint, folder, say=lambda text: print(text, flush=True))
            findings = job.run()
            figures = job.figures()
            write_comparison(figures, findings.stability, job.cards(), folder)
        for way in ("sae", "itda", "neurons"):
            score = figures[way]["interp"]
            print(f"{way}: interpretation {score['score']:.3f} ({score['low']:.3f} to {score['high']:.3f})")
        found = figures["sae_minus_best_baseline"]
        print(f"sae less {found['best']}: {found['mean']:+.3f} ({found['low']:+.3f} to {found['high']:+.3f})")
        print(f"report: {self.out / 'report.html'}")
