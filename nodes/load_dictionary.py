"""Load Dictionary: a dictionary file from the model folders."""

from __future__ import annotations

from pathlib import Path
from weakref import WeakKeyDictionary

import folder_paths
from comfy_api.latest import io

from ..demo.files import DICTIONARIES
from ..dictionaries import Dictionary, DictionaryFileError, load_dictionary, read_header
from ..dictionaries.summary import summarise
from .sockets import FluxDictionary

FOLDER = "flux_dictionaries"
_files: WeakKeyDictionary[Dictionary, Path] = WeakKeyDictionary()


def register_folder() -> None:
    """Have ComfyUI list `models/flux_dictionaries/` and the dictionaries that ship with the pack."""
    list_folder(FOLDER, DICTIONARIES)


def list_folder(folder: str, *shipped: Path) -> None:
    """Have ComfyUI list the `.safetensors` files of `models/<folder>/`, and those of other places."""
    for place in (Path(folder_paths.models_dir) / folder, *shipped):
        folder_paths.add_model_folder_path(folder, str(place))
    places, _ = folder_paths.folder_names_and_paths[folder]
    # a folder that ComfyUI does not know comes without extensions, and would list every file
    folder_paths.folder_names_and_paths[folder] = (places, {".safetensors"})


def fingerprint(folder: str, name: str) -> str:
    """Changes when the file does."""
    path = folder_paths.get_full_path(folder, name)
    if path is None:  # `execute` says so
        return name
    status = Path(path).stat()
    return f"{path} {status.st_size} {status.st_mtime_ns}"


def file_of(dictionary: Dictionary) -> Path | None:
    """The file that a dictionary was loaded from, where Load Dictionary did it."""
    return _files.get(dictionary)


class LoadDictionary(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="FluxtionaryLoadDictionary",
            display_name="Load Dictionary",
            category="Fluxtionary",
            description="A dictionary of what Flux can think of at one place inside it. "
            "Put files into models/flux_dictionaries.",
            inputs=[
                io.Combo.Input(
                    "dictionary",
                    options=folder_paths.get_filename_list(FOLDER),
                    tooltip="A dictionary file (.safetensors). It fits the model it was made for, and no other.",
                )
            ],
            outputs=[
                FluxDictionary.Output(display_name="dictionary"),
                io.String.Output(display_name="about", tooltip="What the file says of itself."),
            ],
        )

    @classmethod
    def fingerprint_inputs(cls, dictionary: str) -> str:
        return fingerprint(FOLDER, dictionary)

    @classmethod
    def execute(cls, dictionary: str) -> io.NodeOutput:
        path = folder_paths.get_full_path_or_raise(FOLDER, dictionary)
        if read_header(path)[0]["kind"] == "vector":
            raise DictionaryFileError(
                path,
                "a dictionary",
                "a steering vector: move it into models/flux_steering_vectors and use Load Steering Vector",
            )
        loaded = load_dictionary(path)
        _files[loaded] = Path(path)
        return io.NodeOutput(loaded, summarise(path))
