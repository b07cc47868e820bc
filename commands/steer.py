"""`fluxtionary steer`."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import tyro

from ..training.models import Model
from ..training.sampling import Drawing
from .output import check_writable


@dataclass(frozen=True)
class Steer:
    """Draw a picture twice, plain and steered with features of a dictionary, and save the two side by side."""

    prompt: str
    """What to draw."""
    feature: tuple[int, ...]
    """Feature numbers; their directions are added one by one."""
    out: Path
    """The picture to write (.png)."""
    strength: float = 0.6
    """Size of the change, as a share of the size of the activations there."""
    dictionary: str = "demo"
    """A dictionary file, or demo for the one that comes with the demo Flux."""
    model: Annotated[Model, tyro.conf.arg(name="")] = field(default_factory=Model)
    start: Annotated[float, tyro.conf.arg(metavar="SHARE")] = 0.0
    """Share of sampling after which the change begins, 0 to 1."""
    end: Annotated[float, tyro.conf.arg(metavar="SHARE")] = 1.0
    """Share of sampling after which it ends."""
    where: tuple[int, ...] = ()
    """Act only on tokens where one of these features is active; everywhere by default."""
    seed: int = 0
    """Seed of the noise."""
    overwrite: bool = False
    """Replace the picture if there is one."""
    sampling: Drawing = field(default_factory=Drawing)

    def run(self) -> None:
        import numpy as np
        from PIL import Image

        from ..demo import files
        from ..demo.captions import check_caption
        from ..dictionaries import load_dictionary
        from ..residual import Add, Gate, Plan, PlanError, Site, Window
        from ..residual.diffusers_host import percent_to_sigma
        from ..training.models import DEMO_MODELS, load
        from ..training.sampling import check_size, draw_pictures

        check_writable(self.out, self.overwrite)
        check_size(self.model.model, self.sampling)
        if not self.feature:
            raise PlanError("--feature needs at least one feature number")
        if self.model.model in DEMO_MODELS:
            check_caption(self.prompt)
        dictionary = load_dictionary(files.DICTIONARY if self.dictionary == "demo" else self.dictionary)
        pipeline = load(self.model)
        sampling = self.sampling.resolved(self.model.model, pipeline)
        to_sigma = percent_to_sigma(pipeline, sampling.height, sampling.width)
        window = Window.from_percent(self.start, self.end, to_sigma)
        gate = Gate(dictionary, self.where) if self.where else None
        site = Site.parse(dictionary.site)
        plan = Plan(
            Add(site, dictionary.direction(f), self.strength, dictionary.scale, window=window, gate=gate)
            for f in self.feature
        )
        pictures = [draw_pictures(pipeline, [self.prompt], [self.seed], sampling, p)[0] for p in (None, plan)]
        self.out.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.concatenate(pictures, axis=1)).save(self.out)
        if dictionary.natural is not None:
            natural = ", ".join(f"{f}: {float(dictionary.natural[f]):.2f}" for f in self.feature)
            print(f"strength {self.strength}; where these features are active by themselves they reach {natural}")
        print(f"{self.out}: plain on the left, steered on the right")
