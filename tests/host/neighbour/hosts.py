"""Ways to run a Flux: with little memory, compiled, in tiles, or a model that is not Flux 1 at all."""

from __future__ import annotations

import gc
from collections import Counter

import comfy.ops
import torch
from comfy.ldm.chroma.model import Chroma
from comfy.ldm.flux.model import Flux
from comfy_api.torch_helpers import set_torch_compile_wrapper


class LittleMemory:
    """A MODEL that seems too big for more than one conditioning at a time, so that each gets a call of its own."""

    CATEGORY, FUNCTION, RETURN_TYPES = "neighbour", "shrink", ("MODEL",)

    @classmethod
    def INPUT_TYPES(cls):  # noqa: N802 (the host's name)
        return {"required": {"model": ("MODEL",), "pictures": ("INT", {"default": 1})}}

    def shrink(self, model, pictures):
        clone = model.clone()
        clone.add_object_patch("memory_required", lambda input_shape, **_: 0 if input_shape[0] <= pictures else 1e30)
        return (clone,)


def without_options(guards):
    """As the host's own compile node: what is in the options of a call does not lead to compiling again."""
    return ["transformer_options" not in guard.name for guard in guards]


class Compile:
    """torch.compile of whole model or blocks, by the host's helper, with a backend that needs no compiler."""

    CATEGORY, FUNCTION, RETURN_TYPES = "neighbour", "compile", ("MODEL",)

    @classmethod
    def INPUT_TYPES(cls):  # noqa: N802
        return {"required": {"model": ("MODEL",), "what": (["blocks", "model"],)}}

    def compile(self, model, what):
        clone = model.clone()
        flux = clone.get_model_object("diffusion_model")
        blocks = [
            f"diffusion_model.{kind}.{i}"
            for kind in ("double_blocks", "single_blocks")
            for i in range(len(getattr(flux, kind)))
        ]
        keys = blocks if what == "blocks" else ["diffusion_model"]
        options = None if what == "blocks" else {"guard_filter_fn": without_options}
        set_torch_compile_wrapper(clone, backend="eager", options=options, keys=keys)
        return (clone,)


class Tiles:
    """The model called on the halves of the latent, left and right, as tiled diffusion does: in turn or in a batch."""

    CATEGORY, FUNCTION, RETURN_TYPES = "neighbour", "tile", ("MODEL",)

    @classmethod
    def INPUT_TYPES(cls):  # noqa: N802
        return {"required": {"model": ("MODEL",), "together": ("BOOLEAN", {"default": False})}}

    def tile(self, model, together):
        def in_turn(apply_model, call):
            parts = [apply_model(part, call["timestep"], **call["c"]) for part in call["input"].chunk(2, -1)]
            return torch.cat(parts, -1)

        def in_a_batch(apply_model, call):
            parts = torch.cat(call["input"].chunk(2, -1))
            own = {
                name: torch.cat([value, value]) if isinstance(value, torch.Tensor) and len(value) > 1 else value
                for name, value in call["c"].items()
            }
            found = apply_model(parts, torch.cat([call["timestep"]] * 2), **own)
            return torch.cat(found.chunk(2), -1)

        clone = model.clone()
        clone.set_model_unet_function_wrapper(in_a_batch if together else in_turn)
        return (clone,)


COMMON = {
    "in_channels": 16,
    "out_channels": 16,
    "context_in_dim": 128,
    "hidden_size": 192,
    "mlp_ratio": 4.0,
    "num_heads": 6,
    "depth": 2,
    "depth_single_blocks": 4,
    "axes_dim": [8, 12, 12],
    "theta": 10_000,
    "patch_size": 2,
    "qkv_bias": True,
    "txt_ids_dims": [],
    "vec_in_dim": 64,
    "dtype": torch.float32,
    "operations": comfy.ops.disable_weight_init,
}
"""The demo Flux's own shape: a relative that is refused is not refused for its size."""


def chroma():
    own = {"in_channels": 64, "out_channels": 64, "in_dim": 64, "out_dim": 192, "hidden_dim": 64, "n_layers": 1}
    return Chroma(**COMMON | own)


def flux_2():
    own = {"global_modulation": True, "mlp_silu_act": True, "ops_bias": False, "guidance_embed": False}
    return Flux(**COMMON | own)


class Relative:
    """A MODEL of Flux's family that is not Flux 1."""

    CATEGORY, FUNCTION, RETURN_TYPES = "neighbour", "replace", ("MODEL",)
    KINDS = {"chroma": chroma, "flux 2": flux_2}  # noqa: RUF012

    @classmethod
    def INPUT_TYPES(cls):  # noqa: N802
        return {"required": {"model": ("MODEL",), "kind": (list(cls.KINDS),)}}

    def replace(self, model, kind):
        clone = model.clone()
        clone.add_object_patch("diffusion_model", self.KINDS[kind]())
        return (clone,)


class Census:
    """How much is alive in the server: bytes of all tensors, and objects of the pack, by class."""

    CATEGORY, FUNCTION, RETURN_TYPES, OUTPUT_NODE = "neighbour", "count", (), True

    @classmethod
    def INPUT_TYPES(cls):  # noqa: N802
        return {"required": {"after": ("LATENT",), "number": ("INT", {"default": 0})}}

    def count(self, after, number):
        gc.collect()
        storages, kinds = {}, Counter()
        for thing in gc.get_objects():
            kind = type(thing)
            if kind in (torch.Tensor, torch.nn.Parameter) and thing.device.type == "cpu":
                storages[thing.untyped_storage().data_ptr()] = thing.untyped_storage().nbytes()
            if ".residual." in str(kind.__module__):
                kinds[kind.__name__] += 1
        return {"ui": {"bytes": [sum(storages.values())], "kinds": [dict(kinds)]}}


NODES = {kind.__name__: kind for kind in (LittleMemory, Compile, Tiles, Relative, Census)}
