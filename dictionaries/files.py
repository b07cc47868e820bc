"""The dictionary file, schema 1: one `.safetensors` file, described in docs/dictionary-format.md.

Reading never runs anything from the file, and every shape and type is checked against the header before a
tensor is read.
"""

from __future__ import annotations

import json
import os
import tempfile
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from .dictionary import Dictionary, Provenance, SparseAutoencoder
from .normalization import Normalization
from .scale import Scale

FORMAT, SCHEMA = "fluxtionary", "1"
_FLOATS = {"F64", "F32", "F16", "BF16"}


class DictionaryFileError(ValueError):
    """A file that is not the dictionary it should be: names the file, what was expected and what was found."""

    def __init__(self, path: str | os.PathLike, expected: str, found: str):
        super().__init__(f"{path}: expected {expected}, found {found}")
        self.path, self.expected, self.found = Path(path), expected, found


def save_dictionary(dictionary: Dictionary, path: str | os.PathLike) -> None:
    """Write a dictionary; the file appears whole or not at all."""
    if not isinstance(dictionary, SparseAutoencoder):
        raise TypeError(
            f"cannot save a {type(dictionary).__name__}: schema 1 of this release holds sparse autoencoders"
        )
    tensors = {
        "encoder": dictionary.encoder,
        "encoder_bias": dictionary.encoder_bias,
        "decoder": dictionary.decoder,
        "decoder_bias": dictionary.decoder_bias,
    }
    if dictionary.normalization is not None:
        tensors |= {"mean": dictionary.normalization.mean, "std": dictionary.normalization.std}
    if dictionary.scale is not None:
        tensors["scale"] = dictionary.scale.values[None]
    if dictionary.natural is not None:
        tensors["natural"] = dictionary.natural
    about = dictionary.provenance
    header = {
        "kind": dictionary.kind,
        "sites": [dictionary.site],
        "d_model": dictionary.d_model,
        "n_features": dictionary.n_features,
        "activation": {"name": "topk", "k": dictionary.k},
        "model": about.model,
        "normalization": {"kind": "none" if dictionary.normalization is None else "standardise", "clip": None},
        "capture": about.capture,
        "training": about.training,
        "metrics": about.metrics,
    }
    metadata = {"format": FORMAT, "schema": SCHEMA, "header": json.dumps(header, allow_nan=False)}
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=path.name, suffix=".part")
    os.close(handle)
    partial = Path(name)
    try:
        save_file({name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}, partial, metadata)
        partial.chmod(0o644)
        partial.replace(path)
    except BaseException:
        partial.unlink()
        raise


def load_dictionary(
    path: str | os.PathLike, device: str | torch.device = "cpu", dtype: torch.dtype | None = None
) -> Dictionary:
    """Read a dictionary; `dtype` is that of encoder and decoder (default: float32).

    Raises `DictionaryFileError` for anything that is not a whole, consistent schema 1 file.
    """
    path = Path(path)
    if not path.is_file():
        raise DictionaryFileError(
            path, "a dictionary file (.safetensors)", "a folder" if path.is_dir() else "no such file"
        )
    try:
        with safe_open(path, framework="pt") as file:
            header = _header(path, file.metadata() or {})
            tensors = _tensors(path, file, header)
    except SafetensorError as error:
        raise DictionaryFileError(path, "a whole .safetensors file", f"a damaged one ({error})") from error
    except OSError as error:
        raise DictionaryFileError(path, "a readable file", str(error)) from error
    return _dictionary(path, header, tensors, torch.device(device), dtype or torch.float32)


