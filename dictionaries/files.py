"""Reading and writing the dictionary file, schema 1: one `.safetensors` file, described in docs/dictionary-format.md.

Reading never runs anything from the file, checks every shape and type against the header before a tensor is read, and
maps the tensors into memory instead of copying them.
"""

from __future__ import annotations

import json
import os
import struct
import tempfile
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from .activation import Activation
from .dictionary import Dictionary, Provenance
from .itda import ITDA, Sources
from .neurons import Neurons
from .normalization import Normalization
from .sae import SparseAutoencoder
from .scale import Scale
from .schema import FLOATS, FORMAT, HEADER_LIMIT, SCHEMA, DictionaryFileError, parse_header, promised
from .vector import SteeringVector

_MATRICES = ("encoder", "decoder", "atoms")
"""Kept as they lie in the file; all other tensors are small and become float32."""


def load_dictionary(
    path: str | os.PathLike, device: str | torch.device = "cpu", dtype: torch.dtype | None = None
) -> Dictionary:
    """Read a dictionary; `dtype` is that of its matrices (default: as the file has them, mapped, not copied).

    Raises `DictionaryFileError` for anything that is not a whole, consistent schema 1 file of a dictionary.
    """
    header, tensors = _read(Path(path), torch.device(device), dtype)
    if header["kind"] == "vector":
        raise DictionaryFileError(path, "a dictionary", "a steering vector: load_vector reads it")
    return _checked(Path(path), _dictionary, header, tensors)


def load_vector(path: str | os.PathLike, device: str | torch.device = "cpu") -> SteeringVector:
    """Read a steering vector. Raises `DictionaryFileError` as `load_dictionary` does."""
    header, tensors = _read(Path(path), torch.device(device), torch.float32)
    if header["kind"] != "vector":
        raise DictionaryFileError(path, "a steering vector", f"a dictionary of kind {header['kind']}")
    return _checked(Path(path), _vector, header, tensors)


def read_header(path: str | os.PathLike) -> tuple[dict[str, Any], dict[str, tuple[tuple[int, ...], str]]]:
    """The header of a dictionary file, and each tensor's shape and type, without reading a tensor."""
    path = Path(path)
    with _opened(path) as file:
        header = parse_header(path, file.metadata() or {})
        _check_tensors(path, file, header)
        slices = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118
        return header, {name: (tuple(part.get_shape()), part.get_dtype()) for name, part in slices.items()}


class _opened:  # noqa: N801
    """A safetensors file, open; whatever goes wrong inside is a `DictionaryFileError`."""

    def __init__(self, path: Path):
        self.path = path

    def __enter__(self) -> Any:
        check_safetensors(self.path)
        try:
            self.file = safe_open(self.path, framework="pt")
            return self.file.__enter__()
        except (SafetensorError, OSError) as error:
            raise self._damaged(error) from error

    def __exit__(self, kind: Any, error: Any, trace: Any) -> None:
        self.file.__exit__(kind, error, trace)
        if isinstance(error, SafetensorError | OSError):
            raise self._damaged(error) from error

    def _damaged(self, error: Exception) -> DictionaryFileError:
        return DictionaryFileError(self.path, "a whole .safetensors file", f"a damaged one ({error})")


def check_safetensors(path: Path) -> None:
    """Refuse what is no file, or claims a header that nothing here needs, before a library parses it."""
    if not path.is_file():
        found = "a folder; `fluxtionary import` reads folders" if path.is_dir() else "no such file"
        raise DictionaryFileError(path, "a dictionary file (.safetensors)", found)
    try:
        with path.open("rb") as file:
            start = file.read(8)
    except OSError as error:
        raise DictionaryFileError(path, "a readable file", str(error)) from error
    length = struct.unpack("<Q", start)[0] if len(start) == 8 else None
    if length is None or length > path.stat().st_size - 8:
        raise DictionaryFileError(path, "a whole .safetensors file", "a damaged one (it ends within its header)")
    if length > 2 * HEADER_LIMIT:
        raise DictionaryFileError(path, f"a header of at most {2 * HEADER_LIMIT} bytes", f"one of {length}")


