"""One real ComfyUI and one Chromium for all browser tests, or one line that says why there are none."""

from __future__ import annotations

from pathlib import Path

import pytest

from ..host.comfy_server import COMFYUI, ComfyServer
from .browser import Browser, missing

FOLDER = Path(__file__).parent
MODES = ("classic", "newer")
"""How ComfyUI draws nodes: on its canvas, or as elements of the page."""
TASKS = pytest.StashKey[dict[str, dict]]()


def pytest_collection_modifyitems(items):
    reason = missing()
    for item in items:
        if FOLDER in item.path.parents and item.get_closest_marker("browser") and reason is not None:
            item.add_marker(pytest.mark.skip(reason=reason))


@pytest.fixture(scope="session")
def comfy(tmp_path_factory):
    """A running server with the pack and what ships with it; hostile atlases come with `hostile`."""
    server = ComfyServer(COMFYUI, tmp_path_factory.mktemp("comfy"), "flux-tionary.x", {})
    server.start()
    yield server
    server.stop()


@pytest.fixture(scope="session")
def browser(comfy, tmp_path_factory):
    opened = Browser(f"http://127.0.0.1:{comfy.port}", tmp_path_factory.mktemp("browser") / "log")
    yield opened
    opened.stop()


@pytest.fixture(params=MODES)
def mode(request):
    return request.param


@pytest.fixture
def told(pytestconfig):
    """What tasks took, by name: said at the end of the run."""
    return pytestconfig.stash.setdefault(TASKS, {})


def pytest_terminal_summary(terminalreporter, config):
    for name, took in config.stash.get(TASKS, {}).items():
        actions = ", ".join(took["actions"])
        terminalreporter.write_line(f"{name}: {took['count']} actions, {took['seconds']:.0f} s ({actions})")
