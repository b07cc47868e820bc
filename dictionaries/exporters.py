"""Writing sparse autoencoders as other projects' files, where they have the kind: SAELens 6 and sparsify.

The files give the same codes and reconstructions there. What a format cannot say is refused with the reason; a
dictionary's scale and natural values are in neither format and stay behind.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Callable
from itertools import accumulate
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors.torch import save_file
from torch import Tensor

from .dictionary import Dictionary
from .importers.weights import lengths, times
from .sae import SparseAutoencoder

LAYOUT = "6.0.0"
"""The SAELens version whose layout is written; later ones read it."""
ARCHITECTURES = {"relu": "standard", "topk": "topk", "jumprelu": "jumprelu", "batchtopk": "jumprelu", "gated": "gated"}
"""By this project's activation. SAELens itself saves BatchTopK as jumprelu."""
NORMALIZATIONS = {"layer_norm": "layer_norm", "token_norm": "constant_norm_rescale"}


class ExportError(ValueError):
    """A dictionary that a foreign format cannot hold, or a folder that cannot be written: what and why."""


class Exported(NamedTuple):
    """The two files of a folder: settings, and tensors, with their names."""

    config: str
    settings: dict[str, Any]
    weights: str
    tensors: dict[str, Tensor]


def export_dictionary(dictionary: Dictionary, path: str | os.PathLike, format: str) -> None:
    """Write a dictionary as a folder of `format`, `saelens` or `sparsify`; it appears whole or not at all.

    Raises `ExportError` where the format has no such kind, or where `path` exists.
    """
    if format not in EXPORTERS:
        raise ExportError(f"a format to export to is one of {', '.join(EXPORTERS)}; found {format!r}")
    if not isinstance(dictionary, SparseAutoencoder):
        raise ExportError(f"{format} holds sparse autoencoders; found a dictionary of kind {dictionary.kind}")
    path = Path(path)
    if path.exists() or path.is_symlink():
        raise ExportError(f"{path} exists already; give another folder or remove it")
    exported = EXPORTERS[format](dictionary)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = Path(tempfile.mkdtemp(dir=path.parent, prefix=path.name, suffix=".part"))
    try:
        (partial / exported.config).write_text(json.dumps(exported.settings, indent=2, allow_nan=False) + "\n")
        save_file(_plain(exported.tensors), partial / exported.weights)
        partial.chmod(0o755)
        partial.rename(path)
    except BaseException:
        shutil.rmtree(partial)
        raise


def _plain(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Float32 on the CPU, contiguous, and no two in the same memory (tied weights), which safetensors refuses."""
    out: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        plain = tensor.detach().cpu().float().contiguous()
        taken = {other.untyped_storage().data_ptr() for other in out.values()}
        out[name] = plain.clone() if plain.untyped_storage().data_ptr() in taken else plain
    return out


def to_saelens(dictionary: SparseAutoencoder) -> Exported:
    """SAELens 6: settings and tensors of `standard`, `topk`, `jumprelu` and `gated`."""
    how, norm = dictionary.activation, dictionary.normalization
    if how.name not in ARCHITECTURES:
        raise ExportError(f"SAELens has no {how.name}; sparsify has")
    if not how.relu:
        raise ExportError("SAELens's topk ends in a ReLU, this dictionary's does not")
    if norm is not None and not norm.folds and (norm.clip is not None or norm.kind not in NORMALIZATIONS):
        raise ExportError(f"SAELens cannot say this normalization of the input: {norm.kind}, clip {norm.clip}")
    architecture = ARCHITECTURES[how.name]
    settings: dict[str, Any] = {
        "architecture": architecture,
        "d_in": dictionary.d_model,
        "d_sae": dictionary.n_features,
        "dtype": "float32",
        "device": "cpu",
        "apply_b_dec_to_input": False,
        "normalize_activations": "none" if norm is None or norm.folds else NORMALIZATIONS[norm.kind],
        "reshape_activations": "none",
        "metadata": _metadata(dictionary),
    }
    if architecture == "topk":
        settings |= {"k": how.k, "rescale_acts_by_decoder_norm": False}
    bias = dictionary.encoder_bias.float()
    tensors = {"W_enc": dictionary.encoder.T, "W_dec": dictionary.decoder, "b_dec": dictionary.decoder_bias}
    threshold = None if how.threshold is None else how.threshold.float().expand(dictionary.n_features)
    if architecture == "gated":  # the gate is the magnitude's own pre-activation less the threshold
        assert threshold is not None
        tensors |= {"b_mag": bias, "r_mag": torch.zeros_like(bias), "b_gate": bias - threshold}
    else:
        tensors |= {"b_enc": bias} | ({} if threshold is None else {"threshold": threshold})
    return Exported("cfg.json", settings, "sae_weights.safetensors", tensors)


def to_sparsify(dictionary: SparseAutoencoder) -> Exported:
    """sparsify: TopK and GroupMax, `b_dec` taken from the input."""
    how, norm = dictionary.activation, dictionary.normalization
    if how.name not in ("topk", "groupmax"):
        raise ExportError(f"sparsify has topk and groupmax; found {how.name} (SAELens has more)")
    if not how.relu:
        raise ExportError("sparsify's topk ends in a ReLU, this dictionary's does not")
    if norm is not None and not norm.folds:
        raise ExportError(f"sparsify does not normalize its input; this dictionary does: {norm.kind}, clip {norm.clip}")
    unit = bool(((lengths(dictionary.decoder) - 1).abs() < 1e-5).all())
    settings = {
        "activation": how.name,
        "expansion_factor": max(dictionary.n_features // dictionary.d_model, 1),
        "normalize_decoder": unit,
        "num_latents": dictionary.n_features,
        "k": how.k,
        "multi_topk": False,
        "skip_connection": False,
        "transcode": False,
        "d_in": dictionary.d_model,
    }
    shift = times(dictionary.encoder, dictionary.decoder_bias)
    tensors = {
        "encoder.weight": dictionary.encoder,
        "encoder.bias": (dictionary.encoder_bias.double() + shift).float(),
        "W_dec": dictionary.decoder,
        "b_dec": dictionary.decoder_bias,
    }
    return Exported("cfg.json", settings, "sae.safetensors", tensors)


def _metadata(dictionary: SparseAutoencoder) -> dict[str, Any]:
    """What SAELens keeps of where a dictionary comes from; a Matryoshka's widths where SAELens leaves its own."""
    about: dict[str, Any] = {
        "sae_lens_version": LAYOUT,
        "sae_lens_training_version": None,
        "model_name": dictionary.model.get("name"),
        "hook_name": dictionary.site,
    }
    if dictionary.groups:
        details = {"matryoshka_widths": list(accumulate(dictionary.groups))}
        about |= {"training_architecture": "matryoshka_batchtopk", "training_architecture_details": details}
    return about


EXPORTERS: dict[str, Callable[[SparseAutoencoder], Exported]] = {"saelens": to_saelens, "sparsify": to_sparsify}
