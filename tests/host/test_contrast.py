"""Contrast Prompts: the vector is the difference of what foreign Watches see in ordinary sampling, and it steers."""

import time

import pytest
import torch

from fluxtionary.demo.measure import measure
from fluxtionary.dictionaries import load_vector

from .comfy_server import NodeError
from .flow import CAPTION, Flow
from .watching import IMAGE, TEXT, calls, latents, plain

CONTRAST = "FluxtionaryContrastPrompts"
DEFAULTS = {
    "sites": "",
    "steps": 4,
    "start_percent": 0.0,
    "end_percent": 0.5,
    "seeds": 1,
    "seed": 0,
    "method": "mean difference",
    "scheduler": "simple",
}
SHAPES = ("circle", "square", "cross")
RED, BLUE = (
    [
        f"a {color} {shape} on a {ground} background"
        for shape, ground in zip(SHAPES, ("white", "black", "tan"), strict=True)
    ]
    for color in ("red", "blue")
)


class Contrasts(Flow):
    def texts(self, captions):
        """A list of conditionings, one for each caption."""
        return self.text(self.add("NeighbourCaptions", lines="\n".join(captions)))

    def contrast(self, positive=RED, negative=BLUE, model=None, latent=None, **options):
        sides = {
            name: self.texts(side) if isinstance(side[0], str) and " " in side[0] else side
            for name, side in (("positive", positive), ("negative", negative))
        }
        return self.add(
            CONTRAST, model=model or self.model, latent=latent or self.empty(), **sides, **(DEFAULTS | options)
        )

    def keep(self, vector, name):
        return self.add("FluxtionarySaveSteeringVector", vector=vector, name=name, overwrite=True)


def contrasted(comfy, **options):
    """The vector that a contrast makes, and what it says of it."""
    flow = Contrasts()
    made = flow.contrast(**{name: value(flow) if callable(value) else value for name, value in options.items()})
    saved = flow.keep(made, "contrast")
    shown = flow.add("PreviewAny", source=[made[0], 1])
    outputs = comfy.run(flow)
    return load_vector(outputs[saved[0]]["text"][0]), outputs[shown[0]]["text"][0]


def same(one, other, tolerance=0.0):
    assert one.sites == other.sites
    for site in one.sites:
        a, b = one.directions[site].double(), other.directions[site].double()
        assert float((a - b).norm() / b.norm()) <= tolerance, site


def watched(comfy, captions, seeds, steps, batch=1, keep=slice(0, 2)):
    """Mean input of double block 1 and single block 0 over tokens, calls and seeds, by caption: `[captions, 192]`."""
    flow = Contrasts()
    for number, caption in enumerate(captions):
        for seed in seeds:
            model = flow.watch(flow.model, f"after-0-{number}-{seed}", "double_block", 1)
            model = flow.watch(model, f"after-1-{number}-{seed}", "single_block", 0)
            flow.save(flow.sample(model, flow.empty(batch), seed=seed, steps=steps, caption=caption))
    comfy.run(flow)
    found = {}
    for number in range(len(captions)):
        parts = {"double.0.img": [], "double.0.txt": [], "double.1.img": [], "double.1.txt": []}
        for seed in seeds:
            for call in calls(comfy, f"after-0-{number}-{seed}")[keep]:
                parts["double.0.img"].append(call["img"])
                parts["double.0.txt"].append(call["txt"])
            for call in calls(comfy, f"after-1-{number}-{seed}")[keep]:
                parts["double.1.img"].append(call["img"][:, IMAGE])
                parts["double.1.txt"].append(call["img"][:, TEXT])
        for site, seen in parts.items():
            found.setdefault(site, []).append(torch.cat([x.flatten(0, 1) for x in seen]).double().mean(0))
    return {site: torch.stack(means) for site, means in found.items()}


def close(vector, expected):
    """The same direction and length at each site as in `expected`."""
    for site, direction in vector.directions.items():
        direction, other = direction.double(), expected[site]
        assert float(direction @ other / (direction.norm() * other.norm())) > 0.99999, site
        assert float(direction.norm() / other.norm()) == pytest.approx(1, abs=1e-4), site


