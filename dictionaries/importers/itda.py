"""ITDA dictionaries: the release of "Inference-Time Decomposition of Activations" (arXiv 2505.17769) and the folders of
"Interpreting Large Text-to-Image Diffusion Models with Dictionary Learning" (arXiv 2505.24360)."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..files import check_finite
from ..itda import ITDA, Sources
from ..normalization import Normalization
from ..pursuit import UNIT
from ..schema import DictionaryFileError, shown
from . import weights
from .pickles import check_tensor, read_pickle
from .source import FLOATS, Config, check_only, check_shapes, read_config, read_safetensors, read_small

ATOMS, INDICES, METADATA = "atoms.pt", "atom_indices.pt", "metadata.yaml"
CONFIG, WEIGHTS = "cfg.json", "sae.safetensors"
PAPER_K = 40
"""What the release takes where its settings name no k."""
_LINE = re.compile(r"([A-Za-z_]\w*):(?:[ \t]+(.*?))?[ \t]*")
_INTEGER = re.compile(r"[-+]?\d{1,18}")
_NUMBER = re.compile(r"[-+]?(\d+(\.\d*)?|\.\d+)([eE][-+]?\d+)?")


def recognised(folder: Path) -> bool:
    return (folder / ATOMS).is_file()


def read(folder: Path, site: str) -> ITDA:
    """The release: signed matching pursuit, no bias; an atom's source is a sequence and a token of it."""
    config, path = read_yaml(folder / METADATA), folder / ATOMS
    atoms = _tensor(path, "M D")
    if not config.count("activation_dim", atoms.shape[1]) == atoms.shape[1]:
        raise DictionaryFileError(path, f"atoms of width {config.values['activation_dim']}", f"{atoms.shape[1]}")
    sources = None
    if (folder / INDICES).is_file():
        table = _tensor(folder / INDICES, "M two", M=len(atoms), two=2)
        sources = Sources(("sequence", "token"), table.double())
    _check_unit(path, atoms)
    k = config.count("k", PAPER_K)
    if k > len(atoms):
        raise DictionaryFileError(config.path, f"k between 1 and the {len(atoms)} atoms", f"k = {k}")
    provenance = weights.provenance("itda", config.values)
    return ITDA(site, weights.matrix(atoms), k, "mp", sources=sources, provenance=provenance)


def recognised_flux(folder: Path) -> bool:
    if not (folder / WEIGHTS).is_file() or not (folder / CONFIG).is_file():
        return False
    try:
        return "dictionary_size" in read_config(folder / CONFIG).values
    except DictionaryFileError:
        return False


def read_flux(folder: Path, site: str) -> ITDA:
    """The Flux paper's: its gradient pursuit, non-negative; `x` is decomposed and `y`, which must equal it, built.

    Only the first `dictionary_size` rows of `xs` are filled, the rest is memory as it was found.
    """
    config, path = read_config(folder / CONFIG), folder / WEIGHTS
    config.refuse("skip_connection", "what it adds has no code")
    config.refuse("normalize", "its settings do not keep by what")
    n, d = config.count("dictionary_size"), config.count("d_model")
    tensors = read_safetensors(path)
    check_only(path, tensors, ("xs", "ys", "mean_x", "mean_y", "std_x", "std_y", "weight"))
    filled = {name: tensor[:n] if name in ("xs", "ys") and tensor.ndim else tensor for name, tensor in tensors.items()}
    shapes = {"xs": "n D", "ys": "n D"} | dict.fromkeys([f"{a}_{b}" for a in ("mean", "std") for b in "xy"], "D")
    check_shapes(path, filled, {name: s for name, s in shapes.items() if "std" not in name or name in filled}, n=n, D=d)
    for what, x, y in (("atoms", "xs", "ys"), ("means", "mean_x", "mean_y")):
        if not torch.equal(filled[x], filled[y]):
            raise DictionaryFileError(path, f"{what} that are the same for x and y", "others: it is a transcoder")
    if any(bool((filled[name] != 1).any()) for name in ("std_x", "std_y") if name in filled):
        raise DictionaryFileError(path, "std_x and std_y of 1, which encoding leaves out", "others")
    _check_unit(path, filled["xs"])
    mean = filled["mean_x"].float() if config.flag("subtract_mean", False) else None
    if mean is not None:
        check_finite(path, "mean_x, in float32,", mean)
    return ITDA(
        site,
        weights.matrix(filled["xs"]),
        min(config.count("target_l0"), n),
        "gp_paper",
        nonnegative=True,
        normalization=None if mean is None else Normalization(mean, kind="center"),
        provenance=weights.provenance("flux_itda", config.values),
    )


def _check_unit(path: Path, atoms: Tensor) -> None:
    lengths = weights.lengths(atoms)
    if not bool(((lengths - 1).abs() <= UNIT).all()):
        found = f"lengths from {lengths.min():.4g} to {lengths.max():.4g}"
        raise DictionaryFileError(path, "atoms of length 1", found)


def _tensor(path: Path, letters: str, **sizes: int) -> Tensor:
    """The one tensor of a PyTorch file."""
    tensor = read_pickle(path)
    if not isinstance(tensor, Tensor):
        raise DictionaryFileError(path, "one tensor", f"a {type(tensor).__name__}")
    tensor = tensor.detach()
    name = path.stem
    check_tensor(path, name, tensor)
    if name == Path(ATOMS).stem and tensor.dtype not in FLOATS:
        raise DictionaryFileError(path, "atoms of a floating type", str(tensor.dtype))
    check_shapes(path, {name: tensor}, {name: letters}, **sizes)
    return tensor


def read_yaml(path: Path) -> Config:
    """The few `key: value` lines of scalars that the release writes; any other YAML is refused."""
    try:
        lines = read_small(path).decode().splitlines()
    except UnicodeDecodeError as error:
        raise DictionaryFileError(path, "settings in UTF-8", str(error)) from error
    values: dict[str, Any] = {}
    for line in lines:
        if not line.strip() or line.startswith(("#", "---")):
            continue
        match = _LINE.fullmatch(line)
        if not match:
            raise DictionaryFileError(path, "lines of the form `key: value`", shown(line))
        values[match[1]] = _scalar(path, match[2] or "")
    return Config(path, values)


def _scalar(path: Path, text: str) -> Any:
    """A plain or quoted YAML scalar."""
    if text in ("", "~", "null"):
        return None
    if text in ("true", "false"):
        return text == "true"
    if _INTEGER.fullmatch(text):
        return int(text)
    if _NUMBER.fullmatch(text):
        return float(text)
    if len(text) > 1 and text[0] == text[-1] and text[0] in "'\"":
        return text[1:-1].replace("''", "'") if text[0] == "'" else text[1:-1]
    if text[0] in "[{&*!|>%@`":
        raise DictionaryFileError(path, "plain values", shown(text))
    return text
