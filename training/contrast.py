"""Steering vectors from pairs of prompts: what a Flux thinks with the one, minus what it thinks with the other.

The same as the node Contrast Prompts makes in ComfyUI of the same pairs, seeds, steps and size.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor

from ..dictionaries import ContrastMeter, Provenance, SteeringVector
from ..dictionaries.contrast import direction_of, folds
from ..residual import Site
from ..residual.diffusers_host import model_shape
from .direction_effect import measure_effects
from .first_steps import Part, Size, Watching, part_of
from .pair_sides import watch_pairs
from .prompt_pairs import Pair, groups
from .sampling import ModelError

if TYPE_CHECKING:
    from .sampling import FluxPipeline

Method = Literal["mean difference", "pca", "probe"]

PROMPTS_KEPT = 128
"""Pairs whose prompts a file keeps, so that another prompt can be compared with them."""


@dataclass(frozen=True)
class Contrast:
    """Directions between the two sides of pairs, at every site that was watched.

    Attributes:
        directions: by site `[d_model]`, float64, best site first.
        figures: by site how good a direction is: see `ContrastMeter.quality`, and `tokens`.
        meters: by site what was measured.
        about: what a file says of all of them.
    """

    directions: Mapping[Site, Tensor]
    figures: Mapping[Site, dict[str, Any]]
    meters: Mapping[Site, ContrastMeter]
    about: Provenance

    @property
    def best(self) -> Site:
        return next(iter(self.directions))

    def vector(self, sites: Sequence[Site] | None = None) -> SteeringVector:
        """The steering vector at some of the sites, by default the best one."""
        sites = [self.best] if sites is None else sites
        directions = {str(site): self.directions[site] for site in sites}
        return SteeringVector(directions, {str(site): self.meters[site].scale() for site in sites}, self.about)


def contrast(
    pipeline: FluxPipeline,
    pairs: Sequence[Pair],
    sites: Sequence[Site] | None = None,
    method: Method = "mean difference",
    watching: Watching | None = None,
    size: Size | None = None,
    name: str = "",
    progress: bool = True,
) -> Contrast:
    """Contrast the two sides of pairs at some sites, by default `usual_sites`, and rank these by `rank`.

    Figures are of held-out pairs, `dictionaries.contrast.folds` of them in turn; with one pair, or where all share a
    prompt with others, see `groups`.

    Raises `ModelError` where both sides come to the same, or the pairs cancel out, and as `part_of` and `watch_pairs`.
    """
    watching, size = watching or Watching(), size or Size()
    part, sites = part_of(pipeline, watching), usual_sites(pipeline) if sites is None else sites
    meters = watch_pairs(pipeline, pairs, sites, watching, part, size, progress)
    for site, meter in meters.items():
        try:
            meter.check()
        except ValueError as error:
            raise ModelError(f"{site}: {error}") from error
    make, together = maker(method), groups(pairs)
    effects = _effects(pipeline, pairs, meters, make, together, watching, part, size)
    directions, figures = {}, {}
    for site, meter in meters.items():
        directions[site] = make(meter.sides())
        quality = meter.quality(directions[site], part.watched, make, together)
        figures[site] = {"tokens": meter.tokens, "effect": effects[site], **quality}
    ranked = sorted(directions, key=lambda site: rank(figures[site]), reverse=True)
    about = Provenance(
        model=_model(pipeline, name),
        capture=_captured(pipeline, watching, part, size),
        training={"method": method, "pairs": len(pairs), "prompts": kept_prompts(pairs)},
        metrics={str(site): figures[site] for site in ranked},
    )
    return Contrast({site: directions[site] for site in ranked}, figures, meters, about)


def rank(figures: Mapping[str, Any]) -> tuple[float, ...]:
    """By what sites are compared, more being better: effect, then held-out AUROC, then split-half cosine.

    Effect comes first because at some sites the sides are told apart by what nothing after them reads. On the demo Flux
    the share of open captions that took a value and kept the rest was measured at 6 to 8 sites: its rank correlation
    with effect was .68 for color, .93 for background and .99 for shape; with AUROC .17, none (1 everywhere) and .74.
    The site of most effect was the best in all three.
    """
    return tuple(figures[name] or 0.0 for name in ("effect", "auroc", "split_half_cosine"))


def doubts(figures: Mapping[str, Any]) -> list[str]:
    """What speaks against steering with a direction, in words; nothing where its figures are good, or not known."""
    least = {"effect": (0.1, "has little effect"), "auroc": (0.6, "hardly tells held-out pairs apart")}
    least["split_half_cosine"] = (0.5, "is another in either half of the pairs")
    return [
        f"it {words} ({name.replace('_', ' ')} {figures[name]:.2f})"
        for name, (bound, words) in least.items()
        if figures[name] is not None and figures[name] < bound
    ]


def _effects(
    pipeline: FluxPipeline,
    pairs: Sequence[Pair],
    meters: Mapping[Site, ContrastMeter],
    make: Callable[[Tensor], Tensor],
    together: Sequence[int],
    watching: Watching,
    part: Part,
    size: Size,
) -> dict[Site, float]:
    """The effect at each site, on pairs that the direction was not made of; a single pair has no other."""
    fold = folds(together)
    numbers = torch.zeros(len(pairs), dtype=torch.long) if fold is None else fold
    directions = {}
    for site, meter in meters.items():
        sides = meter.sides()
        made = [sides] if fold is None else [sides[fold != number] for number in fold.unique()]
        directions[site] = [make(own) for own in made]
    scales = {site: meter.scale() for site, meter in meters.items()}
    return measure_effects(pipeline, pairs, numbers, directions, scales, watching, part, size)


def _model(pipeline: FluxPipeline, name: str) -> dict[str, Any]:
    double, single, width = model_shape(pipeline.transformer)
    return {"family": "flux1", "name": name, "double_blocks": double, "single_blocks": single, "d_model": width}


def _captured(pipeline: FluxPipeline, watching: Watching, part: Part, size: Size) -> dict[str, Any]:
    """How the activations were had, as a vector's header says it."""
    told = {"guidance": watching.guidance} if pipeline.transformer.config.guidance_embeds else {}
    return {
        "sigmas": part.watched,
        "steps": watching.steps,
        "scheduler": "simple",
        "seeds": watching.numbers(),
        "height": size.height,
        "width": size.width,
        **told,
        "max_sequence_length": watching.length(pipeline),
        "padding": "kept",
    }


