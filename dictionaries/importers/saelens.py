"""SAELens: `cfg.json` and `sae_weights.safetensors`, of version 6 and with the flat settings before it.

Also its mid-training checkpoints, whose factors for the input lie in files beside.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from ..activation import Activation
from ..normalization import Normalization
from ..sae import SparseAutoencoder
from ..schema import DictionaryFileError, shown
from . import weights
from .source import Config, check_only, check_shapes, read_config, read_safetensors

CONFIG, WEIGHTS = "cfg.json", "sae_weights.safetensors"
SCALER, WHITENING = "activation_scaler.json", "activation_whitening.safetensors"
BASE = {"W_enc": "D M", "W_dec": "M D", "b_dec": "D"}
TENSORS = {
    "standard": {"b_enc": "M"},
    "topk": {"b_enc": "M"},
    "jumprelu": {"b_enc": "M", "threshold": "M"},
    "gated": {"b_gate": "M", "b_mag": "M", "r_mag": "M"},
    "batchtopk": {"b_enc": "M", "topk_threshold": ""},
    "matryoshka_batchtopk": {"b_enc": "M", "topk_threshold": ""},
}
"""Of each `architecture`; the last two are checkpoints, finished ones are saved as jumprelu."""
REFUSED = {
    "temporal": "its codes depend on the tokens before",
    "matching_pursuit": "its pursuit ends by rules that are not here (residual_threshold, stop_on_duplicate_support)",
    "abstopk": "codes chosen by magnitude, of either sign, are no activation here",
    "transcoder": "a transcoder's features are read at one place and written at another",
}
_FOLDED = "expected_average_only_in", "covariance_whitening"


def recognised(folder: Path) -> bool:
    return (folder / WEIGHTS).is_file()


def read(folder: Path, site: str) -> SparseAutoencoder:
    config, path = _settings(read_config(folder / CONFIG)), folder / WEIGHTS
    architecture = _checked_architecture(config)
    tensors = read_safetensors(path)
    if "log_threshold" in tensors and "threshold" not in tensors:  # checkpoints of jumprelu before 6.12
        tensors["threshold"] = tensors.pop("log_threshold").exp()
    finetuning = _finetuning(config, path, tensors)
    shapes = BASE | TENSORS[architecture]
    check_shapes(path, tensors, shapes, D=config.count("d_in"), M=config.count("d_sae"))
    check_only(path, tensors, shapes)

    parts = _encoder(config, architecture, tensors)
    if finetuning is not None:
        parts.share = parts.share * finetuning.double()
    normalization = _normalization(config, folder, parts)
    return weights.autoencoder(
        path,
        site,
        (*parts.matrices(), parts.b_dec),
        _activation(config, architecture, parts),
        weights.provenance("saelens", config.values),
        normalization=normalization,
        groups=_groups(config),
    )


@dataclass
class _Parts:
    """`gain * encoder (x - mean) @ there + bias` above `threshold`, and `share * decoder @ back`, `b_dec`.

    `encoder` and `decoder` are views `[M, D]` of the file; `gain` and `share` `[M]` and what whitens are float64.
    """

    encoder: Tensor
    decoder: Tensor
    bias: Tensor
    b_dec: Tensor
    threshold: Tensor | None
    gain: Tensor
    share: Tensor
    mean: Tensor | None = None
    there: Tensor | None = None
    back: Tensor | None = None

    def matrices(self) -> tuple[Tensor, Tensor, Tensor]:
        """Encoder, its bias, and decoder, folded in one pass each."""
        if self.mean is None or self.there is None or self.back is None:
            gain, share = (None if bool((factor == 1).all()) else factor for factor in (self.gain, self.share))
            return weights.matrix(self.encoder, gain), self.bias, weights.matrix(self.decoder, share)
        there, back = self.there, self.back
        encoder = weights.mapped(self.encoder, lambda block, part: block * self.gain[part, None] @ there.T)
        decoder = weights.mapped(self.decoder, lambda block, part: block * self.share[part, None] @ back)
        return encoder, self.bias - weights.times(encoder, self.mean), decoder


def _settings(config: Config) -> Config:
    """Settings by version 6's names. Before it they were flat and had others, which version 6 does not use."""
    renamed = {"hook_point": "hook_name", "activation_fn_str": "activation_fn"}
    values = {renamed.get(name, name): value for name, value in config.values.items()}
    old = Config(config.path, values)
    values.setdefault("architecture", "standard")
    name = old.word("activation_fn", "relu")
    if name == "topk":
        if values["architecture"] not in ("standard", "topk"):
            found = f"{shown(values['architecture'])} with topk"
            raise DictionaryFileError(config.path, "topk as the activation of a plain encoder", found)
        values |= {"architecture": "topk", "k": old.inside("activation_fn_kwargs").count("k")}
    elif name != "relu":
        raise DictionaryFileError(config.path, "activation_fn relu or topk", f"activation_fn {shown(name)}")
    if isinstance(values.get("normalize_activations"), bool):
        values["normalize_activations"] = "expected_average_only_in" if values["normalize_activations"] else "none"
    if "reshape_activations" not in values and "hook_z" in old.word("hook_name", "none"):
        values["reshape_activations"] = "hook_z"
    return old


def _checked_architecture(config: Config) -> str:
    name = config.word("architecture", "standard")
    reason = REFUSED["transcoder"] if "transcoder" in name else REFUSED.get(name)
    if reason is not None:
        raise DictionaryFileError(config.path, "an autoencoder of one token", f"architecture {name} ({reason})")
    if name not in TENSORS:
        raise DictionaryFileError(config.path, f"architecture one of {', '.join(TENSORS)}", f"{shown(name)}")
    if config.word("reshape_activations", "none") != "none":
        raise DictionaryFileError(
            config.path,
            "a dictionary of whole tokens",
            f"reshape_activations {shown(config.values['reshape_activations'])}: it joins the heads of an attention",
        )
    return name


