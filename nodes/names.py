"""Names that users give to files: plain ones, that stay inside their folder."""

from __future__ import annotations

import re
from pathlib import Path

from ..dictionaries.schema import shown

LENGTH = 100
_PART = re.compile(r"\w([\w .+-]*\w)?")


def inside(folder: Path, name: str, said_of: str, example: str, suffix: str = "") -> Path:
    """The place in a folder that a name means, `/` between subfolders, with a suffix that it may have already.

    Raises `ValueError`, naming the input that it is `said_of`, for a name that is no plain one or leads outside.
    """
    plain = name.strip().removesuffix(suffix)
    if len(plain) > LENGTH or not all(_PART.fullmatch(part) for part in plain.split("/")):
        raise ValueError(
            f"{said_of}: expected letters, digits, spaces and . _ + - with / between subfolders, {LENGTH} characters "
            f"at most, such as {example}, found {shown(name)}"
        )
    path = folder / f"{plain}{suffix}"
    if not path.resolve().is_relative_to(folder.resolve()):
        raise ValueError(f"{said_of}: expected a place inside {folder}, found a link that leads to {path.resolve()}")
    return path
