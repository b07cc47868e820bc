"""The processes of a run: `accelerate` starts and connects them; what is shared between them goes through here."""

from __future__ import annotations

import os
from typing import Any

import torch
from torch import Tensor


class Workers:
    """This process among `count`; a run of one process needs nothing and talks to nobody.

    Attributes:
        index: number of this process, from 0.
        count: how many there are.
        device: where this process computes.
    """

    def __init__(self, index: int = 0, count: int = 1, device: torch.device | str = "cpu", engine: Any = None):
        self.index, self.count, self.device = index, count, torch.device(device)
        self._engine = engine

    @classmethod
    def connect(cls, device: torch.device | str = "cpu") -> Workers:
        """All processes that `accelerate launch` or `torchrun` started; this one alone where none did."""
        if int(os.environ.get("WORLD_SIZE", "1")) == 1:
            return cls(device=device)
        from accelerate import Accelerator

        engine = Accelerator(cpu=torch.device(device).type == "cpu")
        return cls(engine.process_index, engine.num_processes, engine.device, engine)

    @property
    def first(self) -> bool:
        """Whether this is the process that writes files and prints."""
        return self.index == 0

    def sum(self, tensor: Tensor) -> Tensor:
        """The sum over all processes, in the type of `tensor`, the same in each of them."""
        return tensor if self._engine is None else self._engine.reduce(tensor, "sum")

    def all(self, tensor: Tensor) -> Tensor:
        """The tensors of all processes, of one shape, one after another along the first dimension."""
        return tensor if self._engine is None else self._engine.gather(tensor)

    def wait(self) -> None:
        """Until all processes are here."""
        if self._engine is not None:
            self._engine.wait_for_everyone()


ALONE = Workers()
