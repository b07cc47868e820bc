"""Ids and names of nodes, inputs and outputs stay as they are: saved workflows and API graphs depend on them."""

import json
import re

from .comfy_server import HERE

SNAPSHOT = HERE / "schemas.json"


def schemas(comfy) -> dict:
    """What a workflow depends on: of every node its inputs with their types, defaults and options, and its outputs."""
    return {key: of(node) for key, node in comfy.get("/object_info").items() if key.startswith("Fluxtionary")}


def of(node: dict) -> dict:
    inputs = {
        f"{name}{'' if kind == 'required' else ' (optional)'}": described(*given)
        for kind in ("required", "optional")
        for name, given in node["input"].get(kind, {}).items()
    }
    outputs = [[name, type_] for name, type_ in zip(node["output_name"], node["output"], strict=True)]
    return {"display_name": node["display_name"], "inputs": inputs, "outputs": outputs}


def described(type_, options=None) -> list:
    """Type, default and choices; file lists are whatever is installed."""
    options = options or {}
    choices = type_ if isinstance(type_, list) else options.get("options")
    kind = "COMBO" if isinstance(type_, list) else type_
    files = choices is not None and any(re.search(r"\.safetensors$|^no file in", str(choice)) for choice in choices)
    return [kind, None if files else options.get("default"), None if files else choices]


def test_schemas_are_those_of_the_snapshot(comfy, pytestconfig):
    """A node, an input or an output may come; none goes, changes its type, or changes what it means when left out.

    `pytest tests/host/test_schemas.py --snapshot` writes the snapshot anew.
    """
    found = schemas(comfy)
    if pytestconfig.getoption("--snapshot"):
        SNAPSHOT.write_text(json.dumps(found, indent=1) + "\n")
    assert json.loads(SNAPSHOT.read_text()) == found, "saved workflows may break; if they do not, use --snapshot"
