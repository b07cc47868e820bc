"""Load Dictionary: a dictionary file from the model folders."""

from __future__ import annotations

from pathlib import Path

import folder_paths
from comfy_api.latest import io

from ..demo.files import DICTIONARIES
from ..dictionaries import load_dictionary
from .sockets import FluxDictionary

FOLDER = "flux_dictionaries"


def register_folder() -> None:
    """Have ComfyUI list `models/flux_dictionaries/` and the dictionaries that ship with the pack."""
    folder_paths.add_model_folder_path(FOLDER, str(Path(folder_paths.models_dir) / FOLDER))
    folder_paths.add_model_folder_path(FOLDER, str(DICTIONARIES))
    folders, _ = folder_paths.folder_names_and_paths[FOLDER]
    # a folder that ComfyUI does not know comes without extensions, and would list every file
    folder_paths.folder_names_and_paths[FOLDER] = (folders, {".safetensors"})


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
            outputs=[FluxDictionary.Output(display_name="dictionary")],
        )

    @classmethod
    def fingerprint_inputs(cls, dictionary: str) -> str:
        path = folder_paths.get_full_path(FOLDER, dictionary)
        if path is None:  # `execute` says so
            return dictionary
        status = Path(path).stat()
        return f"{path} {status.st_size} {status.st_mtime_ns}"

    @classmethod
    def execute(cls, dictionary: str) -> io.NodeOutput:
        return io.NodeOutput(load_dictionary(folder_paths.get_full_path_or_raise(FOLDER, dictionary)))
