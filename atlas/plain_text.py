"""Anybody's text as one that every file holds and every terminal merely shows."""

from __future__ import annotations

import re

# Control characters, among them those that begin a terminal's commands, and those that turn the direction of writing.
_COMMANDS = re.compile(r"[\x00-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069]")


def whole(text: str) -> str:
    """A text with a question mark for each half of a letter, which JSON can say and UTF-8 cannot."""
    return text.encode("utf-8", "replace").decode()


def plain(text: str) -> str:
    """A text of whole letters in one line, with a space for each character that is a command to who shows it."""
    return _COMMANDS.sub(" ", whole(text))
