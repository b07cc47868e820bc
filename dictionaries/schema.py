"""Schema 1 of the dictionary file: what a header must say, and which tensors of which shapes it promises.

Described field by field in docs/dictionary-format.md. Nothing here reads a tensor.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from . import activation, normalization, pursuit

FORMAT, SCHEMA = "fluxtionary", "1"
KINDS = ("sae", "itda", "neurons", "vector")
HEADER_LIMIT = 2**21
"""Largest JSON, in bytes, that is parsed: what it says fits in a few thousand."""
FLOATS = frozenset({"F64", "F32", "F16", "BF16"})

Shape = tuple[int, ...]


class DictionaryFileError(ValueError):
    """A file that is not the dictionary it should be: names the file, what was expected and what was found."""

    def __init__(self, path: str | os.PathLike, expected: str, found: str):
        super().__init__(f"{path}: expected {expected}, found {found}")
        self.path, self.expected, self.found = Path(path), expected, found

    def __reduce__(self) -> tuple:  # so that it survives a process pool
        return type(self), (self.path, self.expected, self.found)


class Fields:
    """A JSON object of a file, read field by field; anything amiss is a `DictionaryFileError`."""

    def __init__(self, path: Path, values: dict[str, Any]):
        self.path, self.values = path, values

    def need(self, name: str, kind: type) -> Any:
        value = self.values.get(name)
        if not isinstance(value, kind) or isinstance(value, bool) is not (kind is bool):
            raise DictionaryFileError(self.path, f"a header with {name} ({kind.__name__})", f"{name} = {shown(value)}")
        return value

    def optional(self, name: str, kind: type) -> Any:
        return None if self.values.get(name) is None else self.need(name, kind)

    def inside(self, name: str) -> Fields:
        return Fields(self.path, self.need(name, dict))

    def one_of(self, name: str, choices: tuple[str, ...]) -> str:
        value = self.need(name, str)
        if value not in choices:
            raise DictionaryFileError(self.path, f"{name} one of {', '.join(choices)}", f"{name} {shown(value)}")
        return value

    def count(self, name: str, most: int | None = None) -> int:
        value = self.need(name, int)
        if value < 1 or (most is not None and value > most):
            between = f"a positive {name}" if most is None else f"{name} between 1 and {most}"
            raise DictionaryFileError(self.path, between, f"{name} = {shown(value)}")
        return value


def shown(value: Any) -> str:
    """A value for an error message, cut short."""
    try:
        text = repr(value)
    except (RecursionError, ValueError):
        return f"a {type(value).__name__}"
    return text if len(text) <= 60 else text[:57] + "..."


def parse_json(path: Path, text: str | bytes, what: str) -> Any:
    """JSON of a file, limited in size, without NaN; `what` names it in errors."""
    if len(text) > HEADER_LIMIT:
        raise DictionaryFileError(path, f"{what} of at most {HEADER_LIMIT} bytes", f"{len(text)} bytes")

    def refuse(word: str) -> Any:
        raise ValueError(f"{word} is no JSON")

    try:
        return json.loads(text, parse_constant=refuse)
    except (ValueError, RecursionError) as error:
        raise DictionaryFileError(path, f"{what} in JSON", f"text that is not ({error})") from error


def parse_header(path: Path, metadata: dict[str, str]) -> dict[str, Any]:
    """The checked header of a file's metadata."""
    if metadata.get("format") != FORMAT:
        found = f"format {shown(metadata.get('format'))} in its metadata"
        raise DictionaryFileError(path, "a Fluxtionary dictionary (`fluxtionary import` converts others)", found)
    if metadata.get("schema") != SCHEMA:
        raise DictionaryFileError(
            path, f"schema {SCHEMA}", f"schema {shown(metadata.get('schema'))}; is there a newer release?"
        )
    header = parse_json(path, metadata.get("header", ""), "a header")
    if not isinstance(header, dict):
        raise DictionaryFileError(path, "a header that is a JSON object", f"a {type(header).__name__}")
    fields = Fields(path, header)
    kind = fields.one_of("kind", KINDS)
    n, _ = fields.count("n_features"), fields.count("d_model")
    sites = fields.need("sites", list)
    if not all(isinstance(site, str) for site in sites) or len(sites) != (n if kind == "vector" else 1):
        wanted = "one site for each direction" if kind == "vector" else "one site"
        raise DictionaryFileError(path, wanted, f"sites {shown(sites)}")
    if len(set(sites)) != len(sites):
        raise DictionaryFileError(path, "every site once", f"sites {shown(sites)}")
    for name in ("model", "normalization", "capture", "training", "metrics"):
        fields.need(name, dict)
    _check_normalization(fields, kind)
    if kind != "vector":
        _check_activation(fields, kind, n)
    if kind == "neurons":
        if header["d_model"] != n or not sites[0].endswith(".mlp"):
            raise DictionaryFileError(
                path, "neurons at an .mlp site, d_model = n_features", f"{sites[0]}, {header['d_model']} and {n}"
            )
        fields.count("d_residual")
    if header.get("sources") is not None:
        columns = fields.inside("sources").need("columns", list)
        if kind != "itda" or not columns or not all(isinstance(column, str) for column in columns):
            raise DictionaryFileError(path, "sources of an itda, with named columns", shown(header["sources"]))
    return header


