"""Inspect Picture: the features of a picture are those of an ordinary sampling step, and the model ends at its site."""

import json

import pytest
import torch
from safetensors import safe_open

from fluxtionary.demo import files
from fluxtionary.dictionaries import load_dictionary
from fluxtionary.residual import Moment, Row

from .comfy_server import NodeError
from .flow import CAPTION, DEMO, Flow
from .living import LORA, area, controlled, hooked_lora, references, write_files
from .watching import IMAGE, calls, latents, plain

INSPECT = "FluxtionaryInspectPicture"
WHOLE = [0.0, 0.0, 1.0, 1.0]


class Pictures(Flow):
    """A demo Flux, a picture as a latent, and what Flux thinks of it."""

    def __init__(self, batch=1):
        super().__init__()
        drawn = self.add("VAEDecode", samples=self.sample(self.model, self.empty(batch), seed=3), vae=self.vae)
        self.latent = self.add("VAEEncode", pixels=drawn, vae=self.vae)

    def inspect(self, model=None, conditioning=None, noise=0.5, seed=7, dictionary=DEMO, latent=None, name="inspected"):
        loaded = self.add("FluxtionaryLoadDictionary", dictionary=dictionary)
        looked = self.add(
            INSPECT,
            model=model or self.model,
            dictionary=loaded,
            latent=latent or self.latent,
            conditioning=conditioning or self.text(CAPTION),
            noise_percent=noise,
            seed=seed,
        )
        self.keep(looked, [looked[0], 1], name)
        return looked

    def keep(self, latent, capture, name):
        return self.add("NeighbourKeepCapture", latent=latent, capture=capture, name=name)

    def step(self, model, conditioning=None, noise=0.5, seed=7):
        """One step of the host's own sampler, from the picture under the noise of a seed."""
        return self.add(
            "SamplerCustomAdvanced",
            noise=self.add("RandomNoise", noise_seed=seed),
            guider=self.add("BasicGuider", model=model, conditioning=conditioning or self.text(CAPTION)),
            sampler=self.add("KSamplerSelect", sampler_name="euler"),
            sigmas=self.add("ManualSigmas", sigmas=f"{noise}, 0.0"),
            latent_image=self.latent,
        )


def kept(comfy, name):
    """Records of a capture in order: values and indices of codes, sigma, and rows as `[role, picture, area]`."""
    with safe_open(comfy.base / "output" / f"{name}.safetensors", "pt") as file:
        rows = json.loads(file.metadata()["rows"])
        return [
            {what: file.get_tensor(f"{number}.{what}") for what in ("values", "indices", "sigma")} | {"rows": own}
            for number, own in enumerate(rows)
        ]


def inspected(comfy, batch=1, **options):
    flow = Pictures(batch)
    flow.inspect(**{name: made(flow) if callable(made) else made for name, made in options.items()})
    comfy.run(flow)
    return kept(comfy, "inspected")


def same(one, other):
    assert len(one) == len(other)
    for left, right in zip(one, other, strict=True):
        assert left["rows"] == right["rows"]
        for what in ("values", "indices", "sigma"):
            assert torch.equal(left[what], right[what].to(left[what].dtype)), what


@pytest.mark.parametrize(("noise", "batch"), [(0.5, 1), (0.25, 2), (1.0, 1)])
def test_codes_are_those_of_an_ordinary_step_seen_from_outside(comfy, noise, batch):
    flow = Pictures(batch)
    flow.inspect(noise=noise)
    flow.save(flow.step(flow.watch(flow.model, "step"), noise=noise))
    comfy.run(flow)
    (record,) = kept(comfy, "inspected")
    (call,) = calls(comfy, "step")
    assert float(record["sigma"]) == float(call["sigma"]) == noise
    assert record["rows"] == [["cond", picture, WHOLE] for picture in range(batch)]
    moment = Moment(noise, tuple(Row("cond", picture) for picture in range(batch)), (8, 8))
    code = load_dictionary(files.DICTIONARIES / DEMO).encode(call["img"][:, IMAGE], moment=moment)
    assert torch.equal(record["indices"].long(), code.indices)
    assert torch.equal(record["values"], code.values)
    assert record["values"].shape[:2] == (batch, 64) and record["values"].any()


