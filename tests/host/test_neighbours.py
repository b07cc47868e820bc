"""Living with others: in each situation, which rows, tokens and steps are steered and kept, and that nothing else is.

Watches of another pack stand at the inputs of single blocks 0 and 2, right after the sites `double.1.img` and
`single.1.img`: they see what steering did to the stream, and what a capture of it must have kept.
"""

import re
from pathlib import Path
from typing import NamedTuple

import pytest
import torch

from fluxtionary.demo import files
from fluxtionary.dictionaries import load_dictionary

from .comfy_server import NodeError
from .flow import DEMO, Flow
from .living import LIVING, ModelCall, Situation, write_files
from .watching import IMAGE, TEXT, calls, changed_tokens, latents, plain

FEATURE = 3
BEHIND = {"double.1.img": 0, "single.1.img": 2}
"""The single block whose input a site is."""
STEER = {
    "double.1.img": {"feature": FEATURE, "dictionary": DEMO, "strength": 1.0},
    "single.1.img": {"feature": FEATURE, "dictionary": "single.safetensors", "strength": 20.0},
}

pytestmark = [pytest.mark.usefixtures("living"), pytest.mark.long]


class Seen(NamedTuple):
    """A run: its latents, and what the Watches saw, by single block."""

    latent: torch.Tensor
    inputs: dict[int, list[dict]]


@pytest.fixture(scope="module")
def living(comfy, mask_file):
    write_files(comfy)


@pytest.fixture(scope="module")
def undisturbed(comfy, living):
    """Runs of situations without our nodes, each made once."""
    made = {}

    def run(name):
        if name not in made:
            made[name] = seen(comfy, LIVING[name])
        return made[name]

    return run


def seen(comfy, situation: Situation, before=None, after=None) -> Seen:
    """Run a situation; `before` and `after` put our nodes on the model, under the neighbor or on top of it."""
    for earlier in (comfy.base / "output").glob("*.safetensors"):
        earlier.unlink()  # nothing is taken for what this run kept
    flow = Flow()
    model = before(flow, flow.model) if before else flow.model
    model = situation.wrap(flow, model)
    for block in BEHIND.values():
        model = flow.watch(model, f"behind-{block}", block=block)
    if after:
        model = after(flow, model)
    saved = flow.save(situation.sample(flow, model))
    outputs = comfy.run(flow)
    return Seen(comfy.latent(outputs, saved), {block: calls(comfy, f"behind-{block}") for block in BEHIND.values()})


def steer(site, **options):
    return lambda flow, model: flow.steer(model, **STEER[site] | options)


def expected_change(comfy, site, sigma):
    """`strength * scale(sigma) * d/|d|`, from the dictionary's file."""
    own = STEER[site]
    folder = files.DICTIONARIES if own["dictionary"] == DEMO else comfy.base / "models" / "flux_dictionaries"
    dictionary = load_dictionary(folder / own["dictionary"])
    direction = dictionary.direction(own["feature"]).float()
    return own["strength"] * dictionary.scale.at(sigma) * direction / direction.norm()


def conditionings(call) -> list[int]:
    return call["cond_or_uncond"].tolist()


def shape_of(call):
    """Sorted roles and number of tokens: what a call and a `ModelCall` have in common."""
    if isinstance(call, ModelCall):
        return sorted(call.roles), call.tokens
    return sorted(conditionings(call)), call["img"].shape[1]


def evaluations(situation, found):
    """What a Watch saw, in lots of the calls of one evaluation, and the `ModelCall` of each."""
    size = len(situation.calls)
    assert len(found) % size == 0
    for start in range(0, len(found), size):
        lot = sorted(found[start : start + size], key=shape_of)
        kinds = sorted(situation.calls, key=shape_of)
        assert [shape_of(call) for call in lot] == [shape_of(kind) for kind in kinds]
        yield list(zip(lot, kinds, strict=True))


@pytest.mark.parametrize("name", LIVING)
def test_a_situation_is_what_it_says(undisturbed, name):
    """Rows, tokens and sigmas of the calls that the host makes; caches skip some, and never the first."""
    situation = LIVING[name]
    for found in undisturbed(name).inputs.values():
        lots = list(evaluations(situation, found))
        sigmas = [float(lot[0][0]["sigma"]) for lot in lots]
        if situation.cached:
            assert sigmas[0] == 1 and len(sigmas) < len(situation.sigmas)
            assert set(sigmas) < set(situation.sigmas)
        else:
            assert sigmas == pytest.approx(situation.sigmas)
        for call, kind in (pair for lot in lots for pair in lot):
            assert len(call["img"]) == situation.pictures * len(kind.roles)


