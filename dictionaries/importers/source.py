"""Reading other projects' files without trusting them: settings, safetensors, and the shapes they promise.

Everything is checked before it is used, tensors are mapped into memory and not copied, and whatever is amiss is a
`DictionaryFileError` that names the file.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from ..files import check_finite, check_safetensors
from ..schema import DictionaryFileError, parse_json, shown

CONFIG_LIMIT = 2**18
"""Largest settings file, in bytes, that is read: they are a few kilobytes, SAELens's up to some ten."""
DEPTH, ENTRIES = 20, 20_000
"""How deep and how large settings may be to be kept in a dictionary's header."""
HALVES = (torch.float16, torch.bfloat16)
FLOATS = (torch.float64, torch.float32, *HALVES)


class Config:
    """Settings of a foreign file, a JSON object, read value by value; `None` counts as missing."""

    def __init__(self, path: Path, values: Any):
        if not isinstance(values, dict):
            raise DictionaryFileError(path, "settings that are a JSON object", f"a {type(values).__name__}")
        self.path, self.values = path, values

    def _typed(self, name: str, kinds: tuple[type, ...], wanted: str, default: Any) -> Any:
        value = self.values.get(name)
        if value is None and default is not None:
            return default
        if not isinstance(value, kinds) or (isinstance(value, bool) and bool not in kinds):
            raise DictionaryFileError(self.path, f"{name}, {wanted}", f"{name} = {shown(value)}")
        return value

    def count(self, name: str, default: int | None = None) -> int:
        """A whole number from 1; a missing one is an error without `default`."""
        value = self._typed(name, (int,), "a whole number", default)
        if not 1 <= value < 2**40:
            raise DictionaryFileError(self.path, f"{name}, a whole number from 1", f"{name} = {shown(value)}")
        return value

    def number(self, name: str) -> float:
        """A finite number."""
        value = self._typed(name, (int, float), "a number", None)
        if not abs(value) < 1e38:  # NaN is not below either
            raise DictionaryFileError(self.path, f"{name}, a finite number", f"{name} = {shown(value)}")
        return float(value)

    def flag(self, name: str, default: bool | None = None) -> bool:
        return self._typed(name, (bool,), "true or false", default)

    def word(self, name: str, default: str | None = None) -> str:
        return self._typed(name, (str,), "a word", default)

    def inside(self, name: str) -> Config:
        """Settings within the settings; an empty object where there are none."""
        return Config(self.path, self._typed(name, (dict,), "a JSON object", {}))

    def refuse(self, name: str, reason: str) -> None:
        """Raise where the setting `name` is true: what it asks for cannot mean the same here."""
        if self.flag(name, False):
            raise DictionaryFileError(self.path, f"a dictionary without {name} ({reason})", f"{name} = true")


def read_config(path: Path) -> Config:
    """The settings in a JSON file, limited in size."""
    return Config(path, parse_json(path, read_small(path), "settings"))


def read_small(path: Path) -> bytes:
    """All of a small file."""
    if not path.is_file():
        raise DictionaryFileError(path, "a file with the settings", "no such file")
    try:
        with path.open("rb") as file:
            data = file.read(CONFIG_LIMIT + 1)
    except OSError as error:
        raise DictionaryFileError(path, "a readable file", str(error)) from error
    if len(data) > CONFIG_LIMIT:
        raise DictionaryFileError(path, f"settings of at most {CONFIG_LIMIT} bytes", "more")
    return data


def plain(value: Any) -> Any:
    """Foreign settings as JSON that a header can keep: finite, not deep, and without anything that is not a value."""
    left = [ENTRIES]

    def walk(value: Any, depth: int) -> Any:
        left[0] -= 1
        if depth > DEPTH:
            return "..."
        if isinstance(value, dict):
            return {str(key)[:200]: walk(inner, depth + 1) for key, inner in value.items() if left[0] > 0}
        if isinstance(value, list | tuple):
            return [walk(inner, depth + 1) for inner in value if left[0] > 0]
        if isinstance(value, bool) or value is None:
            return value
        if isinstance(value, int):
            return value if abs(value) < 2**63 else "..."
        if isinstance(value, float):
            return value if math.isfinite(value) else str(value)
        return value[:2000] if isinstance(value, str) else type(value).__name__

    return walk(value, 0)


def read_safetensors(path: Path) -> dict[str, Tensor]:
    """The tensors of a safetensors file, mapped into memory; floating types only, of any shape."""
    if not path.is_file():
        raise DictionaryFileError(path, "a file with the weights", "no such file")
    check_safetensors(path)
    try:
        with safe_open(path, framework="pt") as file:
            names = list(file.keys())
            for name in names:
                if file.get_slice(name).get_dtype() not in ("F64", "F32", "F16", "BF16"):
                    raise DictionaryFileError(
                        path, f"{shown(name)} of a floating type", file.get_slice(name).get_dtype()
                    )
            return {name: file.get_tensor(name) for name in names}
    except (SafetensorError, OSError) as error:
        raise DictionaryFileError(path, "a whole .safetensors file", f"a damaged one ({error})") from error


def check_shapes(path: Path, tensors: dict[str, Tensor], shapes: dict[str, str], **sizes: int) -> dict[str, int]:
    """Check that `tensors` has all of `shapes`, such as `{"encoder.weight": "M D", "k": ""}`, with finite numbers.

    A letter stands for one size throughout; `sizes` are those known beforehand. Gives all of them.
    """
    if missing := [name for name in shapes if name not in tensors]:
        found = ", ".join(sorted(map(shown, tensors))[:12]) or "none"
        raise DictionaryFileError(path, f"tensors {', '.join(shapes)}", f"no {', '.join(missing)}; there are {found}")
    for name, letters in shapes.items():
        shape = tuple(tensors[name].shape)
        wanted = letters.split()
        if len(shape) == len(wanted) and min(shape, default=1) > 0:
            for letter, size in zip(wanted, shape, strict=True):
                sizes.setdefault(letter, size)
        if shape != tuple(sizes.get(letter) for letter in wanted):
            known = ", ".join(f"{letter} = {sizes[letter]}" if letter in sizes else letter for letter in wanted)
            raise DictionaryFileError(path, f"{name} of shape ({known})", f"shape {shape}")
        check_finite(path, name, tensors[name])
    return sizes


def check_only(path: Path, tensors: Iterable[str], known: Iterable[str]) -> None:
    """Refuse tensors beyond the known ones: they would take part in a way that is not known here."""
    if unknown := sorted(set(tensors) - set(known)):
        raise DictionaryFileError(path, f"only tensors {', '.join(known)}", f"{', '.join(map(shown, unknown[:6]))} too")
