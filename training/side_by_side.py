"""Several runs of a small model at once, on the CPU: more pictures an hour than one run on all cores.

Much of a small model's time goes where its arithmetic cannot use a second core. On 2 cores (AVX2) a picture of the
demo Flux takes .23 to .25 s in one run, and .19 s in two.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from queue import SimpleQueue
from threading import Event
from typing import TYPE_CHECKING, TypeVar

import torch

if TYPE_CHECKING:
    from diffusers import FluxPipeline

SMALL = 2**28
"""Bytes of weights from which on a model keeps all cores busy, and several runs would need much memory."""
MOST = 8
Job = TypeVar("Job")
Result = TypeVar("Result")


class _StoppedError(Exception):
    """A run was ended because its answer is not wanted any more."""


def lanes(pipeline: FluxPipeline) -> int:
    """How many runs of a pipeline go side by side: for a small model on the CPU one a thread, 8 at most; else one."""
    weights = [*pipeline.transformer.parameters()]
    small = sum(weight.nbytes for weight in weights) < SMALL
    on_cpu = all(weight.device.type == "cpu" for weight in weights)
    watched = any(_watched(module) for part in _parts(pipeline) for module in part.modules())
    return min(torch.get_num_threads(), MOST) if small and on_cpu and not watched else 1


def _watched(module: torch.nn.Module) -> bool:
    """Whether something is attached that belongs to one run at a time, or moves weights about, or compiles."""
    moved = hasattr(module, "_hf_hook") or getattr(getattr(module, "_diffusers_hook", None), "hooks", None)
    compiled = getattr(module, "_compiled_call_impl", None) is not None
    return bool(module._forward_hooks or module._forward_pre_hooks or moved or compiled)


def side_by_side(
    pipeline: FluxPipeline, work: Callable[[FluxPipeline, Job], Result], jobs: Sequence[Job]
) -> list[Result]:
    """`work(pipeline, job)` for every job, in order; runs beside one another have copies of it, with its weights.

    Raises what the first run that fails raises; then, and after Ctrl-C, the others end with their next step.
    """
    most, stop = lanes(pipeline), Event()
    free: SimpleQueue[FluxPipeline] = SimpleQueue()
    try:
        for _ in range(min(most, len(jobs)) if most > 1 else 0):
            free.put(_copied(pipeline, stop))
    except (TypeError, RuntimeError):
        most = 1  # something of it cannot be copied
    if most < 2:
        return [work(pipeline, job) for job in jobs]

    def run(job: Job) -> Result:
        own = free.get()
        try:
            return work(own, job)
        finally:
            free.put(own)

    threads = torch.get_num_threads()
    try:
        with ThreadPoolExecutor(most, initializer=torch.set_num_threads, initargs=(threads // most,)) as pool:
            try:
                return list(pool.map(run, jobs))
            except BaseException:
                stop.set()
                raise
    finally:
        torch.set_num_threads(threads)  # what was set last holds for threads that are yet to come


def _copied(pipeline: FluxPipeline, stop: Event) -> FluxPipeline:
    """A pipeline whose hooks, scheduler and tokenizers are its own, and whose weights are shared."""
    shared = [weight for part in _parts(pipeline) for weight in (*part.parameters(), *part.buffers())]
    own = copy.deepcopy(pipeline, {id(one): one for one in shared})

    def check(*_: object) -> None:
        if stop.is_set():
            raise _StoppedError

    own.transformer.register_forward_pre_hook(check)
    return own


def _parts(pipeline: FluxPipeline) -> list[torch.nn.Module]:
    return [part for part in vars(pipeline).values() if isinstance(part, torch.nn.Module)]
