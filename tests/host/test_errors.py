"""What goes wrong is said on the node that it went wrong at, and the server lives on."""

import pytest

from .comfy_server import NodeError
from .flow import Flow


def works(comfy):
    flow = Flow()
    saved = flow.save(flow.sample(flow.steer(flow.model), steps=1))
    return comfy.latent(comfy.run(flow), saved).isfinite().all()


def node_of(flow, kind):
    return next(key for key, node in flow.nodes.items() if node["class_type"] == kind)


@pytest.mark.parametrize(
    ("dictionary", "options", "kind", "words"),
    [
        ("wide.safetensors", {}, "FluxtionarySteerWithFeature", "192 wide.*256.*wide"),
        ("deep.safetensors", {}, "FluxtionarySteerWithFeature", r"no double\.7\.img.*2 double and 4 single"),
        ("broken.safetensors", {}, "FluxtionaryLoadDictionary", "broken"),
        (None, {"feature": 100_000}, "FluxtionarySteerWithFeature", "100000.*0 to "),
        (None, {"start_percent": 0.6, "end_percent": 0.4}, "FluxtionarySteerWithFeature", "start 0.6 and end 0.4"),
    ],
)
def test_what_does_not_fit_is_an_error_on_its_node(comfy, dictionary, options, kind, words):
    flow = Flow()
    named = {"dictionary": dictionary} if dictionary else {}
    flow.save(flow.sample(flow.steer(flow.model, **named, **options)))
    with pytest.raises(NodeError, match=words) as error:
        comfy.run(flow)
    assert error.value.node == node_of(flow, kind)
    assert works(comfy)


def test_a_dictionary_that_is_not_there_is_refused(comfy):
    flow = Flow()
    flow.save(flow.sample(flow.steer(flow.model, dictionary="nowhere.safetensors")))
    with pytest.raises(NodeError, match="nowhere"):
        comfy.run(flow)
    assert works(comfy)


@pytest.mark.parametrize(
    ("kind", "at", "words"),
    [
        ("foreign", "FluxtionarySteerWithFeature", "expected a Flux 1 model.*Foreign.*Nunchaku"),
        ("hollow", "KSampler", r"Steer With Feature: the model ran without calling the blocks of double\.1\.img"),
    ],
)
def test_a_model_that_does_not_call_its_blocks_is_never_an_unsteered_picture(comfy, kind, at, words):
    flow = Flow()
    model = flow.add("NeighbourReplaceFlux", model=flow.model, kind=kind)
    flow.save(flow.sample(flow.steer(model)))
    with pytest.raises(NodeError, match=words) as error:
        comfy.run(flow)
    assert error.value.node == node_of(flow, at)
    assert works(comfy)


@pytest.mark.parametrize(
    ("caption", "words"),
    [
        ("a purple elephant", "'elephant'.*use these words"),
        ("red circle " * 9, "at most 14"),
    ],
)
def test_captions_the_demo_flux_cannot_read_are_refused(comfy, caption, words):
    flow = Flow()
    flow.save(flow.sample(flow.model, caption=caption))
    with pytest.raises(NodeError, match=words) as error:
        comfy.run(flow)
    assert flow.nodes[error.value.node]["class_type"] == "CLIPTextEncode"
    assert works(comfy)
