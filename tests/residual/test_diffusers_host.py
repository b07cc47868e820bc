import pytest
import torch

from fluxtionary.dictionaries import Scale
from fluxtionary.dictionaries.scale import BINS
from fluxtionary.residual import Ablate, Add, Clamp, Gate, Plan, PlanError, Row, Site, SiteError, Splice, Tap, Window
from fluxtionary.residual.diffusers_host import attach, neurons, percent_to_sigma

from ..conftest import make_dictionary

SITES = ["double.0.img", "double.1.txt", "single.0.img", "single.0.txt"]
DIRECTION = torch.randn(128, generator=torch.Generator().manual_seed(1))
SCALE = Scale(torch.full((BINS,), 2.0))


def block_outputs(pipeline, site):
    """An independent capture: a plain hook that clones what the block returned."""
    parsed = Site.parse(site)
    blocks = (
        pipeline.transformer.transformer_blocks
        if parsed.stage == "double"
        else pipeline.transformer.single_transformer_blocks
    )
    kept = []
    handle = blocks[parsed.block].register_forward_hook(
        lambda module, args, output: kept.append(output[1 if parsed.stream == "img" else 0].clone())
    )
    return kept, handle


@pytest.mark.parametrize("site", SITES)
def test_capture_equals_an_independent_hook(random_flux, draw, site):
    kept, handle = block_outputs(random_flux, site)
    tap = Tap(site)
    with attach(random_flux, Plan([tap])) as run:
        draw(random_flux, ["a red circle", "a blue ring"])
    handle.remove()
    assert len(run.records[tap]) == len(kept) == 2
    for record, expected in zip(run.records[tap], kept, strict=True):
        assert torch.equal(record.activations, expected)
    assert [record.moment.sigma for record in run.records[tap]] == [1.0, 0.5]
    assert run.records[tap][0].moment.grid == (8, 8)


def test_update_is_output_minus_input(random_flux, draw):
    before, first = block_outputs(random_flux, "double.0.img")
    after, second = block_outputs(random_flux, "double.1.img")
    tap = Tap("double.1.img.update")
    with attach(random_flux, Plan([tap])) as run:
        draw(random_flux)
    first.remove(), second.remove()
    for record, x, y in zip(run.records[tap], before, after, strict=True):
        assert torch.equal(record.activations, y - x)


@pytest.mark.parametrize(
    ("site", "tokens"), [("double.0.img", 64), ("double.0.txt", 16), ("single.0.img", 64), ("single.1.txt", 16)]
)
def test_mlp_taps_see_the_hidden_units(random_flux, draw, site, tokens):
    tap = Tap(f"{site}.mlp")
    with attach(random_flux, Plan([tap])) as run:
        draw(random_flux)
    assert run.records[tap][0].activations.shape == (1, tokens, 512)


@pytest.mark.parametrize("site", SITES)
def test_add_moves_the_stream_by_the_documented_delta(random_flux, draw, site):
    before, after = Tap(site), Tap(site)
    add = Add(site, DIRECTION, 0.5, SCALE)
    with attach(random_flux, Plan([before, add, after])) as run:
        draw(random_flux, steps=1)
    delta = run.records[after][0].activations - run.records[before][0].activations
    expected = 0.5 * 2.0 * DIRECTION / DIRECTION.norm()
    assert torch.allclose(delta, expected.expand_as(delta), atol=1e-5)


@pytest.mark.parametrize("site", SITES)
def test_an_edit_changes_what_comes_after(random_flux, draw, site):
    plain = draw(random_flux)
    with attach(random_flux, Plan([Add(site, DIRECTION, 0.5, SCALE)])):
        assert not torch.equal(draw(random_flux), plain)


def test_nothing_changes_without_edits_at_strength_zero_or_afterwards(random_flux, draw, dictionary):
    plain = draw(random_flux)
    quiet = Plan([Tap("double.1.img"), Tap("double.1.img", dictionary), Add("double.1.img", DIRECTION, 0.0)])
    with attach(random_flux, quiet):
        assert torch.equal(draw(random_flux), plain)
    with attach(random_flux, Plan([Add("single.0.img", DIRECTION, 3.0)])):
        assert not torch.equal(draw(random_flux), plain)
    assert torch.equal(draw(random_flux), plain)


def test_an_exception_leaves_no_hook_behind(random_flux, draw, dictionary):
    def hooks():
        modules = list(random_flux.transformer.modules())
        return sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in modules)

    plain, count = draw(random_flux), hooks()
    plan = Plan(
        [Tap("double.0.img.mlp"), Clamp("double.1.img", dictionary, {3: 9.0}), Add("single.0.txt", DIRECTION, 1.0)]
    )
    with pytest.raises(RuntimeError, match="inside"), attach(random_flux, plan):
        assert hooks() > count
        raise RuntimeError("inside")
    assert hooks() == count
    assert "cache_context" not in vars(random_flux.transformer)
    assert torch.equal(draw(random_flux), plain)