@pytest.mark.parametrize("site", STEER)
@pytest.mark.parametrize("name", LIVING)
def test_steering_moves_its_rows_tokens_and_steps_and_no_others(comfy, undisturbed, name, site):
    """From the middle of sampling on: up to then all equals the run without us, to the bit; then the positive rows'
    picture tokens are moved by strength * scale * direction, and all else still equals it."""
    situation = LIVING[name]
    before = undisturbed(name)
    after = seen(comfy, situation, after=steer(site, start_percent=1 - situation.middle))
    pairs = zip(
        evaluations(situation, before.inputs[BEHIND[site]]),
        evaluations(situation, after.inputs[BEHIND[site]]),
        strict=False,  # a steered run may skip other steps
    )
    early = 0
    for ones, others in pairs:
        sigma = float(ones[0][0]["sigma"])
        for (one, kind), (other, _) in zip(ones, others, strict=True):
            assert conditionings(one) == conditionings(other)
            if sigma > situation.middle:
                assert torch.equal(one["img"], other["img"])
            else:
                check_moved(one, other, kind, situation.pictures, expected_change(comfy, site, sigma))
        if sigma < situation.middle:
            break  # later steps start from other latents
        early += 1
    else:
        pytest.fail("no step was steered")
    assert early
    assert not torch.allclose(before.latent, after.latent, atol=1e-2)


def check_moved(one, other, kind, pictures, expected):
    image = slice(kind.text, kind.text + kind.image)
    asked = torch.zeros(one["img"].shape[:2], dtype=torch.bool)
    for chunk, number in enumerate(conditionings(one)):
        asked[pictures * chunk : pictures * (chunk + 1), image] = number == 0
    assert torch.equal(changed_tokens(one, other), asked)
    moved = (other["img"] - one["img"])[asked]
    if len(moved):
        assert (moved - expected).norm(dim=-1).max() < 1e-3 * expected.norm()


@pytest.mark.parametrize("name", [name for name, situation in LIVING.items() if situation.wraps])
def test_the_neighbor_works_on_and_order_does_not_matter(comfy, undisturbed, name):
    situation = LIVING[name]
    alone = seen(comfy, Situation(sample=situation.sample)).latent
    without_us = undisturbed(name).latent
    if situation.alike:
        assert torch.allclose(without_us, alone, atol=1e-3)
    else:
        assert not torch.allclose(without_us, alone, atol=1e-3)
    ours_last = seen(comfy, situation, after=steer("double.1.img")).latent
    only_us = seen(comfy, Situation(sample=situation.sample), after=steer("double.1.img")).latent
    assert torch.allclose(ours_last, only_us, atol=1e-3) == situation.alike
    if not situation.loads:
        assert torch.equal(seen(comfy, situation, before=steer("double.1.img")).latent, ours_last)


@pytest.mark.parametrize("name", LIVING)
def test_a_capture_holds_the_picture_s_tokens_of_every_computed_call(comfy, undisturbed, name):
    """Two taps together: rows, tokens, roles and sigmas of each record, and the very bits that the next block got.

    The picture stays equal to the bit. A ControlNet adds to the stream behind the block; the capture is without it.
    """
    situation = LIVING[name]
    before = undisturbed(name)

    def tap(flow, model):
        for site in BEHIND:
            model = flow.add("NeighbourKeepTap", model=model, site=site, name=f"kept-{site}")
        return model

    assert torch.equal(seen(comfy, situation, after=tap).latent, before.latent)
    for site, block in BEHIND.items():
        kept = calls(comfy, f"kept-{site}")
        stream = [pair for lot in in_order(situation, before.inputs[block]) for pair in lot]
        assert len(kept) == len(stream)
        for record, (call, kind) in zip(kept, stream, strict=True):
            image = call["img"][:, kind.text : kind.text + kind.image]
            numbers = torch.tensor(conditionings(call)).repeat_interleave(situation.pictures)
            assert record["img"].shape == (situation.pictures * len(kind.roles), kind.image, 192)
            assert torch.equal(record["sigma"], call["sigma"])
            assert torch.equal(record["rows"], numbers)
            added = (image - record["img"])[numbers == 0]
            if name == "ControlNet" and len(added):
                assert 4 < added.std() < 6
            else:
                assert torch.equal(record["img"], image)


def in_order(situation, found):
    """As `evaluations`, in the order in which the host made the calls."""
    kinds = {tuple(map(str, shape_of(kind))): kind for kind in situation.calls}
    return [[(call, kinds[tuple(map(str, shape_of(call)))])] for call in found]


