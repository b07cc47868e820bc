"""The manifest of activation shards, schema 1: what it must say before any file it names is touched.

Described field by field in docs/activation-shards.md.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import torch

from ..dictionaries.schema import shown
from .site import Site, SiteError

FORMAT, SCHEMA, MANIFEST = "fluxtionary-activations", 1, "manifest.json"
DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}
MANIFEST_LIMIT = 2**27
"""Largest manifest, in bytes, that is parsed: prompts of about a million pictures."""
DESCRIPTION = ("sites", "d_model", "dtype", "model", "header", "prompts", "seeds", "grid", "batches")
"""The fields that say which capture this is."""

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,199}\.safetensors")
_RESTORE = "restore it from a copy, or capture again into an empty folder"


class ShardError(ValueError):
    """Shards that cannot be written or read: names the file, what was expected, what was found and what to do."""

    def __init__(self, path: str | os.PathLike, expected: str, found: str, remedy: str = _RESTORE):
        super().__init__(f"{path}: expected {expected}, found {found}; {remedy}")
        self.path, self.expected, self.found, self.remedy = Path(path), expected, found, remedy

    def __reduce__(self) -> tuple:  # so that it survives a process pool
        return type(self), (self.path, self.expected, self.found, self.remedy)


class ShardFile(NamedTuple):
    """One site's part of a shard: name of the file, its tokens, the tokens of each batch, and its SHA-256."""

    file: str
    tokens: int
    batch_tokens: tuple[int, ...]
    sha256: str


class Shard(NamedTuple):
    """Batches `first` to `end` (exclusive), and the file of each site."""

    first: int
    end: int
    files: dict[Site, ShardFile]


def manifest_bytes(folder: Path) -> bytes:
    """The manifest of a folder as it lies there; raises `ShardError` where there is none to read."""
    path = folder / MANIFEST
    if not path.is_file():
        found = "none" if folder.is_dir() else "a file" if folder.exists() else "no such folder"
        raise ShardError(folder, f"a folder of activation shards, with a {MANIFEST}", found, "give another folder")
    try:
        if (size := path.stat().st_size) > MANIFEST_LIMIT:
            raise ShardError(path, f"a manifest of at most {MANIFEST_LIMIT} bytes", f"one of {size}")
        return path.read_bytes()
    except OSError as error:
        raise ShardError(path, "a readable manifest", error.strerror or str(error)) from error


def decode_manifest(path: Path, data: bytes) -> dict[str, Any]:
    """The JSON object of a manifest of this format and schema, its fields unchecked."""

    def refuse(word: str) -> Any:
        raise ValueError(f"{word} is no JSON")

    try:
        manifest = json.loads(data, parse_constant=refuse)
    except (ValueError, RecursionError) as error:
        raise ShardError(path, "a manifest in JSON", f"text that is not ({error})") from error
    _need(path, isinstance(manifest, dict), "a manifest that is a JSON object", manifest)
    if manifest.get("format") != FORMAT:
        found = f"format {shown(manifest.get('format'))}"
        raise ShardError(path, f"format {FORMAT!r}", found, "give a folder of activation shards")
    if type(manifest.get("schema")) is not int or manifest["schema"] != SCHEMA:
        found = f"schema {shown(manifest.get('schema'))}"
        raise ShardError(path, f"schema {SCHEMA}", found, "read it with the release that wrote it, or a newer one")
    return manifest


def check_description(path: Path, manifest: dict[str, Any]) -> tuple[tuple[Site, ...], dict[Site, int]]:
    """Check the fields of `DESCRIPTION`; returns the sites and their widths."""
    get: Callable[[str], Any] = manifest.get
    names, width = get("sites"), get("d_model")
    _need(path, _list_of(str, names) and names and len(set(names)) == len(names), "a list of sites, each once", names)
    try:
        sites = tuple(Site.parse(name) for name in names)
    except SiteError as error:
        raise ShardError(path, "sites of Flux", str(error)) from error
    _need(path, [str(site) for site in sites] == names, "sites as Fluxtionary writes them", names)
    good = isinstance(width, dict) and width.keys() == set(names) and all(_count(d, 1) for d in width.values())
    _need(path, good, "d_model, a positive number for each site", width)
    dtype, grid = get("dtype"), get("grid")
    _need(path, isinstance(dtype, str) and dtype in DTYPES, f"dtype one of {', '.join(DTYPES)}", dtype)
    for name in ("model", "header"):
        _need(path, isinstance(get(name), dict), f"{name}, a JSON object", get(name))
    _need(path, _list_of(str, get("prompts")), "prompts, a list of texts", get("prompts"))
    _need(path, _list_of(int, get("seeds")), "seeds, a list of whole numbers", get("seeds"))
    if len(manifest["seeds"]) != len(manifest["prompts"]):
        found = f"{len(manifest['seeds'])} for {len(manifest['prompts'])} prompts"
        raise ShardError(path, "a seed for each prompt", found)
    good = _list_of(int, grid) and len(grid) == 2 and min(grid) >= 1
    _need(path, good, "grid, a number of rows and one of columns", grid)
    _need(path, _count(get("batches"), 1), "batches, a positive number", get("batches"))
    return sites, {site: width[str(site)] for site in sites}


