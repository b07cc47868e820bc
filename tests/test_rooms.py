"""The rooms of docs/design.md: a room stands only on rooms below it, and heavy libraries stay where they belong."""

import ast
import re
import subprocess
import sys
from importlib.metadata import requires
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
STANDS_ON = {
    "dictionaries": set(),
    "residual": {"dictionaries"},
    "atlas": set(),
    "demo": {"dictionaries", "residual", "atlas"},
    "training": {"dictionaries", "residual", "atlas", "demo"},
    "interpretation": {"dictionaries", "residual", "atlas", "demo", "training"},
    "evaluation": {"dictionaries", "residual", "atlas", "demo", "training", "interpretation"},
    "browser": {"dictionaries", "residual", "atlas"},
    "nodes": {"dictionaries", "residual", "atlas", "browser", "demo"},
    "commands": {"dictionaries", "residual", "atlas", "demo", "training", "interpretation", "evaluation"},
    "cli.py": {"commands", "dictionaries", "residual", "atlas", "demo", "training", "interpretation", "evaluation"},
    "__init__.py": {"nodes"},
}
LIBRARIES = {
    "dictionaries": {"torch", "numpy", "safetensors"},
    "residual": {"torch", "numpy", "safetensors"},
    "atlas": {"numpy", "PIL"},
    "browser": {"torch", "numpy", "PIL"},
    "nodes": {"torch", "numpy", "safetensors", "PIL", "aiohttp"},
    "__init__.py": set(),
}
HOST = {"comfy", "comfy_api", "comfy_execution", "folder_paths", "latent_preview", "server"}
KNOW_COMFYUI = {"residual/comfy_host.py"}
HOST_NEUTRAL = {"demo/files.py", "demo/captions.py", "demo/scenes.py", "demo/measure.py", "demo/__init__.py"}


def modules(room):
    path = ROOT / room
    return [path] if path.is_file() else sorted(path.rglob("*.py"))


def imported(path):
    """Rooms and libraries that a module imports, wherever in it."""
    rooms, libraries = set(), set()
    depth = len(path.relative_to(ROOT).parts)
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            libraries |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            if node.level == 0:
                libraries.add(node.module.split(".")[0])
            elif node.level == depth:
                rooms |= {node.module.split(".")[0]} if node.module else {alias.name for alias in node.names}
            else:
                assert node.level < depth, f"{path} imports from outside the package"
    return rooms, libraries - set(sys.stdlib_module_names)


@pytest.mark.parametrize("room", STANDS_ON)
def test_a_room_stands_only_on_rooms_below_it(room):
    for path in modules(room):
        assert imported(path)[0] <= STANDS_ON[room], path


@pytest.mark.parametrize("room", LIBRARIES)
def test_rooms_of_the_nodes_need_only_what_a_host_has(room):
    for path in modules(room):
        extra = {"tensorstore"} if path.name == "flux1_saes.py" else set()  # imported when such a folder is read
        assert imported(path)[1] - HOST <= LIBRARIES[room] | extra, path


def test_what_the_core_needs_comes_with_the_package_in_no_certain_version():
    """A host's own torch and numpy stay: pip leaves alone what is there, if any version will do."""
    needed = {name for name in requires("fluxtionary") if "extra ==" not in name}
    assert all(re.fullmatch(r"[a-z]+", name) for name in needed), needed
    core = LIBRARIES["dictionaries"] | LIBRARIES["residual"] | LIBRARIES["atlas"]
    assert {"pillow" if name == "PIL" else name for name in core} == needed


def test_only_the_nodes_and_one_module_know_comfyui():
    for room in STANDS_ON.keys() - {"nodes"}:
        for path in modules(room):
            known = imported(path)[1] & HOST
            assert not known or str(path.relative_to(ROOT)) in KNOW_COMFYUI, path


def test_nodes_stand_on_the_host_neutral_half_of_the_demo_alone():
    for path in modules("nodes"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and node.level == 2 and node.module.split(".")[0] == "demo":
                names = [node.module.split(".")[1]] if "." in node.module else [alias.name for alias in node.names]
                assert {f"demo/{name}.py" for name in names} <= HOST_NEUTRAL, path


def test_nodes_import_the_feature_browser_only_when_it_is_asked():
    for path in modules("nodes"):
        for node in ast.parse(path.read_text()).body:
            if isinstance(node, ast.ImportFrom):
                assert (node.level, (node.module or "").split(".")[0]) != (2, "browser"), path
                assert node.module != "aiohttp", path


def test_the_package_s_own_file_imports_nodes_only_when_asked():
    tree = ast.parse((ROOT / "__init__.py").read_text())
    assert not [node for node in tree.body if isinstance(node, ast.Import | ast.ImportFrom)]


def test_the_host_neutral_half_of_the_demo_knows_no_host():
    for name in HOST_NEUTRAL:
        assert imported(ROOT / name)[1] <= {"numpy", "scipy"}, name  # ComfyUI brings both


def test_only_training_and_demo_know_diffusers():
    for room in STANDS_ON.keys() - {"training", "demo"}:
        for path in modules(room):
            assert not imported(path)[1] & {"diffusers", "transformers"}, path


def test_every_module_belongs_to_a_room():
    known = {*STANDS_ON, "tests", "benchmarks"}
    tracked = subprocess.run(["git", "ls-files", "*.py"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert {Path(name).parts[0] for name in tracked.split()} <= known


def test_the_package_loads_without_diffusers_transformers_or_matplotlib():
    code = (
        "import sys, fluxtionary.dictionaries, fluxtionary.residual.diffusers_host, fluxtionary.demo.files;"
        "print([name for name in ('diffusers', 'transformers', 'matplotlib', 'sklearn') if name in sys.modules])"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd="/")
    assert result.stdout.strip() == "[]"
