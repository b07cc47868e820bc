"""What the header of an atlas must say before anything else in it is believed."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path
from typing import Any

from .error import need

VERSION = 1
HEADER_LIMIT = 2**24
"""Largest header, in bytes, that is parsed."""
FEATURES, CELLS, SIDE, LEVELS = 2**24, 2**16, 2**13, 2**10
"""The most features, tokens of a picture, pixels of a side of it, and noise levels that an atlas may have."""


def check_header(path: Path, header: Any) -> dict[str, Any]:
    """The header itself, if it has what an atlas needs; raises `AtlasError` otherwise.

    `fingerprint` (of the dictionary), `dictionary` with `kind`, `site` and `n_features`, `grid` [rows, columns] of
    tokens, `size` [height, width] of pictures in pixels, `sigmas` (noise levels of the profiles), `capture`, and
    whatever else its writer wants to say.
    """
    need(isinstance(header, dict), path, "a header that is a JSON object", header)
    fingerprint, about = header.get("fingerprint"), header.get("dictionary")
    good = isinstance(fingerprint, str) and re.fullmatch(r"[0-9a-f]{64}", fingerprint) is not None
    need(good, path, "fingerprint, 64 hexadecimal digits", fingerprint)
    need(isinstance(about, dict), path, "dictionary, a JSON object", about)
    for name in ("kind", "site"):
        need(isinstance(about.get(name), str), path, f"{name} of the dictionary, a text", about.get(name))
    count = about.get("n_features")
    need(_whole(count, FEATURES), path, f"n_features from 1 to {FEATURES}", count)
    grid, size, sigmas = header.get("grid"), header.get("size"), header.get("sigmas")
    good = _pair(grid, CELLS) and grid[0] * grid[1] <= CELLS
    need(good, path, f"grid, rows and columns of at most {CELLS} tokens", grid)
    need(_pair(size, SIDE), path, f"size, height and width from 1 to {SIDE} pixels", size)
    good = isinstance(sigmas, list) and len(sigmas) <= LEVELS and all(map(is_number, sigmas))
    need(good, path, f"sigmas, at most {LEVELS} numbers", sigmas)
    need(isinstance(header.get("capture"), dict), path, "capture, a JSON object", header.get("capture"))
    return header


def encode_header(path: Path, header: Any) -> str:
    """A header as it lies in the file, checked."""
    try:
        text = json.dumps(header, allow_nan=False, sort_keys=True)
    except (TypeError, ValueError) as error:
        need(False, path, "a header that JSON can say", str(error), "give plain values")
    check_header(path, json.loads(text))
    need(len(text) <= HEADER_LIMIT, path, f"a header of at most {HEADER_LIMIT} bytes", f"one of {len(text)}")
    return text


def decode_header(path: Path, text: Any) -> dict[str, Any]:
    """The header that lies in a file, checked."""
    need(isinstance(text, str) and len(text) <= HEADER_LIMIT, path, "a header, a text", text)
    return check_header(path, decode(path, text, "a header in JSON"))


def decode(path: Path, text: str, expected: str) -> Any:
    """What a JSON text says; raises `AtlasError` for other text, NaN and infinity."""

    def refuse(word: str) -> Any:
        raise ValueError(f"{word} is no JSON")

    try:
        return json.loads(text, parse_constant=refuse)
    except (ValueError, RecursionError) as error:
        need(False, path, expected, f"text that is not ({error})")


def is_number(value: Any) -> bool:
    """Whether it is a finite number and no bool."""
    return type(value) in (int, float) and abs(value) < 1e300 and math.isfinite(value)


def _whole(value: Any, most: int) -> bool:
    return type(value) is int and 1 <= value <= most


def _pair(value: Any, most: int) -> bool:
    return isinstance(value, list) and len(value) == 2 and all(_whole(each, most) for each in value)