def test_rows_tell_cond_from_uncond(random_flux, draw):
    options = {"negative_prompt": "a ring", "true_cfg_scale": 2.0, "steps": 1}
    tap = Tap("double.1.img")
    plan = {
        rows: Plan([Add("double.1.img", DIRECTION, 1.0, SCALE, rows=rows), tap]) for rows in ("cond", "uncond", "both")
    }
    seen = {}
    with attach(random_flux, Plan([tap])) as run:
        draw(random_flux, **options)
    seen["plain"] = run.records[tap]
    assert [record.moment.rows for record in seen["plain"]] == [(Row("cond"),), (Row("uncond"),)]
    for rows in plan:
        with attach(random_flux, plan[rows]) as run:
            draw(random_flux, **options)
        changed = [
            not torch.equal(a.activations, b.activations) for a, b in zip(run.records[tap], seen["plain"], strict=True)
        ]
        assert changed == [rows in ("cond", "both"), rows in ("uncond", "both")]


def test_a_window_limits_the_steps(random_flux, draw):
    tap = Tap("double.1.img")
    add = Add("double.1.img", DIRECTION, 1.0, SCALE, window=Window(start=0.8, end=0.3))
    seen = []
    for plan in (Plan([tap]), Plan([add, tap])):
        with attach(random_flux, plan) as run:
            draw(random_flux, steps=4)  # sigmas 1, .75, .5, .25
        seen.append([record.activations for record in run.records[tap]])
    same = [torch.equal(a, b) for a, b in zip(*seen, strict=True)]
    assert same[0] and not same[1]
    deltas = [(b - a) for a, b in zip(*seen, strict=True)]
    expected = 2.0 * DIRECTION / DIRECTION.norm()
    assert torch.allclose(deltas[1], expected.expand_as(deltas[1]), atol=1e-4)


def test_a_mask_limits_the_tokens(random_flux, draw):
    mask = torch.zeros(30, 50)
    mask[:, :25] = 1
    before, after = Tap("double.1.img"), Tap("double.1.img")
    with attach(random_flux, Plan([before, Add("double.1.img", DIRECTION, 1.0, SCALE, mask=mask), after])) as run:
        draw(random_flux, ["a red ring", "a cross"], steps=1)
    moved = (run.records[after][0].activations != run.records[before][0].activations).any(-1)
    assert torch.equal(moved.reshape(2, 8, 8), torch.tensor([True] * 4 + [False] * 4).expand(2, 8, 8))


def test_one_mask_a_picture(random_flux, draw):
    masks = torch.stack([torch.zeros(8, 8), torch.ones(8, 8)])
    before, after = Tap("single.0.img"), Tap("single.0.img")
    with attach(random_flux, Plan([before, Add("single.0.img", DIRECTION, 1.0, SCALE, mask=masks), after])) as run:
        draw(random_flux, ["a red ring", "a cross"], steps=1)
    moved = (run.records[after][0].activations != run.records[before][0].activations).flatten(1).any(-1)
    assert moved.tolist() == [False, True]


def test_ablate_and_clamp_set_the_named_coefficients_and_keep_the_rest(random_flux, draw, dictionary):
    before, after = Tap("double.1.img"), Tap("double.1.img")
    plan = Plan(
        [before, Ablate("double.1.img", dictionary, [0, 1, 2, 3]), Clamp("double.1.img", dictionary, {2: 1.5}), after]
    )
    with attach(random_flux, plan) as run:
        draw(random_flux, steps=1)
    x, y = run.records[before][0].activations, run.records[after][0].activations
    code = dictionary.encode(x)
    expected = x.clone()
    for feature, target in {0: 0.0, 1: 0.0, 2: 1.5, 3: 0.0}.items():
        expected += (target - code.coefficient(feature))[..., None] * dictionary.direction(feature)
    assert torch.allclose(y, expected, atol=1e-4)
    assert not torch.allclose(x, y, atol=1e-4)


def test_a_splice_is_read_by_the_blocks_after_it(random_flux, draw, dictionary):
    before, after = Tap("double.1.img"), Tap("double.1.img")
    plain = draw(random_flux)
    with attach(random_flux, Plan([before, Splice("double.1.img", dictionary), after])) as run:
        spliced = draw(random_flux)
    for a, b in zip(run.records[before], run.records[after], strict=True):
        assert torch.allclose(b.activations, dictionary.reconstruct(a.activations), atol=1e-4)
    assert (spliced - plain).abs().mean() > 1e-3
    with attach(random_flux, Plan([Splice("double.1.img", dictionary, keep_error=True)])):
        assert torch.allclose(draw(random_flux), plain, atol=1e-3)


