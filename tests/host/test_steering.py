"""What steering changes in a real ComfyUI: which rows, tokens and steps, and that everything else stays as it was."""

import json
import time

import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from fluxtionary.demo import files

from .comfy_server import NodeError
from .flow import CAPTION, Flow
from .watching import IMAGE, TEXT, calls, changed_tokens, latents, plain, steered, watched


@pytest.mark.parametrize(("rows", "numbers"), [("cond", {0}), ("uncond", {1}), ("both", {0, 1})])
def test_only_the_asked_rows_and_the_picture_s_tokens_change(comfy, rows, numbers):
    """cfg 3, three pictures: cond and uncond come in one call, in chunks."""
    options = {"cfg": 3.0, "latent": lambda flow: flow.empty(3), "steps": 2}
    before = watched(comfy, f"rows-{rows}-plain", None, **options)
    after = watched(comfy, f"rows-{rows}", {"rows": rows}, **options)
    seen = set()
    for one, other in zip(before, after, strict=True):
        if one["sigma"] != before[0]["sigma"]:
            continue  # later steps start from other latents
        chunks = one["cond_or_uncond"].tolist()
        assert chunks == other["cond_or_uncond"].tolist()
        changed = changed_tokens(one, other)
        assert changed.shape == (3 * len(chunks), 80)
        assert not changed[:, TEXT].any()
        for i, number in enumerate(chunks):
            own = changed[3 * i : 3 * i + 3, IMAGE]
            assert own.all() if number in numbers else not own.any()
            seen.add(number)
    assert seen == {0, 1}


def test_a_mask_of_another_size_chooses_the_tokens(comfy, mask_file):
    flow = Flow()
    model = flow.steer(flow.watch(flow.model, "mask"), mask=flow.mask(mask_file))
    flow.save(flow.sample(model, latent=flow.empty(2)))
    comfy.run(flow)
    before = watched(comfy, "mask-plain", None, latent=lambda flow: flow.empty(2))
    changed = changed_tokens(before[0], calls(comfy, "mask")[0])
    left = torch.zeros(8, 8, dtype=torch.bool)
    left[:, :4] = True
    assert torch.equal(changed[:, IMAGE], left.flatten().expand(2, -1))
    assert not changed[:, TEXT].any()


def test_an_area_takes_its_own_part_of_the_mask_and_keeps_its_role(comfy, mask_file):
    """A prompt for the left half only: the host makes extra, cropped calls, and copies it for the negative side."""

    def run(name, steer):
        flow = Flow()
        model = flow.watch(flow.model, name)
        if steer:
            model = flow.steer(model, mask=flow.mask(mask_file))
        area = flow.add(
            "ConditioningSetArea",
            conditioning=flow.text("a red circle"),
            width=96,
            height=128,
            x=32,
            y=0,
            strength=1.0,
        )
        both = flow.add("ConditioningCombine", conditioning_1=area, conditioning_2=flow.text(CAPTION))
        flow.save(flow.sample(model, positive=both, cfg=3.0, steps=2))
        comfy.run(flow)
        return calls(comfy, name)

    before, after = run("area-plain", False), run("area", True)
    shapes = set()
    for one, other in zip(before, after, strict=True):
        if one["sigma"] != before[0]["sigma"]:
            continue
        changed = changed_tokens(one, other)
        width = (changed.shape[1] - 16) // 8
        expected = torch.zeros(8, width, dtype=torch.bool)
        expected[:, : 4 if width == 8 else 2] = (
            True  # the crop starts at a quarter: of the mask's half a quarter is left
        )
        for number, row in zip(one["cond_or_uncond"].tolist(), changed, strict=True):
            assert torch.equal(row[16:], expected.flatten() & (number == 0)), (number, width)
            shapes.add((number, width))
    assert shapes == {(0, 8), (1, 8), (0, 6), (1, 6)}


def test_roles_come_from_the_guider(comfy):
    """Under DualCFGGuider number 0 is the negative."""

    def run(name, steer):
        flow = Flow()
        model = flow.watch(flow.model, name)
        guider = flow.add(
            "DualCFGGuider",
            model=flow.steer(model) if steer else model,
            cond1=flow.text(CAPTION),
            cond2=flow.text("a circle"),
            negative=flow.text(""),
            cfg_conds=3.0,
            cfg_cond2_negative=2.0,
            style="regular",
        )
        sampled = flow.add(
            "SamplerCustomAdvanced",
            noise=flow.add("RandomNoise", noise_seed=1),
            guider=guider,
            sampler=flow.add("KSamplerSelect", sampler_name="euler"),
            sigmas=flow.add("ManualSigmas", sigmas="1.0, 0.5, 0.0"),
            latent_image=flow.empty(),
        )
        flow.save(sampled)
        comfy.run(flow)
        return calls(comfy, name)

    before, after = run("dual-plain", False), run("dual", True)
    seen = {}
    for one, other in zip(before, after, strict=True):
        if one["sigma"] == before[0]["sigma"]:
            for number, row in zip(one["cond_or_uncond"].tolist(), changed_tokens(one, other), strict=True):
                seen[number] = bool(row[IMAGE].all())
                assert row[IMAGE].any() == row[IMAGE].all()
    assert seen == {0: False, 1: True, 2: True}


