"""How the pack sits in a host: found under any folder name, light to load, documented."""

import json
import subprocess

from .comfy_server import CLONE, HERE, Graph, python_of

NODES = {
    f"Fluxtionary{name.replace(' ', '')}": name
    for name in (
        *("Load Demo Flux", "Load Dictionary", "Load Steering Vector", "Save Steering Vector", "Vector Arithmetic"),
        *("Tap", "Read Features", "Inspect Picture", "Feature Heat Map", "Feature Grid"),
        *("Steer With Feature", "Steer With Vector", "Splice Dictionary", "Contrast Prompts", "Record Activations"),
    )
}


def test_all_nodes_are_there_and_explain_themselves(comfy):
    known = comfy.get("/object_info")
    found = {key: node["display_name"] for key, node in known.items() if key.startswith("Fluxtionary")}
    assert found == NODES
    for key in NODES:
        assert known[key]["description"]
        for kind in ("required", "optional"):
            for name, (type_, options) in known[key]["input"].get(kind, {}).items():
                socket = type_ == "MODEL"
                assert socket or options.get("tooltip"), f"{key}.{name} has no tooltip"
        assert (CLONE / "web" / "docs" / f"{key}.md").exists()
    loaded = [line for line in comfy.log().splitlines() if " seconds" in line and str(comfy.base) in line]
    assert len(loaded) == 2 and not any("FAILED" in line for line in loaded)


def test_help_is_served(comfy):
    for key in NODES:
        text = comfy.get(f"/extensions/a-b.c/docs/{key}.md").decode()
        assert text.startswith(f"# {NODES[key]}")


def test_the_shipped_dictionary_and_the_user_s_are_listed(comfy):
    node = comfy.get("/object_info/FluxtionaryLoadDictionary")["FluxtionaryLoadDictionary"]
    kind, options = node["input"]["required"]["dictionary"]
    names = kind if isinstance(kind, list) else options["options"]
    assert {"demo-flux.double.1.img.safetensors", "wide.safetensors"} <= set(names)


IMPORT = """
import json, sys, time
sys.path[:0] = [{comfyui!r}, {here!r}]
from launch import declare_missing_operators
declare_missing_operators()
sys.argv = ["main.py", "--cpu"]
import comfy.options
comfy.options.enable_args_parsing()
import asyncio, importlib.util, torch, folder_paths, nodes, comfy.sd, comfy_api.latest
before = set(sys.modules)
started = time.perf_counter()
spec = importlib.util.spec_from_file_location("a-b_x_c", {clone!r} + "/__init__.py")
module = importlib.util.module_from_spec(spec)
sys.modules["a-b_x_c"] = module
spec.loader.exec_module(module)
extension = asyncio.run(module.comfy_entrypoint())
count = len(asyncio.run(extension.get_node_list()))
seconds = time.perf_counter() - started
print(json.dumps([count, seconds, sorted(set(sys.modules) - before)]))
"""


def test_loading_the_pack_is_light(comfy):
    code = IMPORT.format(comfyui=str(comfy.comfyui), here=str(HERE), clone=str(CLONE))
    command = [python_of(comfy.comfyui), "-B", "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=comfy.base)
    count, seconds, loaded = json.loads(done.stdout.splitlines()[-1])
    assert count == len(NODES)
    tops = {name.split(".")[0] for name in loaded}
    assert not tops & {"diffusers", "transformers", "matplotlib", "sklearn", "pandas", "tyro", "jinja2"}
    comfy.figures["import, seconds beyond torch and the host"] = seconds


def test_a_graph_without_our_nodes_runs(comfy):
    graph = Graph()
    image = graph.add("EmptyImage", width=16, height=16, batch_size=1, color=0)
    graph.add("SaveImage", images=image, filename_prefix="empty")
    assert comfy.run(graph)
