"""What a Flux thinks of both sides of pairs of prompts while it begins to draw them, from the same noise."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import pairwise
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from tqdm import tqdm

from ..dictionaries import ContrastMeter
from ..residual import Add, Plan, Record, Site, Tap
from ..residual.diffusers_host import model_shape
from .embeddings import embedded_batches
from .first_steps import FirstSteps, Part, Size, Watching
from .prompt_pairs import Pair
from .sampling import ModelError

if TYPE_CHECKING:
    from .sampling import FluxPipeline


def watch_pairs(
    pipeline: FluxPipeline,
    pairs: Sequence[Pair],
    sites: Sequence[Site],
    watching: Watching,
    part: Part,
    size: Size,
    progress: bool = True,
) -> dict[Site, ContrastMeter]:
    """The activations at some sites of either side of each pair; pairs are numbered from 0.

    A prompt of several pairs is drawn once. Text sites are watched with padding, as the model reads it and as ComfyUI
    has it. Raises `ModelError` where the model overflows, and `PlanError` or `SiteError` for a site that cannot be
    steered.
    """
    double, single, width = model_shape(pipeline.transformer)
    Plan(Add(site, torch.ones(width), 1.0) for site in sites).check(double, single, width)
    meters = {site: ContrastMeter(width) for site in sites}
    belongs: dict[str, list[tuple[int, bool]]] = {}
    for number, pair in enumerate(pairs):
        belongs.setdefault(pair.positive, []).append((number, True))
        belongs.setdefault(pair.negative, []).append((number, False))

    def receive(tap: Tap, record: Record, x: Tensor) -> None:
        for (prompt, seed), own in zip(batch, x, strict=True):
            tokens, sigma = own.cpu().double(), torch.full((len(own),), record.moment.sigma)
            with _naming(f"{tap.site}, {prompt!r}, seed {seed}"):
                for pair, positive in belongs[prompt]:
                    meters[tap.site].add(tokens, sigma, pair, positive)

    taps = Plan(Tap(site, receive=receive) for site in sites)
    pictures = [(prompt, seed) for prompt in belongs for seed in watching.numbers()]
    batches = [pictures[start : start + size.batch] for start in range(0, len(pictures), size.batch)]
    wordings = [[prompt for prompt, _ in batch] for batch in batches]
    embedded = embedded_batches(pipeline, wordings, length=watching.length(pipeline))
    last = len(part.sigmas) - 2
    with tqdm(total=len(pictures), unit="picture", desc="watching", disable=not progress) as bar:
        for batch, text in zip(batches, embedded, strict=True):
            begun = FirstSteps(pipeline, [seed for _, seed in batch], size, watching.guidance)
            for number, (sigma, after) in enumerate(pairwise(part.sigmas)):
                plan = taps if number >= part.first else Plan()
                if number == last:
                    begun.watch(text, sigma, plan)
                else:
                    begun.step(begun.velocity(text, sigma, plan), sigma, after)
            bar.update(len(batch))
    pipeline.maybe_free_model_hooks()
    return meters


@contextmanager
def _naming(what: str) -> Iterator[None]:
    """What is amiss with the activations is said of these."""
    try:
        yield
    except ValueError as error:
        raise ModelError(f"{what}: {error}") from error
