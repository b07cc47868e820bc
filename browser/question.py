"""The words of a question, as they come with an address: texts, of which some are numbers."""

from __future__ import annotations

import re
from collections.abc import Mapping

from .refusal import BAD_REQUEST, RefusedError

LENGTH = 1000
"""The longest text that is taken, in characters."""
_WHOLE = re.compile(r"-?[0-9]{1,15}")


class Question:
    """Reads one word at a time; raises `RefusedError` for one that is missing, too long, no number, or out of range."""

    def __init__(self, words: Mapping[str, str]):
        self._words = words

    def text(self, name: str, default: str | None = None) -> str:
        found = self._words.get(name)
        if found is None:
            if default is None:
                raise RefusedError(BAD_REQUEST, f"{name}: expected a text, found none; say which")
            return default
        if len(found) > LENGTH:
            raise RefusedError(
                BAD_REQUEST, f"{name}: expected at most {LENGTH} characters, found {len(found)}; say less"
            )
        return found

    def number(self, name: str, least: int, most: int, default: int | None = None) -> int:
        """A whole number from `least` to `most`."""
        found = self._words.get(name, "")
        if not found and default is not None:
            return default
        if not _WHOLE.fullmatch(found) or not least <= int(found) <= most:
            shown = repr(found[:40]) if found else "none"
            raise RefusedError(
                BAD_REQUEST, f"{name}: expected a number from {least} to {most}, found {shown}; give one of these"
            )
        return int(found)
