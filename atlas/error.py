"""What is said of an atlas that cannot be read or written."""

from __future__ import annotations

import os
from pathlib import Path

from .plain_text import plain

RESTORE = "build the atlas again, or restore it from a copy"


class AtlasError(ValueError):
    """An atlas that cannot be read or written: names it, what was expected, what was found and what to do."""

    def __init__(self, path: str | os.PathLike, expected: str, found: str, remedy: str = RESTORE):
        super().__init__(f"{path}: expected {expected}, found {found}; {remedy}")
        self.path, self.expected, self.found, self.remedy = Path(path), expected, found, remedy

    def __reduce__(self) -> tuple:  # so that it survives a process pool
        return type(self), (self.path, self.expected, self.found, self.remedy)


class AtlasLookupError(AtlasError, LookupError):
    """A whole atlas was asked for something that it does not have: a feature, a picture, an order."""


def there(good: bool, path: str | os.PathLike, expected: str, found: object, remedy: str) -> None:
    """Raise `AtlasLookupError` unless `good`."""
    if not good:
        raise AtlasLookupError(path, expected, shown(found), remedy)


def need(good: bool, path: str | os.PathLike, expected: str, found: object, remedy: str = RESTORE) -> None:
    """Raise `AtlasError` unless `good`; what was found is shown shortened."""
    if not good:
        raise AtlasError(path, expected, shown(found), remedy)


def shown(found: object) -> str:
    """A value in at most 100 characters."""
    if isinstance(found, bytes):
        return f"{len(found)} bytes"
    text = plain(found) if isinstance(found, str) else repr(found)
    return text if len(text) <= 100 else f"{text[:97]}..."
