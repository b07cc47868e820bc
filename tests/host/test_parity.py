"""One plan, two hosts, one answer: the demo Flux in diffusers and in ComfyUI, from the same noise."""

import json

import pytest
import torch
from diffusers import FlowMatchEulerDiscreteScheduler

from fluxtionary.demo import files
from fluxtionary.demo.train_flux import pack
from fluxtionary.dictionaries import Scale, load_dictionary
from fluxtionary.dictionaries.scale import BINS
from fluxtionary.residual import Add, Clamp, Plan, Site, Window
from fluxtionary.residual.diffusers_host import attach

from .flow import CAPTION, Flow

STEPS = 8
SIGMAS = [1 - i / STEPS for i in range(STEPS)]
SCALE = 60.0
FLUX_SCALE, FLUX_SHIFT = 0.3611, 0.1159
"""How ComfyUI keeps Flux latents: divided by the one, then moved by the other."""
SITES = ["double.1.img", "double.0.txt", "single.1.img", "single.1.txt"]


def masked():
    mask = torch.zeros(40, 24)
    mask[:, :11] = 0.7
    return mask


def cases(comfy):
    """Name, and the plan as JSON items."""
    folder = comfy.base / "models" / "flux_dictionaries"
    file = {
        "double.1.img": "double",
        "double.0.txt": "text",
        "single.1.img": "single",
        "single.1.txt": "single-text",
    }
    direction = torch.linspace(-1, 1, 192).tolist()
    for site in SITES:
        strength = 0.5 if site.endswith("img") else 4.0  # late text moves the picture little
        add = {"kind": "add", "site": site, "direction": direction, "strength": strength, "scale": SCALE}
        yield f"Add {site}", [add]
        yield f"Add in a window {site}", [add | {"window": [0.8, 0.3]}]
        clamp = {"kind": "clamp", "site": site, "targets": {"3": 8.0 * strength, "5": 0.0}}
        yield f"Clamp {site}", [clamp | {"dictionary": str(folder / f"{file[site]}.safetensors")}]
        if site.endswith("img"):
            yield f"masked Add {site}", [add | {"mask": masked().tolist()}]
            yield f"Add and Clamp {site}", [add, clamp | {"dictionary": str(folder / f"{file[site]}.safetensors")}]


def plan_of(items):
    made = []
    for item in items:
        options = {key: value for key, value in item.items() if key not in ("kind", "site")}
        for key in ("mask", "direction"):
            if key in options:
                options[key] = torch.tensor(options[key])
        if "window" in options:
            options["window"] = Window(*options["window"])
        site = Site.parse(item["site"])
        if item["kind"] == "clamp":
            options["targets"] = {int(feature): value for feature, value in options["targets"].items()}
            made.append(Clamp(site, load_dictionary(options.pop("dictionary")), **options))
        else:
            made.append(Add(site, **options | {"scale": Scale(torch.full((BINS,), options["scale"]))}))
    return Plan(made)


def in_diffusers(pipeline, plan, batch, seed):
    noise = torch.randn(batch, 16, 16, 16, generator=torch.Generator().manual_seed(seed))
    with attach(pipeline, plan), torch.inference_mode():
        return pipeline(
            prompt=[CAPTION] * batch,
            height=128,
            width=128,
            num_inference_steps=STEPS,
            sigmas=SIGMAS,
            max_sequence_length=16,
            latents=pack(noise),
            output_type="latent",
        ).images


@pytest.fixture(scope="module")
def euler(demo_flux):
    before = demo_flux.scheduler
    demo_flux.scheduler = FlowMatchEulerDiscreteScheduler.from_config(before.config)
    yield demo_flux
    demo_flux.scheduler = before


def apart(found, expected):
    return float((found - expected).norm() / expected.norm())


def test_the_same_plan_gives_the_same_latents(comfy, euler):
    plain = in_diffusers(euler, Plan(), 2, seed=5)
    written = ", ".join(f"{sigma:.6f}" for sigma in [*SIGMAS, 0.0])
    worst = {}
    for name, items in [("nothing", []), *cases(comfy)]:
        expected = in_diffusers(euler, plan_of(items), 2, seed=5)
        flow = Flow()
        model = flow.add("NeighbourApplyPlan", model=flow.model, plan=json.dumps(items))
        saved = flow.save(flow.custom(model, written, batch=2, seed=5))
        latents = comfy.latent(comfy.run(flow), saved)
        found = pack((latents - FLUX_SHIFT) * FLUX_SCALE)
        worst[name] = apart(found, expected)
        if items:
            assert apart(expected, plain) > 0.01, f"{name} changes nothing worth comparing"
    comfy.figures["parity, largest relative difference"] = max(worst.values())
    assert max(worst.values()) < 1e-3, worst
    assert len(worst) == 17


def test_text_and_pictures_are_encoded_alike(comfy, demo_flux, tmp_path):
    """What CLIPTextEncode and VAEEncode give is what diffusers gives; VAEDecode draws the same picture."""
    from diffusers import AutoencoderTiny

    from fluxtionary.training.sampling import Sampling, draw_pictures

    picture = draw_pictures(demo_flux, [CAPTION], [3], Sampling(steps=8))[0]
    from PIL import Image

    Image.fromarray(picture).save(comfy.base / "input" / "picture.png")
    flow = Flow()
    image = flow.add("LoadImage", image="picture.png")
    latent = flow.add("VAEEncode", pixels=image, vae=flow.vae)
    saved = flow.save(latent)
    shown = flow.add("SaveImage", images=flow.add("VAEDecode", samples=latent, vae=flow.vae), filename_prefix="again")
    outputs = comfy.run(flow)

    pixels = torch.from_numpy(picture).permute(2, 0, 1)[None].float() / 255 * 2 - 1
    with torch.inference_mode():
        vae = AutoencoderTiny.from_pretrained(files.PIPELINE / "vae", torch_dtype=torch.float32)
        encoded = vae.encode(pixels).latents
        decoded = vae.decode(encoded).sample
    assert apart((comfy.latent(outputs, saved) - FLUX_SHIFT) * FLUX_SCALE, encoded) < 1e-5
    expected = ((decoded[0] / 2 + 0.5).clamp(0, 1) * 255).permute(1, 2, 0)
    assert float((torch.from_numpy(comfy.picture(outputs, shown).copy()) - expected).abs().max()) <= 1.01
