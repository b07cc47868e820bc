"""RE-N-Y's SAEs of FLUX.1 schnell: hub folders with `config.json` and `model.safetensors`.

The folder's name says the site: `transformer_blocks.18-1` is output 1 of double block 18. diffusers' double blocks
give the *text* stream first. Single blocks gave both streams joined, and one dictionary serves either.
"""

from __future__ import annotations

import re
from pathlib import Path

from ..sae import SparseAutoencoder
from ..schema import DictionaryFileError
from . import weights
from .source import Config, check_only, check_shapes, read_config, read_safetensors

CONFIG, WEIGHTS = "config.json", "model.safetensors"
LINEAR = {"encoder.weight": "M D", "decoder.weight": "D M"}
SHAPES = {
    "topk": LINEAR | {"encoder.bias": "M", "bias": "D"},
    "standard": LINEAR | {"encoder.bias": "M", "bias": "D"},
    "gated": LINEAR | {"decoder_bias": "D", "r_mag": "M", "gate_bias": "M", "mag_bias": "M"},
    "jumprelu": LINEAR | {"encoder.bias": "M", "bias": "D", "logthres": "M"},
}
MODEL = {"family": "flux1", "name": "FLUX.1-schnell"}
_PLACE = re.compile(r"(single_)?transformer_blocks\.(\d{1,3})(.*)")


def recognised(folder: Path) -> bool:
    return (folder / WEIGHTS).is_file()


def read(folder: Path, site: str) -> SparseAutoencoder:
    """One of the project's four classes, told apart by their tensors and by `k` in the settings."""
    named = check_site(folder, site)
    config, path = read_config(folder / CONFIG), folder / WEIGHTS
    tensors = read_safetensors(path)
    kind = _kind(config, tensors)
    check_shapes(path, tensors, SHAPES[kind], D=config.count("features"), M=config.count("pages"))
    check_only(path, tensors, SHAPES[kind])

    encoder, decoder = tensors["encoder.weight"], tensors["decoder.weight"].T
    gain = threshold = None
    if kind == "gated":
        b_dec = tensors["decoder_bias"]
        gain, bias, threshold = weights.gate(tensors["r_mag"], tensors["mag_bias"], tensors["gate_bias"])
        bias = bias - gain * weights.times(encoder, b_dec)
    else:
        b_dec = tensors["bias"]
        bias = tensors["encoder.bias"].double() - weights.times(encoder, b_dec)
        threshold = tensors["logthres"].double().exp() if kind == "jumprelu" else None
    unit = weights.units(decoder) if kind in ("standard", "gated") else None
    if unit is not None:  # their codes are in units of the decoder's rows
        gain, bias = unit if gain is None else unit * gain, bias * unit
        threshold = None if threshold is None else threshold * unit
    return weights.autoencoder(
        path,
        site,
        (weights.matrix(encoder, gain), bias, weights.matrix(decoder, None if unit is None else 1 / unit), b_dec),
        weights.activation(
            config.path,
            "relu" if kind == "standard" else kind,
            k=config.count("k") if kind == "topk" else None,
            threshold=None if threshold is None else threshold.float(),
        ),
        weights.provenance("reny", config.values, MODEL if named else None, folder=folder.name),
    )


def check_site(folder: Path, site: str) -> bool:
    """Whether the folder's name says the site; one that contradicts it is refused."""
    parts = folder.absolute().parts[-4:]  # a hub's cache keeps the name two folders above
    name, place = next(((name, found) for name in reversed(parts) if (found := _PLACE.search(name))), ("", None))
    if place is None:
        return False
    stage, block, rest = "single" if place[1] else "double", int(place[2]), place[3]
    by_ending = {"": ("img", "txt")} if stage == "single" else {"-0": ("txt",), "-1": ("img",)}
    if rest not in by_ending:
        raise DictionaryFileError(folder, "a folder named after a block's output", f"{name}, some other place")
    allowed = [f"{stage}.{block}.{stream}" for stream in by_ending[rest]]
    if site not in allowed:
        raise DictionaryFileError(folder, f"site {' or '.join(allowed)}, by the folder's name", f"site {site}")
    return True


def _kind(config: Config, tensors: dict) -> str:
    if "r_mag" in tensors:
        return "gated"
    if "logthres" in tensors:
        return "jumprelu"
    return "topk" if config.values.get("k") is not None else "standard"