def _check_normalization(fields: Fields, kind: str) -> None:
    part = fields.inside("normalization")
    name = part.one_of("kind", tuple(normalization.KINDS))
    clip = part.values.get("clip")
    if clip is not None and (isinstance(clip, bool) or not isinstance(clip, int | float) or not 0 < clip < 1e30):
        raise DictionaryFileError(fields.path, "a clip that is a positive number, or null", f"clip {shown(clip)}")
    if kind in ("neurons", "vector") and (name != "none" or clip is not None):
        raise DictionaryFileError(fields.path, f"normalization none for kind {kind}", f"{name}, clip {clip}")


def _check_activation(fields: Fields, kind: str, n: int) -> None:
    part = fields.inside("activation")
    if kind == "itda":
        part.one_of("name", pursuit.METHODS)
        part.need("nonnegative", bool)
        part.count("k")
        return
    name = part.one_of("name", activation.NAMES if kind == "sae" else ("topk",))
    if name in activation.COUNTED or part.values.get("k") is not None:
        k = part.count("k", most=n)
        if name == "groupmax" and n % k:
            raise DictionaryFileError(fields.path, f"k groups of one size among {n} features", f"k = {k}")
    if part.optional("relu", bool) is False and name != "topk":
        raise DictionaryFileError(fields.path, "relu for every activation but topk", f"{name} without")
    groups = part.optional("groups", list)
    if groups and (not all(type(size) is int and 0 < size <= n for size in groups) or sum(groups) != n):
        raise DictionaryFileError(fields.path, f"groups that add up to {n} features", shown(groups))


def promised(header: dict[str, Any]) -> tuple[dict[str, Shape], dict[str, Shape]]:
    """Required and optional tensors of a checked header with their shapes; -1 is any length from 1."""
    n, d, kind = header["n_features"], header["d_model"], header["kind"]
    by_kind: dict[str, dict[str, Shape]] = {
        "sae": {"encoder": (n, d), "encoder_bias": (n,), "decoder": (n, d), "decoder_bias": (d,)},
        "itda": {"atoms": (n, d)},
        "neurons": {"decoder": (n, header.get("d_residual", 0))},
        "vector": {"decoder": (n, d)},
    }
    required = by_kind[kind]
    if kind == "sae" and header["activation"]["name"] in activation.THRESHOLDED:
        required["threshold"] = (-1,)
    norm = header["normalization"]["kind"]
    wide: Shape = (-1, d) if norm == "sigma" else (d,)
    shapes = {"mean": wide, "std": (1,) if norm == "scalar" else wide, "rotation": (d, d)}
    required |= {name: shapes[name] for name in normalization.KINDS[norm]}
    optional: dict[str, Shape] = {"scale": (len(header["sites"]), -1)}
    if kind != "vector":
        optional["natural"] = (n,)
    if header.get("sources") is not None:
        required["sources"] = (n, len(header["sources"]["columns"]))
        optional["prompts"] = (-1,)
    return required, optional
