"""Situations that Fluxtionary lives in: what people wire around it, and what the host then computes.

A capture of `double.1.img` or `single.1.img`, of both roles, must contain in each situation: for every sigma that was
computed, in order, and every call of `calls`, `pictures` rows for each of its roles, of `image` tokens each. Text,
reference tokens and a ControlNet's residual of that block are never in it; a step that a cache skips leaves nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from safetensors.torch import save_file

from .flow import CAPTION, Flow

QUARTERS = (1.0, 0.75, 0.5, 0.25)
EIGHTHS = tuple(1 - i / 8 for i in range(8))
LORA, MASK = "living.safetensors", "left.png"


@dataclass(frozen=True)
class ModelCall:
    """One call of the model: the conditionings in it, 0 being the positive one, and the tokens of each row."""

    roles: tuple[int, ...] = (0,)
    image: int = 64
    text: int = 16
    references: int = 0

    @property
    def tokens(self) -> int:
        return self.text + self.image + self.references


@dataclass(frozen=True)
class Situation:
    """A neighbor and a way to sample.

    `wrap(flow, model)` gives the model with the neighbor on it, `sample(flow, model)` a latent. `calls` are those of
    one evaluation of the model, `sigmas` those of the evaluations in order. `loads` marks what stands for a loader,
    which comes before everything; `alike` what must not change the picture; `cached` what skips some evaluations.
    """

    wrap: Callable[[Flow, list], list] = lambda _, model: model
    sample: Callable[[Flow, list], list] = Flow.sample
    calls: tuple[ModelCall, ...] = (ModelCall(),)
    pictures: int = 1
    sigmas: tuple[float, ...] = QUARTERS
    loads: bool = False
    alike: bool = False
    cached: bool = False

    @property
    def wraps(self) -> bool:
        return self.wrap is not Situation.wrap

    @property
    def middle(self) -> float:
        """A sigma between two steps, halfway through the run."""
        steps = sorted(set(self.sigmas), reverse=True)
        half = len(steps) // 2
        return (steps[half - 1] + steps[half]) / 2


def node(kind: str, **inputs) -> Callable[[Flow, list], list]:
    return lambda flow, model: flow.add(kind, model=model, **inputs)


def sampled(**options) -> Callable[[Flow, list], list]:
    """KSampler with options, of which callables are made with the flow."""

    def sample(flow: Flow, model: list) -> list:
        return flow.sample(model, **{name: made(flow) if callable(made) else made for name, made in options.items()})

    return sample


def foreign_patches(flow: Flow, model: list) -> list:
    """Patches of another pack on the very blocks that are steered and tapped."""
    for kind in ("double_block", "single_block"):
        model = flow.watch(model, f"foreign-{kind}", kind, 1, shift=50.0)
    return model


def area(flow: Flow) -> list:
    """A prompt for a part of the picture, 8 by 6 tokens, beside one for all of it."""
    part = flow.add(
        "ConditioningSetArea",
        conditioning=flow.text("a red circle"),
        **{"width": 96, "height": 128, "x": 32, "y": 0, "strength": 1.0},
    )
    return flow.add("ConditioningCombine", conditioning_1=part, conditioning_2=flow.text(CAPTION))


def controlled(flow: Flow) -> list:
    return flow.add("NeighbourControl", conditioning=flow.text(CAPTION), size=5.0)


def references(flow: Flow) -> list:
    """Two reference pictures, of 6 by 4 and 8 by 8 tokens."""
    text = flow.text(CAPTION)
    for width, height in ((64, 96), (128, 128)):
        text = flow.add("ReferenceLatent", conditioning=text, latent=picture(flow, width, height))
    return text


def longer_text(flow: Flow) -> list:
    return flow.add(
        "ConditioningConcat", conditioning_to=flow.text(CAPTION), conditioning_from=flow.text("a red circle")
    )


def hooked_lora(flow: Flow) -> list:
    hooks = flow.add("CreateHookLora", lora_name=LORA, strength_model=0.2, strength_clip=0.0)
    return flow.add(
        "ConditioningSetProperties", cond_NEW=flow.text(CAPTION), hooks=hooks, strength=1.0, set_cond_area="default"
    )


def picture(flow: Flow, width: int = 128, height: int = 128) -> list:
    """A plain blue picture as a latent."""
    blue = flow.add("EmptyImage", width=width, height=height, batch_size=1, color=0x3060C0)
    return flow.add("VAEEncode", pixels=blue, vae=flow.vae)


def masked_picture(flow: Flow) -> list:
    return flow.add("SetLatentNoiseMask", samples=picture(flow), mask=flow.mask(MASK))


def two_stages(flow: Flow, model: list) -> list:
    return flow.stage(model, flow.stage(model, flow.empty(), 0, 4), 4, 8)


def custom_sampler(flow: Flow, model: list) -> list:
    return flow.custom(model, "1.0, 0.75, 0.5, 0.25, 0.0", batch=2)


BOTH = (ModelCall((0, 1)),)
APART = (ModelCall((0,)), ModelCall((1,)))
CACHE = {"reuse_threshold": 0.5, "start_percent": 0.1, "end_percent": 1.0, "verbose": False}

LIVING: dict[str, Situation] = {
    "alone": Situation(),
    "LoRA": Situation(node("LoraLoaderModelOnly", lora_name=LORA, strength_model=0.2)),
    "LoRA by hooks": Situation(sample=sampled(positive=hooked_lora, cfg=3.0), calls=APART),
    "fp8": Situation(node("NeighbourLoadFp8"), loads=True),
    "integer blocks": Situation(node("NeighbourLoadBlocks"), loads=True),
    "cfg": Situation(sample=sampled(cfg=3.0), calls=BOTH),
    "batch": Situation(sample=sampled(cfg=3.0, latent=lambda flow: flow.empty(3)), calls=BOTH, pictures=3),
    "odd size": Situation(
        sample=sampled(latent=lambda flow: flow.empty(2, 136, 120)), calls=(ModelCall(image=72),), pictures=2
    ),
    "area": Situation(sample=sampled(cfg=3.0, positive=area), calls=(ModelCall((0, 1)), ModelCall((0, 1), image=48))),
    "ControlNet": Situation(sample=sampled(cfg=3.0, positive=controlled), calls=APART),
    "reference pictures": Situation(
        sample=sampled(cfg=3.0, positive=references), calls=(ModelCall((0,), references=88), ModelCall((1,)))
    ),
    "longer text": Situation(
        sample=sampled(cfg=3.0, positive=longer_text), calls=(ModelCall((0,), text=32), ModelCall((1,)))
    ),
    "text lengthened inside": Situation(
        node("NeighbourLongerText", tokens=7), sampled(cfg=3.0), calls=(ModelCall((0, 1), text=23),)
    ),
    "little memory": Situation(
        node("NeighbourLittleMemory", pictures=2),
        sampled(cfg=3.0, latent=lambda flow: flow.empty(2)),
        calls=APART,
        pictures=2,
        alike=True,
    ),
    "compiled blocks": Situation(node("NeighbourCompile", what="blocks"), alike=True),
    "EasyCache": Situation(node("EasyCache", **CACHE), sampled(steps=8), sigmas=EIGHTHS, cached=True),
    "LazyCache": Situation(node("LazyCache", **CACHE), sampled(steps=8), sigmas=EIGHTHS, cached=True),
    "skip-layer guidance": Situation(
        node(
            "SkipLayerGuidanceDiT",
            **{"double_layers": "0", "single_layers": "1", "scale": 1.0, "rescaling_scale": 0.0},
            **{"start_percent": 0.0, "end_percent": 1.0},
        ),
        calls=(ModelCall(), ModelCall()),
    ),
    "image to image": Situation(sample=sampled(latent=picture, denoise=0.5), sigmas=(0.5, 0.375, 0.25, 0.125)),
    "inpainting": Situation(sample=sampled(latent=masked_picture)),
    "two stages": Situation(sample=two_stages, sigmas=EIGHTHS),
    "custom sampler": Situation(sample=custom_sampler, pictures=2),
    "two calls a step": Situation(sample=sampled(sampler_name="heun"), sigmas=(1.0, 0.75, 0.75, 0.5, 0.5, 0.25, 0.25)),
    "foreign patches": Situation(foreign_patches),
    "foreign wrapper": Situation(node("NeighbourWrap", factor=0.9)),
}


def write_files(comfy) -> None:
    """The files that situations read."""
    generator = torch.Generator().manual_seed(0)
    name = "diffusion_model.double_blocks.1.img_attn.proj"
    weights = {
        f"{name}.lora_A.weight": torch.randn(4, 192, generator=generator),
        f"{name}.lora_B.weight": torch.randn(192, 4, generator=generator),
    }
    save_file(weights, comfy.base / "models" / "loras" / LORA)