def test_a_cache_says_how_many_calls_it_kept_from_us(comfy):
    for name in ("EasyCache", "LazyCache"):
        start = len(comfy.log())
        found = seen(comfy, LIVING[name], after=steer("double.1.img"))
        log = comfy.log()[start:]
        skipped, total = map(int, re.search(rf"{name} - skipped (\d+)/(\d+) steps", log).groups())
        assert total == 8 and 0 < skipped == 8 - len(found.inputs[0])
        # LazyCache skips before the model is asked at all, which only it can count
        said = re.findall(r"Steer With Feature: (\d+) model calls were skipped by a cache and not steered", log)
        assert said == ([str(skipped)] if name == "EasyCache" else [])


def test_a_patcher_of_another_class_stays_what_it_is(comfy):
    flow = Flow()
    model = flow.steer(flow.add("NeighbourLoadBlocks", model=flow.model))
    told = [flow.add("NeighbourDescribe", model=which) for which in (model, flow.steer(flow.model))]
    outputs = comfy.run(flow)
    assert [outputs[node[0]]["text"] for node in told] == [["BlockPatcher", "True"], ["ModelPatcher", "None"]]


def test_a_model_compiled_as_a_whole_is_steered_all_the_same(comfy):
    """In a window of its steps, whichever comes first: the picture is the one drawn without compiling."""
    window = {"start_percent": 0.2, "end_percent": 0.6}

    def compiled(flow, model):
        return flow.add("NeighbourCompile", model=model, what="model")

    expected = latents(comfy, lambda flow: flow.steer(flow.model, **window))
    for other in (latents(comfy, plain), latents(comfy, lambda flow: flow.steer(flow.model))):
        assert not torch.allclose(expected, other, atol=1e-2)
    for build in (
        lambda flow: flow.steer(compiled(flow, flow.model), **window),
        lambda flow: compiled(flow, flow.steer(flow.model, **window)),
    ):
        assert torch.allclose(latents(comfy, build), expected, atol=1e-3)


def test_nodes_at_several_places_add_up(comfy):
    """Text and picture of one block, and another block: each moves its own tokens, in any order of the nodes."""
    parts = {
        "double.0.txt": {"feature": 5, "dictionary": "text.safetensors", "strength": 30.0},
        "double.1.img": STEER["double.1.img"],
        "single.1.img": STEER["single.1.img"],
    }
    watches = (("double_block", 1), ("single_block", 0), ("single_block", 2))

    def run(names):
        flow = Flow()
        model = flow.model
        for stage, block in watches:
            model = flow.watch(model, f"several-{stage}-{block}", stage, block)
        for name in names:
            model = flow.steer(model, **parts[name])
        saved = flow.save(flow.sample(model))
        latent = comfy.latent(comfy.run(flow), saved)
        return latent, {where: calls(comfy, f"several-{where[0]}-{where[1]}")[0] for where in watches}

    nothing, before = run([])
    latent, after = run(parts)
    assert torch.equal(run(reversed(parts))[0], latent)
    alone = {name: run([name]) for name in parts}
    for found, _ in alone.values():
        assert not torch.allclose(found, latent, atol=1e-2) and not torch.allclose(found, nothing, atol=1e-2)

    def changed(found, where, stream="img"):
        return (found[where][stream] != before[where][stream]).any(-1)[0]

    assert changed(after, watches[0], "txt").all() and not changed(after, watches[0]).any()
    _, image_only = alone["double.1.img"]
    assert not changed(image_only, watches[0], "txt").any() and not changed(image_only, watches[0]).any()
    assert changed(image_only, watches[1])[IMAGE].all() and not changed(image_only, watches[1])[TEXT].any()
    _, late_only = alone["single.1.img"]
    assert not changed(late_only, watches[1]).any()
    assert changed(late_only, watches[2])[IMAGE].all() and not changed(late_only, watches[2])[TEXT].any()


def test_a_mask_follows_the_tile_of_tiled_sampling(comfy, mask_file):
    """A tile is a picture of its own, sampled by itself or only computed by itself: the mask lies over each tile."""

    def own_run(flow, model):
        return flow.sample(model, latent=flow.empty(1, 64, 128))

    def own_call(flow, model):
        return flow.sample(flow.add("NeighbourTiles", model=model, together=False))

    left = torch.zeros(8, 4, dtype=torch.bool)
    left[:, :2] = True
    for sample, tiles in ((own_run, 1), (own_call, 2)):
        tiled = Situation(sample=sample, calls=(ModelCall(image=32),) * tiles)
        before = seen(comfy, tiled)
        after = seen(comfy, tiled, after=lambda flow, model: flow.steer(model, mask=flow.mask(mask_file)))
        first = zip(before.inputs[0][:tiles], after.inputs[0][:tiles], strict=True)
        for one, other in first:
            changed = changed_tokens(one, other)
            assert changed.shape == (1, 16 + 32)
            assert torch.equal(changed[0, 16:], left.flatten()) and not changed[0, :16].any()


