"""sdxl-unbox ("One-Step is Enough", arXiv 2410.22366): `config.json` and `state_dict.pth`.

Its SAEs read what a block *added*, output minus input: an `.update` site. `mean.pt` and `std.pt` beside are each
feature's statistics, for its own interface's slider; they are no part of the dictionary.
"""

from __future__ import annotations

import re
from pathlib import Path

from ..sae import SparseAutoencoder
from ..schema import DictionaryFileError
from . import weights
from .pickles import read_pickle, state_of
from .source import check_only, check_shapes, read_config

CONFIG, WEIGHTS = "config.json", "state_dict.pth"
SHAPES = {"encoder.weight": "M D", "decoder.weight": "D M", "pre_bias": "D", "latent_bias": "M"}
_SITE = re.compile(r"((double|single)\.(\d+)\.(img|txt))(\.update)?")
_FLUX_PLACE = re.compile(r"(single_)?transformer_blocks\.(\d{1,3})")


def recognised(folder: Path) -> bool:
    return (folder / WEIGHTS).is_file()


def read(folder: Path, site: str) -> SparseAutoencoder:
    """A TopK dictionary of the `.update` of `site`, with or without that ending."""
    site = update_site(folder, site)
    config, path = read_config(folder / CONFIG), folder / WEIGHTS
    state = read_pickle(path)
    tensors = state_of(path, state.get("state_dict", state) if isinstance(state, dict) else state)
    check_shapes(path, tensors, SHAPES, D=config.count("d_model"), M=config.count("n_dirs_local"))
    check_only(path, tensors, SHAPES)
    encoder = tensors["encoder.weight"]
    return weights.autoencoder(
        path,
        site,
        (
            weights.matrix(encoder),
            tensors["latent_bias"].double() - weights.times(encoder, tensors["pre_bias"]),
            weights.matrix(tensors["decoder.weight"].T),
            tensors["pre_bias"],
        ),
        weights.activation(config.path, "topk", k=config.count("k")),
        weights.provenance("sdxl_unbox", config.values, folder=folder.name),
    )


def update_site(folder: Path, site: str) -> str:
    """The update of a block's output at `site`; refused where the folder's name says another block or model."""
    match = _SITE.fullmatch(site)
    if not match:
        raise DictionaryFileError(folder, "a block's output or its update, such as double.18.img.update", f"{site}")
    for name in reversed(folder.absolute().parts[-4:]):
        if "unet." in name:
            found = f"one of SDXL's U-Net, by the folder's name {name}"
            raise DictionaryFileError(folder, "a dictionary of Flux", found)
        if place := _FLUX_PLACE.search(name):
            stage, block = "single" if place[1] else "double", int(place[2])
            if (stage, block) != (match[2], int(match[3])):
                expected = f"a site of {stage} block {block}, by the folder's name"
                raise DictionaryFileError(folder, expected, f"site {site}")
            break
    return f"{match[1]}.update"