def test_a_vector_is_the_difference_that_foreign_watches_see(comfy):
    """Three pairs, two seeds, two pictures each, two of four steps; both methods, from the same activations."""
    sites = "double.1.img, double.1.txt; double.0.img\ndouble.0.txt"
    options = {"sites": sites, "seed": 5, "seeds": 2, "latent": lambda flow: flow.empty(2)}
    red, blue = (watched(comfy, captions, (5, 6), steps=4, batch=2) for captions in (RED, BLUE))
    differences = {site: red[site] - blue[site] for site in red}
    vector, about = contrasted(comfy, **options)
    assert vector.sites == ("double.1.img", "double.1.txt", "double.0.img", "double.0.txt")
    close(vector, {site: difference.mean(0) for site, difference in differences.items()})
    assert about.startswith("mean difference of 3 pairs, 2 seeds; watched at sigma 1, 0.75: 2 steps of 4\n")
    # 3 pairs, both sides, 2 seeds, 2 pictures, 2 steps
    assert f"double.1.img: {3 * 2 * 2 * 2 * 2 * 64:,} tokens" in about
    assert f"double.0.txt: {3 * 2 * 2 * 2 * 2 * 16:,} tokens" in about

    principal, _ = contrasted(comfy, method="pca", **options)
    for site, difference in differences.items():
        first = torch.linalg.svd(difference, full_matrices=False).Vh[0]
        found = principal.directions[site].double()
        assert abs(float(first @ found / found.norm())) > 0.99999
        assert float(found @ difference.mean(0)) > 0
        assert float(found.norm() / difference.mean(0).norm()) == pytest.approx(1, abs=1e-4)


def test_the_watched_part_of_sampling_is_the_asked_one(comfy):
    """From .25 to .75 of eight steps: the calls 2 to 5, after which the model is not called."""
    red, blue = (watched(comfy, captions[:1], (0,), steps=8, keep=slice(2, 6)) for captions in (RED, BLUE))
    vector, about = contrasted(
        comfy,
        positive=RED[:1],
        negative=BLUE[:1],
        model=lambda flow: flow.watch(flow.model, "part", "double_block", 0),
        **{"steps": 8, "start_percent": 0.25, "end_percent": 0.75},
    )
    close(vector, {site: red[site][0] - blue[site][0] for site in vector.sites})
    sigmas = [0.75, 0.625, 0.5, 0.375]
    assert vector.provenance.capture["sigmas"] == pytest.approx(sigmas)
    assert [float(call["sigma"]) for call in calls(comfy, "part")] == pytest.approx(2 * [1.0, 0.875, *sigmas])
    assert "mean difference of 1 pair, 1 seed; watched at sigma 0.75, 0.625, 0.5, 0.375: 4 steps of 8" in about
    assert "split-half" not in about


def test_a_vector_says_where_it_comes_from_and_in_which_unit_it_is(comfy):
    """Sites by default; the scale is that of the activations, measured here from outside."""
    vector, _ = contrasted(comfy, seed=3, latent=lambda flow: flow.empty(1, 144, 112))
    about = vector.provenance
    assert vector.sites == ("double.0.img", "double.0.txt")
    assert about.model == {"family": "flux1", "double_blocks": 2, "single_blocks": 4, "d_model": 192}
    assert about.capture == {
        **{"sigmas": [1.0, 0.75], "steps": 4, "scheduler": "simple", "height": 112, "width": 144, "seeds": [3]}
    }
    assert about.training == {"method": "mean difference", "pairs": 3}
    for site, figures in about.metrics.items():
        assert figures["tokens"] == 3 * 2 * 2 * (16 if site.endswith("txt") else 7 * 9)
        assert 0 < figures["split_half_cosine"] <= 1 and 0 < figures["explained"] <= 1
        length = float(vector.directions[site].norm())
        usual = (vector.scales[site].at(1.0) + vector.scales[site].at(0.75)) / 2
        assert figures["length"] == pytest.approx(length / usual, rel=1e-4)
    flow = Contrasts()
    for number, caption in enumerate((*RED, *BLUE)):
        model = flow.watch(flow.model, f"scale-{number}", "double_block", 1)
        flow.save(flow.sample(model, flow.empty(1, 144, 112), seed=3, caption=caption))
    comfy.run(flow)
    first = torch.cat([calls(comfy, f"scale-{number}")[0]["img"].flatten(0, 1).double() for number in range(6)])
    size = (first - first.mean(0)).square().sum(-1).mean().sqrt()
    assert vector.scales["double.0.img"].at(1.0) == pytest.approx(float(size), rel=1e-4)