def test_tiles_in_one_batch_keep_their_roles(comfy):
    """Two tiles of two conditionings each, in one call of four rows: tile after tile, roles as in each tile's own."""

    def sample(flow, model):
        return flow.sample(flow.add("NeighbourTiles", model=model, together=True), cfg=3.0)

    tiled = Situation(sample=sample)
    before = seen(comfy, tiled).inputs[0][0]
    after = seen(comfy, tiled, after=steer("double.1.img")).inputs[0][0]
    changed = changed_tokens(before, after)
    assert changed.shape == (4, 16 + 32) and not changed[:, TEXT].any()
    roles = torch.tensor(conditionings(before) * 2)
    assert torch.equal(changed[:, 16:], (roles == 0)[:, None].expand(-1, 32))


@pytest.mark.parametrize("what", ["blocks", "model"])
def test_hidden_units_are_heard_in_what_was_compiled_before(comfy, what):
    """A tap on `.mlp` listens by a hook, which code compiled without it knows nothing of."""
    sites = ("double.1.img.mlp", "double.1.txt.mlp", "single.1.img.mlp")

    def run(compiled, tapped):
        flow = Flow()
        model = flow.add("NeighbourCompile", model=flow.model, what=what) if compiled else flow.model
        for site in sites if tapped else ():
            model = flow.add("NeighbourKeepTap", model=model, site=site, name=f"units-{site}")
        flow.save(flow.sample(model, steps=2, seed=0 if tapped else 5))
        comfy.run(flow)
        return [calls(comfy, f"units-{site}") for site in sites] if tapped else None

    expected = run(False, True)
    for site in sites:
        (comfy.base / "output" / f"units-{site}.safetensors").unlink()
    run(True, False)
    for ones, others in zip(run(True, True), expected, strict=True):
        assert len(ones) == len(others) == 2
        for one, other in zip(ones, others, strict=True):
            assert torch.allclose(one["img"], other["img"], atol=1e-3)


@pytest.mark.parametrize(("kind", "found"), [("chroma", "Chroma"), ("flux 2", "Flux 2")])
def test_relatives_of_flux_1_are_refused(comfy, kind, found):
    """Of the same width and depth, so that nothing else would stop them."""
    flow = Flow()
    flow.save(flow.sample(flow.steer(flow.add("NeighbourRelative", model=flow.model, kind=kind))))
    with pytest.raises(NodeError, match=f"expected a Flux 1 model.*found {found}") as error:
        comfy.run(flow)
    assert flow.nodes[error.value.node]["class_type"] == "FluxtionarySteerWithFeature"


def test_twenty_steered_runs_leave_memory_as_it_was(comfy):
    """Process memory within 5 %, and the bytes of live tensors and the pack's own objects not one more."""
    memory = Path(f"/proc/{comfy.process.pid}/statm")

    def resident():
        return int(memory.read_text().split()[1])

    def run(seed, counted=False):
        flow = Flow()
        model = flow.steer(flow.model, strength=0.5 + seed / 100)
        latent = flow.sample(model, latent=flow.empty(4), seed=seed, cfg=3.0, steps=2)
        flow.save(latent)
        told = flow.add("NeighbourCensus", after=latent, number=seed) if counted else None
        outputs = comfy.run(flow)
        return outputs[told[0]] if told else None

    for seed in range(8):
        run(seed)
    start = run(8, counted=True)
    first = resident()
    for seed in range(9, 28):
        run(seed)
    end = run(28, counted=True)
    last = resident()
    comfy.figures["memory after 20 more steered runs, share of before"] = last / first
    assert abs(last / first - 1) < 0.05
    assert end["kinds"] == start["kinds"]
    assert end["bytes"][0] <= start["bytes"][0]


@pytest.mark.parametrize("name", LIVING)
def test_a_situation_leaves_the_plain_model_as_it_was(comfy, undisturbed, name):
    """Last: after all of the above every situation draws what it drew first, to the bit."""
    assert torch.equal(seen(comfy, LIVING[name]).latent, undisturbed(name).latent)
