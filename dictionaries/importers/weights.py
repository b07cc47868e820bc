"""Weights of foreign dictionaries brought into this project's form, with the precision of float64 in little memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..activation import Activation
from ..dictionary import Provenance
from ..files import check_finite
from ..sae import SparseAutoencoder
from ..schema import DictionaryFileError
from .source import plain

BLOCK = 2**19
"""Numbers that are in memory in float64 at a time."""


def times(rows: Tensor, vector: Tensor) -> Tensor:
    """`rows [M, D] @ vector [D]`, float64 `[M]`."""
    vector, out = vector.double(), torch.empty(len(rows), dtype=torch.float64)
    for part in _blocks(rows):
        out[part] = rows[part].double() @ vector
    return out


def lengths(rows: Tensor) -> Tensor:
    """Length of each row, float64 `[M]`."""
    out = torch.empty(len(rows), dtype=torch.float64)
    for part in _blocks(rows):
        out[part] = rows[part].double().norm(dim=1)
    return out


def units(rows: Tensor) -> Tensor:
    """Length of each row, float64 `[M]`, with 1 for rows of zeros: what to divide by."""
    found = lengths(rows)
    return torch.where(found > 0, found, 1.0)


def matrix(rows: Tensor, factor: Tensor | None = None) -> Tensor:
    """`rows [M, D]`, a view of a file's tensor, contiguous; each times its own number of `factor [M]` if there is one.

    Without a factor they keep their type, and the file's own memory where they lie in it so; with one they are
    float32.
    """
    if factor is not None:
        return mapped(rows, lambda block, part: block * factor.double()[part, None])
    return (rows.float() if rows.dtype == torch.float64 else rows).contiguous()


def mapped(rows: Tensor, change: Callable[[Tensor, slice], Tensor]) -> Tensor:
    """`change(block in float64, slice)` of all rows, float32 `[M, D]`."""
    out = torch.empty(rows.shape)
    for part in _blocks(rows):
        out[part] = change(rows[part].double(), part)
    return out


def _blocks(rows: Tensor) -> Iterator[slice]:
    step = max(BLOCK // rows.shape[1], 1)
    return (slice(start, start + step) for start in range(0, len(rows), step))


def autoencoder(
    path: Path,
    site: str,
    weights: tuple[Tensor, Tensor, Tensor, Tensor],
    activation: Activation,
    provenance: Provenance,
    **options: Any,
) -> SparseAutoencoder:
    """The dictionary of `(encoder, encoder_bias, decoder, decoder_bias)`, checked to be within float32."""
    encoder, bias, decoder, decoder_bias = weights[0], weights[1].float(), weights[2], weights[3].float()
    parts = {"encoder": encoder, "encoder_bias": bias, "decoder": decoder, "decoder_bias": decoder_bias}
    parts |= {} if activation.threshold is None else {"threshold": activation.threshold}
    for name, tensor in parts.items():
        check_finite(path, f"{name}, once in this project's form,", tensor)
    try:
        return SparseAutoencoder(
            site, encoder, bias, decoder, decoder_bias, activation, provenance=provenance, **options
        )
    except ValueError as error:
        raise DictionaryFileError(path, "a dictionary that fits together", str(error)) from error


def activation(path: Path, name: str, **options: Any) -> Activation:
    """An activation; what does not fit together is the file's fault."""
    try:
        return Activation(name, **options)
    except ValueError as error:
        raise DictionaryFileError(path, "an activation that fits together", str(error)) from error


def gate(r_mag: Tensor, b_mag: Tensor, b_gate: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """A gated encoder with shared weights W as one with a threshold: factor of W's rows, bias and threshold, all `[M]`.

    The gate is `W x + b_gate > 0` and the magnitude `relu(exp(r_mag) W x + b_mag)` (Rajamanoharan et al. 2024, arXiv
    2404.16014, section 3.2). Times `exp(r_mag)`, plus `b_mag`, the gate reads
    `exp(r_mag) W x + b_mag > b_mag - exp(r_mag) b_gate`: a JumpReLU of the magnitude's own pre-activation.
    """
    factor = r_mag.double().exp()
    return factor, b_mag.double(), (b_mag.double() - factor * b_gate.double()).clamp_min(0)


def provenance(format: str, config: Any, model: dict[str, Any] | None = None, **more: Any) -> Provenance:
    """Where an imported dictionary comes from: the foreign settings stay with it."""
    return Provenance(model=model or {}, training={"imported_from": format, "config": plain(config), **plain(more)})