def test_a_window_acts_in_its_steps_only(comfy):
    """8 steps; from half on: the first four calls equal the plain run's, the fifth does not."""
    before = watched(comfy, "window-plain", None, steps=8)
    after = watched(comfy, "window", {"start_percent": 0.45, "end_percent": 1.0}, steps=8)
    equal = [torch.equal(one["img"], other["img"]) for one, other in zip(before, after, strict=True)]
    assert equal == [True] * 4 + [False] * 4


@pytest.mark.parametrize(
    ("window", "first", "second"),
    [((0.0, 0.45), True, False), ((0.55, 1.0), False, True), ((0.0, 1.0), True, True)],
)
def test_windows_hold_over_two_stages(comfy, window, first, second):
    """Two KSamplerAdvanced of four steps each: a window means the same share of sampling in both."""

    def run(steer_first, steer_second):
        flow = Flow()
        models = [
            flow.steer(flow.model, start_percent=window[0], end_percent=window[1]) if steer else flow.model
            for steer in (steer_first, steer_second)
        ]
        half = flow.stage(models[0], flow.empty(), 0, 4)
        saved = flow.save(flow.stage(models[1], half, 4, 8))
        return comfy.latent(comfy.run(flow), saved)

    unsteered = run(False, False)
    assert torch.equal(run(True, False), unsteered) == (not first)
    assert torch.equal(run(False, True), unsteered) == (not second)


def test_the_plain_model_stays_equal_to_the_bit(comfy):
    before = latents(comfy, plain)
    assert not torch.equal(latents(comfy, steered), before)
    comfy.forget()
    assert torch.equal(latents(comfy, plain), before)
    assert torch.equal(latents(comfy, lambda flow: flow.steer(flow.model, strength=0.0)), before)


def test_steering_adds_up(comfy):
    """Two nodes in a row: the order of equal sites does not matter beyond rounding, and both act."""
    both = [
        latents(comfy, lambda flow, order=order: flow.steer(flow.steer(flow.model, order[0]), order[1]))
        for order in ((3, 9), (9, 3))
    ]
    assert torch.allclose(both[0], both[1], atol=1e-3)
    for feature in (3, 9):
        alone = latents(comfy, lambda flow, feature=feature: flow.steer(flow.model, feature))
        assert not torch.allclose(alone, both[0], atol=1e-2)


def test_a_foreign_patch_on_the_same_block_runs_before_or_after(comfy):
    def ours_last(flow):
        return flow.steer(flow.watch(flow.model, "foreign", "double_block", 1, shift=50.0))

    def theirs_last(flow):
        return flow.watch(flow.steer(flow.model), "foreign", "double_block", 1, shift=50.0)

    only_theirs = latents(comfy, lambda flow: flow.watch(flow.model, "foreign", "double_block", 1, shift=50.0))
    first, second = latents(comfy, ours_last), latents(comfy, theirs_last)
    assert torch.equal(first, second)
    for other in (only_theirs, latents(comfy, steered), latents(comfy, plain)):
        assert not torch.allclose(first, other, atol=1e-2)
    assert len(calls(comfy, "foreign")) == 4


def test_a_foreign_wrapper_runs_too(comfy):
    def before(flow):
        return flow.steer(flow.add("NeighbourWrap", model=flow.model, factor=0.9))

    def after(flow):
        return flow.add("NeighbourWrap", model=flow.steer(flow.model), factor=0.9)

    first, second = latents(comfy, before), latents(comfy, after)
    assert torch.equal(first, second)
    only = latents(comfy, lambda flow: flow.add("NeighbourWrap", model=flow.model, factor=0.9))
    assert not torch.allclose(first, only, atol=1e-2)
    assert not torch.allclose(first, latents(comfy, steered), atol=1e-2)


