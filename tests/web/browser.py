"""Chromium with ComfyUI's frontend in it, for tests: spoken to by lines of JSON through `driver.mjs`."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

from ..host.comfy_server import COMFYUI, HOW_TO_GET_ONE

HERE = Path(__file__).parent
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


def missing() -> str | None:
    """What the browser tests need and do not find here, in one line; None where all of it is there."""
    if COMFYUI is None:
        return HOW_TO_GET_ONE
    if CHROMIUM is None:
        return "no Chromium found: install the package chromium"
    if shutil.which("node") is None:
        return "no node found: install the packages nodejs and npm"
    if not (HERE / "node_modules" / "playwright-core").is_dir():
        return "no playwright-core found: run `npm ci --prefix tests/web`"
    return None


class Browser:
    """`call("steer", mode="classic")` does what `scenarios.mjs` exports by that name, and returns its answer."""

    def __init__(self, url: str, log: Path):
        assert CHROMIUM is not None
        self.log = log.open("w")
        command = ["node", str(HERE / "driver.mjs"), url, CHROMIUM]
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self.log, text=True, env=os.environ
        )

    def call(self, name: str, **given: Any) -> Any:
        """Raises `AssertionError` with what the browser says where it cannot be done."""
        assert self.process.stdin is not None and self.process.stdout is not None
        self.process.stdin.write(json.dumps({"do": name, **given}) + "\n")
        self.process.stdin.flush()
        line = self.process.stdout.readline()
        assert line, f"Chromium ended, see {self.log.name}: {Path(self.log.name).read_text()[-2000:]}"
        answer = json.loads(line)
        assert "error" not in answer, f"{name}: {answer['error']}"
        return answer["value"]

    def stop(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()
        try:
            self.process.wait(20)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.log.close()
