"""Takes the README's picture of a graph in a real ComfyUI: `python tests/host/graph_picture.py docs/graph.png`.

Needs Chromium, node, and its playwright-core package (`npm ci --prefix tests/web`). It also
checks that the example workflow, as the frontend reads it, is its API twin.
"""

import json
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))

from comfy_server import HOW_TO_GET_ONE, ComfyServer, find_comfyui  # noqa: E402

EXAMPLE = HERE.parents[1] / "example_workflows" / "steer_with_feature.json"


def main(out: Path) -> None:
    comfyui = find_comfyui()
    if comfyui is None:
        raise SystemExit(HOW_TO_GET_ONE)
    with tempfile.TemporaryDirectory() as folder:
        server = ComfyServer(comfyui, Path(folder), "fluxtionary", {})
        server.start()
        # no templates for a first visit, and nothing over the graph
        server.post("/settings", {"Comfy.TutorialCompleted": True, "Comfy.Minimap.Visible": False})
        try:
            command = [
                *("node", str(HERE / "graph_picture.mjs"), f"http://127.0.0.1:{server.port}", str(EXAMPLE)),
                *(str(out.resolve()), shutil.which("chromium") or "chromium"),
            ]
            done = subprocess.run(command, capture_output=True, text=True)
        finally:
            server.stop()
    if done.returncode:
        raise SystemExit(done.stderr)
    twin = json.loads((EXAMPLE.parent / "api" / EXAMPLE.name).read_text())
    made = json.loads(done.stdout.splitlines()[-1])
    made = {key: {"class_type": node["class_type"], "inputs": node["inputs"]} for key, node in made.items()}
    if made != twin:
        raise SystemExit(f"the workflow and its API twin differ:\n{made}\n{twin}")
    print(f"{out}: the graph as ComfyUI draws it; the workflow and its API twin are the same")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
