"""flux1-saes, the SAEs of "Interpreting Large Text-to-Image Diffusion Models with Dictionary Learning" (arXiv
2505.24360): orbax checkpoints `sae_double_l18_img/30000/default`, read with tensorstore (the extra `orbax`).

Inputs are rotated to principal components, standardised and clipped; then the `k` largest of
`(z - b_post + b_pre) @ W_enc`, without ReLU; `b_mid` is unused. The folder's name says the site and `k`.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from ..normalization import Normalization
from ..sae import SparseAutoencoder
from ..schema import DictionaryFileError
from . import weights
from .source import check_shapes

SHAPES = {
    "sae_params.W_enc": "D M",
    "sae_params.W_dec": "M D",
    "sae_params.b_pre": "D",
    "sae_params.b_post": "D",
    "info.feature_means": "D",
    "info.feature_square_means": "D",
}
ROTATION = {"info.whitening_matrix": "D D"}
CLIP = 10.0
FLOOR = 1e-6
"""Least variance of a component."""
PAPER_K = 64
"""The code's default, which a folder's name need not say."""
MODEL = {"family": "flux1", "name": "FLUX.1-schnell"}
_NAME = re.compile(r"sae_(double|single)_l(\d{1,3})_(img|txt|both)(?:-k(\d{1,6}))?")
_TYPES = ("float32", "float64", "float16", "bfloat16")


class Place(NamedTuple):
    """What a folder's name says."""

    sites: tuple[str, ...]
    k: int


def recognised(folder: Path) -> bool:
    return checkpoint(folder) is not None


def checkpoint(folder: Path) -> Path | None:
    """The folder of one step's arrays: itself, its `default`, or that of its last step."""
    steps = sorted((p for p in folder.glob("*") if p.name.isdecimal() and len(p.name) < 12), key=lambda p: int(p.name))
    for found in (folder, folder / "default", *(step / "default" for step in reversed(steps))):
        if (found / "manifest.ocdbt").is_file() or (found / "sae_params.W_enc").is_dir():
            return found
    return None


def read(folder: Path, site: str) -> SparseAutoencoder:
    """A TopK dictionary without ReLU, its rotation and clip kept. Encoder and bias act on the clipped components."""
    place = place_of(folder)
    if place is not None and site not in place.sites:
        raise DictionaryFileError(folder, f"site {' or '.join(place.sites)}, by the folder's name", f"site {site}")
    path = checkpoint(folder)
    if path is None:
        raise DictionaryFileError(folder, "an orbax checkpoint, or a folder of steps with one", "none")
    tensors = _arrays(path)
    rotated = ROTATION.keys() <= tensors.keys()
    check_shapes(path, tensors, SHAPES | (ROTATION if rotated else {}))

    mean = tensors["info.feature_means"].double()
    variance = (tensors["info.feature_square_means"].double() - mean.square()).clamp_min(FLOOR)
    normalization = Normalization(
        mean.float(),
        variance.sqrt().float(),
        tensors["info.whitening_matrix"].float() if rotated else None,
        kind="pca" if rotated else "standardise",
        clip=CLIP,
    )
    encoder = weights.matrix(tensors["sae_params.W_enc"].T)
    shift = tensors["sae_params.b_pre"].double() - tensors["sae_params.b_post"].double()
    decoder, bias = _folded(normalization, tensors["sae_params.W_dec"], tensors["sae_params.b_post"])
    return weights.autoencoder(
        path,
        site,
        (encoder, weights.times(encoder, shift), decoder, bias),
        weights.activation(path, "topk", k=PAPER_K if place is None else place.k, relu=False),
        weights.provenance("flux1_saes", {"checkpoint": "/".join(path.parts[-3:])}, MODEL),
        normalization=normalization,
    )