@pytest.mark.parametrize(
    ("conditioning", "model"),
    [
        (area, None),
        (controlled, None),
        (references, None),
        (hooked_lora, None),
        (None, lambda flow: flow.add("LoraLoaderModelOnly", model=flow.model, lora_name=LORA, strength_model=0.2)),
        (None, lambda flow: flow.steer(flow.model, end_percent=1.0)),
    ],
    ids=["area", "ControlNet", "reference pictures", "LoRA by hooks", "LoRA", "steering"],
)
def test_it_sees_what_a_tap_sees_in_sampling(comfy, conditioning, model):
    """Whatever the conditioning and the model carry acts, as it does in a sampler."""
    write_files(comfy)
    flow = Pictures()
    flux = model(flow) if model else flow.model
    text = conditioning(flow) if conditioning else None
    flow.inspect(flux, text)
    tap = flow.add("FluxtionaryTap", model=flux, dictionary=flow.add("FluxtionaryLoadDictionary", dictionary=DEMO))
    flow.keep(flow.step([tap[0], 0], text), [tap[0], 1], "tapped")
    flow.inspect(name="otherwise")
    comfy.run(flow)
    found = kept(comfy, "inspected")
    same(found, kept(comfy, "tapped"))
    if conditioning not in (controlled,):  # whose residuals come after the site, and no block is left to hand them on
        (other,) = kept(comfy, "otherwise")
        assert any(not torch.equal(record["values"], other["values"]) for record in found)
    if conditioning is area:
        areas = sorted(row[2] for record in found for row in record["rows"])
        assert areas == [WHOLE, [0.0, 0.25, 1.0, 0.75]]


def test_the_model_ends_after_the_dictionary_s_site(comfy):
    """A Watch on each block: those up to double.1 are called once, the later ones never."""
    flow = Pictures()
    model = flow.model
    blocks = [("double_block", 0), ("double_block", 1), *(("single_block", i) for i in range(4))]
    for stage, block in blocks:
        model = flow.watch(model, f"ends-{stage}-{block}", stage, block)
    flow.inspect(model)
    comfy.run(flow)
    seen = [(comfy.base / "output" / f"ends-{stage}-{block}.safetensors").exists() for stage, block in blocks]
    assert seen == [True, True, False, False, False, False]
    assert [len(calls(comfy, f"ends-double_block-{block}")) for block in range(2)] == [1, 1]


def test_the_picture_comes_out_as_it_went_in(comfy):
    flow = Pictures(2)
    masked = flow.add(
        "SetLatentNoiseMask", samples=flow.latent, mask=flow.add("SolidMask", value=1.0, width=8, height=8)
    )
    saved = [flow.save(latent) for latent in (flow.latent, flow.inspect(), flow.inspect(latent=masked, name="masked"))]
    outputs = comfy.run(flow)
    first, *others = (comfy.latent(outputs, node) for node in saved)
    assert len(others) == 2 and all(torch.equal(other, first) for other in others)
    same(kept(comfy, "inspected"), kept(comfy, "masked"))


def test_the_seed_is_the_noise(comfy):
    first, again, other = (inspected(comfy, seed=seed)[0]["values"] for seed in (7, 7, 8))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_no_noise_is_the_least_that_the_model_knows(comfy):
    (record,) = inspected(comfy, noise=0.0)
    assert float(record["sigma"]) == pytest.approx(0.001)
    quiet, again = (inspected(comfy, noise=0.0, seed=seed)[0]["indices"] for seed in (1, 2))
    noisy, other = (inspected(comfy, noise=0.9, seed=seed)[0]["indices"] for seed in (1, 2))
    alike = [float((a == b).float().mean()) for a, b in ((quiet, again), (noisy, other))]
    assert alike[0] > alike[1]  # the picture, not the noise, is seen


def test_the_plain_model_stays_equal_to_the_bit(comfy):
    before = latents(comfy, plain)
    inspected(comfy)
    flow = Pictures()
    flow.inspect()
    saved = flow.save(flow.sample(flow.model))
    assert torch.equal(comfy.latent(comfy.run(flow), saved), before)
    comfy.forget()
    assert torch.equal(latents(comfy, plain), before)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"dictionary": "deep.safetensors"}, r"no double\.7\.img.*2 double and 4 single"),
        ({"dictionary": "wide.safetensors"}, "192 wide.*256.*wide"),
        (
            {"latent": lambda flow: flow.add("NeighbourNarrowLatent")},
            r"latent: expected \[pictures, 16,.*\[1, 4, 16, 16\]",
        ),
        (
            {
                "conditioning": lambda flow: flow.add(
                    "ConditioningSetTimestepRange", conditioning=flow.text(CAPTION), start=0.0, end=0.3
                )
            },
            "conditioning: expected a conditioning that acts at sigma 0.5.*0 to 0.3 of sampling",
        ),
    ],
)
def test_what_does_not_fit_is_an_error_on_the_node(comfy, options, words):
    flow = Pictures()
    looked = flow.inspect(**{name: made(flow) if callable(made) else made for name, made in options.items()})
    with pytest.raises(NodeError, match=words) as error:
        comfy.run(flow)
    assert error.value.node == looked[0]
    assert inspected(comfy)
