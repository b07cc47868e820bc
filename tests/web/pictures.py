"""Takes the README's pictures of the feature browser: `python tests/web/pictures.py [FOLDER]`, by default docs/."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from PIL import Image

CLONE = Path(__file__).parents[2]
sys.path.insert(0, str(CLONE))

from tests.host.comfy_server import COMFYUI, ComfyServer  # noqa: E402
from tests.web import graphs  # noqa: E402
from tests.web.browser import Browser, missing  # noqa: E402

SHOTS = {
    "feature-browser": {"mode": "classic", "dark": True, "text": "red", "opened": False},
    "feature-page": {"mode": "newer", "dark": False, "text": "red", "opened": True},
}


def main(folder: Path) -> None:
    if (reason := missing()) is not None or COMFYUI is None:
        raise SystemExit(reason)
    with tempfile.TemporaryDirectory() as base:
        server = ComfyServer(COMFYUI, Path(base), "fluxtionary", {})
        server.start()
        browser = Browser(f"http://127.0.0.1:{server.port}", Path(base) / "log")
        try:
            take(browser, folder)
        finally:
            browser.stop()
            server.stop()


def take(browser: Browser, folder: Path) -> None:
    with tempfile.TemporaryDirectory() as temporary:
        for name, settings in SHOTS.items():
            shot = Path(temporary) / f"{name}.png"
            browser.call("photograph", api=graphs.shown(graphs.OPEN), at=[0.5, 0.5], out=str(shot), **settings)
            path = folder / f"{name}.webp"
            Image.open(shot).convert("RGB").save(path, quality=88, method=6)
            print(f"{path}: {path.stat().st_size // 1000} KB")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else CLONE / "docs")
