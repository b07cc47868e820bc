"""The feature browser in a real ComfyUI and a real Chromium, on its canvas and with the newer nodes."""

from __future__ import annotations

import json
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np
import pytest
from PIL import Image

from fluxtionary.demo.measure import measure
from fluxtionary.demo.scenes import COLORS

from . import graphs, hostile

pytestmark = [pytest.mark.browser, pytest.mark.timeout(600)]

EXAMPLES = Path(__file__).parents[2] / "example_workflows"
COLOR = "red"
"""Its first labelled feature makes objects red, on captions like those the demo Flux was trained on."""
STEERED = "12"
"""The node of the template that saves the steered picture."""


def picture(comfy, outputs, node):
    return comfy.picture(outputs, [node, 0])


def color(comfy, outputs, node):
    return measure(picture(comfy, outputs, node)).color


def saver(outputs):
    """The one node that saved a picture."""
    (node,) = (key for key, shown in outputs.items() if shown.get("images"))
    return node


@pytest.fixture(scope="module")
def template():
    """It comes with a feature of its own, in place of which another is looked for."""
    workflow = json.loads((EXAMPLES / "steer_with_feature.json").read_text())
    (node,) = (node for node in workflow["nodes"] if node["type"] == "FluxtionarySteerWithFeature")
    node["widgets_values"][0] = 0
    return workflow


@pytest.fixture
def steered(browser, mode, template):
    """The template, with the first feature that a search for a color finds in its steering node."""
    return browser.call("steer", mode=mode, workflow=template, text=COLOR)


def test_a_feature_found_by_its_label_does_what_the_label_says(comfy, steered):
    first = steered["found"][0]
    assert COLOR in first["label"]
    (node,) = steered["steering"]
    assert node["values"]["feature"] == first["feature"]
    assert color(comfy, steered["before"], STEERED) != COLOR
    assert color(comfy, steered["after"], STEERED) == COLOR


def test_a_saved_workflow_gives_the_same_picture_without_a_browser(comfy, browser, mode, steered):
    found = browser.call("reopen", mode=mode)
    assert found["after"] == found["before"]
    known = comfy.get("/object_info")
    for node in found["after"].values():
        inputs = known[node["class_type"]]["input"]
        own = {name for group in inputs.values() for name in group}
        if node["class_type"].startswith("Fluxtionary"):
            assert set(node["inputs"]) <= own
    comfy.forget()
    outputs = comfy.wait(comfy.queue(found["after"]))["outputs"]
    assert np.array_equal(picture(comfy, outputs, STEERED), picture(comfy, steered["after"], STEERED))


@pytest.mark.parametrize("name", ["red", "green", "purple"])
def test_the_object_in_a_picture_leads_to_the_feature_of_its_color(comfy, browser, mode, name):
    caption = f"a large {name} circle at the center on a white background"
    found = browser.call("pick", mode=mode, api=graphs.watched(caption), at=[0.5, 0.5])
    read = measure(picture(comfy, found["outputs"], saver(found["outputs"])))
    assert (read.color, read.position) == (name, "center")
    assert any(name in line["text"] for line in found["listed"][:5]), found["listed"][:5]
    assert found["drawn"] == [8, 8]
    (node,) = found["steering"]
    assert node["values"]["feature"] == found["listed"][0]["feature"]


def test_from_search_to_a_steered_picture_by_keys_alone(comfy, browser, mode):
    found = browser.call("keyboard", mode=mode, api=graphs.plain(), text=COLOR)
    first = found["found"][0]["feature"]
    assert [node["values"]["feature"] for node in found["steering"]] == [first]
    assert found["back"] == first, "Escape leads back to the feature in the list"
    assert color(comfy, found["after"], saver(found["after"])) == COLOR


@pytest.fixture
def enemies(comfy):
    installed = hostile.install(comfy.base / "models")
    yield
    hostile.remove(installed)


def test_nothing_of_a_hostile_atlas_runs(comfy, browser, mode, enemies):
    found = browser.call("hostile", mode=mode, api=graphs.steered(hostile.DICTIONARY))
    assert found["broken"] is None and not found["dialogs"] and not found["foreign"]
    hosts = {urlsplit(url).netloc for url in found["requests"] if url.startswith("http")}
    assert hosts <= {f"127.0.0.1:{comfy.port}", "api.comfy.org"}, "ComfyUI's frontend itself asks the second"
    names = {option["value"].removeprefix("atlas:") for option in found["options"]}
    assert names >= {*hostile.NAMES, "corrupt"}
    assert "malformed" in found["told"]["atlas:corrupt"] or "expected" in found["told"]["atlas:corrupt"]
    assert any("corrupt" in problem for problem in found["problems"])
    for name in hostile.NAMES:
        assert "<" in found["told"][f"atlas:{name}"], "markup is shown as it is written"
    assert hostile.MARKUP[0][:20] in found["line"]


# Tasks of an artist. The bounds are on what a hand does, not on time, which is this machine's.


def test_an_object_is_recolored_without_touching_the_prompt(comfy, browser, mode, told):
    found = browser.call("recolor", mode=mode, api=graphs.plain(), text=COLOR)
    node = saver(found["after"])
    assert color(comfy, found["before"], node) in set(COLORS) - {COLOR}
    assert color(comfy, found["after"], node) == COLOR
    told[f"recolor, {mode}"] = {name: found[name] for name in ("count", "seconds", "actions")}
    assert found["count"] <= 6, found["actions"]


def test_a_feature_of_the_background_is_taken_out_where_it_was_painted_on(comfy, browser, mode, told):
    caption = "a large red circle at the center on a black background"
    found = browser.call("background", mode=mode, api=graphs.watched(caption), at=[0.06, 0.06])
    assert any("background" in line["text"] for line in found["listed"][:5]), found["listed"][:5]
    (node,) = (one for one in found["prompt"].values() if one["class_type"] == "FluxtionarySteerWithFeature")
    assert (node["inputs"]["mode"], node["inputs"]["feature"]) == ("ablate", found["listed"][0]["feature"])
    painted = found["prompt"][node["inputs"]["mask"][0]]["inputs"]["image"].removesuffix(" [input]")
    mask = 1 - np.asarray(Image.open(comfy.base / "input" / painted).getchannel("A")) / 255
    half = mask.shape[1] // 2
    assert mask[:, :half].mean() > 0.85 and mask[:, half:].mean() < 0.15
    # that the picture is another says that it acted; the demo Flux paints the background that its caption names anyway
    before, after = (picture(comfy, found[name], saver(found[name])) for name in ("before", "after"))
    assert not np.array_equal(before, after)
    told[f"background, {mode}"] = {name: found[name] for name in ("count", "seconds", "actions")}
    assert found["count"] <= 16, found["actions"]


def test_a_vector_of_two_prompts_is_kept(comfy, browser, mode, told):
    contrast = json.loads((EXAMPLES / "contrast_and_steer.json").read_text())
    folder = comfy.base / "models" / "flux_steering_vectors"
    before = set(folder.rglob("*.safetensors"))
    found = browser.call("vector", mode=mode, workflow=contrast, file=f"yellow-{mode}")
    (kept,) = set(folder.rglob("*.safetensors")) - before
    assert kept.stem == f"yellow-{mode}"
    told[f"vector, {mode}"] = {name: found[name] for name in ("count", "seconds", "actions")}
    assert found["count"] <= 8, found["actions"]