def check_shards(path: Path, manifest: dict[str, Any], sites: tuple[Site, ...]) -> tuple[Shard, ...]:
    """The shards of a manifest whose description is checked: their batches follow on one another, from 0."""
    listed: Any = manifest.get("shards")
    _need(path, _list_of(dict, listed), "shards, a list of JSON objects", listed)
    shards, end, names = [], 0, set[str]()
    for number, entry in enumerate(listed):
        span, files = entry.get("batches"), entry.get("files")
        good = _list_of(int, span) and len(span) == 2 and span[0] == end < span[1] <= manifest["batches"]
        _need(path, good, f"shard {number} with batches [{end}, end], none after {manifest['batches']}", span)
        good = isinstance(files, dict) and files.keys() == {str(site) for site in sites}
        _need(path, good, f"shard {number} with a file for each site", files)
        parts = {site: _file(path, files[str(site)], span[1] - span[0]) for site in sites}
        for part in parts.values():
            _need(path, part.file not in names, "every file once", part.file)
            names.add(part.file)
        shards.append(Shard(span[0], end := span[1], parts))
    complete = manifest.get("complete")
    _need(path, complete is (end == manifest["batches"]), f"complete with {end} of {manifest['batches']}", complete)
    return tuple(shards)


def _file(path: Path, entry: Any, batches: int) -> ShardFile:
    _need(path, isinstance(entry, dict), "a file, a JSON object", entry)
    name, tokens, counts, digest = (entry.get(field) for field in ShardFile._fields)
    good = isinstance(name, str) and _NAME.fullmatch(name)
    _need(path, good, "a file's plain name inside the folder, ending in .safetensors", name)
    good = _list_of(int, counts) and len(counts) == batches and min(counts) >= 0
    _need(path, good, f"batch_tokens of {name}, {batches} numbers", counts)
    _need(path, _count(tokens, 0) and tokens == sum(counts), f"tokens of {name}, {sum(counts)} in all", tokens)
    good = isinstance(digest, str) and re.fullmatch(r"[0-9a-f]{64}", digest)
    _need(path, good, f"sha256 of {name}, 64 hexadecimal digits", digest)
    return ShardFile(name, tokens, tuple(counts), digest)


def _need(path: Path, good: Any, expected: str, found: Any) -> None:
    if not good:
        raise ShardError(path, expected, shown(found))


def _count(value: Any, least: int) -> bool:
    return type(value) is int and value >= least


def _list_of(kind: type, value: Any) -> bool:
    return isinstance(value, list) and all(type(each) is kind for each in value)


def difference(name: str, there: Any, here: Any) -> tuple[str, Any, Any] | None:
    """Where two JSON values first differ: the name of the field, and both its values; None where they do not."""
    if isinstance(there, dict) and isinstance(here, dict):
        pairs = [(f"{name}.{key}", there.get(key), here.get(key)) for key in sorted(there.keys() | here.keys())]
    elif isinstance(there, list) and isinstance(here, list) and len(there) == len(here):
        pairs = [(f"{name}[{i}]", *pair) for i, pair in enumerate(zip(there, here, strict=True))]
    elif isinstance(there, list) and isinstance(here, list):
        return f"length of {name}", len(there), len(here)
    else:
        return None if there == here else (name, there, here)
    return next((found for pair in pairs if (found := difference(*pair))), None)


def plain(path: Path, value: Any) -> Any:
    """A value as it comes back from JSON, objects in the order of their names."""
    try:
        return json.loads(json.dumps(value, allow_nan=False, sort_keys=True))
    except (TypeError, ValueError, RecursionError) as error:
        raise ShardError(path, "a description in plain JSON", str(error), "use texts and finite numbers") from error
