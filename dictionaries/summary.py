"""A dictionary file in words: what it is, for which model and site, and its figures."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from .files import read_header

KIND_NAMES = {"sae": "sparse autoencoder", "itda": "ITDA", "neurons": "neurons", "vector": "steering vector"}


def summarise(path: str | os.PathLike) -> str:
    """Lines about a dictionary file, from its header and the shapes of its tensors alone.

    Raises `DictionaryFileError` for anything that is not one.
    """
    path = Path(path)
    header, tensors = read_header(path)
    rows = [
        ("kind", _kind(header)),
        ("site", ", ".join(header["sites"])),
        ("model", _listed(header["model"])),
        *_size(header),
        ("capture", _listed(header["capture"])),
        ("training", _listed(header["training"])),
        ("metrics", _listed(header["metrics"])),
        ("carries", _carried(tensors)),
        ("size", f"{path.stat().st_size / 1e6:,.1f} MB, {', '.join(sorted({kind for _, kind in tensors.values()}))}"),
    ]
    return "\n".join([str(path), *(f"  {name:14}{text}" for name, text in rows if text)])


def _size(header: dict[str, Any]) -> list[tuple[str, str]]:
    """What a dictionary has features of; a steering vector is a direction and has none."""
    if header["kind"] == "vector":
        return [("width", f"{header['d_model']:,}")]
    return [
        ("features", f"{header['n_features']:,} of width {header['d_model']:,}"),
        ("normalization", _normalization(header["normalization"])),
    ]


def _kind(header: dict[str, Any]) -> str:
    name = KIND_NAMES[header["kind"]]
    how = header.get("activation")
    if not how:
        return name
    parts = [how["name"]]
    parts += [f"k {how['k']}"] if how.get("k") is not None else []
    parts += ["no ReLU"] if how.get("relu") is False else []
    parts += ["non-negative" if how["nonnegative"] else "signed"] if "nonnegative" in how else []
    parts += [f"Matryoshka groups {', '.join(map(str, how['groups']))}"] if how.get("groups") else []
    return f"{name}: {', '.join(parts)}"


def _normalization(norm: dict[str, Any]) -> str:
    return norm["kind"] if norm.get("clip") is None else f"{norm['kind']}, clipped at {norm['clip']:g}"


def _carried(tensors: dict[str, Any]) -> str:
    names = {"scale": "scale by sigma", "natural": "natural values", "sources": "sources of its atoms"}
    return ", ".join(text for name, text in names.items() if name in tensors)


def _listed(values: dict[str, Any]) -> str:
    """`name value` pairs, nested ones and long lists cut short."""
    return ", ".join(f"{name} {_short(value)}" for name, value in values.items() if value is not None)


def _short(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, list) and len(value) > 4:
        return f"{_short(value[0])} to {_short(value[-1])} ({len(value)})"
    if isinstance(value, dict):
        return f"({_listed(value)})"
    text = str(value)
    return text if len(text) <= 60 else text[:57] + "..."
