import pytest
import torch

from fluxtionary.dictionaries import Scale
from fluxtionary.dictionaries.scale import BINS
from fluxtionary.residual import Add, Clamp, Moment, Plan, Row, Run, Site, Tap
from fluxtionary.residual.block_chain import Call, batch_rows, block_key, chain, crop_area, token_grid
from fluxtionary.residual.diffusers_host import attach

from ..conftest import make_dictionary
from .block_driver import drive, inputs, listener

DIRECTION = torch.linspace(-1, 1, 128)
SCALE = Scale(torch.full((BINS,), 40.0))
MASK = torch.zeros(32, 32)
MASK[:16] = 1


def chained(flux, plan, given, text=16, foreign=None, **options):
    """The driver's output under a plan, its run, and the blocks that were reached."""
    batch = len(given["hidden_states"])
    moment = Moment(0.5, tuple(Row("cond", i) for i in range(batch)), (8, 8))
    run, call = Run(plan), Call(moment, 64, text)
    dit = chain(foreign or {}, plan.sites(), run, call, listener(flux))
    return drive(flux, given, dit, **options), run, call


def plans():
    dictionary, single = make_dictionary("double.1.img"), make_dictionary("single.0.img")
    return {
        "add, double image": Plan([Add("double.1.img", DIRECTION, 1.0, SCALE)]),
        "add, double text": Plan([Add("double.0.txt", DIRECTION, 1.0, SCALE)]),
        "add, single image": Plan([Add("single.0.img", DIRECTION, 1.0, SCALE)]),
        "add, single text": Plan([Add("single.0.txt", DIRECTION, 1.0, SCALE)]),
        "masked, double image": Plan([Add("double.0.img", DIRECTION, 1.0, SCALE, mask=MASK)]),
        "masked, single image": Plan([Add("single.1.img", DIRECTION, 1.0, SCALE, mask=MASK)]),
        "clamp, double image": Plan([Clamp("double.1.img", dictionary, {3: 20.0})]),
        "clamp, single image": Plan([Clamp("single.0.img", single, {3: 20.0})]),
        "measured scale": Plan([Add("double.1.img", DIRECTION, 1.0)]),
        "several": Plan(
            [
                Add("single.0.txt", DIRECTION, 1.0, SCALE),
                Clamp("double.1.img", dictionary, {3: 20.0, 5: 1.0}),
                Add("double.1.img", DIRECTION, -1.0, SCALE, mask=MASK),
            ]
        ),
    }


def test_the_driver_is_the_model(random_flux):
    for options in ({}, {"batch": 2}, {"text": 9}, {"reference": 8}):
        given = inputs(**options)
        with torch.no_grad():
            expected = random_flux.transformer(**given, return_dict=False)[0]
        assert torch.equal(drive(random_flux.transformer, given), expected)


@pytest.mark.parametrize("name", plans())
@pytest.mark.parametrize("reference", [0, 8])
def test_a_chained_plan_is_the_attached_plan(name, reference, random_flux):
    given = inputs(batch=2, reference=reference)
    flux = random_flux.transformer
    plan = plans()[name]
    with attach(random_flux, plan), torch.no_grad():
        expected = flux(**given, return_dict=False)[0]
    found, _, _ = chained(flux, plan, given)
    assert torch.allclose(found, expected, atol=1e-5)
    assert not torch.allclose(found, drive(flux, given), atol=1e-3)


SITES = ["double.1.img", "double.0.txt", "single.0.img", "single.1.txt"]


@pytest.mark.parametrize("part", ["", ".update", ".mlp"])
def test_taps_see_what_attached_taps_see(part, random_flux):
    given, flux = inputs(batch=2, reference=8), random_flux.transformer
    plan = Plan([Tap(site + part) for site in SITES])
    with attach(random_flux, plan) as attached, torch.no_grad():
        flux(**given, return_dict=False)
    out, run, _ = chained(flux, plan, given)
    assert torch.equal(out, drive(flux, given))
    for tap in plan:
        (expected,), (found,) = attached.records[tap], run.records[tap]
        assert found.activations.shape == expected.activations.shape
        assert torch.allclose(found.activations, expected.activations, atol=1e-5)


def test_what_a_tap_keeps_is_not_what_the_host_adds_to(random_flux):
    given, flux = inputs(), random_flux.transformer
    plan = Plan([Tap("double.0.img"), Tap("single.0.img")])
    kept = [
        [record.activations for tap in plan for record in run.records[tap]]
        for run in (chained(flux, plan, given, control=control)[1] for control in (None, torch.ones(1, 64, 128)))
    ]
    assert torch.equal(kept[0][0], kept[1][0])  # taken before the ControlNet's residual is added
    assert not torch.equal(kept[0][1], kept[1][1])  # the next block sees it


