"""sparsify (EleutherAI, before that `sae`) and SAeUron: `cfg.json` and `sae.safetensors`.

Encoding subtracts `b_dec`, then takes the `k` largest of `relu(encoder x + bias)`, or the largest of `k` groups each.
"""

from __future__ import annotations

from pathlib import Path

from ..normalization import Normalization
from ..sae import SparseAutoencoder
from ..schema import DictionaryFileError
from . import weights
from .source import Config, check_only, check_shapes, read_config, read_safetensors

SHAPES = {"encoder.weight": "M D", "encoder.bias": "M", "W_dec": "M D", "b_dec": "D"}
CONFIG, WEIGHTS = "cfg.json", "sae.safetensors"


def recognised(folder: Path) -> bool:
    return (folder / WEIGHTS).is_file()


def read(folder: Path, site: str) -> SparseAutoencoder:
    """A TopK or GroupMax dictionary; `num_latents` 0 or none means `expansion_factor` times `d_in`."""
    config, path = read_config(folder / CONFIG), folder / WEIGHTS
    _check_meaning(config)
    tensors = read_safetensors(path)
    if "W_skip" in tensors:
        raise DictionaryFileError(path, "a dictionary without a skip connection", "W_skip: what it adds has no code")
    d_in = config.count("d_in")
    n_features = config.values.get("num_latents") or d_in * config.count("expansion_factor", 32)
    check_shapes(path, tensors, SHAPES, D=d_in, M=Config(config.path, {"num_latents": n_features}).count("num_latents"))
    check_only(path, tensors, SHAPES)

    encoder = tensors["encoder.weight"]
    bias = tensors["encoder.bias"].double() - weights.times(encoder, tensors["b_dec"])
    return weights.autoencoder(
        path,
        site,
        (weights.matrix(encoder), bias, weights.matrix(tensors["W_dec"]), tensors["b_dec"]),
        weights.activation(config.path, _activation(config), k=config.count("k", 32)),
        weights.provenance("sparsify", config.values),
        # SAeUron's forward pass: the token's mean off, over its standard deviation + 1e-5, and back
        normalization=Normalization(kind="layer_norm") if config.flag("input_unit_norm", False) else None,
    )


def _check_meaning(config: Config) -> None:
    config.refuse("transcode", "a transcoder's features are read at one place and written at another")
    config.refuse("skip_connection", "what it adds has no code")
    config.refuse("signed", "codes chosen by magnitude, of either sign, are no activation here")


def _activation(config: Config) -> str:
    name = config.word("activation", "topk")
    if name not in ("topk", "groupmax"):
        raise DictionaryFileError(config.path, "activation topk or groupmax", f"activation {name!r:.60}")
    return name
