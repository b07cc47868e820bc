"""The example workflows: each has its picture and its API twin, and both say the same."""

import json
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[1] / "example_workflows"
SHOWING = ("PreviewAny",)
"""Nodes whose widgets are what the frontend shows in them, and no settings."""
WORKFLOWS = sorted(FOLDER.glob("*.json"))


def as_api(workflow: dict) -> dict:
    """What can be told of the API form without a frontend: links by name, and the widgets' values in order."""
    sources = {link[0]: [str(link[1]), link[2]] for link in workflow["links"]}
    found = {}
    for node in workflow["nodes"]:
        if node["type"] == "MarkdownNote":
            continue
        links = {slot["name"]: sources[slot["link"]] for slot in node["inputs"] if slot["link"] is not None}
        widgets = [value for value in node.get("widgets_values", []) if value != "fixed"]  # what follows a seed
        if node["type"] in SHOWING:
            widgets = []
        found[str(node["id"])] = (node["type"], links, widgets)
    return found


def test_there_are_workflows():
    assert WORKFLOWS


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_a_workflow_is_its_api_twin(path):
    twin = json.loads((FOLDER / "api" / path.name).read_text())
    expected = {
        key: (
            node["class_type"],
            {name: value for name, value in node["inputs"].items() if isinstance(value, list)},
            [value for value in node["inputs"].values() if not isinstance(value, list)]
            if node["class_type"] not in SHOWING
            else [],
        )
        for key, node in twin.items()
    }
    assert as_api(json.loads(path.read_text())) == expected


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_a_workflow_has_a_picture_for_the_host_s_template_browser(path):
    assert path.with_suffix(".jpg").stat().st_size > 1000
