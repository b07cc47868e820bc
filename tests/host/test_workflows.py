"""Every example workflow runs as it is shipped and shows what it promises; those for FLUX.1 run on the demo."""

import json

import numpy as np
import pytest

from fluxtionary.demo.measure import measure

from .comfy_server import CLONE, Graph
from .flow import CAPTION, DEMO

FOLDER = CLONE / "example_workflows" / "api"
LOADERS = {"UNETLoader": 0, "DualCLIPLoader": 1, "VAELoader": 2}
"""What stands for an output of Load Demo Flux."""


def shipped(name: str) -> Graph:
    graph = Graph()
    graph.nodes = json.loads((FOLDER / f"{name}.json").read_text())
    return graph


def on_the_demo(graph: Graph) -> Graph:
    """The same graph with Load Demo Flux instead of the stock loaders, and what the demo knows instead of FLUX.1's."""
    demo = graph.add("FluxtionaryLoadDemoFlux", size="base")[0]
    captions = iter((CAPTION, "a large red circle at the center on a white background"))
    replaced = {key: LOADERS[node["class_type"]] for key, node in graph.nodes.items() if node["class_type"] in LOADERS}
    for key in replaced:
        del graph.nodes[key]
    for node in graph.nodes.values():
        inputs = node["inputs"]
        for name, value in inputs.items():
            if isinstance(value, list) and value[0] in replaced:
                inputs[name] = [demo, replaced[value[0]]]
        if inputs.get("text"):
            inputs["text"] = next(captions, CAPTION)
        inputs |= {name: 128 for name in ("width", "height") if name in inputs}
        inputs |= {"sites": "double.1.img"} if inputs.get("sites") else {}
        inputs |= {"dictionary": DEMO} if isinstance(inputs.get("dictionary"), str) else {}
    return graph


def pictures(comfy, graph: Graph) -> dict[str, np.ndarray]:
    """What the graph saves, by the name it is saved under."""
    outputs = comfy.run(graph)
    saved = [key for key, node in graph.nodes.items() if node["class_type"] == "SaveImage"]
    assert saved and set(saved) <= outputs.keys(), "a part of the graph was refused"
    return {graph.nodes[key]["inputs"]["filename_prefix"]: comfy.picture(outputs, [key, 0]) for key in saved}


def test_steer_with_feature_turns_the_object_red(comfy):
    found = pictures(comfy, shipped("steer_with_feature"))
    assert measure(found["plain"]).color != "red" and measure(found["steered"]).color == "red"


def test_contrast_and_steer_turns_the_object_yellow(comfy):
    found = pictures(comfy, shipped("contrast_and_steer"))
    assert measure(found["plain"]).color != "yellow" and measure(found["steered"]).color == "yellow"


def test_a_mask_from_a_feature_steers_the_object_alone(comfy):
    found = pictures(comfy, shipped("mask_from_feature"))
    first, second = measure(found["first"]), measure(found["second"])
    assert first.color != "red" and second.color == "red"
    assert second.background == first.background
    corners = np.s_[:16, :16]
    assert np.abs(found["first"][corners].astype(int) - found["second"][corners]).max() < 30


def test_inspecting_shows_a_grid_of_features_and_the_map_of_one(comfy):
    found = pictures(comfy, shipped("inspect_and_heat_map"))
    grid, heat = found["features"], found["heat-map"]
    assert grid.shape[1] >= 4 * 288 and grid.shape[0] >= 3 * 288 and grid.std() > 10
    assert heat.shape == (128, 128, 3) and heat.std() > 10


def test_recording_leaves_a_run_that_trains(comfy):
    from fluxtionary.residual.shards import Shards

    before = set((comfy.base / "output" / "fluxtionary" / "my-captures").glob("run-*"))
    pictures(comfy, shipped("record_activations"))
    (run,) = set((comfy.base / "output" / "fluxtionary" / "my-captures").glob("run-*")) - before
    shards = Shards(run)
    assert shards.complete and shards.tokens("double.1.img") == 20 * 64


@pytest.mark.parametrize("name", sorted(path.stem for path in FOLDER.glob("flux_*.json")))
def test_workflows_for_flux_run_on_the_demo(comfy, name):
    found = pictures(comfy, on_the_demo(shipped(name)))
    if {"plain", "steered"} <= found.keys():
        assert (found["plain"] != found["steered"]).any()


def test_every_workflow_is_tested():
    own = {
        *("steer_with_feature", "contrast_and_steer", "mask_from_feature", "inspect_and_heat_map"),
        "record_activations",
    }
    assert own == {path.stem for path in FOLDER.glob("*.json") if not path.stem.startswith("flux_")}
