"""The files of activation shards: written whole or not at all, and opened only when they are what they should be."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import struct
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from math import prod
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from ..dictionaries.schema import shown
from .shard_manifest import ShardError
from .tokens import Tokens

HEADER_LIMIT = 2**16
"""Largest header of a shard's file, in bytes: what it says fits in a few hundred."""

_CODES = {torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16"}
_BYTES = {"F32": 4, "F16": 2, "BF16": 2, "I32": 4, "I64": 8}
PART = ".part"
_GO_ON = "what was written before is whole: make room or allow writing, and the same capture goes on from there"


@contextmanager
def writing(folder: Path) -> Iterator[None]:
    """What the system refuses becomes a `ShardError`."""
    try:
        yield
    except OSError as error:
        path = error.filename or folder
        raise ShardError(path, "a place that can be written", error.strerror or str(error), _GO_ON) from error


def replace_file(path: Path, blocks: Iterable[bytes | Tensor]) -> str:
    """Write a file under a temporary name, to the disk, and rename it; returns its SHA-256."""
    partial, digest = path.with_name(path.name + PART), hashlib.sha256()
    try:
        with partial.open("wb") as file:
            for block in blocks:
                data: Any = block if isinstance(block, bytes) else block.numpy()
                file.write(data)
                digest.update(data)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    except BaseException as error:
        with suppress(OSError):
            partial.unlink(missing_ok=True)
        if isinstance(error, OSError):
            error.filename = error.filename or str(path)
        raise
    return digest.hexdigest()


def shard_blocks(parts: Sequence[Tokens], d_model: int, dtype: torch.dtype) -> Iterator[bytes | Tensor]:
    """The bytes of a safetensors file that holds the parts one after another, without joining them in memory."""
    header, at = {}, 0
    for name, (code, shape) in _tensors(sum(len(part.x) for part in parts), d_model, dtype).items():
        size = prod(shape) * _BYTES[code]
        header[name] = {"dtype": code, "shape": list(shape), "data_offsets": [at, at + size]}
        at += size
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    yield struct.pack("<Q", len(text)) + text
    for name in header:
        for part in parts:
            yield getattr(part, name).flatten().view(torch.uint8)


@contextmanager
def opened_shard(path: Path, n: int, d_model: int, dtype: torch.dtype) -> Iterator[Any]:
    """A file whose header says what the manifest promises; whatever goes wrong inside is a `ShardError`."""
    try:
        _check_file(path)
        with safe_open(path, framework="pt") as file:
            wanted, names = _tensors(n, d_model, dtype), sorted(file.keys())
            if names != sorted(wanted):
                raise ShardError(path, f"tensors {', '.join(sorted(wanted))}", shown(", ".join(names)).strip("'"))
            for name, (code, shape) in wanted.items():
                part = file.get_slice(name)
                kind, size = part.get_dtype(), tuple(part.get_shape())
                if (kind, size) != (code, shape):
                    found = f"type {kind}, shape {size}"
                    raise ShardError(path, f"{name} of type {code}, shape {shape}", found)
            yield file
    except SafetensorError as error:
        raise ShardError(path, "a whole safetensors file", f"a damaged one ({error})") from error
    except OSError as error:
        raise ShardError(path, "a readable file", error.strerror or str(error)) from error


def _tensors(n: int, d_model: int, dtype: torch.dtype) -> dict[str, tuple[str, tuple[int, ...]]]:
    """Type and shape of each tensor of a file, those of the widest type first, so that all lie aligned."""
    row = (n,)
    return {
        "picture": ("I64", row),
        "sigma": ("F32", row),
        "position": ("I32", row),
        "x": (_CODES[dtype], (n, d_model)),
    }


def sync_folder(folder: Path) -> None:
    """Have the names in a folder on the disk, where the system knows how."""
    if os.name != "posix":
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno != errno.EINVAL:  # some network folders cannot
            raise
    finally:
        os.close(handle)


def _check_file(path: Path) -> None:
    """Refuse what is no file of the folder itself, or claims a header that nothing here needs."""
    if path.is_symlink() or not path.is_file():
        raise ShardError(path, "a file of the folder", "a link" if path.is_symlink() else "no such file")
    with path.open("rb") as file:
        start = file.read(8)
    length = struct.unpack("<Q", start)[0] if len(start) == 8 else None
    if length is None or length > path.stat().st_size - 8:
        raise ShardError(path, "a whole safetensors file", "a damaged one (it ends within its header)")
    if length > HEADER_LIMIT:
        raise ShardError(path, f"a header of at most {HEADER_LIMIT} bytes", f"one of {length}")
