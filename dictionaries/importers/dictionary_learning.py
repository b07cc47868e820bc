"""dictionary_learning (Marks, Karvonen and Mueller): `ae.pt` and `config.json`, all its kinds.

`ae.pt` is also the name of a backup from the middle of a training, which nests the state and leaves the activations'
scale out of it; snapshots are `checkpoints/ae_STEP.pt`.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ..activation import Activation
from ..sae import SparseAutoencoder
from ..schema import DictionaryFileError, shown
from . import weights
from .pickles import read_pickle, state_of
from .source import Config, check_only, check_shapes, read_config

CONFIG, WEIGHTS = "config.json", "ae.pt"
LINEAR = {"encoder.weight": "M D", "decoder.weight": "D M"}
SHAPES = {
    "AutoEncoder": LINEAR | {"encoder.bias": "M", "bias": "D"},
    "AutoEncoderNew": LINEAR | {"encoder.bias": "M", "decoder.bias": "D"},
    "GatedAutoEncoder": LINEAR | {"decoder_bias": "D", "r_mag": "M", "gate_bias": "M", "mag_bias": "M"},
    "JumpReluAutoEncoder": {"W_enc": "D M", "W_dec": "M D", "b_enc": "M", "b_dec": "D", "threshold": "M"},
    "AutoEncoderTopK": LINEAR | {"encoder.bias": "M", "b_dec": "D"},
    "BatchTopKSAE": LINEAR | {"encoder.bias": "M", "b_dec": "D", "threshold": ""},
    "MatryoshkaBatchTopKSAE": {"W_enc": "D M", "W_dec": "M D", "b_enc": "M", "b_dec": "D", "threshold": ""}
    | {"group_sizes": "G"},
}
"""Tensors of each `dict_class`; those of top k also have `k`, and may have a `threshold` they do not use."""


class Parts(NamedTuple):
    """`activation(gain * encoder x + bias)` and `decoder / unit`, `decoder_bias`, before the activations' scale.

    `encoder` and `decoder` are views `[M, D]` of the file, `gain` and `unit` one number a feature, None for 1.
    """

    encoder: Tensor
    bias: Tensor
    decoder: Tensor
    decoder_bias: Tensor
    threshold: Tensor | None = None
    gain: Tensor | None = None
    unit: Tensor | None = None


def recognised(folder: Path) -> bool:
    return (folder / WEIGHTS).is_file()


def is_snapshot(path: Path) -> bool:
    """Whether it is one of a training's `checkpoints/ae_STEP.pt`."""
    return path.parent.name == "checkpoints" and path.suffix == ".pt" and path.is_file()


def read(folder: Path, site: str, file: Path | None = None) -> SparseAutoencoder:
    """The dictionary of a training's folder; `file` is a snapshot in it, in place of `ae.pt`."""
    path = file or folder / WEIGHTS
    about = read_config(folder / CONFIG) if (folder / CONFIG).is_file() else Config(path, {})
    if about.inside("buffer").values.get("io") == "in_and_out":
        raise DictionaryFileError(about.path, "an autoencoder", "a transcoder (its buffer's io is in_and_out)")
    state = read_pickle(path)
    trainer, scale = about.inside("trainer"), 1.0
    if isinstance(state, dict) and isinstance(state.get("ae"), dict):
        trainer = Config(path, trainer.values or state.get("config") or {})
        scale = _scale(path, state)
        state = state["ae"]
    tensors = state_of(path, state, floats=False)
    kind = _kind(trainer, path, tensors)
    shapes = SHAPES[kind]
    k = _k(trainer, path, tensors) if "TopK" in kind else None
    check_shapes(path, tensors, shapes)
    check_only(path, tensors, [*shapes, "k", "threshold"] if "TopK" in kind else shapes)

    parts = _scaled(PARTS[kind](tensors), scale)
    return weights.autoencoder(
        path,
        site,
        (
            weights.matrix(parts.encoder, parts.gain),
            parts.bias,
            weights.matrix(parts.decoder, None if parts.unit is None else 1 / parts.unit),
            parts.decoder_bias,
        ),
        _activation(path, kind, k, parts.threshold),
        weights.provenance("dictionary_learning", trainer.values, dict_class=kind),
        groups=_groups(path, tensors) if "group_sizes" in shapes else (),
    )


def _scale(path: Path, backup: dict[str, Any]) -> float:
    """What a backup's activations were divided by; a finished state has it in its biases."""
    if backup.get("norm_factor") is None:
        return 1.0
    factor = Config(path, backup).number("norm_factor")
    if not factor > 0:
        raise DictionaryFileError(path, "a positive norm_factor", f"{factor}")
    return factor


def _scaled(parts: Parts, scale: float) -> Parts:
    """The same for activations that are not divided by `scale`, whose codes are `scale` times larger."""
    threshold = parts.threshold if parts.threshold is None else parts.threshold.double()
    return parts._replace(
        bias=parts.bias * scale,
        decoder_bias=parts.decoder_bias.double() * scale,
        threshold=None if threshold is None else torch.where(threshold > 0, threshold * scale, threshold).float(),
    )


