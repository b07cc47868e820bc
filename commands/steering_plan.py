"""The plan file of `fluxtionary steer`: what is added, taken out or set in one run, as JSON.

Described in docs/steering-plan.md; its keys mean what the command line's options of the same names mean.
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, get_args

from ..residual import PlanError
from ..residual.edits import Rows
from ..residual.mode import END, Mode

DEMO = "demo"
"""Stands for the dictionary that comes with the demo Flux."""


@dataclass(frozen=True)
class Gating:
    """Only tokens where one of these features is active: their summed value is above the threshold."""

    features: tuple[int, ...]
    dictionary: str | None = None
    """The dictionary of these features; by default the entry's own."""
    threshold: float = 0.0


@dataclass(frozen=True)
class Entry:
    """One change: a feature or a vector, how strongly, where and when. Several strengths or bounds are a sweep."""

    feature: int | None = None
    vector: Path | None = None
    dictionary: str = DEMO
    mode: Mode = "add"
    strength: tuple[float, ...] = ()
    sites: tuple[str, ...] = ()
    start: tuple[float, ...] = (0.0,)
    end: tuple[float, ...] = (END,)
    schedule: tuple[float, ...] = ()
    rows: Rows = "cond"
    mask: Path | None = None
    gate: Gating | None = None
    named: str = ""
    """Where the user wrote it, as the beginning of an error."""


def read_plan(path: Path) -> list[Entry]:
    """The entries of a plan file. Raises `PlanError` naming the place in the file that cannot be understood."""
    if not path.is_file():
        raise PlanError(f"{path}: expected a plan (.json), found {'a folder' if path.is_dir() else 'no such file'}")
    try:
        found = json.loads(path.read_text("utf-8"), object_pairs_hook=_without_doubles)
    except (ValueError, RecursionError) as error:
        raise PlanError(f"{path}: expected JSON, found something else: {error}") from error
    _check_keys(f"{path}", found, ("edits",), "a plan")
    edits = found.get("edits")
    if not isinstance(edits, list) or not edits:
        raise PlanError(f"{path}: edits: expected a list of one edit at least, found {_shown(edits)}")
    return [_entry(f"{path}: edits[{number}]", each, path.parent) for number, each in enumerate(edits)]


def _entry(name: str, found: Any, folder: Path) -> Entry:
    keys = tuple(field.name for field in fields(Entry) if field.name != "named")
    _check_keys(name, found, keys, "an edit")
    readers: dict[str, Callable[[str, Any], Any]] = {
        "feature": _whole,
        "vector": lambda at, value: folder / _text(at, value),
        "dictionary": lambda at, value: _file(at, value, folder),
        "mode": lambda at, value: _one_of(at, value, get_args(Mode)),
        "sites": lambda at, value: _several(at, value, _text, "a site, or a list of them"),
        "rows": lambda at, value: _one_of(at, value, get_args(Rows)),
        "mask": lambda at, value: folder / _text(at, value),
        "gate": lambda at, value: _gating(at, value, folder),
        **dict.fromkeys(("strength", "start", "end", "schedule"), _numbers),
    }
    return Entry(**{key: readers[key](f"{name}.{key}", value) for key, value in found.items()}, named=f"{name}: ")


def _gating(name: str, found: Any, folder: Path) -> Gating:
    _check_keys(name, found, tuple(field.name for field in fields(Gating)), "a gate")
    if "features" not in found:
        raise PlanError(f"{name}: expected features, found none")
    features = _several(f"{name}.features", found["features"], _whole, "a feature number, or a list of them")
    dictionary = _file(f"{name}.dictionary", found["dictionary"], folder) if "dictionary" in found else None
    return Gating(features, dictionary, _number(f"{name}.threshold", found.get("threshold", 0.0)))


def _check_keys(name: str, found: Any, known: tuple[str, ...], what: str) -> None:
    if not isinstance(found, Mapping):
        raise PlanError(f"{name}: expected {what} (an object with {', '.join(known)}), found {_shown(found)}")
    for key in found:
        if key not in known:
            near = difflib.get_close_matches(key, known, 1)
            hint = f": did you mean {near[0]}?" if near else ""
            raise PlanError(f"{name}: expected keys among {', '.join(known)}, found {key!r}{hint}")


def _without_doubles(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in pairs:
        if key in found:
            raise ValueError(f"{key!r} twice in one object")
        found[key] = value
    return found


def _several(name: str, found: Any, read: Callable[[str, Any], Any], what: str) -> tuple:
    if not isinstance(found, list):
        return (read(name, found),)
    if not found:
        raise PlanError(f"{name}: expected {what}, found an empty list")
    return tuple(read(f"{name}[{place}]", value) for place, value in enumerate(found))


def _numbers(name: str, found: Any) -> tuple[float, ...]:
    return _several(name, found, _number, "a number, or a list of them")


def _number(name: str, found: Any) -> float:
    if isinstance(found, bool) or not isinstance(found, int | float):
        raise PlanError(f"{name}: expected a number, found {_shown(found)}")
    try:
        return float(found)
    except OverflowError as error:
        raise PlanError(f"{name}: expected a number of usual size, found one of {len(str(found))} digits") from error


def _whole(name: str, found: Any) -> int:
    if isinstance(found, bool) or not isinstance(found, int):
        raise PlanError(f"{name}: expected a whole number, found {_shown(found)}")
    return found


def _text(name: str, found: Any) -> str:
    if not isinstance(found, str) or not found.strip():
        raise PlanError(f"{name}: expected a text, found {_shown(found)}")
    return found


def _file(name: str, found: Any, folder: Path) -> str:
    text = _text(name, found)
    return text if text == DEMO else str(folder / text)


def _one_of(name: str, found: Any, known: tuple[str, ...]) -> str:
    if found not in known:
        raise PlanError(f"{name}: expected one of {', '.join(known)}, found {_shown(found)}")
    return found


def _shown(found: Any) -> str:
    """A value of the file in few characters."""
    if found is None:
        return "nothing"
    text = json.dumps(found, ensure_ascii=False)
    return text if len(text) <= 60 else f"{text[:57]}..."