def test_lists_batches_and_single_prompts_come_to_the_same(comfy):
    listed, _ = contrasted(comfy)

    def batch(captions):
        return lambda flow: flow.add("NeighbourBatch", conditionings=flow.texts(captions))

    same(contrasted(comfy, positive=batch(RED), negative=batch(BLUE))[0], listed, 1e-6)
    same(contrasted(comfy, positive=batch(RED), negative=BLUE)[0], listed, 1e-6)
    repeated, _ = contrasted(comfy, negative=BLUE[:1] * 3)
    single, about = contrasted(comfy, negative=BLUE[:1])
    same(single, repeated, 1e-6)
    assert about.startswith("mean difference of 3 pairs")
    assert f"double.0.img: {4 * 2 * 64} tokens" in about  # the single prompt is sampled once
    with pytest.raises(AssertionError):
        same(single, listed, 1e-2)


def test_a_part_of_the_picture_can_be_prompted(comfy):
    """A conditioning of an area counts as one prompt, with all of its calls."""

    def area(caption):
        def made(flow):
            own = flow.add(
                "ConditioningSetArea",
                conditioning=flow.text(caption),
                **{"width": 96, "height": 128, "x": 32, "y": 0, "strength": 1.0},
            )
            return flow.add("ConditioningCombine", conditioning_1=own, conditioning_2=flow.text(CAPTION))

        return made

    _, about = contrasted(comfy, positive=area(RED[0]), negative=area(BLUE[0]))
    assert f"double.0.img: {2 * 2 * (64 + 48)} tokens" in about


def test_steering_on_the_model_is_in_force(comfy):
    steered = contrasted(comfy, model=lambda flow: flow.steer(flow.model), sites="single.1.img")[0]
    with pytest.raises(AssertionError):
        same(steered, contrasted(comfy, sites="single.1.img")[0], 1e-2)


EMPTY = {"positive": lambda flow: flow.add("NeighbourNoConditionings")}


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"negative": BLUE[:2]}, "positive and negative: .* found 3 positive and 2 negative"),
        ({"negative": RED}, "positive and negative: expected conditionings that differ"),
        (EMPTY, "positive: expected one conditioning at least, found an empty list"),
        (
            {"negative": lambda flow: flow.add("NeighbourSpoilConditioning", conditioning=flow.texts(BLUE))},
            "negative, number 1 of 3: expected finite numbers",
        ),
        ({"sites": "double.7.img"}, r"sites: this model has no double\.7\.img: .* 2 double and 4 single"),
        ({"sites": "middle"}, "sites: 'middle' is no site"),
        ({"sites": "double.0.img, single.3.txt"}, r"sites: an edit at single\.3\.txt would do nothing"),
        ({"sites": "double.0.img.mlp"}, r"sites: double\.0\.img\.mlp can be tapped but not edited"),
        ({"start_percent": 0.6}, "start_percent and end_percent: .* found start 0.6 and end 0.5"),
        (
            {"start_percent": 0.3, "end_percent": 0.4},
            "start_percent and end_percent: .* the 4 steps begins, found none",
        ),
        ({"steps": 0}, "0 smaller than min of 1: steps"),
        ({"latent": lambda flow: flow.add("NeighbourNarrowLatent")}, r"latent: expected \[pictures, 16,"),
    ],
)
def test_what_cannot_be_is_an_error_on_the_node(comfy, options, words):
    flow = Contrasts()
    made = flow.contrast(**{name: value(flow) if callable(value) else value for name, value in options.items()})
    flow.keep(made, "never")
    with pytest.raises(NodeError, match=words) as error:
        comfy.run(flow)
    assert error.value.node == made[0]
    assert contrasted(comfy, positive=RED[:1], negative=BLUE[:1], steps=1)


