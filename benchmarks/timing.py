"""How long a call takes, on a CPU or a GPU."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import torch


def timed(call: Callable[[], Any], device: str) -> tuple[Any, float]:
    """What `call` gives, and the seconds it took."""
    if device == "cuda":
        torch.cuda.synchronize()
    started = time.perf_counter()
    found = call()
    if device == "cuda":
        torch.cuda.synchronize()
    return found, time.perf_counter() - started