def test_an_edit_leaves_reference_tokens_alone(random_flux):
    """A foreign patch in the next block sees all tokens: picture tokens changed, the reference's not."""
    given, flux = inputs(reference=8), random_flux.transformer
    seen = []

    def foreign(args, extra):
        seen.append(args["img"].clone())
        return extra["original_block"](args)

    for plan in (Plan(), Plan([Add("double.0.img", DIRECTION, 1.0, SCALE)])):
        chained(flux, plan, given, foreign={("double_block", 1): foreign})
    assert (seen[0] != seen[1]).any(-1)[0].tolist() == [True] * 64 + [False] * 8


@pytest.mark.parametrize("block", [("double_block", 1), ("single_block", 0)])
def test_foreign_patches_on_the_same_block_run_inside(block, random_flux):
    given, flux = inputs(), random_flux.transformer
    calls = []

    def foreign(args, extra):
        calls.append(sorted(args))
        out = extra["original_block"](args)
        return {**out, "img": out["img"] + 0.5}

    site = Site.parse("double.1.img" if block[0] == "double_block" else "single.0.img")
    tap = Tap(site)
    plain, run, _ = chained(flux, Plan([tap]), given)
    both, with_foreign, _ = chained(
        flux, Plan([tap, Add(site, DIRECTION, 1.0, SCALE)]), given, foreign={block: foreign}
    )
    only = drive(flux, given, {block: foreign})
    assert len(calls) == 2 and "vec" in calls[0]
    before, after = run.records[tap][0].activations, with_foreign.records[tap][0].activations
    assert torch.allclose(after, before + 0.5, atol=1e-5)  # ours sees what theirs made
    assert not torch.allclose(both, only, atol=1e-3) and not torch.allclose(both, plain, atol=1e-3)


def test_the_given_patches_are_not_written_to(random_flux):
    given = {("double_block", 0): lambda args, extra: extra["original_block"](args)}
    kept = dict(given)
    run = Run(Plan([Tap("double.0.img"), Tap("single.0.img")]))
    made = chain(given, run.plan.sites(), run, Call(Moment(0.5, (Row("cond"),), (8, 8)), 64), listener(None))
    assert given == kept and made.keys() == {("double_block", 0), ("single_block", 0)}
    assert made[("double_block", 0)] is not given[("double_block", 0)]


def test_the_text_length_is_what_the_blocks_really_get(random_flux):
    """Other nodes may lengthen the text inside the model: single blocks must split where the text really ends."""
    given, flux = inputs(text=20), random_flux.transformer
    plan = Plan([Add("single.0.img", DIRECTION, 1.0, SCALE)])
    with attach(random_flux, plan), torch.no_grad():
        expected = flux(**given, return_dict=False)[0]
    found, _, call = chained(flux, plan, given, text=16)
    assert call.text_tokens == 20
    assert torch.allclose(found, expected, atol=1e-5)


def test_blocks_that_ran_are_known(random_flux):
    given, flux = inputs(), random_flux.transformer
    plan = Plan([Tap("double.1.img"), Tap("single.1.img")])
    _, _, call = chained(flux, plan, given)
    assert {block_key(site) for site in plan.sites()} <= call.reached
    run, unreached = Run(plan), Call(Moment(0.5, (Row("cond"),), (8, 8)), 64)
    chain({}, plan.sites(), run, unreached, listener(flux))
    drive(flux, given)  # a model that takes no notice of the blocks it is given
    assert not unreached.reached


def test_rows_come_in_equal_chunks():
    left, right = (0.0, 0.0, 1.0, 0.5), (0.0, 0.5, 1.0, 0.5)
    assert batch_rows([("uncond", left), ("cond", right)], 4) == (
        Row("uncond", 0, left),
        Row("uncond", 1, left),
        Row("cond", 0, right),
        Row("cond", 1, right),
    )
    with pytest.raises(ValueError, match="2 equal chunks, found 3"):
        batch_rows([("cond", left), ("uncond", left)], 3)


def test_grids_and_crops():
    assert token_grid(16, 16, 2) == (8, 8)
    assert token_grid(17, 31, 2) == (9, 16)  # padded to whole patches
    assert crop_area(None, 16, 32) == (0.0, 0.0, 1.0, 1.0)
    assert crop_area((8, 16, 4, 8), 16, 32) == (0.25, 0.25, 0.5, 0.5)