def _kind(trainer: Config, path: Path, tensors: dict[str, Tensor]) -> str:
    """The class by name, else by its tensors, where these can only be one class's."""
    if trainer.values.get("dict_class") is not None:
        name = trainer.word("dict_class")
        if name not in SHAPES:
            reasons = {"IdentityDict": " (it has no weights)", "CrossCoder": " (it reads several places at once)"}
            found = shown(name) + reasons.get(name, "")
            raise DictionaryFileError(trainer.path, f"dict_class one of {', '.join(SHAPES)}", found)
        return name
    names = tensors.keys() - {"k"}
    fits = [kind for kind, shapes in SHAPES.items() if names == shapes.keys()]
    if fits == ["BatchTopKSAE"] or fits == ["AutoEncoderTopK"]:  # they differ in the settings alone
        raise DictionaryFileError(path, f"{CONFIG} with trainer.dict_class: AutoEncoderTopK or BatchTopKSAE", "none")
    if not fits:
        found = ", ".join(sorted(map(shown, names))[:12]) or "none"
        raise DictionaryFileError(path, f"the tensors of one of {', '.join(SHAPES)}", found)
    return fits[0]


def _k(trainer: Config, path: Path, tensors: dict[str, Tensor]) -> int:
    """`k` by the settings and by the state; where both say it they agree."""
    said = trainer.count("k") if trainer.values.get("k") is not None else None
    if "k" in tensors:
        check_shapes(path, tensors, {"k": ""})
        held = tensors["k"].item()
        if held != int(held) or said not in (None, held):
            expected = "k, a whole number" if said is None else f"k = {said}, as {trainer.path.name} says"
            raise DictionaryFileError(path, expected, f"k = {held}")
        said = int(held)
    if said is None:
        raise DictionaryFileError(path, "k, in the settings or in the state", "none")
    return said


def _groups(path: Path, tensors: dict[str, Tensor]) -> tuple[int, ...]:
    sizes = tensors["group_sizes"]
    if sizes.is_floating_point():
        raise DictionaryFileError(path, "group_sizes, whole numbers", str(sizes.dtype))
    return tuple(sizes.tolist())


def _activation(path: Path, kind: str, k: int | None, threshold: Tensor | None) -> Activation:
    names = {
        "GatedAutoEncoder": "gated",
        "JumpReluAutoEncoder": "jumprelu",
        "AutoEncoderTopK": "topk",
        "BatchTopKSAE": "batchtopk",
        "MatryoshkaBatchTopKSAE": "batchtopk",
    }
    name = names.get(kind, "relu")
    return weights.activation(path, name, k=k, threshold=None if threshold is None else threshold.reshape(-1))


def _standard(tensors: dict[str, Tensor]) -> Parts:
    """Loaded by the library with a decoder of unit rows, its lengths in the encoder."""
    encoder, decoder, b_dec = tensors["encoder.weight"], tensors["decoder.weight"].T, tensors["bias"]
    unit = weights.units(decoder)
    bias = unit * (tensors["encoder.bias"].double() - weights.times(encoder, b_dec))
    return Parts(encoder, bias, decoder, b_dec, gain=unit, unit=unit)


def _new(tensors: dict[str, Tensor]) -> Parts:
    encoder, decoder = tensors["encoder.weight"], tensors["decoder.weight"].T
    return Parts(encoder, tensors["encoder.bias"].double(), decoder, tensors["decoder.bias"])


def _gated(tensors: dict[str, Tensor]) -> Parts:
    encoder, decoder, b_dec = tensors["encoder.weight"], tensors["decoder.weight"].T, tensors["decoder_bias"]
    gain, bias, threshold = weights.gate(tensors["r_mag"], tensors["mag_bias"], tensors["gate_bias"])
    return Parts(encoder, bias - gain * weights.times(encoder, b_dec), decoder, b_dec, threshold, gain)


def _jumprelu(tensors: dict[str, Tensor]) -> Parts:
    """Without `b_dec` taken from the input, unlike all others."""
    encoder, bias = tensors["W_enc"].T, tensors["b_enc"].double()
    return Parts(encoder, bias, tensors["W_dec"], tensors["b_dec"], tensors["threshold"])


def _counted(tensors: dict[str, Tensor]) -> Parts:
    encoder, decoder, b_dec = tensors["encoder.weight"], tensors["decoder.weight"].T, tensors["b_dec"]
    return Parts(encoder, tensors["encoder.bias"].double() - weights.times(encoder, b_dec), decoder, b_dec)


def _batch(tensors: dict[str, Tensor]) -> Parts:
    return _counted(tensors)._replace(threshold=tensors["threshold"])


def _matryoshka(tensors: dict[str, Tensor]) -> Parts:
    encoder, b_dec = tensors["W_enc"].T, tensors["b_dec"]
    bias = tensors["b_enc"].double() - weights.times(encoder, b_dec)
    return Parts(encoder, bias, tensors["W_dec"], b_dec, tensors["threshold"])


PARTS: dict[str, Callable[[dict[str, Tensor]], Parts]] = {
    "AutoEncoder": _standard,
    "AutoEncoderNew": _new,
    "GatedAutoEncoder": _gated,
    "JumpReluAutoEncoder": _jumprelu,
    "AutoEncoderTopK": _counted,
    "BatchTopKSAE": _batch,
    "MatryoshkaBatchTopKSAE": _matryoshka,
}
