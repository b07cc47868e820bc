"""Ctrl-C between steps rather than inside one, so that what is saved then is whole."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


class Interrupts:
    """While `listening`, an interruption inside `uninterrupted` is raised at its end."""

    def __init__(self) -> None:
        self._busy = self._asked = False

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Outside the main thread, where Python hears no signals, this does nothing."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = signal.signal(signal.SIGINT, self._hear)
        try:
            yield
        finally:
            signal.signal(signal.SIGINT, before)

    @contextmanager
    def uninterrupted(self) -> Iterator[None]:
        self._busy = True
        try:
            yield
        finally:
            self._busy = False
        if self._asked:
            raise KeyboardInterrupt

    def _hear(self, number: int, frame: FrameType | None) -> None:
        if not self._busy or self._asked:  # asked twice: whoever asks does not want to wait
            raise KeyboardInterrupt
        self._asked = True