def _header(path: Path, metadata: dict[str, str]) -> dict[str, Any]:
    if metadata.get("format") != FORMAT:
        raise DictionaryFileError(
            path, "a Fluxtionary dictionary", f"format {metadata.get('format')!r} in its metadata"
        )
    if metadata.get("schema") != SCHEMA:
        raise DictionaryFileError(
            path, f"schema {SCHEMA}", f"schema {metadata.get('schema')!r}; is there a newer release?"
        )
    try:
        header = json.loads(metadata.get("header", ""))
    except (ValueError, RecursionError) as error:
        raise DictionaryFileError(path, "a header in JSON", f"text that is not ({error})") from error
    if not isinstance(header, dict):
        raise DictionaryFileError(path, "a header that is a JSON object", f"a {type(header).__name__}")

    def need(name: str, kind: type, inside: dict[str, Any] = header) -> Any:
        value = inside.get(name)
        if not isinstance(value, kind) or isinstance(value, bool):
            raise DictionaryFileError(path, f"a header with {name} ({kind.__name__})", f"{name} = {value!r:.60}")
        return value

    if need("kind", str) != "sae":
        raise DictionaryFileError(path, "kind 'sae'", f"kind {header['kind']!r}")
    sites = need("sites", list)
    if len(sites) != 1 or not isinstance(sites[0], str):
        raise DictionaryFileError(path, "one site", f"sites {sites!r:.60}")
    for name in ("d_model", "n_features"):
        if need(name, int) < 1:
            raise DictionaryFileError(path, f"a positive {name}", str(header[name]))
    activation = need("activation", dict)
    if need("name", str, activation) != "topk":
        raise DictionaryFileError(path, "activation 'topk'", f"activation {activation['name']!r}")
    if not 1 <= need("k", int, activation) <= header["n_features"]:
        raise DictionaryFileError(
            path, f"k between 1 and n_features = {header['n_features']}", f"k = {activation['k']}"
        )
    for name in ("model", "normalization", "capture", "training", "metrics"):
        need(name, dict)
    if (
        header["normalization"].get("kind") not in ("none", "standardise")
        or header["normalization"].get("clip") is not None
    ):
        raise DictionaryFileError(
            path, "normalization 'none' or 'standardise', no clip", f"{header['normalization']!r:.60}"
        )
    return header


def _tensors(path: Path, file: Any, header: dict[str, Any]) -> dict[str, Tensor]:
    n, d = header["n_features"], header["d_model"]
    required = {"encoder": (n, d), "encoder_bias": (n,), "decoder": (n, d), "decoder_bias": (d,)}
    if header["normalization"]["kind"] == "standardise":
        required |= {"mean": (d,), "std": (d,)}
    present = set(file.keys())
    if missing := required.keys() - present:
        raise DictionaryFileError(path, f"tensors {', '.join(required)}", f"no {', '.join(sorted(missing))}")
    optional = {"scale": (1, -1), "natural": (n,)}
    if unknown := present - required.keys() - optional.keys():
        raise DictionaryFileError(
            path, f"only tensors {', '.join([*required, *optional])}", f"{', '.join(sorted(unknown))} too"
        )
    present_shapes = {name: shape for name, shape in {**required, **optional}.items() if name in present}
    for name, wanted in present_shapes.items():
        part = file.get_slice(name)
        found = tuple(part.get_shape())
        if len(found) != len(wanted) or any(w not in (-1, f) for w, f in zip(wanted, found, strict=True)):
            raise DictionaryFileError(path, f"{name} of shape {wanted}", f"shape {found}")
        if part.get_dtype() not in _FLOATS:
            raise DictionaryFileError(path, f"{name} of a floating type", part.get_dtype())
    return {name: file.get_tensor(name) for name in present_shapes}


def _dictionary(
    path: Path, header: dict[str, Any], tensors: dict[str, Tensor], device: torch.device, dtype: torch.dtype
) -> Dictionary:
    for name, tensor in tensors.items():
        if not bool(torch.isfinite(tensor).all()):
            raise DictionaryFileError(path, f"finite numbers in {name}", "NaN or infinity")
    weights = {name: tensors[name].to(device, dtype) for name in ("encoder", "encoder_bias", "decoder", "decoder_bias")}
    normalization = None
    if "std" in tensors:
        if not bool((tensors["std"] > 0).all()):
            raise DictionaryFileError(path, "a positive std for every channel", "zero or less")
        normalization = Normalization(tensors["mean"].float().to(device), tensors["std"].float().to(device))
    try:
        scale = Scale(tensors["scale"][0]) if "scale" in tensors else None
    except ValueError as error:
        raise DictionaryFileError(path, "a positive scale per sigma bin", str(error)) from error
    return SparseAutoencoder(
        site=header["sites"][0],
        k=header["activation"]["k"],
        normalization=normalization,
        scale=scale,
        natural=tensors["natural"].float().to(device) if "natural" in tensors else None,
        provenance=Provenance(*(header[name] for name in ("model", "capture", "training", "metrics"))),
        **weights,
    )
