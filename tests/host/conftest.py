"""One real ComfyUI for all host tests, or one line that says why there is none."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from fluxtionary.dictionaries import save_dictionary

from ..conftest import make_dictionary
from .comfy_server import COMFYUI, FIGURES, HOW_TO_GET_ONE, ComfyServer

ODD_NAME = "a-b.c"
"""What the pack's folder is called in `custom_nodes`: with a dash and a dot, as people's folders are."""


def pytest_collection_modifyitems(items):
    if COMFYUI is None:
        for item in items:
            if Path(__file__).parent in item.path.parents:
                item.add_marker(pytest.mark.skip(reason=HOW_TO_GET_ONE))


def snapshot(folder: Path) -> dict[str, tuple[int, int]]:
    """Every file of a ComfyUI checkout with its size and time of change."""
    return {
        str(path): (status.st_size, status.st_mtime_ns)
        for path in folder.rglob("*")
        if ".venv" not in path.parts and "__pycache__" not in path.parts and path.is_file()
        for status in [path.stat()]
    }


@pytest.fixture(scope="session")
def comfy(tmp_path_factory):
    """A running server in a folder of its own. Afterwards the checkout is as it was."""
    before = snapshot(COMFYUI)
    server = ComfyServer(COMFYUI, tmp_path_factory.mktemp("comfy"), ODD_NAME, FIGURES)
    folder = server.base / "models" / "flux_dictionaries"
    for name, site, width in (
        ("wide", "double.1.img", 256),
        ("deep", "double.7.img", 192),
        ("double", "double.1.img", 192),
        ("single", "single.1.img", 192),
        ("text", "double.0.txt", 192),
        ("single-text", "single.1.txt", 192),
    ):
        save_dictionary(make_dictionary(site, width), folder / f"{name}.safetensors")
    (folder / "broken.safetensors").write_bytes(b"no dictionary at all")
    server.start()
    yield server
    server.stop()
    assert snapshot(COMFYUI) == before, "the tests wrote into the ComfyUI checkout"


@pytest.fixture(scope="session")
def mask_file(comfy):
    """A white-on-black mask, 96 by 80 pixels, that covers the left half: not the picture's size on purpose."""
    from PIL import Image

    picture = torch.zeros(80, 96, dtype=torch.uint8)
    picture[:, :48] = 255
    Image.fromarray(picture.numpy()).save(comfy.base / "input" / "left.png")
    return "left.png"
