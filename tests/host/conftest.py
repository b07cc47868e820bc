"""One real ComfyUI for all host tests, or one line that says why there is none."""

from __future__ import annotations

import json
from datetime import date
from pathlib import Path

import pytest
import torch

from fluxtionary.dictionaries import save_dictionary

from ..conftest import make_dictionary
from .comfy_server import HOW_TO_GET_ONE, ComfyServer, find_comfyui

ODD_NAME = "a-b.c"
"""What the pack's folder is called in `custom_nodes`: with a dash and a dot, as people's folders are."""

COMFYUI = find_comfyui()

FIGURES: dict[str, float] = {}
"""What tests measured, for the record of a run."""


def pytest_collection_modifyitems(items):
    if COMFYUI is None:
        for item in items:
            if Path(__file__).parent in item.path.parents:
                item.add_marker(pytest.mark.skip(reason=HOW_TO_GET_ONE))


LAST_LINE = pytest.StashKey[str]()


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


def pytest_terminal_summary(terminalreporter, config):
    """Whether the ComfyUI tests ran, for the last line; with `--record`, what they showed."""
    here = str(Path(__file__).parent.relative_to(config.rootpath))
    counts = {
        kind: sum(report.nodeid.startswith(here) for report in terminalreporter.stats.get(kind, []))
        for kind in ("passed", "failed", "error", "skipped")
    }
    if COMFYUI is None:
        config.stash[LAST_LINE] = f"ComfyUI tests: skipped, {HOW_TO_GET_ONE}"
        return
    version = (COMFYUI / "comfyui_version.py").read_text().split('"')[-2]
    said = ", ".join(f"{count} {kind}" for kind, count in counts.items() if count)
    config.stash[LAST_LINE] = f"ComfyUI tests: ran in ComfyUI {version}, {said or 'none chosen'}"
    if (record := config.getoption("--record")) is not None:
        found = {"comfyui": version, "date": date.today().isoformat(), "tests": counts, "figures": FIGURES}
        Path(record).write_text(json.dumps(found, indent=2) + "\n")


def pytest_unconfigure(config):
    if LAST_LINE in config.stash:
        print(config.stash[LAST_LINE])