def kept_prompts(pairs: Sequence[Pair]) -> dict[str, list[str]]:
    """The prompts of up to `PROMPTS_KEPT` pairs, drawn at random: what a file keeps for `relatedness`."""
    chosen = sorted(random.Random(0).sample(range(len(pairs)), min(PROMPTS_KEPT, len(pairs))))
    return {side: [getattr(pairs[i], side) for i in chosen] for side in Pair._fields}


def maker(method: Method) -> Callable[[Tensor], Tensor]:
    """What makes a direction `[d_model]` of the sides of pairs `[pairs, 2, d_model]`."""
    return probe_direction if method == "probe" else partial(direction_of, method=method)


def probe_direction(sides: Tensor) -> Tensor:
    """The weights of a logistic regression that tells the sides of pairs apart, as long as their mean difference.

    Each side is one sample, its mean token, in units of the usual distance from the mean of all.
    """
    from sklearn.linear_model import LogisticRegression

    x = sides.flatten(0, 1)
    x = x - x.mean(0)
    x = x / x.square().sum(1).mean().sqrt()
    labels = torch.tensor([False, True]).repeat(len(sides))
    weights = torch.from_numpy(LogisticRegression(max_iter=1000).fit(x.numpy(), labels.numpy()).coef_[0]).to(x)
    length = direction_of(sides).norm()
    return weights * (length / weights.norm())


def usual_sites(pipeline: FluxPipeline) -> list[Site]:
    """Both streams after each double block; after up to 7 of them, evenly, where there are more."""
    count = model_shape(pipeline.transformer)[0]
    step = -(-count // 7)
    blocks = range((count - 1) % step, count, step)
    return [Site("double", block, stream) for block in blocks for stream in ("img", "txt")]