def place_of(folder: Path) -> Place | None:
    """Site and `k` by the name of the folder or one above, or None."""
    for name in reversed(folder.absolute().parts[-3:]):
        if match := _NAME.match(name):
            streams = ("img", "txt") if match[3] == "both" else (match[3],)
            return Place(tuple(f"{match[1]}.{int(match[2])}.{s}" for s in streams), int(match[4] or PAPER_K))
    return None


def _folded(normalization: Normalization, decoder: Tensor, bias: Tensor) -> tuple[Tensor, Tensor]:
    """Decoder and bias in the residual's units: a clip stands in the way of the encoder only."""
    out = torch.empty(decoder.shape)
    step = max(weights.BLOCK // decoder.shape[1], 1)
    for start in range(0, len(decoder), step):
        out[start : start + step] = normalization.fold_decoder(decoder[start : start + step].float(), bias.float())[0]
    return out, normalization.fold_decoder(decoder[:1].float(), bias.float())[1]


def _arrays(path: Path) -> dict[str, Tensor]:
    """The arrays of a checkpoint, each checked against the folder's size before it is read."""
    try:
        import tensorstore
    except ImportError as error:
        raise DictionaryFileError(
            path, "tensorstore to read an orbax folder (pip install 'fluxtionary[orbax]')", "none installed"
        ) from error
    size = sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
    base = {"driver": "file", "path": str(path.resolve()) + "/"}
    store = {"driver": "ocdbt", "base": base} if (path / "manifest.ocdbt").is_file() else base
    try:
        names = tensorstore.KvStore.open(store).result().list().result()
        present = {name.decode(errors="replace").rsplit("/", 1)[0] for name in names}
        wanted = [name for name in (SHAPES | ROTATION) if name in present]
        left, arrays = size, {}
        for name in wanted:
            array = _open(tensorstore, store, name, f"{name}/zarr.json".encode() in names)
            left -= _bytes_of(path, name, array, size)
            if left < 0:
                raise DictionaryFileError(path, f"arrays of at most the folder's {size} bytes", "more")
            arrays[name] = _tensor(array.read().result())
        return arrays
    except DictionaryFileError:
        raise
    except Exception as error:  # tensorstore raises ValueError, KeyError and RuntimeError, by the kind of damage
        reason = (str(error).splitlines() or [type(error).__name__])[0][:200]
        raise DictionaryFileError(path, "a whole orbax checkpoint", f"a damaged one ({reason})") from error


def _open(tensorstore: Any, store: dict[str, Any], name: str, newer: bool) -> Any:
    spec = {"driver": "zarr3" if newer else "zarr", "kvstore": {**store, "path": _inside(store, name)}}
    return tensorstore.open(spec, open=True, read=True).result()


def _inside(store: dict[str, Any], name: str) -> str:
    """Where an array lies in the store: files need the whole path."""
    return f"{store['path']}{name}/" if store["driver"] == "file" else f"{name}/"


def _bytes_of(path: Path, name: str, array: Any, size: int) -> int:
    """Bytes that reading an array takes; refused where its shape or its chunks are out of proportion to the folder."""
    if array.dtype.name not in _TYPES or array.rank > 2:
        raise DictionaryFileError(path, f"{name}, a float matrix or vector", f"{array.dtype.name}, {array.rank} axes")
    each = array.dtype.numpy_dtype.itemsize
    shape = [int(length) for length in array.shape]
    chunk = [int(length) for length in array.chunk_layout.read_chunk.shape]
    total, most = each * int(np.prod(shape, dtype=object)), each * int(np.prod(chunk, dtype=object))
    if max(total, most) > size:
        raise DictionaryFileError(path, f"{name} within the folder's {size} bytes", f"shape {shape}, chunks {chunk}")
    return total


def _tensor(array: Any) -> Tensor:
    """numpy has no bfloat16: tensorstore's becomes float32."""
    known = array.dtype.name in ("float32", "float64", "float16")
    return torch.from_numpy(np.ascontiguousarray(array if known else array.astype(np.float32)))