def _finetuning(config: Config, path: Path, tensors: dict[str, Tensor]) -> Tensor | None:
    """The factor of each feature's part in the reconstruction (before version 6), or None; the codes are without it."""
    name = next((name for name in ("finetuning_scaling_factor", "scaling_factor") if name in tensors), None)
    if name is None:
        return None
    check_shapes(path, tensors, {name: "M"}, M=config.count("d_sae"))
    factor = tensors.pop(name)
    if torch.allclose(factor.float(), torch.ones(len(factor))):  # older versions wrote one that does nothing
        return None
    if not config.flag("finetuning_scaling_factor", False):
        raise DictionaryFileError(path, "no scaling factor (finetuning_scaling_factor is false)", f"one in {name}")
    return factor


def _encoder(config: Config, architecture: str, tensors: dict[str, Tensor]) -> _Parts:
    """What encodes the input as the normalization leaves it, `b_dec` subtracted."""
    encoder, decoder, b_dec = tensors["W_enc"].T, tensors["W_dec"], tensors["b_dec"].double()
    threshold: Tensor | None
    gain = share = torch.ones(len(encoder), dtype=torch.float64)
    shift = weights.times(encoder, b_dec) if config.flag("apply_b_dec_to_input", True) else 0 * gain
    if architecture == "gated":
        gain, bias, threshold = weights.gate(tensors["r_mag"], tensors["b_mag"], tensors["b_gate"])
        return _Parts(encoder, decoder, bias - gain * shift, b_dec, threshold, gain, share)
    bias = tensors["b_enc"].double() - shift
    if architecture.endswith("topk") and config.flag("rescale_acts_by_decoder_norm", False):
        gain = weights.lengths(decoder).clamp_min(1e-8)
        share = 1 / gain
    threshold = tensors.get("threshold", tensors.get("topk_threshold"))
    return _Parts(encoder, decoder, bias * gain, b_dec, threshold, gain, share)


def _normalization(config: Config, folder: Path, parts: _Parts) -> Normalization | None:
    """What stays to be done to each token; what is the same for all of them is folded into `parts`."""
    name = config.word("normalize_activations", "none")
    if name == "layer_norm":
        return Normalization(kind="layer_norm")
    if name == "constant_norm_rescale":
        return Normalization(kind="token_norm")
    if name == "expected_average_only_in":
        _fold_factor(config, folder, parts)
    elif name == "covariance_whitening":
        _fold_whitening(config, folder, parts)
    elif name != "none":
        wanted = ("none", "layer_norm", "constant_norm_rescale", *_FOLDED)
        raise DictionaryFileError(config.path, f"normalize_activations one of {', '.join(wanted)}", shown(name))
    return None


def _missing(config: Config, name: str) -> DictionaryFileError:
    return DictionaryFileError(
        config.path,
        f"{name} beside it, for normalize_activations is {config.values['normalize_activations']}",
        "no such file: a checkpoint from the middle of a training has it, a finished dictionary needs none; "
        "without it the scale of the input is not known",
    )


def _fold_factor(config: Config, folder: Path, parts: _Parts) -> None:
    """Inputs times one factor, reconstructions over it (Conerly et al. 2024)."""
    if not (folder / SCALER).is_file():
        raise _missing(config, SCALER)
    factor = read_config(folder / SCALER).number("scaling_factor")
    if not factor > 0:
        raise DictionaryFileError(folder / SCALER, "a positive scaling_factor", f"{factor}")
    parts.gain, parts.share, parts.b_dec = parts.gain * factor, parts.share / factor, parts.b_dec / factor


def _fold_whitening(config: Config, folder: Path, parts: _Parts) -> None:
    """`z = (x - mean) @ matrix` and back by `z @ inverse_matrix + mean` (arXiv 2511.13981)."""
    path = folder / WHITENING
    if not path.is_file():
        raise _missing(config, WHITENING)
    tensors = read_safetensors(path)
    shapes = {"mean": "D", "matrix": "D D", "inverse_matrix": "D D"}
    check_shapes(path, tensors, shapes, D=config.count("d_in"))
    parts.mean, parts.there, parts.back = (tensors[name].double() for name in shapes)
    parts.b_dec = parts.b_dec @ parts.back + parts.mean


def _activation(config: Config, architecture: str, parts: _Parts) -> Activation:
    if architecture == "standard":
        return weights.activation(config.path, "relu")
    if architecture == "topk":
        return weights.activation(config.path, "topk", k=config.count("k"))
    name = architecture if architecture in ("jumprelu", "gated") else "batchtopk"
    threshold = None if parts.threshold is None else parts.threshold.float().reshape(-1)
    return weights.activation(config.path, name, threshold=threshold)


def _groups(config: Config) -> tuple[int, ...]:
    """Sizes of a Matryoshka's groups, which a finished one keeps among the facts of its training."""
    about = config.inside("metadata").inside("training_architecture_details")
    widths = config.values.get("matryoshka_widths") or about.values.get("matryoshka_widths") or []
    if not isinstance(widths, list) or not all(type(width) is int for width in widths):
        raise DictionaryFileError(config.path, "matryoshka_widths, a list of whole numbers", shown(widths))
    if len(widths) > config.count("d_sae"):
        raise DictionaryFileError(config.path, "fewer matryoshka_widths than features", f"{len(widths)}")
    if widths and widths[-1] != config.count("d_sae"):
        widths = [*widths, config.count("d_sae")]  # as SAELens does
    return tuple(wide - narrow for narrow, wide in zip([0, *widths], widths, strict=False))
