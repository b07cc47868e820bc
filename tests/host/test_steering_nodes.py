"""Steering nodes in numbers: what stands at a site before and after them, in one run."""

import json
import math

import pytest
import torch

from fluxtionary.dictionaries import (
    Activation,
    Neurons,
    Noise,
    Normalization,
    Provenance,
    Scale,
    SparseAutoencoder,
    SteeringVector,
    load_dictionary,
    save_dictionary,
)
from fluxtionary.dictionaries.scale import BINS
from fluxtionary.residual.site_pass import token_mask, token_scale

from ..conftest import make_dictionary
from .comfy_server import NodeError
from .flow import DEMO, Flow
from .watching import IMAGE, TEXT, calls, latents, plain

SITE, TEXT_SITE, NEXT = "double.1.img", "double.1.txt", "single.0.img"
SIGMAS = (1.0, 0.8, 0.55, 0.3, 0.1)
FEATURE = 1318
START, END = 0.1, 0.8
STEER, VECTOR, SPLICE = (f"Fluxtionary{name}" for name in ("SteerWithFeature", "SteerWithVector", "SpliceDictionary"))


def random(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def orthogonal(site=SITE, lengths=(0.5, 3.0)):
    """A dictionary in which one feature is read without the others, so that what is taken out is read as 0."""
    rows = torch.linalg.qr(random(192, 192)).Q * torch.linspace(*lengths, 192)[:, None]
    return SparseAutoencoder(
        site,
        rows / rows.square().sum(1, keepdim=True),
        torch.zeros(192),
        rows,
        torch.zeros(192),
        Activation("relu"),
        Normalization(kind="none"),
        scale=Scale(torch.linspace(20, 30, BINS)),
    )


def unscaled():
    made = make_dictionary(SITE, 192)
    made.scale = made.natural = None
    return made


def by_noise():
    made = make_dictionary(SITE, 192)
    std = torch.linspace(0.2, 5, 192)[None] * torch.linspace(1, 2, BINS)[:, None]
    made.normalization = Normalization(torch.zeros(BINS, 192), std, kind="sigma")
    return made


DICTIONARIES = {
    "orthogonal": orthogonal(),
    "unscaled": unscaled(),
    "by-noise": by_noise(),
    "neurons": Neurons("double.1.img.mlp", random(768, 192), 64),
}
TWO = SteeringVector(
    {SITE: random(192, seed=1), NEXT: 3 * random(192, seed=2)},
    {SITE: Scale(torch.linspace(1, 3, BINS)), NEXT: Scale(torch.linspace(2, 5, BINS))},
    Provenance(model={"family": "flux1", "name": "fluxtionary-demo"}),
)
VECTORS = {
    "two": TWO,
    "bare": SteeringVector({SITE: TWO.directions[SITE]}),
    "wide-vector": SteeringVector({SITE: random(256)}),
    "deep-vector": SteeringVector({"double.7.img": random(192)}),
    "with-text": SteeringVector({SITE: random(192), TEXT_SITE: random(192)}),
}


@pytest.fixture(scope="module", autouse=True)
def files(comfy):
    models = comfy.base / "models"
    made = [models / "flux_dictionaries" / f"{name}.safetensors" for name in DICTIONARIES]
    made += [models / "flux_steering_vectors" / f"{name}.safetensors" for name in VECTORS]
    for path, thing in zip(made, (DICTIONARIES | VECTORS).values(), strict=True):
        path.parent.mkdir(exist_ok=True)
        save_dictionary(thing, path)
    yield
    for path in made:
        path.unlink(missing_ok=True)


@pytest.fixture(scope="module")
def demo(comfy):
    return load_dictionary(comfy.base / "custom_nodes" / "a-b.c" / "demo" / "models" / "dictionaries" / DEMO)


class Bench(Flow):
    """A model with taps before what is tested, and watches after it."""

    def loaded(self, name):
        return self.add("FluxtionaryLoadDictionary", dictionary=f"{name.removesuffix('.safetensors')}.safetensors")

    def feature(self, model, dictionary=DEMO, feature=FEATURE, **options):
        return self.steer(
            model, feature, dictionary=f"{dictionary.removesuffix('.safetensors')}.safetensors", **options
        )

    def vector(self, model, name="two", strength=0.5, **options):
        vector = self.add("FluxtionaryLoadSteeringVector", vector=f"{name}.safetensors")
        settings = {"start_percent": 0.0, "end_percent": 1.0, "rows": "cond"} | options
        return self.add(VECTOR, model=model, vector=vector, strength=strength, **settings)

    def splice(self, model, error="drop", dictionary=DEMO, **options):
        settings = {"start_percent": 0.0, "end_percent": 1.0, "rows": "cond"} | options
        return self.add(SPLICE, model=model, dictionary=self.loaded(dictionary), error=error, **settings)

    def floats(self, *numbers):
        return self.add("NeighbourFloats", numbers=json.dumps(numbers))

    def shaped(self, *shape, spoil=""):
        return self.add("NeighbourMask", shape=json.dumps(shape), spoil=spoil)


def seen(comfy, build, batch=1, sites=(SITE,), sigmas=SIGMAS):
    """Every step of a run: `(sigma, before, after)`, both by site. `build(bench, model)` gives the steered model."""
    bench = Bench()
    model = bench.model
    for site in sites:
        model = bench.add("NeighbourKeepTap", model=model, site=site, name=f"before-{site}")
    model = build(bench, model)
    for block in {0, 1} if NEXT in sites else {0}:
        model = bench.watch(model, f"after-{block}", block=block)
    written = ", ".join(str(sigma) for sigma in (*sigmas, 0.0))
    bench.save(bench.custom(model, written, batch))
    comfy.run(bench)
    own = {SITE: (0, IMAGE), TEXT_SITE: (0, TEXT), NEXT: (1, IMAGE)}
    before = {site: calls(comfy, f"before-{site}") for site in sites}
    after = {block: calls(comfy, f"after-{block}") for block in {own[site][0] for site in sites}}
    steps = []
    for i, sigma in enumerate(sigmas):
        found = {site: after[own[site][0]][i]["img"][:, own[site][1]] for site in sites}
        assert float(after[0][i]["sigma"]) == pytest.approx(sigma)
        steps.append((sigma, {site: before[site][i]["img"] for site in sites}, found))
    return steps


def close(found, expected, rtol=1e-3, atol=1e-3):
    assert torch.allclose(found, expected, rtol=rtol, atol=atol), float((found - expected).abs().max())


def added(dictionary, feature, strength, sigma):
    direction = dictionary.direction(feature)
    return strength * dictionary.scale.at(sigma) * direction / direction.norm()


# what add does


def test_without_the_new_inputs_it_is_what_it_was(comfy, demo):
    """Workflows that know nothing of modes and schedules get the same as those that name the defaults, to the bit."""
    defaults = {"mode": "add", "stream": "as the dictionary", "schedule": "constant"}
    old, named = (
        latents(comfy, lambda flow, options=options: flow.steer(flow.model, FEATURE, 0.4, DEMO, **options))
        for options in ({}, defaults)
    )
    assert torch.equal(old, named) and not torch.equal(old, latents(comfy, plain))
    for sigma, before, after in seen(comfy, lambda bench, model: bench.feature(model, strength=0.4)):
        expected = before[SITE] + added(demo, FEATURE, 0.4, sigma)
        assert torch.equal(after[SITE], expected)


SHAPES = {
    "ramp up": lambda share: share,
    "ramp down": lambda share: 1 - share,
    "cosine": lambda share: 0.5 * (1 + math.cos(math.pi * share)),
}


@pytest.mark.parametrize("schedule", SHAPES)
def test_a_schedule_runs_through_the_window(comfy, demo, schedule):
    options = {"schedule": schedule, "start_percent": START, "end_percent": END}
    for sigma, before, after in seen(comfy, lambda bench, model: bench.feature(model, strength=0.6, **options)):
        share = (1 - sigma - START) / (END - START)
        factor = SHAPES[schedule](share) if 0 <= share < 1 else 0.0
        assert torch.equal(after[SITE], before[SITE]) == (factor == 0)
        close(after[SITE] - before[SITE], factor * added(demo, FEATURE, 0.6, sigma).expand_as(before[SITE]), 5e-3)


@pytest.mark.parametrize("numbers", [(1.0, 0.0, -2.0), (0.25,), tuple(math.sin(i) for i in range(100))])
def test_given_strengths_replace_the_schedule(comfy, demo, numbers):
    def build(bench, model):
        options = {"schedule": "cosine", "start_percent": START, "end_percent": END}
        return bench.feature(model, strength=0.6, strengths=bench.floats(*numbers), **options)

    for sigma, before, after in seen(comfy, build):
        share = (1 - sigma - START) / (END - START)
        factor = 0.0
        if 0 <= share < 1:
            place = share * (len(numbers) - 1)
            low = int(place)
            high = min(low + 1, len(numbers) - 1)
            factor = numbers[low] + (numbers[high] - numbers[low]) * (place - low)
        close(after[SITE] - before[SITE], factor * added(demo, FEATURE, 0.6, sigma).expand_as(before[SITE]), 5e-3)


@pytest.mark.parametrize(("stream", "changed"), [("txt", {TEXT_SITE}), ("img", {SITE}), ("both", {SITE, TEXT_SITE})])
def test_add_acts_on_the_asked_stream(comfy, demo, stream, changed):
    """On the stream that is not the dictionary's own, the scale is measured at the first call of the run."""
    steps = seen(comfy, lambda bench, model: bench.feature(model, strength=0.5, stream=stream), sites=(SITE, TEXT_SITE))
    measured = token_scale(steps[0][1][TEXT_SITE])
    unit = demo.direction(FEATURE) / demo.direction(FEATURE).norm()
    for sigma, before, after in steps:
        for site in (SITE, TEXT_SITE):
            size = demo.scale.at(sigma) if site == SITE else measured
            assert torch.equal(before[site], after[site]) == (site not in changed)
            if site in changed:
                close(after[site] - before[site], (0.5 * size * unit).expand_as(before[site]))


def test_a_dictionary_without_a_scale_adds_by_a_measured_one(comfy):
    steps = seen(comfy, lambda bench, model: bench.feature(model, "unscaled", 3, strength=0.5))
    measured, direction = token_scale(steps[0][1][SITE]), DICTIONARIES["unscaled"].direction(3)
    for _, before, after in steps:
        close(after[SITE] - before[SITE], (0.5 * measured * direction / direction.norm()).expand_as(before[SITE]))


def test_a_direction_follows_the_noise_level_where_its_dictionary_does(comfy):
    own = DICTIONARIES["by-noise"]
    for sigma, before, after in seen(comfy, lambda bench, model: bench.feature(model, "by-noise", 3, strength=5.0)):
        direction = own.normalization.frame(before[SITE], Noise(sigma)).gain * own.direction(3)
        expected = 5.0 * own.scale.at(sigma) * direction / direction.norm()
        close(after[SITE] - before[SITE], expected.expand_as(before[SITE]))


def test_a_neuron_is_added_where_it_writes(comfy):
    steps = seen(comfy, lambda bench, model: bench.feature(model, "neurons", 5, strength=0.5))
    measured, direction = token_scale(steps[0][1][SITE]), DICTIONARIES["neurons"].direction(5)
    for _, before, after in steps:
        close(after[SITE] - before[SITE], (0.5 * measured * direction / direction.norm()).expand_as(before[SITE]))


# taking out and setting


@pytest.mark.parametrize("strength", [1.0, 0.5, -1.0])
def test_ablate_leaves_what_it_did_not_take_out(comfy, strength):
    own = DICTIONARIES["orthogonal"]
    active = 0
    for _, before, after in seen(
        comfy, lambda bench, model: bench.feature(model, "orthogonal", 7, strength=strength, mode="ablate")
    ):
        codes = [own.encode(x[SITE]).dense(192) for x in (before, after)]
        active += int((codes[0][..., 7] > 0.1).sum())
        close(codes[1][..., 7], (1 - strength) * codes[0][..., 7])
        others = torch.arange(192) != 7
        close(codes[1][..., others], codes[0][..., others])
    assert active > 20


def test_ablate_follows_a_schedule(comfy):
    own = DICTIONARIES["orthogonal"]
    options = {"mode": "ablate", "schedule": "ramp down", "start_percent": 0.0, "end_percent": 1.0}
    for sigma, before, after in seen(
        comfy, lambda bench, model: bench.feature(model, "orthogonal", 7, strength=0.5, **options)
    ):
        codes = [own.encode(x[SITE]).coefficient(7) for x in (before, after)]
        close(codes[1], (1 - 0.5 * sigma) * codes[0])


@pytest.mark.parametrize("strength", [0.8, 0.0])
def test_clamp_sets_the_feature_everywhere(comfy, demo, strength):
    direction = demo.direction(FEATURE)
    for sigma, before, after in seen(comfy, lambda bench, model: bench.feature(model, strength=strength, mode="clamp")):
        target = strength * demo.scale.at(sigma) / direction.norm()
        change = target - demo.encode(before[SITE]).coefficient(FEATURE)
        close(after[SITE] - before[SITE], change[..., None] * direction)
    own = DICTIONARIES["orthogonal"]
    for sigma, _, after in seen(
        comfy, lambda bench, model: bench.feature(model, "orthogonal", 7, strength=strength, mode="clamp")
    ):
        length = own.encode(after[SITE]).coefficient(7) * own.direction(7).norm()
        # what a ReLU reads as 0 may lie below it; what is added to it is the same
        close(length.amax(), torch.tensor(strength * own.scale.at(sigma)))


def test_a_clamp_without_a_scale_is_of_the_code(comfy):
    own = DICTIONARIES["unscaled"]
    for _, before, after in seen(
        comfy, lambda bench, model: bench.feature(model, "unscaled", 3, strength=2.0, mode="clamp")
    ):
        change = 2.0 - own.encode(before[SITE]).coefficient(3)
        close(after[SITE] - before[SITE], change[..., None] * own.direction(3), atol=1e-2)


def clamps(one_loader, *settings):
    def build(flow):
        loaded, model = None, flow.model
        for feature, strength in settings:
            if loaded is None or not one_loader:
                loaded = flow.add("FluxtionaryLoadDictionary", dictionary=DEMO)
            model = flow.add(
                STEER,
                model=model,
                dictionary=loaded,
                feature=feature,
                strength=strength,
                start_percent=0.0,
                end_percent=1.0,
                rows="cond",
                mode="clamp",
            )
        return model

    return build


def test_clamps_of_two_loader_nodes_are_clamps_of_one(comfy):
    two = (FEATURE, 0.8), (3, 0.5)
    one_loader, two_loaders = (latents(comfy, clamps(one, *two)) for one in (True, False))
    assert torch.equal(one_loader, two_loaders)
    for alone in two:
        assert not torch.allclose(latents(comfy, clamps(True, alone)), one_loader, atol=1e-2)
    # of two clamps of one feature the last holds, from whichever loader it comes
    last = latents(comfy, clamps(True, (FEATURE, 0.8)))
    for one in (True, False):
        close(latents(comfy, clamps(one, (FEATURE, -0.5), (FEATURE, 0.8))), last)


# vectors


@pytest.mark.parametrize("site", ["", SITE, f" {NEXT} "])
def test_a_vector_acts_at_its_sites(comfy, site):
    for sigma, before, after in seen(
        comfy, lambda bench, model: bench.vector(model, strength=0.5, site=site), sites=(SITE, NEXT)
    ):
        for own in (SITE, NEXT):
            assert torch.equal(before[own], after[own]) == (site.strip() not in ("", own))
            if site.strip() in ("", own):
                expected = added(TWO.at(own), 0, 0.5, sigma)
                close(after[own] - before[own], expected.expand_as(before[own]))


@pytest.mark.parametrize("strength", [1.0, 0.5])
def test_ablating_a_vector_takes_its_projection_out(comfy, strength):
    for _, before, after in seen(
        comfy, lambda bench, model: bench.vector(model, strength=strength, mode="ablate", site=SITE)
    ):
        own = TWO.at(SITE)
        close(own.encode(after[SITE]).values, (1 - strength) * own.encode(before[SITE]).values)


def test_ablating_a_vector_twice_is_ablating_it_once(comfy):
    def build(bench, model):
        for _ in range(2):
            model = bench.vector(model, strength=1.0, mode="ablate", site=SITE)
        return model

    for _, _, after in seen(comfy, build):
        assert float(TWO.at(SITE).encode(after[SITE]).values.abs().max()) < 1e-4


def test_clamping_a_vector_sets_its_projection(comfy):
    for sigma, _, after in seen(comfy, lambda bench, model: bench.vector(model, strength=0.7, mode="clamp", site=SITE)):
        own = TWO.at(SITE)
        length = own.encode(after[SITE]).values * own.direction(0).norm()
        close(length, torch.full_like(length, 0.7 * own.scale.at(sigma)))


# splices


def test_a_splice_goes_on_with_the_reconstruction_alone(comfy, demo):
    for _, before, after in seen(comfy, lambda bench, model: bench.splice(model)):
        close(after[SITE], demo.reconstruct(before[SITE]), atol=1e-2)
        assert float((after[SITE] - before[SITE]).abs().mean()) > 0.1


def test_a_splice_that_keeps_the_error_changes_nothing_but_rounding(comfy):
    for _, before, after in seen(comfy, lambda bench, model: bench.splice(model, "keep")):
        close(after[SITE], before[SITE])
    kept, dropped, unspliced = (
        latents(comfy, lambda flow, build=build: build(as_bench(flow)))
        for build in (
            lambda bench: bench.splice(bench.model, "keep"),
            lambda bench: bench.splice(bench.model),
            lambda bench: bench.model,
        )
    )
    close(kept, unspliced, atol=1e-2)
    assert float((dropped - unspliced).abs().max()) > 0.1


def as_bench(flow):
    flow.__class__ = Bench
    return flow


def test_a_splice_follows_its_schedule_and_mask(comfy, demo):
    def build(bench, model):
        mask = bench.shaped(1, 128, 128)
        return bench.splice(model, schedule="ramp down", mask=mask)

    left = torch.zeros(8, 8)
    left[:, :4] = 1
    for sigma, before, after in seen(comfy, build):
        whole = demo.reconstruct(before[SITE]) - before[SITE]
        close(after[SITE] - before[SITE], sigma * left.flatten()[None, :, None] * whole, atol=1e-2)


# masks


@pytest.mark.parametrize(
    ("shape", "mode"),
    [
        ((1, 1, 1), "add"),
        ((1, 80, 96), "add"),
        ((1, 80, 96), "clamp"),
        ((96, 80), "add"),
        ((3, 33, 17), "add"),
        ((2, 64, 64), "clamp"),
    ],
)
def test_masks_of_every_size_and_batch(comfy, demo, shape, mode):
    def build(bench, model):
        return bench.feature(model, strength=0.8, mode=mode, mask=bench.shaped(*shape))

    mask = torch.zeros(shape)
    mask[..., : -(-shape[-1] // 2)] = 1
    weights = token_mask(mask, (8, 8))
    for sigma, before, after in seen(comfy, build, batch=3, sigmas=(1.0, 0.4)):
        change = added(demo, FEATURE, 0.8, sigma)
        if mode == "clamp":
            change = change - demo.encode(before[SITE]).coefficient(FEATURE)[..., None] * demo.direction(FEATURE)
        expected = weights[[i % len(weights) for i in range(3)]][..., None] * change
        close(after[SITE] - before[SITE], expected.expand_as(before[SITE]), atol=5e-3)


def test_each_picture_of_a_batch_takes_its_own_mask(comfy, demo):
    def build(bench, model):
        masks = [bench.add("SolidMask", value=value, width=32, height=48) for value in (0.0, 0.5, 1.0)]
        images = [bench.add("MaskToImage", mask=mask) for mask in masks]
        pair = bench.add("ImageBatch", image1=images[0], image2=images[1])
        mask = bench.add("ImageToMask", image=bench.add("ImageBatch", image1=pair, image2=images[2]), channel="red")
        return bench.feature(model, strength=0.8, mask=mask)

    for sigma, before, after in seen(comfy, build, batch=3, sigmas=(1.0, 0.4)):
        factors = torch.tensor([0.0, 0.5, 1.0])[:, None, None]
        assert torch.equal(before[SITE][0], after[SITE][0])
        close(after[SITE] - before[SITE], (factors * added(demo, FEATURE, 0.8, sigma)).expand_as(before[SITE]))


# nothing


@pytest.mark.parametrize("mode", ["add", "ablate"])
@pytest.mark.parametrize("kind", ["feature", "vector"])
def test_strength_0_changes_nothing_to_the_bit(comfy, mode, kind):
    def build(flow):
        return getattr(as_bench(flow), kind)(flow.model, strength=0.0, mode=mode)

    assert torch.equal(latents(comfy, build), latents(comfy, plain))


def test_factors_of_0_change_nothing_to_the_bit(comfy):
    def build(flow):
        bench = as_bench(flow)
        return bench.splice(bench.feature(bench.model, strengths=bench.floats(0, 0)), strengths=bench.floats(0.0))

    assert torch.equal(latents(comfy, build), latents(comfy, plain))


# what it says


def about(comfy, build):
    bench = Bench()
    bench.add("PreviewAny", source=[build(bench)[0], 1])
    return next(output["text"][0] for output in comfy.run(bench).values() if "text" in output)


def test_it_says_what_it_does(comfy, demo):
    natural = (
        f"feature {FEATURE} of fluxtionary-demo.double.1.img: natural strength {float(demo.natural[FEATURE]):.2f}; "
    )
    for options, words in (
        ({"strength": 0.4}, "adding 0.40"),
        ({"strength": 0.4, "schedule": "ramp up"}, "adding 0.40, ramp up"),
        ({"strength": 0.5, "mode": "ablate"}, "taking out 50%"),
        ({"strength": -0.5, "mode": "clamp"}, "setting it to -0.50"),
        (
            {"strength": 0.4, "stream": "both"},
            "adding 0.40 (of a scale measured in each run at double.1.txt) at double.1.img and double.1.txt",
        ),
    ):
        text = about(comfy, lambda bench, options=options: bench.feature(bench.model, **options))
        assert text == natural + words
    for name, options, words in (
        (
            "unscaled",
            {},
            "3 of double.1.img: natural strength not in the file; adding 1.00 (of a scale measured in each",
        ),
        ("unscaled", {"mode": "clamp"}, "setting it to 1.00 (as a code: the file has no scale for double.1.img)"),
        ("by-noise", {}, "adding 1.00, along a direction that follows the noise level"),
        ("neurons", {}, "adding 1.00 (of a scale measured in each run at double.1.img) at double.1.img"),
    ):
        text = about(comfy, lambda bench, name=name, options=options: bench.feature(bench.model, name, 3, **options))
        assert words in text
    assert about(comfy, lambda bench: bench.vector(bench.model, strengths=bench.floats(1, 2))) == (
        "vector of fluxtionary-demo at double.1.img and single.0.img: adding 0.50, times 2 strengths"
    )
    assert "(of a scale measured in each run at double.1.img)" in about(
        comfy, lambda bench: bench.vector(bench.model, "bare")
    )


# what does not fit


def steer(**options):
    return lambda bench: bench.feature(bench.model, **options)


def steer_masked(*shape, spoil="", **options):
    return lambda bench: bench.feature(bench.model, mask=bench.shaped(*shape, spoil=spoil), **options)


def steer_by(*numbers):
    return lambda bench: bench.feature(bench.model, strengths=bench.floats(*numbers))


def vector(name="two", **options):
    return lambda bench: bench.vector(bench.model, name, **options)


@pytest.mark.parametrize(
    ("build", "kind", "words"),
    [
        (steer(feature=100_000), STEER, "feature 100000.*features 0 to 1535"),
        (steer(feature=100_000, mode="clamp"), STEER, "feature 100000.*features 0 to 1535"),
        (steer(strength=math.nan), STEER, "strength: expected a finite number, found nan"),
        (steer(strength=math.nan, mode="ablate"), STEER, "strength: expected a finite number, found nan"),
        (steer(start_percent=0.6, end_percent=0.4), STEER, "start_percent and end_percent.*start 0.6 and end 0.4"),
        (steer(start_percent=math.nan), STEER, "start_percent and end_percent.*start nan"),
        (steer(dictionary="wide", feature=3), STEER, "192 wide.*256 wide"),
        (steer(dictionary="wide", feature=3, mode="clamp"), STEER, "192 wide.*256 wide"),
        (steer(dictionary="deep", feature=3), STEER, r"no double\.7\.img"),
        (steer(dictionary="neurons", feature=3, mode="clamp"), STEER, "mode: expected add.*neurons.*clamp.*gate"),
        (steer(mode="ablate", stream="txt"), STEER, r"stream: expected as the dictionary \(img\).*found txt.*mode add"),
        (steer(mode="clamp", stream="both"), STEER, "stream: expected.*found both"),
        (steer_masked(1, 8, 8, stream="txt"), STEER, r"mask.*found double\.1\.txt: take the mask out.*double\.1\.img"),
        (steer_masked(1, 8, 8, stream="both"), STEER, r"mask.*found double\.1\.txt: take the mask out"),
        (steer_masked(1, 8, 8, spoil="nan"), STEER, "mask: expected a finite number in every pixel"),
        (steer_masked(1, 0, 8), STEER, r"mask: expected .*pixels in it, found shape \(1, 0, 8\)"),
        (steer_masked(0, 8, 8), STEER, r"mask: expected .*found shape \(0, 8, 8\)"),
        (steer_by(), STEER, "strengths: expected a list of one number at least, found an empty one"),
        (steer_by(1.0, math.nan), STEER, "strengths, number 2 of 2: expected a finite number, found nan"),
        (steer_by("loud"), STEER, "strengths: expected a list of numbers.*loud"),
        (
            vector(site="single.3.img"),
            VECTOR,
            r"site: expected one of double\.1\.img, single\.0\.img.*'single\.3\.img'",
        ),
        (vector(strength=math.nan), VECTOR, "strength: expected a finite number, found nan"),
        (vector("wide-vector"), VECTOR, "192 wide.*256 wide"),
        (vector("deep-vector"), VECTOR, r"no double\.7\.img"),
        (
            lambda bench: bench.vector(bench.model, "with-text", mask=bench.shaped(1, 8, 8)),
            VECTOR,
            r"mask.*found double\.1\.txt: take the mask out",
        ),
        (lambda bench: bench.splice(bench.model, dictionary="wide"), SPLICE, "192 wide.*256 wide"),
        (lambda bench: bench.splice(bench.model, dictionary="neurons"), SPLICE, "tapped but not edited"),
        (
            lambda bench: bench.splice(bench.model, mask=bench.shaped(1, 8, 8, spoil="inf")),
            SPLICE,
            "mask: expected a finite number",
        ),
    ],
)
def test_what_does_not_fit_is_an_error_on_its_node(comfy, build, kind, words):
    bench = Bench()
    bench.save(bench.sample(build(bench), steps=1))
    with pytest.raises(NodeError, match=words) as error:
        comfy.run(bench)
    assert bench.nodes[error.value.node]["class_type"] == kind
    assert latents(comfy, lambda flow: flow.steer(flow.model), steps=1).isfinite().all()


@pytest.mark.parametrize(("name", "value"), [("mode", "remove"), ("stream", "sound"), ("schedule", "zigzag")])
def test_choices_that_do_not_exist_are_refused(comfy, name, value):
    bench = Bench()
    bench.save(bench.sample(bench.feature(bench.model, **{name: value})))
    with pytest.raises(NodeError, match=value):
        comfy.run(bench)
