"""`fluxtionary inspect`, `import` and `export`: dictionary files, ours and others'."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import tyro

from .output import check_writable


@dataclass(frozen=True)
class Inspect:
    """Print what a dictionary file is, for which model and site, and its figures."""

    path: tyro.conf.Positional[Path]
    """A dictionary or steering vector file (.safetensors), or another project's folder."""

    def run(self) -> None:
        from ..dictionaries.importers import IMPORTERS, recognise
        from ..dictionaries.summary import summarise

        if self.path.is_dir():
            name = recognise(self.path)
            print(f"{self.path}: {name} ({IMPORTERS[name].files}); `fluxtionary import` makes a dictionary file of it")
        else:
            print(summarise(self.path))


@dataclass(frozen=True)
class Import:
    """Make a dictionary file of another project's: sparsify, SAELens, dictionary_learning, flux1-saes, ITDA, ..."""

    source: tyro.conf.Positional[str]
    """Folder or file of that project, or a hub id such as owner/name/folder. Its format is recognised."""
    site: str
    """Where in the residual stream its activations come from, such as double.18.img."""
    out: Path
    """The dictionary file to write (.safetensors)."""
    overwrite: bool = False
    """Replace the file if there is one."""

    def run(self) -> None:
        from ..dictionaries import save_dictionary
        from ..dictionaries.importers import import_dictionary
        from ..dictionaries.summary import summarise
        from ..residual import Site
        from ..training.hub import local_folder

        check_writable(self.out, self.overwrite)
        save_dictionary(import_dictionary(local_folder(self.source), str(Site.parse(self.site))), self.out)
        print(summarise(self.out))


@dataclass(frozen=True)
class Export:
    """Write a sparse autoencoder as a folder that another library loads."""

    path: tyro.conf.Positional[Path]
    """The dictionary file (.safetensors)."""
    format: Literal["saelens", "sparsify"]
    """The library that is to load it."""
    out: Path
    """The folder to write; it must not exist."""

    def run(self) -> None:
        from ..dictionaries import load_dictionary
        from ..dictionaries.exporters import export_dictionary

        export_dictionary(load_dictionary(self.path), self.out, self.format)
        print(f"{self.out}: {self.path.name} for {self.format}")
