"""The pictures of a sweep: drawn in as few batches as fit, and laid out as a labelled grid."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from itertools import product
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from PIL import Image
from tqdm import tqdm

from ..dictionaries import Scale
from ..dictionaries.scale import BINS
from ..evaluation.harness import plan_for_each
from ..evaluation.picture_table import Column, Row, picture_table
from ..residual import Add, Plan, Site, Tap, Window
from ..residual.diffusers_host import Stopped, attach, percent_to_sigma
from ..residual.edits import altered
from ..residual.site_pass import token_scale
from ..training.sampling import Sampling, run_batches, text_length
from .sweep import Cell, Sweep

if TYPE_CHECKING:
    from ..training.sampling import FluxPipeline


class Drawn(NamedTuple):
    """The plain picture of each seed, and the steered ones, uint8 `[h, w, 3]`; windows that met no step."""

    plain: dict[int, np.ndarray]
    steered: dict[tuple[int, Cell], np.ndarray]
    idle: set[Window]


def draw_sweep(pipeline: FluxPipeline, prompt: str, seeds: Sequence[int], sweep: Sweep, sampling: Sampling) -> Drawn:
    """Draw a prompt plain and under every plan of a sweep, of each seed, many plans in one batch."""
    seeds = list(dict.fromkeys(seeds))
    to_sigma = percent_to_sigma(pipeline, sampling.height, sampling.width)
    cells = sweep.cells()
    plans = [Plan(), *(sweep.plan(cell, to_sigma) for cell in cells)]
    unscaled = {item.site for plan in plans for item in plan if isinstance(item, Add) and item.scale is None}
    if unscaled:
        scales = measured_scales(pipeline, prompt, seeds, sampling, unscaled)
        plans = [scaled(plan, scales) for plan in plans]
    wanted = list(product(seeds, range(len(plans))))
    pictures: list[np.ndarray] = []
    idle: set[Window] = set()
    with tqdm(total=len(wanted), desc="drawing", unit="picture", mininterval=1) as bar:
        for start in range(0, len(wanted), sampling.batch):
            part = wanted[start : start + sampling.batch]
            used = sorted({number for _, number in part})
            plan = plan_for_each([plans[number] for number in used], [used.index(number) for _, number in part])
            captions, own = [prompt] * len(part), [seed for seed, _ in part]
            for images, run in run_batches(pipeline, captions, own, sampling, plan, output_type="np"):
                pictures += list((np.asarray(images) * 255).round().astype(np.uint8))
                idle |= {item.window for item in run.idle()} if run is not None else set()
            bar.update(len(part))
    drawn = dict(zip(wanted, pictures, strict=True))
    steered = {(seed, cell): drawn[seed, number] for seed in seeds for number, cell in enumerate(cells, 1)}
    return Drawn({seed: drawn[seed, 0] for seed in seeds}, steered, idle)


def measured_scales(
    pipeline: FluxPipeline, prompt: str, seeds: Sequence[int], sampling: Sampling, sites: Iterable[Site]
) -> dict[Site, Scale]:
    """How large the unedited stream is at sites in the first call of the model: the scale of what came without one.

    A run measures it by itself, but each batch for itself and with other pictures' edits in it.
    """
    plan = Plan(Tap(site) for site in sites)
    with attach(pipeline, plan, lambda call: True) as run, suppress(Stopped), torch.inference_mode():
        pipeline(
            prompt=[prompt] * len(seeds[: sampling.batch]),
            height=sampling.height,
            width=sampling.width,
            num_inference_steps=sampling.steps,
            max_sequence_length=text_length(pipeline),
            generator=[torch.Generator().manual_seed(seed) for seed in seeds[: sampling.batch]],
            output_type="latent",
        )
    pipeline.maybe_free_model_hooks()
    sizes = {}
    for tap, (record, *_) in run.records.items():
        assert record.activations is not None
        sizes[tap.site] = Scale(torch.full((BINS,), token_scale(record.activations)))
    return sizes


def scaled(plan: Plan, scales: Mapping[Site, Scale]) -> Plan:
    """A plan with scales for what came without."""
    return Plan(
        altered(item, scale=scales[item.site]) if isinstance(item, Add) and item.scale is None else item
        for item in plan
    )


def grid(drawn: Drawn, sweep: Sweep, title: str, about: Sequence[str]) -> Image.Image:
    """The plain picture and the steered one side by side; of several a table, the plain ones first.

    Strengths lie along the columns, parts of sampling along the rows, and each seed has rows of its own.
    """
    seeds = list(drawn.plain)
    if len(drawn.steered) == 1:
        return Image.fromarray(np.concatenate([*drawn.plain.values(), *drawn.steered.values()], axis=1))
    strengths, spans = sweep.strength_names(), sweep.span_names()
    if sweep.n_strengths > 1:
        columns = [Column(name, "strength") for name in strengths]
    elif sweep.n_spans > 1:
        columns = [Column(name, "part of sampling") for name in spans]
    else:
        columns = [Column("steered")]
    below = spans if sweep.n_strengths > 1 and sweep.n_spans > 1 else [""]
    rows = []
    for seed in seeds:
        of_seed = [picture for (own, _), picture in drawn.steered.items() if own == seed]
        for number, name in enumerate(below):
            here = of_seed[number * len(columns) : (number + 1) * len(columns)]
            first = None if number else drawn.plain[seed]
            of = f"seed {seed}" if len(seeds) > 1 else ""
            if name:
                rows.append(Row([first, *here], name, f"of sampling, {of}" if of else "of sampling"))
            else:
                rows.append(Row([first, *here], of))
    return picture_table([Column("plain"), *columns], rows, title, "\n".join(about))