def test_the_same_inputs_compute_nothing_anew(comfy):
    cached = []
    for seed in (0, 0, 1):
        flow = Contrasts()
        made = flow.contrast(seed=seed)
        flow.add("PreviewAny", source=[made[0], 1])
        messages = dict(comfy.wait(comfy.queue(flow.nodes))["status"]["messages"])
        cached.append(made[0] in messages["execution_cached"]["nodes"])
    assert cached[1:] == [True, False]


SCENES = (
    ("large", "circle at the center on a white background"),
    ("small", "square at the top left on a black background"),
    ("large", "triangle at the right on a gray background"),
    ("large", "cross at the left on a tan background"),
)
OPEN = (
    "a large circle at the center on a white background",
    "a small circle at the top on a gray background",
    "a large square at the left on a white background",
    "a small square at the bottom right on a black background",
    "a large triangle at the center on a black background",
    "a small cross at the top right on a white background",
    "a large cross at the center on a gray background",
    "a large ring at the bottom on a white background",
)


def readings(comfy, strength):
    """What is read from pictures of the open captions, steered by red minus blue at double.1.img."""
    flow = Contrasts()
    model = flow.model
    if strength:
        sides = {
            name: [f"a {size} {color} {rest}" for size, rest in SCENES]
            for name, color in (("positive", "red"), ("negative", "blue"))
        }
        model = flow.add(
            "FluxtionarySteerWithVector",
            **{"model": model, "vector": flow.contrast(seed=50, seeds=2, sites="double.1.img", **sides)},
            **{"strength": strength, "start_percent": 0.0, "end_percent": 0.6, "rows": "cond"},
        )
    shown = []
    for seed, caption in enumerate(OPEN, 200):
        drawn = flow.sample(model, seed=seed, steps=20, sampler_name="lcm", caption=caption)
        picture = flow.add("VAEDecode", samples=drawn, vae=flow.vae)
        shown.append(flow.add("SaveImage", images=picture, filename_prefix="contrast"))
    outputs = comfy.run(flow)
    return [measure(comfy.picture(outputs, node)) for node in shown]


def test_steering_along_red_minus_blue_turns_pictures_red(comfy):
    """Open captions, which name no color; their shape and background stay in half of the pictures at least."""
    before, after = readings(comfy, 0.0), readings(comfy, 1.0)
    asked = [one.color != "red" and other.color == "red" for one, other in zip(before, after, strict=True)]
    kept = [
        (one.shape, one.background) == (other.shape, other.background) for one, other in zip(before, after, strict=True)
    ]
    comfy.figures["contrast, share of 8 open captions turned red"] = sum(asked) / 8
    comfy.figures["contrast, share of these whose shape and background stay"] = sum(kept) / 8
    assert sum(asked) >= 6
    assert sum(kept) >= 4


def test_an_interrupted_contrast_leaves_nothing_behind(comfy):
    expected, before = contrasted(comfy)[0], latents(comfy, plain)
    comfy.forget()
    flow = Contrasts()
    flow.keep(flow.contrast(steps=100, seeds=100), "never")
    prompt = comfy.queue(flow.nodes)
    while not comfy.get("/queue")["queue_running"]:
        time.sleep(0.02)
    time.sleep(1.0)
    began = time.monotonic()
    comfy.post("/interrupt", {})
    with pytest.raises(NodeError, match="interrupted"):
        comfy.wait(prompt)
    assert time.monotonic() - began < 5
    same(contrasted(comfy)[0], expected)
    assert torch.equal(latents(comfy, plain), before)