def test_a_gate_acts_where_its_features_are_active(random_flux, draw, dictionary):
    before, after = Tap("double.1.img"), Tap("double.1.img")
    gate = Gate(dictionary, (5, 6))
    with attach(random_flux, Plan([before, Add("double.1.img", DIRECTION, 1.0, SCALE, gate=gate), after])) as run:
        draw(random_flux, steps=1)
    x, y = run.records[before][0].activations, run.records[after][0].activations
    code = dictionary.encode(x)
    active = code.coefficient(5) + code.coefficient(6) > 0
    assert 0 < active.sum() < active.numel()
    assert torch.equal((x != y).any(-1), active)


def test_taps_with_a_dictionary_keep_codes(random_flux, draw, dictionary):
    plain, coded = Tap("double.1.img"), Tap("double.1.img", dictionary)
    with attach(random_flux, Plan([plain, coded])) as run:
        draw(random_flux)
    for a, b in zip(run.records[plain], run.records[coded], strict=True):
        assert b.activations is None
        assert torch.equal(dictionary.decode(dictionary.encode(a.activations)), dictionary.decode(b.code))


def test_a_missing_scale_is_measured_at_the_first_call_and_said(random_flux, draw, caplog):
    before, after = Tap("double.1.img"), Tap("double.1.img")
    with (
        caplog.at_level("INFO"),
        attach(random_flux, Plan([before, Add("double.1.img", DIRECTION, 1.0), after])) as run,
    ):
        draw(random_flux)
    x = run.records[before][0].activations.double().flatten(0, 1)
    expected = float((x - x.mean(0)).square().sum(1).mean().sqrt())
    for a, b in zip(run.records[before], run.records[after], strict=True):
        length = (b.activations - a.activations).norm(dim=-1)
        assert torch.allclose(length, torch.full_like(length, expected), rtol=1e-3)
    assert "measured" in caplog.text


def test_plans_that_do_not_fit_are_refused_before_anything_is_touched(random_flux):
    for plan, error, words in [
        (Plan([Tap("double.7.img")]), SiteError, "2 double and 2 single"),
        (Plan([Tap("single.2.txt")]), SiteError, "single.0 to single.1"),
        (Plan([Add("single.1.txt", torch.ones(128), 1.0)]), PlanError, "nothing reads"),
        (Plan([Add("double.1.img", torch.ones(64), 1.0)]), PlanError, "128 wide.*64 wide"),
        (Plan([Tap("double.1.img", make_dictionary("double.1.img", d_model=64))]), PlanError, "another model"),
        (Plan([Splice("double.1.img", make_dictionary("double.1.img", d_model=64))]), PlanError, "another model"),
        (Plan([Splice("single.1.txt", make_dictionary("single.1.txt"))]), PlanError, "nothing reads"),
    ]:
        with pytest.raises(error, match=words), attach(random_flux, plan):
            pass
    assert not random_flux.transformer._forward_pre_hooks


def test_percent_to_sigma_follows_the_schedule(random_flux):
    convert = percent_to_sigma(random_flux, 128, 128)
    assert [convert(p) for p in (0.0, 0.25, 1.0)] == [1.0, 0.75, 0.0]


@pytest.mark.parametrize("site", ["double.0.img.mlp", "double.1.txt.mlp", "single.1.img.mlp"])
@torch.no_grad()
def test_neurons_write_what_the_model_s_down_projection_writes(random_flux, draw, site):
    found = neurons(random_flux.transformer, site, k=10_000)
    tap = Tap(site, found)
    plain = Tap(site)
    with attach(random_flux, Plan([tap, plain])) as run:
        draw(random_flux)
    record, units = run.records[tap][0], run.records[plain][0].activations.clone()
    assert torch.equal(found.decode(record.code), units)
    stage, block, stream, _ = Site.parse(site)
    if stage == "double":
        part = random_flux.transformer.transformer_blocks[block]
        layer = (part.ff if stream == "img" else part.ff_context).net[2]
        expected = layer(units) - layer.bias
    else:
        layer = random_flux.transformer.single_transformer_blocks[block].proj_out
        attention = torch.zeros(*units.shape[:-1], 128)
        expected = layer(torch.cat([attention, units], -1)) - layer.bias
    assert torch.allclose(found.contribution(record.code), expected, atol=1e-5)
    assert found.direction(3).shape == (128,) and found.direction_site == site.removesuffix(".mlp")


def test_neurons_have_a_site_of_their_own(random_flux):
    with pytest.raises(SiteError, match=r"did you mean double.0.img.mlp"):
        neurons(random_flux.transformer, "double.0.img")
    with pytest.raises(SiteError, match="2 double and 2 single blocks"):
        neurons(random_flux.transformer, "double.7.img.mlp")
