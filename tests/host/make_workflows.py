"""Makes the example workflows from `workflows.py`: `python tests/host/make_workflows.py [NAME...]`.

Each becomes a graph laid out by ComfyUI's own frontend, its API twin as that frontend makes it, and a picture for the
template browser: what it draws, or for workflows with weights that are not here, the graph. Needs Chromium, node, and
its playwright-core package (`npm ci --prefix tests/web`).
"""

import io
import json
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from PIL import Image

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))

from comfy_server import HOW_TO_GET_ONE, ComfyServer, Graph, find_comfyui  # noqa: E402
from workflows import WORKFLOWS, Workflow  # noqa: E402

EXAMPLES = HERE.parents[1] / "example_workflows"


def main(names: list[str]) -> None:
    comfyui = find_comfyui()
    if comfyui is None:
        raise SystemExit(HOW_TO_GET_ONE)
    chosen = {name: make() for name, make in WORKFLOWS.items() if not names or name in names}
    with tempfile.TemporaryDirectory() as folder:
        server = ComfyServer(comfyui, Path(folder), "fluxtionary", {})
        server.start()
        # no templates for a first visit, and nothing over the graph
        server.post("/settings", {"Comfy.TutorialCompleted": True, "Comfy.Minimap.Visible": False})
        try:
            for name, job in lay_out(server, chosen, Path(folder)).items():
                (EXAMPLES / "api" / f"{name}.json").write_text(written(job["made"]))
                picture(server, chosen[name], Path(job["png"])).convert("RGB").save(
                    EXAMPLES / f"{name}.jpg", quality=88
                )
                print(f"{name}: {len(job['made'])} nodes; the graph: {keep(name, job['png'])}")
        finally:
            server.stop()


def lay_out(server: ComfyServer, chosen: dict[str, Workflow], folder: Path) -> dict[str, dict]:
    """The workflow files, and for each what the frontend makes of it."""
    jobs = [
        {
            **{"name": name, "api": made.graph.nodes, "titles": made.titles, "note": made.note},
            **{"out": str(EXAMPLES / f"{name}.json"), "png": str(folder / f"{name}.png")},
        }
        for name, made in chosen.items()
    ]
    path = folder / "jobs.json"
    path.write_text(json.dumps(jobs))
    command = ["node", str(HERE / "make_workflows.mjs"), f"http://127.0.0.1:{server.port}", str(path)]
    done = subprocess.run([*command, shutil.which("chromium") or "chromium"], capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(done.stderr)
    return {job["name"]: job for job in json.loads(path.read_text())}


def written(made: dict) -> str:
    """An API workflow, a line a node."""
    nodes = {key: {"class_type": node["class_type"], "inputs": node["inputs"]} for key, node in made.items()}
    return "{\n" + ",\n".join(f"  {json.dumps(key)}: {json.dumps(node)}" for key, node in nodes.items()) + "\n}\n"


def picture(server: ComfyServer, workflow: Workflow, graph: Path) -> Image.Image:
    """What a workflow draws, side by side; the graph itself where it cannot run here."""
    if not workflow.runs:
        return Image.open(graph).convert("RGB").resize((920, 490))
    built = Graph()
    built.nodes = workflow.graph.nodes
    outputs = server.run(built)
    places = [place for key in sorted(outputs, key=int) for place in outputs[key].get("images", [])]
    shown = [Image.open(io.BytesIO(server.file(place).read_bytes())).convert("RGB") for place in places]
    if not shown:
        return Image.open(graph).convert("RGB").resize((920, 490))
    height = 384
    scaled = [one.resize((round(one.width * height / one.height), height), Image.Resampling.NEAREST) for one in shown]
    sheet = Image.new("RGB", (sum(one.width for one in scaled) + 12 * (len(scaled) - 1), height), "white")
    left = 0
    for one in scaled:
        sheet.paste(one, (left, 0))
        left += one.width + 12
    return sheet


def keep(name: str, png: str) -> Path:
    """A copy of a graph's picture that outlives the run, to be looked at."""
    kept = Path(tempfile.gettempdir()) / f"workflow-{name}.png"
    shutil.copy(png, kept)
    return kept


if __name__ == "__main__":
    main(sys.argv[1:])
