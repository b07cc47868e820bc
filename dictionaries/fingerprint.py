"""What tells one dictionary from another: a hash of all that encodes and decodes."""

from __future__ import annotations

import hashlib
import json
from typing import Any

import torch
from torch import Tensor

from .dictionary import Dictionary
from .itda import ITDA
from .neurons import Neurons
from .sae import SparseAutoencoder

_CHUNK = 2**26
"""Bytes that are copied at a time, where a tensor is not in memory in one piece."""


def fingerprint(dictionary: Dictionary) -> str:
    """SHA-256, 64 hexadecimal digits, of a dictionary's kind, site, activation, normalization and tensors.

    Scale, natural values, sources and provenance are left out: figures can be measured anew and codes stay what they
    are. Matrices count in the type they have, so the same file read in another type is another dictionary.
    """
    norm = dictionary.normalization
    about: dict[str, Any] = {"kind": dictionary.kind, "site": dictionary.site}
    about["normalization"] = None if norm is None or norm.kind == "none" else [norm.kind, norm.clip]
    tensors: dict[str, Tensor | None] = {"decoder": dictionary.decoder, "decoder_bias": dictionary.decoder_bias.float()}
    if norm is not None:
        tensors |= dict(zip(("mean", "std", "rotation"), norm.tensors(), strict=True))
    if isinstance(dictionary, SparseAutoencoder):
        how = dictionary.activation
        about["activation"] = [how.name, how.k, how.relu]
        threshold = None if how.threshold is None else how.threshold.float()
        tensors |= {"encoder": dictionary.encoder, "encoder_bias": dictionary.encoder_bias.float()}
        tensors |= {"threshold": threshold}
    elif isinstance(dictionary, ITDA):
        about["activation"] = [dictionary.method, dictionary.k, dictionary.nonnegative]
    elif isinstance(dictionary, Neurons):
        about["activation"] = ["topk", dictionary.k]
    total = hashlib.sha256(json.dumps(about, sort_keys=True).encode())
    for name, tensor in sorted(tensors.items()):
        if tensor is not None:
            total.update(f"\n{name} {tensor.dtype} {list(tensor.shape)}\n".encode())
            _add(total, tensor.detach())
    return total.hexdigest()


def _add(total: Any, tensor: Tensor) -> None:
    flat = tensor.reshape(len(tensor), -1) if tensor.ndim else tensor.reshape(1, 1)
    rows = max(_CHUNK // max(flat[0].nbytes, 1), 1) if len(flat) else 1
    for start in range(0, len(flat), rows):
        part = flat[start : start + rows].cpu().contiguous()
        total.update(part.view(torch.uint8).numpy())