def test_a_lora_on_the_model_applies_with_and_without_steering(comfy):
    generator = torch.Generator().manual_seed(0)
    name = "diffusion_model.double_blocks.1.img_attn.proj"
    weights = {
        f"{name}.lora_A.weight": torch.randn(4, 192, generator=generator),
        f"{name}.lora_B.weight": torch.randn(192, 4, generator=generator),
    }
    save_file(weights, comfy.base / "models" / "loras" / "little.safetensors")

    def lora(flow, model):
        return flow.add("LoraLoaderModelOnly", model=model, lora_name="little.safetensors", strength_model=0.2)

    first = latents(comfy, lambda flow: flow.steer(lora(flow, flow.model)))
    second = latents(comfy, lambda flow: lora(flow, flow.steer(flow.model)))
    assert torch.equal(first, second)
    for other in (latents(comfy, lambda flow: lora(flow, flow.model)), latents(comfy, steered)):
        assert not torch.allclose(first, other, atol=1e-2)


def test_an_existing_picture_can_be_steered(comfy):
    """Image to image at denoise .5: changed by steering, and closer to the picture than a new one."""
    flow = Flow()
    shown = flow.add(
        "SaveImage",
        images=flow.add("VAEDecode", samples=flow.sample(flow.model, steps=8), vae=flow.vae),
        filename_prefix="start",
    )
    Image.fromarray(comfy.picture(comfy.run(flow), shown)).save(comfy.base / "input" / "start.png")

    def run(steer):
        flow = Flow()
        start = flow.add("VAEEncode", pixels=flow.add("LoadImage", image="start.png"), vae=flow.vae)
        model = flow.steer(flow.model) if steer else flow.model
        saved = flow.save(flow.sample(model, latent=start, denoise=0.5, steps=4, seed=7)), flow.save(start)
        outputs = comfy.run(flow)
        return [comfy.latent(outputs, node) for node in saved]

    (before, start), (after, _) = run(False), run(True)
    assert not torch.allclose(before, after, atol=1e-2)
    assert (before - start).norm() < (latents(comfy, plain, seed=7) - start).norm()


def test_an_interrupted_run_leaves_nothing_behind(comfy):
    expected = latents(comfy, steered), latents(comfy, plain)
    assert not torch.equal(*expected)
    comfy.forget()
    flow = Flow()
    flow.save(flow.sample(flow.steer(flow.model), steps=2000))
    prompt = comfy.queue(flow.nodes)
    while not comfy.get("/queue")["queue_running"]:
        time.sleep(0.02)
    time.sleep(1.0)
    comfy.post("/interrupt", {})
    with pytest.raises(NodeError, match="interrupted"):
        comfy.wait(prompt)
    assert torch.equal(latents(comfy, steered), expected[0])
    assert torch.equal(latents(comfy, plain), expected[1])


def test_queued_runs_do_not_mix(comfy):
    def build(strength):
        flow = Flow()
        saved = flow.save(flow.sample(flow.steer(flow.model, strength=strength), seed=11))
        return flow, saved

    alone = []
    for strength in (0.3, -0.8):
        comfy.forget()
        flow, saved = build(strength)
        alone.append(comfy.latent(comfy.run(flow), saved))
    comfy.forget()
    both = [build(strength) for strength in (0.3, -0.8)]
    prompts = [comfy.queue(flow.nodes) for flow, _ in both]
    for prompt, (_, saved), expected in zip(prompts, both, alone, strict=True):
        assert torch.equal(comfy.latent(comfy.wait(prompt)["outputs"], saved), expected)
    assert not torch.equal(*alone)


def test_every_sampler_of_the_host_takes_it(comfy):
    """KSampler, KSamplerAdvanced and SamplerCustomAdvanced agree, steered, where they are asked for the same."""
    flow = Flow()
    model = flow.steer(flow.model)
    saved = [
        flow.save(flow.sample(model, steps=8)),
        flow.save(flow.stage(model, flow.empty(), 0, 8)),
        flow.save(flow.custom(model, ", ".join(str(1 - i / 8) for i in range(9)))),
    ]
    outputs = comfy.run(flow)
    first, second, third = (comfy.latent(outputs, node) for node in saved)
    assert torch.equal(first, second)
    assert torch.allclose(first, third, atol=1e-4)
    assert not torch.allclose(first, latents(comfy, plain, steps=8), atol=1e-2)


def test_the_example_workflow_turns_the_circle_red(comfy):
    """The example workflow as it ships: plain and steered picture, read from their pixels."""
    from fluxtionary.demo.measure import measure

    path = files.MODELS.parents[1] / "example_workflows" / "api/steer_with_feature.json"
    outputs = comfy.wait(comfy.queue(json.loads(path.read_text())))["outputs"]
    pictures = [comfy.picture({"0": out}, ["0", 0]) for out in outputs.values() if "images" in out]
    readings = [measure(picture).factors for picture in pictures]
    assert len(readings) == 2
    assert [reading["shape"] for reading in readings] == ["circle", "circle"]
    assert [reading["background"] for reading in readings] == ["white", "white"]
    assert readings[0]["color"] != "red" and readings[1]["color"] == "red"
