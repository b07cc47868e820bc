"""`fluxtionary contrast`."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import tyro

from ..training.first_steps import Size, Watching
from ..training.models import DEMO_MODELS, Model
from ..training.prompt_pairs import COLUMNS, Pair, checked, expand, read_pairs
from ..training.prompts import PromptError
from ..training.sampling import Drawing, check_size
from .output import check_writable

if TYPE_CHECKING:
    from ..training.contrast import Contrast


logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Prompts:
    """Where the pairs come from."""

    pairs: Path | None = None
    """Pairs of prompts: CSV, TSV, JSON or JSONL with a column for either side, each also gzipped; or a text file
    (.txt) with a template a line."""
    columns: tuple[str, str] = COLUMNS
    """The columns, or keys, of the prompts that have it and of those that lack it."""
    template: tuple[str, ...] = ()
    """Prompts with slots, in quotes: "a {red|blue} {circle|square} on a {black|white} background". One slot is
    contrasted, its first value against each other one; of the other slots every combination of values is a pair,
    the same on both sides. Here: red against blue, in 4 pairs. A value may be empty: "a {large |}circle"."""
    slot: int = 1
    """Which slot of the templates is contrasted, counted from 1."""
    limit: int | None = None
    """Take at most so many pairs, drawn at random."""

    def __post_init__(self) -> None:
        if self.limit is not None and self.limit < 1:
            raise PromptError(f"--limit must be at least 1, found {self.limit}")
        if bool(self.template) == (self.pairs is not None):
            raise PromptError(
                'expected pairs of prompts: a file with --pairs, or --template "a {red|blue} circle"; found '
                + ("both" if self.template else "neither")
            )

    def read(self, model: str) -> list[Pair]:
        """The pairs that can be learned from."""
        from ..demo.captions import check_caption

        if self.pairs is not None:
            found = read_pairs(self.pairs, self.columns, self.slot)
        else:
            found = [pair for template in self.template for pair in expand(template, self.slot)]
        return checked(found, check_caption if model in DEMO_MODELS else None, self.limit)


@dataclass(frozen=True)
class Canvas:
    """Size of the pictures, of which only the first steps are drawn."""

    height: int | None = None
    """Picture height in pixels; by default 128 for the demo, 256 otherwise."""
    width: int | None = None
    """Picture width in pixels, likewise."""
    batch: int | None = None
    """Pictures drawn at once; by default 40 for the demo, 4 otherwise."""


@dataclass(frozen=True)
class ContrastPrompts:
    """Make a steering vector of pairs of prompts: what Flux thinks with the one, minus what it thinks with the other.

    Each site is judged by pairs that its direction was not made of: by the effect that adding it has on the model's
    prediction, beside that of the prompt itself (cosine; 1 is the same), then by how well it tells the two sides apart
    (AUROC; .5 is chance), then by how well halves of the pairs agree (split-half cosine). The file has the best site.
    With the same pairs, seeds, steps and size the node Contrast Prompts makes the same vector in ComfyUI, of a latent
    of one picture and with the scheduler simple.
    """

    out: Path
    """The steering vector to write (.safetensors)."""
    prompts: Annotated[Prompts, tyro.conf.arg(name="")]
    site: tuple[str, ...] = ()
    """Places in the model to try, such as double.9.img double.9.txt single.4.img; by default both streams after each
    double block, after up to 7 of them where there are more."""
    keep: Literal["best", "all"] = "best"
    """Write the direction at the best of these sites, or at all of them, to be added at all at once."""
    method: Literal["mean difference", "pca", "probe"] = "mean difference"
    """The mean of the pairs' differences (arXiv 2505.03189), their first principal component, or the weights of a
    logistic regression that tells the sides apart."""
    watching: Annotated[Watching, tyro.conf.arg(name="")] = field(default_factory=Watching)
    canvas: Annotated[Canvas, tyro.conf.arg(name="")] = field(default_factory=Canvas)
    model: Annotated[Model, tyro.conf.arg(name="")] = field(default_factory=Model)
    overwrite: bool = False
    """Replace the file if there is one."""

    def run(self) -> None:
        from ..dictionaries import save_dictionary
        from ..residual import Site
        from ..training.contrast import contrast, doubts
        from ..training.models import load

        check_writable(self.out, self.overwrite)
        drawing = Drawing(None, self.canvas.height, self.canvas.width, self.canvas.batch)
        check_size(self.model.model, drawing)
        sites = [Site.parse(site) for site in dict.fromkeys(self.site)] or None
        pairs = self.prompts.read(self.model.model)
        pipeline = load(self.model)
        sampling = drawing.resolved(self.model.model, pipeline)
        size = Size(sampling.height, sampling.width, sampling.batch)
        found = contrast(pipeline, pairs, sites, self.method, self.watching, size, self.model.model)
        save_dictionary(found.vector(list(found.directions) if self.keep == "all" else None), self.out)
        print(f"{self.method} of {len(pairs)} pairs, such as {pairs[0].positive!r} against {pairs[0].negative!r}")
        print(table(found))
        if doubtful := doubts(found.figures[found.best]):
            logger.warning(
                "the direction may not steer: even at the best site %s. Do the pairs differ in one thing alone, and "
                "all in the same way?",
                " and ".join(doubtful),
            )
        kept = "all of them" if self.keep == "all" else f"{found.best}, the best of them"
        print(f"{self.out}: {kept}")


FIGURES = {"effect": 12, "auroc": 12, "split_half_cosine": 20, "explained": 12, "length": 12}
"""The figures that are shown of a site, with the widths of their columns."""


def table(found: Contrast) -> str:
    """The figures of every site, best first."""
    lines = [f"  {'site':16}" + "".join(f"{name.replace('_', ' '):>{wide}}" for name, wide in FIGURES.items())]
    for site in found.directions:
        own = found.figures[site]
        shown = ("" if own[name] is None else f"{own[name]:.3f}" for name in FIGURES)
        lines.append(
            f"  {site!s:16}" + "".join(f"{text:>{wide}}" for text, wide in zip(shown, FIGURES.values(), strict=True))
        )
    return "\n".join(lines)
