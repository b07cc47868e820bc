"""Reading PyTorch's own files (`.pt`, `.pth`) without running or allocating what they ask for.

Such a file is a zip archive: a pickle that says what there is, and the numbers. The pickle may name nothing but
tensors, containers and plain values; it is read by `torch.load(weights_only=True)`, which maps the numbers into
memory and cannot resize them.
"""

from __future__ import annotations

import pickletools
import struct
import zipfile
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..schema import DictionaryFileError, shown
from .source import FLOATS

PICKLE_LIMIT = 2**17
"""Largest pickle, in bytes: a state of thirty tensors with an optimizer's takes a tenth of that."""
DIRECTORY_LIMIT = 2**17
"""Largest table of contents of the archive, in bytes."""
ALLOWED = {
    "collections OrderedDict",
    "torch device",
    "torch Size",
    "torch._utils _rebuild_parameter",
    "torch._utils _rebuild_tensor_v2",
    *(f"torch {kind}Storage" for kind in ("Double", "Float", "Half", "BFloat16", "Long", "Int", "Short", "Char")),
    *(f"torch {kind}Storage" for kind in ("Byte", "Bool")),
}
"""What a pickle may name."""
_NAMING = ("GLOBAL", "STACK_GLOBAL", "INST", "EXT1", "EXT2", "EXT4")


def read_pickle(path: Path) -> Any:
    """What a PyTorch file holds: dicts, lists, plain values, and tensors whose numbers are still in the file."""
    if not path.is_file():
        raise DictionaryFileError(path, "a file with the weights", "no such file")
    try:
        _check_pickle(path, _checked_archive(path))
        return torch.load(str(path), map_location="cpu", weights_only=True, mmap=True)
    except DictionaryFileError:
        raise
    except Exception as error:  # torch's reader has no exception of its own for damaged files
        reason = (str(error).splitlines() or [type(error).__name__])[0][:200]
        raise DictionaryFileError(path, "a whole PyTorch file", f"a damaged one ({reason})") from error


def state_of(path: Path, value: Any, floats: bool = True) -> dict[str, Tensor]:
    """The tensors of a state dict, checked to be plain ones that are no larger than the file.

    `floats`: leave out what is not floating, such as counters.
    """
    if not isinstance(value, dict) or not all(isinstance(name, str) for name in value):
        raise DictionaryFileError(path, "a state dict: tensors by name", f"a {type(value).__name__}")
    tensors = {name: tensor for name, tensor in value.items() if isinstance(tensor, Tensor)}
    left = path.stat().st_size
    for name, tensor in tensors.items():
        check_tensor(path, name, tensor)
        left -= tensor.numel() * tensor.element_size()  # views of one storage could claim any size
        if left < 0:
            raise DictionaryFileError(path, "tensors that add up to the file's size", f"more, at {shown(name)}")
    return {name: tensor.detach() for name, tensor in tensors.items() if not floats or tensor.dtype in FLOATS}


def check_tensor(path: Path, name: str, tensor: Tensor) -> None:
    """Refuse anything but a plain dense tensor on the CPU, and one larger than its file."""
    if tensor.layout != torch.strided or tensor.device.type != "cpu" or tensor.is_quantized or tensor.is_complex():
        raise DictionaryFileError(path, f"{shown(name)}, a plain tensor", f"{tensor.layout} {tensor.dtype}")
    if tensor.numel() * tensor.element_size() > path.stat().st_size:
        raise DictionaryFileError(path, f"{shown(name)} within the file", f"shape {tuple(tensor.shape)}")


def _checked_archive(path: Path) -> bytes:
    """The pickle in the archive, when nothing in there is compressed, overlapping or out of proportion."""
    size = path.stat().st_size
    with path.open("rb") as file:
        if file.read(4) != b"PK\x03\x04":
            raise DictionaryFileError(
                path,
                "a PyTorch file of the zip form",
                "another; if you trust it, torch.load it and torch.save it anew with PyTorch 1.6 or later",
            )
        if _directory_size(file, size) > DIRECTORY_LIMIT:
            raise DictionaryFileError(path, f"contents listed in {DIRECTORY_LIMIT} bytes", "a longer list")
    with zipfile.ZipFile(path) as archive:
        entries = archive.infolist()
        if any(entry.compress_type != zipfile.ZIP_STORED or entry.flag_bits & 1 for entry in entries):
            raise DictionaryFileError(path, "numbers stored as they are", "a compressed or encrypted archive")
        if sum(entry.file_size for entry in entries) > size:
            raise DictionaryFileError(path, f"contents of at most the file's {size} bytes", "more")
        pickles = [entry for entry in entries if entry.filename.endswith(("/data.pkl", "/constants.pkl"))]
        if len(pickles) != 1 or pickles[0].file_size > PICKLE_LIMIT:
            raise DictionaryFileError(path, f"one data.pkl of at most {PICKLE_LIMIT} bytes", "none, more or larger")
        return archive.read(pickles[0])


def _directory_size(file: Any, size: int) -> int:
    """Bytes of the archive's table of contents, from the record that ends it (APPNOTE.TXT, 4.3.14 to 4.3.16)."""
    file.seek(max(size - 22, 0))
    end = file.read(22)
    if len(end) != 22 or end[:4] != b"PK\x05\x06":
        raise zipfile.BadZipFile("it does not end as an archive does")
    length = struct.unpack_from("<I", end, 12)[0]
    if length == 0xFFFFFFFF:  # the 64-bit form
        file.seek(max(size - 22 - 20 - 56, 0))
        record = file.read(56)
        if record[:4] != b"PK\x06\x06":
            raise zipfile.BadZipFile("its 64-bit end record is not where it should be")
        length = struct.unpack_from("<Q", record, 40)[0]
    return length


def _check_pickle(path: Path, data: bytes) -> None:
    """Refuse a pickle that names anything but what a state dict is made of; nothing is run."""
    for operation, argument, _ in pickletools.genops(data):
        if operation.name in _NAMING and (operation.name != "GLOBAL" or argument not in ALLOWED):
            raise DictionaryFileError(
                path, "tensors, containers and plain values only", f"a pickle that asks for {shown(argument)}"
            )