def _read(path: Path, device: torch.device, dtype: torch.dtype | None) -> tuple[dict[str, Any], dict[str, Tensor]]:
    with _opened(path) as file:
        header = parse_header(path, file.metadata() or {})
        names = _check_tensors(path, file, header)
        tensors = {name: file.get_tensor(name) for name in names}
    for name, tensor in tensors.items():
        if name != "prompts":
            check_finite(path, name, tensor)
        if name in _MATRICES:
            tensors[name] = tensor.to(device, dtype)
        elif name not in ("sources", "prompts"):
            tensors[name] = tensor.to(device, torch.float32)
    return header, tensors


def check_finite(path: Path, name: str, tensor: Tensor) -> None:
    """Refuse NaN and infinity. One pass over the memory and no copy: a map of the file stays a map."""
    if tensor.numel() and not all(bool(torch.isfinite(end)) for end in torch.aminmax(tensor)):
        raise DictionaryFileError(path, f"finite numbers in {name}", "NaN or infinity")


def _check_tensors(path: Path, file: Any, header: dict[str, Any]) -> list[str]:
    required, optional = promised(header)
    present = set(file.keys())
    if missing := required.keys() - present:
        raise DictionaryFileError(path, f"tensors {', '.join(required)}", f"no {', '.join(sorted(missing))}")
    if unknown := present - required.keys() - optional.keys():
        known = ", ".join([*required, *optional])
        raise DictionaryFileError(path, f"only tensors {known}", f"{', '.join(sorted(unknown))[:200]} too")
    shapes = {name: shape for name, shape in {**required, **optional}.items() if name in present}
    for name, wanted in shapes.items():
        part = file.get_slice(name)
        found = tuple(part.get_shape())
        if len(found) != len(wanted) or any(f < 1 or w not in (-1, f) for w, f in zip(wanted, found, strict=True)):
            raise DictionaryFileError(path, f"{name} of shape {wanted}", f"shape {found}")
        if name == "prompts":
            if part.get_dtype() != "U8":
                raise DictionaryFileError(path, "prompts as bytes (U8)", part.get_dtype())
        elif part.get_dtype() not in FLOATS:
            raise DictionaryFileError(path, f"{name} of a floating type", part.get_dtype())
    return list(shapes)


def _checked(path: Path, make: Any, header: dict[str, Any], tensors: dict[str, Tensor]) -> Any:
    """What `make` builds; its own complaints about values name the file."""
    try:
        return make(header, tensors)
    except ValueError as error:
        raise DictionaryFileError(path, "a dictionary that fits together", str(error)) from error


def _dictionary(header: dict[str, Any], tensors: dict[str, Tensor]) -> Dictionary:
    site, how = header["sites"][0], header.get("activation", {})
    common: dict[str, Any] = {
        "scale": Scale(tensors["scale"][0]) if "scale" in tensors else None,
        "natural": tensors.get("natural"),
        "provenance": _provenance(header),
    }
    if header["kind"] == "neurons":
        return Neurons(site, tensors["decoder"], how["k"], **common)
    norm = header["normalization"]
    if norm["kind"] != "none" or norm.get("clip") is not None:
        parts = {name: tensors.get(name) for name in ("mean", "std", "rotation")}
        common["normalization"] = Normalization(kind=norm["kind"], clip=norm.get("clip"), **parts)
    if header["kind"] == "itda":
        sources = None
        if "sources" in tensors:
            words = bytes(tensors.get("prompts", torch.zeros(0, dtype=torch.uint8)).tolist())
            prompts = tuple(words.decode(errors="replace").split("\n", len(tensors["sources"]))) if words else ()
            sources = Sources(tuple(header["sources"]["columns"]), tensors["sources"].double(), prompts)
        return ITDA(site, tensors["atoms"], how["k"], how["name"], how["nonnegative"], sources=sources, **common)
    activation = Activation(how["name"], how.get("k"), tensors.get("threshold"), how.get("relu", True) is not False)
    weights: dict[str, Any] = {name: tensors[name] for name in ("encoder", "encoder_bias", "decoder", "decoder_bias")}
    groups = tuple(how.get("groups") or ())
    return SparseAutoencoder(site, activation=activation, groups=groups, **weights, **common)


def _vector(header: dict[str, Any], tensors: dict[str, Tensor]) -> SteeringVector:
    directions = dict(zip(header["sites"], tensors["decoder"], strict=True))
    rows = dict(zip(header["sites"], tensors["scale"], strict=True)) if "scale" in tensors else {}
    scales = {site: Scale(row) for site, row in rows.items() if bool(row.any())}
    return SteeringVector(directions, scales, _provenance(header))


