"""Dictionaries of other projects: recognised by their files, read without running anything, and checked.

What a foreign format means is kept exactly, so that codes and reconstructions agree with that project's own to float32;
what cannot mean the same here is refused with the reason. One module for each family.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from ..dictionary import Dictionary
from ..files import read_header
from ..schema import DictionaryFileError
from . import dictionary_learning, flux1_saes, itda, reny, saelens, sdxl_unbox, sparsify


class Importer(NamedTuple):
    """How a format is recognised and read, and the names of its files."""

    recognised: Callable[[Path], bool]
    read: Callable[[Path, str], Dictionary]
    names: tuple[str, ...]

    @property
    def files(self) -> str:
        """Its files, for people."""
        return ", ".join(self.names)


IMPORTERS = {
    "saelens": Importer(saelens.recognised, saelens.read, ("cfg.json", "sae_weights.safetensors")),
    "flux_itda": Importer(itda.recognised_flux, itda.read_flux, ("cfg.json", "sae.safetensors")),
    "sparsify": Importer(sparsify.recognised, sparsify.read, ("cfg.json", "sae.safetensors")),
    "dictionary_learning": Importer(dictionary_learning.recognised, dictionary_learning.read, ("config.json", "ae.pt")),
    "sdxl_unbox": Importer(sdxl_unbox.recognised, sdxl_unbox.read, ("config.json", "state_dict.pth")),
    "reny": Importer(reny.recognised, reny.read, ("config.json", "model.safetensors")),
    "itda": Importer(itda.recognised, itda.read, ("metadata.yaml", "atoms.pt", "atom_indices.pt")),
    "flux1_saes": Importer(flux1_saes.recognised, flux1_saes.read, ("manifest.ocdbt",)),
}
"""By name, in the order in which they are tried."""


def import_dictionary(path: str | os.PathLike, site: str, format: str = "auto") -> Dictionary:
    """Read a dictionary of another project from a local folder, for a site such as `double.18.img`.

    `format` is a name of `IMPORTERS`, or `auto` to recognise it by its files. A file of the folder may be given
    instead; for dictionary_learning also a snapshot `checkpoints/ae_STEP.pt`. An sdxl-unbox dictionary becomes one of
    the site's `.update`.

    Raises `ValueError` for an unknown `format`, and `DictionaryFileError` for anything that is not a whole dictionary
    of a known format, that cannot mean the same here, or whose folder's name contradicts the site.
    """
    if format != "auto" and format not in IMPORTERS:
        raise ValueError(f"a format is auto or one of {', '.join(IMPORTERS)}; found {format!r}")
    path = Path(path)
    try:
        if format in ("auto", "dictionary_learning") and dictionary_learning.is_snapshot(path):
            return dictionary_learning.read(path.parent.parent, site, file=path)
        folder = path.parent if path.is_file() else path
        return IMPORTERS[recognise(path) if format == "auto" else format].read(folder, site)
    except OSError as error:
        raise DictionaryFileError(path, "readable files", str(error)) from error


def recognise(path: str | os.PathLike) -> str:
    """The name of the format that a folder, or one of its files, has. Raises `DictionaryFileError` if it has none."""
    path = Path(path)
    folder = path.parent if path.is_file() else path
    known = "; ".join(f"{name} ({importer.files})" for name, importer in IMPORTERS.items())
    if not folder.is_dir():
        raise DictionaryFileError(path, f"a folder of one of the formats {known}", "no such file or folder")
    for name, importer in IMPORTERS.items():
        if importer.recognised(folder) and (folder == path or path.name in importer.names):
            return name
    raise DictionaryFileError(path, f"files of one of the formats {known}", _found(path))


def _found(path: Path) -> str:
    """What there is instead; folders within that hold a dictionary are named, to be chosen from."""
    if path.is_file():
        try:
            read_header(path)
        except DictionaryFileError:
            return path.name
        return "a file of this project already, which needs no import"
    children = sorted(path.iterdir())
    inside = [
        child.name
        for child in children[:200]
        if child.is_dir() and any(importer.recognised(child) for importer in IMPORTERS.values())
    ]
    if inside:
        return f"several folders, choose one: {', '.join(inside[:12])}"
    return ", ".join(child.name for child in children[:12]) or "an empty folder"
