"""Models with random weights that are shown what the trained one sees: whose features a judge may like all the same.

In language models dictionaries of random transformers score nearly as well as those of trained ones (Heap et al. 2025,
arXiv 2501.17727). A random Flux draws nothing, so here the trained model draws, and the random ones are called with
each of its inputs: noisy latents, sigma and text.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from types import SimpleNamespace
from typing import Any, TypeVar

import torch

from ..residual import Plan, Run, Site
from ..residual.diffusers_host import Stopped, attach
from ..residual.tokens import Tokens

Batch = TypeVar("Batch")


def random_transformer(transformer: Any, seed: int) -> Any:
    """A diffusers Flux transformer of the same shape with the weights that torch begins a training with."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        other = type(transformer).from_config(transformer.config)
    return other.to(transformer.device, transformer.dtype).eval()


@contextmanager
def shown_inputs(transformer: Any, other: Any, plan: Plan) -> Iterator[Run]:
    """While `transformer` is called inside the `with` block, `other` is too, with the same inputs and under `plan`.

    Yields the run with what the plan's taps kept of `other`, which is called only where a tap's window holds.
    """
    with attach(SimpleNamespace(transformer=other), plan, lambda call: True) as run:

        def call(module: Any, args: tuple, kwargs: dict[str, Any]) -> None:
            sigma = float(kwargs["timestep"].reshape(-1)[0])
            if any(item.window.holds(sigma) for item in plan):
                with suppress(Stopped):
                    other(*args, **kwargs)

        handle = transformer.register_forward_pre_hook(call, with_kwargs=True)
        try:
            yield run
        finally:
            handle.remove()


def beside(
    batches: Iterator[Batch], transformer: Any, others: Sequence[Any], plan: Plan
) -> Iterator[tuple[Batch, list[Run]]]:
    """Batches that are drawn with `transformer`, each with the runs of the others that saw the same."""
    while True:
        with ExitStack() as stack:
            runs = [stack.enter_context(shown_inputs(transformer, other, plan)) for other in others]
            batch = next(batches, None)
        if batch is None:
            return
        yield batch, runs


def image_tokens(run: Run, site: Site, first: int, share: float = 1.0) -> Tokens:
    """What a run's taps of an image site kept, `picture` counted from `first`; a `share` of it, drawn at random."""
    generator, parts = torch.Generator().manual_seed(first), []
    for tap, records in run.records.items():
        for record in records if tap.site == site else ():
            x = record.activations
            assert x is not None
            picture, position = torch.ones(x.shape[:2], dtype=torch.bool).nonzero(as_tuple=True)
            tokens = Tokens(x.flatten(0, 1), torch.full(picture.shape, record.moment.sigma), position, picture + first)
            kept = torch.rand(len(picture), generator=generator) < share
            parts.append(tokens if share >= 1 else tokens.rows(kept))
    return Tokens.joined(parts)
