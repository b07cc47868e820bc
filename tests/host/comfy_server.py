"""A real ComfyUI for the tests: found, started in a folder of its own, and spoken to over HTTP."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
import uuid
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from safetensors.torch import load_file

HERE = Path(__file__).parent
CLONE = HERE.parents[1]
START_SECONDS = 180


def find_comfyui() -> Path | None:
    """`COMFYUI_PATH`, else the ComfyUI that this folder lies in, else `~/comfy/ComfyUI`."""
    named = os.environ.get("COMFYUI_PATH")
    places = [Path(named)] if named else [*CLONE.parents, Path.home() / "comfy" / "ComfyUI"]
    return next((place for place in places if (place / "comfy" / "ldm" / "flux").is_dir()), None)


HOW_TO_GET_ONE = (
    "no ComfyUI found: clone github.com/comfyanonymous/ComfyUI to ~/comfy/ComfyUI with its requirements in a .venv "
    "there, or set COMFYUI_PATH"
)


def python_of(comfyui: Path) -> str:
    own = comfyui / ".venv" / "bin" / "python"
    return str(own) if own.exists() else sys.executable


class NodeError(Exception):
    """A workflow that the server refused or that failed: `node` is the id, `message` what the user reads."""

    def __init__(self, node: str | None, message: str):
        super().__init__(f"node {node}: {message}")
        self.node, self.message = node, message


class Graph:
    """A workflow in API format, built a node at a time: `g.add("KSampler", seed=1)` gives the node's first output."""

    def __init__(self):
        self.nodes: dict[str, dict] = {}

    def add(self, class_type: str, output: int = 0, /, **inputs):
        key = str(len(self.nodes) + 1)
        self.nodes[key] = {"class_type": class_type, "inputs": inputs}
        return [key, output]


class ComfyServer:
    """A running server; everything it writes lies under `base`."""

    def __init__(self, comfyui: Path, base: Path, folder_name: str, figures: dict[str, float]):
        self.comfyui, self.base, self.figures = comfyui, base, figures
        for name in ("custom_nodes", "input", "output", "models/loras", "models/flux_dictionaries", "user"):
            (base / name).mkdir(parents=True, exist_ok=True)
        (base / "custom_nodes" / folder_name).symlink_to(CLONE, target_is_directory=True)
        (base / "custom_nodes" / "neighbour").symlink_to(HERE / "neighbour", target_is_directory=True)
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.log_path = base / "server.log"

    def start(self) -> None:
        command = [
            *(python_of(self.comfyui), str(HERE / "launch.py"), str(self.comfyui)),
            *("--cpu", "--disable-auto-launch", "--listen", "127.0.0.1", "--port", str(self.port)),
            *("--base-directory", str(self.base), "--database-url", "sqlite:///:memory:"),
        ]
        environment = os.environ | {"PYTHONDONTWRITEBYTECODE": "1", "HF_HUB_OFFLINE": "1"}
        with self.log_path.open("w") as log:
            self.process = subprocess.Popen(command, stdout=log, stderr=log, cwd=self.base, env=environment)
        until = time.monotonic() + START_SECONDS
        while time.monotonic() < until:
            if self.process.poll() is not None:
                break
            try:
                self.get("/system_stats")
                return
            except (urllib.error.URLError, ConnectionError):
                time.sleep(0.2)
        self.stop()
        raise RuntimeError(f"ComfyUI did not start:\n{self.log()[-3000:]}")

    def stop(self) -> None:
        self.process.terminate()
        try:
            self.process.wait(20)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()

    def log(self) -> str:
        return self.log_path.read_text()

    def get(self, path: str):
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}{path}", timeout=30) as answer:
            body = answer.read()
        return json.loads(body) if answer.headers.get_content_type() == "application/json" else body

    def post(self, path: str, body: dict):
        data = json.dumps(body).encode()
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.port}{path}", data, {"Content-Type": "application/json"}
        )
        try:
            with urllib.request.urlopen(request, timeout=30) as answer:
                return json.loads(answer.read() or b"{}")
        except urllib.error.HTTPError as error:
            return json.loads(error.read())

    def queue(self, nodes: dict[str, dict]) -> str:
        """Post a workflow; returns its id. Raises `NodeError` where the server refuses it."""
        answer = self.post("/prompt", {"prompt": nodes, "client_id": uuid.uuid4().hex})
        if answer.get("error"):
            errors = answer.get("node_errors") or {}
            node, found = next(iter(errors.items()), (None, None))
            problem = found["errors"][0] if found else answer["error"]
            raise NodeError(node, f"{problem['message']}: {problem['details']}")
        return answer["prompt_id"]

    def wait(self, prompt: str, seconds: float = 120) -> dict:
        """The history entry of a workflow that has run. Raises `NodeError` where it failed."""
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            entry = self.get(f"/history/{prompt}").get(prompt)
            if entry and entry["status"]["completed"]:
                return entry
            if entry:
                for kind, what in entry["status"]["messages"]:
                    if kind == "execution_error":
                        raise NodeError(what["node_id"], what["exception_message"].strip())
                    if kind == "execution_interrupted":
                        raise NodeError(what["node_id"], "interrupted")
            time.sleep(0.03)
        raise TimeoutError(f"workflow {prompt} did not end:\n{self.log()[-2000:]}")

    def run(self, graph: Graph) -> dict[str, dict]:
        """Run a workflow; returns what its output nodes gave, by node id."""
        return self.wait(self.queue(graph.nodes))["outputs"]

    def forget(self) -> None:
        """Drop what the server cached, so that the next run computes everything."""
        self.post("/free", {"unload_models": True, "free_memory": True})
        time.sleep(0.3)  # the worker wakes for it; a workflow posted at once would be faster

    def file(self, place: dict) -> Path:
        return self.base / place["type"] / place["subfolder"] / place["filename"]

    def latent(self, outputs: dict, node: list) -> torch.Tensor:
        """What a SaveLatent node saved."""
        return load_file(self.file(outputs[node[0]]["latents"][0]))["latent_tensor"]

    def picture(self, outputs: dict, node: list) -> np.ndarray:
        return np.asarray(Image.open(self.file(outputs[node[0]]["images"][0])).convert("RGB"))


COMFYUI = find_comfyui()
FIGURES: dict[str, float] = {}
"""What tests measured, for the record of a run."""
