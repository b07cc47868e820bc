"""Several runs of a small model at once, on the CPU: more pictures an hour than one run on all cores.

Much of a small model's time goes where its arithmetic cannot use a second core. On 2 cores (AVX2) a picture of the
demo Flux takes .23 to .25 s in one run, and .19 s in two.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from queue import SimpleQueue
from typing import TYPE_CHECKING, TypeVar

import torch

if TYPE_CHECKING:
    from diffusers import FluxPipeline

SMALL = 2**28
"""Bytes of weights from which on a model keeps all cores busy, and several runs would need much memory."""
MOST = 8
Job = TypeVar("Job")
Result = TypeVar("Result")


def lanes(pipeline: FluxPipeline) -> int:
    """How many runs of a pipeline go side by side: one a core for a small model on the CPU, else one."""
    weights = [*pipeline.transformer.parameters()]
    small = sum(weight.nbytes for weight in weights) < SMALL
    on_cpu = all(weight.device.type == "cpu" for weight in weights)
    # what is attached to a model tells its user of one run at a time
    watched = any(
        module._forward_hooks or module._forward_pre_hooks or hasattr(module, "_hf_hook")
        for module in pipeline.transformer.modules()
    )
    return min(torch.get_num_threads(), MOST) if small and on_cpu and not watched else 1


def side_by_side(
    pipeline: FluxPipeline, work: Callable[[FluxPipeline, Job], Result], jobs: Sequence[Job]
) -> list[Result]:
    """`work(pipeline, job)` for every job, in order; each run has a copy of the pipeline, with the same weights.

    A run has as many threads whatever number of jobs there are, so that its bits do not depend on its neighbours.
    """
    most = lanes(pipeline)
    if most < 2:
        return [work(pipeline, job) for job in jobs]
    free: SimpleQueue[FluxPipeline] = SimpleQueue()
    for _ in range(min(most, len(jobs))):
        free.put(_copied(pipeline))

    def run(job: Job) -> Result:
        own = free.get()
        try:
            return work(own, job)
        finally:
            free.put(own)

    threads = torch.get_num_threads()
    try:
        with ThreadPoolExecutor(most, initializer=torch.set_num_threads, initargs=(threads // most,)) as pool:
            return list(pool.map(run, jobs))
    finally:
        torch.set_num_threads(threads)  # what was set last holds for threads that are yet to come


def in_lanes(
    pipeline: FluxPipeline, work: Callable[[FluxPipeline, Job], Result], jobs: Iterable[Job]
) -> Iterator[Result]:
    """The same, as many jobs ahead as go side by side: nothing runs while the answers are used."""
    rest = iter(jobs)
    while some := list(islice(rest, lanes(pipeline))):
        yield from side_by_side(pipeline, work, some)


def _copied(pipeline: FluxPipeline) -> FluxPipeline:
    """A pipeline whose hooks, scheduler and tokenizers are its own, and whose weights are shared."""
    parts = [part for part in vars(pipeline).values() if isinstance(part, torch.nn.Module)]
    shared = [weight for part in parts for weight in (*part.parameters(), *part.buffers())]
    return copy.deepcopy(pipeline, {id(one): one for one in shared})