def _provenance(header: dict[str, Any]) -> Provenance:
    return Provenance(*(header[name] for name in ("model", "capture", "training", "metrics")))


def save_dictionary(dictionary: Dictionary | SteeringVector, path: str | os.PathLike) -> None:
    """Write a dictionary or a steering vector; the file appears whole or not at all."""
    if isinstance(dictionary, SteeringVector):
        header, tensors = _vector_parts(dictionary)
    elif isinstance(dictionary, SparseAutoencoder | ITDA | Neurons):
        header, tensors = _dictionary_parts(dictionary)
    else:
        raise TypeError(f"cannot save a {type(dictionary).__name__}: expected a dictionary or a steering vector")
    about = dictionary.provenance
    header |= {name: getattr(about, name) for name in ("model", "capture", "training", "metrics")}
    metadata = {"format": FORMAT, "schema": SCHEMA, "header": json.dumps(header, allow_nan=False)}
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=path.name, suffix=".part")
    os.close(handle)
    partial = Path(name)
    try:
        save_file(_separate(tensors), partial, metadata)
        parse_header(path, metadata)  # what is written can be read
        partial.chmod(0o644)
        partial.replace(path)
    except BaseException:
        partial.unlink()
        raise


def _separate(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """On the CPU, contiguous, and no two in the same memory, which safetensors refuses."""
    out: dict[str, Tensor] = {}
    seen: set[int] = set()
    for name, tensor in tensors.items():
        plain = tensor.detach().cpu().contiguous()
        out[name] = plain.clone() if plain.untyped_storage().data_ptr() in seen else plain
        seen.add(out[name].untyped_storage().data_ptr())
    return out


def _dictionary_parts(dictionary: SparseAutoencoder | ITDA | Neurons) -> tuple[dict[str, Any], dict[str, Tensor]]:
    norm = dictionary.normalization or Normalization(kind="none")
    header: dict[str, Any] = {
        "kind": dictionary.kind,
        "sites": [dictionary.site],
        "d_model": dictionary.d_model,
        "n_features": dictionary.n_features,
        "normalization": {"kind": norm.kind, "clip": norm.clip},
    }
    tensors = {name: t for name, t in zip(("mean", "std", "rotation"), norm.tensors(), strict=True) if t is not None}
    if dictionary.scale is not None:
        tensors["scale"] = dictionary.scale.values[None]
    if dictionary.natural is not None:
        tensors["natural"] = dictionary.natural
    if isinstance(dictionary, Neurons):
        header |= {"activation": {"name": "topk", "k": dictionary.k}, "d_residual": dictionary.d_residual}
        tensors["decoder"] = dictionary.decoder
    elif isinstance(dictionary, ITDA):
        how = {"name": dictionary.method, "k": dictionary.k, "nonnegative": dictionary.nonnegative}
        header["activation"] = how
        tensors["atoms"] = dictionary.atoms
        if dictionary.sources is not None:
            header["sources"] = {"columns": list(dictionary.sources.columns)}
            tensors["sources"] = dictionary.sources.table.double()
            if words := "\n".join(prompt.replace("\n", " ") for prompt in dictionary.sources.prompts).encode():
                tensors["prompts"] = torch.frombuffer(bytearray(words), dtype=torch.uint8)
    else:
        activation = dictionary.activation
        header["activation"] = {"name": activation.name, "k": activation.k}
        header["activation"] |= {} if activation.relu else {"relu": False}
        header["activation"] |= {"groups": list(dictionary.groups)} if dictionary.groups else {}
        tensors |= {"encoder": dictionary.encoder, "encoder_bias": dictionary.encoder_bias}
        tensors |= {"decoder": dictionary.decoder, "decoder_bias": dictionary.decoder_bias}
        if activation.threshold is not None:
            tensors["threshold"] = activation.threshold
    return header, tensors


def _vector_parts(vector: SteeringVector) -> tuple[dict[str, Any], dict[str, Tensor]]:
    header = {
        "kind": vector.kind,
        "sites": list(vector.sites),
        "d_model": vector.d_model,
        "n_features": len(vector.sites),
        "normalization": {"kind": "none", "clip": None},
    }
    tensors = {"decoder": torch.stack(list(vector.directions.values()))}
    if vector.scales:
        bins = len(next(iter(vector.scales.values())).values)
        rows = [vector.scales[s].values if s in vector.scales else torch.zeros(bins) for s in vector.sites]
        tensors["scale"] = torch.stack(rows)
    return header, tensors
