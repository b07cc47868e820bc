"""Processes of their own that begin at once: forked from one that has imported everything, and started nothing."""

from __future__ import annotations

import multiprocessing
import os
import runpy
import sys
from functools import cache
from multiprocessing.context import ForkServerContext
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

IMPORTED = [
    "pytest",
    "diffusers.models.autoencoders.autoencoder_tiny",
    "diffusers.pipelines.flux.pipeline_flux",
    "fluxtionary.cli",
    "fluxtionary.interpretation.build",
    "fluxtionary.training.itda",
    "fluxtionary.training.models",
    "fluxtionary.training.shards",
    "fluxtionary.training.train",
    "transformers.models.clip.modeling_clip",
    "transformers.models.t5.modeling_t5",
]


@cache
def ready() -> ForkServerContext:
    """Where processes are forked, once everything is imported there."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(IMPORTED)
    first = context.Process(target=int)
    first.start()
    first.join()
    return context


def start(script: Path, said: Path, **given: Any) -> BaseProcess:
    """A process that runs a script, whose names `given` are; what it prints goes into the file `said`."""
    names = {"SCRIPT": str(script), "SAID": str(said), "GIVEN": given}
    # this very file, by its path: a forked process does not know the tests as modules
    process = ready().Process(target=runpy.run_path, args=(__file__, names, "__main__"), daemon=True)
    process.start()
    return process


def finish(process: BaseProcess, said: Path, seconds: float | None = None) -> None:
    """Wait for a process, which is to end well."""
    process.join(seconds)
    assert process.exitcode == 0, said.read_text()[-3000:]


if __name__ == "__main__":
    out = os.open(globals()["SAID"], os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    for stream in (1, 2):
        os.dup2(out, stream)
    sys.stdout, sys.stderr = (os.fdopen(stream, "w", closefd=False) for stream in (1, 2))
    runpy.run_path(globals()["SCRIPT"], globals()["GIVEN"], "__main__")
