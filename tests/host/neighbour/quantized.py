"""Loaders of smaller weights: fp8 as the host stores it, and blocks of integers as GGUF loaders do."""

from __future__ import annotations

import comfy.ops
import torch
from comfy.model_patcher import ModelPatcher

BLOCK = 32
"""Weights that share one scale."""


def reloaded(model, dtype, operations=None, patcher=ModelPatcher):
    """The same Flux loaded anew, its weights kept as `dtype` or by `operations`, computing in float32."""
    known = model.model.model_config
    config = type(known)(known.unet_config)
    config.set_inference_dtype(dtype, torch.float32)
    config.custom_operations = operations
    weights = {name: weight.clone() for name, weight in model.model.diffusion_model.state_dict().items()}
    flux = config.get_model({}, "")
    flux.load_model_weights(weights, "")
    return patcher(flux, load_device=model.load_device, offload_device=model.offload_device)


class LoadFp8:
    """A Flux in float8_e4m3fn, with the host's own layers that cast each weight when it is used."""

    CATEGORY, FUNCTION, RETURN_TYPES = "neighbour", "load", ("MODEL",)

    @classmethod
    def INPUT_TYPES(cls):  # noqa: N802 (the host's name)
        return {"required": {"model": ("MODEL",)}}

    def load(self, model):
        found = reloaded(model, torch.float8_e4m3fn)
        layer = found.model.diffusion_model.double_blocks[1].img_mlp[0]
        assert isinstance(layer, comfy.ops.manual_cast.Linear) and layer.weight.dtype == torch.float8_e4m3fn
        return (found,)


class BlockOps(comfy.ops.manual_cast):
    """Layers whose weights lie in blocks of 32 int8 with one scale each, and are written out in `forward`."""

    class Linear(comfy.ops.manual_cast.Linear):
        def _load_from_state_dict(self, state_dict, prefix, *_):
            weight = state_dict.pop(f"{prefix}weight").float().unflatten(1, (-1, BLOCK))
            scale = weight.abs().amax(-1, keepdim=True).clamp(min=1e-12) / 127
            self.weight = torch.nn.Parameter((weight / scale).round().to(torch.int8), requires_grad=False)
            self.register_buffer("scale", scale)
            if self.bias is not None:
                self.bias = torch.nn.Parameter(state_dict.pop(f"{prefix}bias").float(), requires_grad=False)

        def forward_comfy_cast_weights(self, input):
            weight = (self.weight.to(input) * self.scale.to(input)).flatten(1)
            return torch.nn.functional.linear(input, weight, self.bias)


class BlockPatcher(ModelPatcher):
    """A patcher of its own class, with a setting of its own, which must survive cloning."""

    patch_on_device = False

    def clone(self, *args, **kwargs):
        clone = super().clone(*args, **kwargs)
        clone.patch_on_device = self.patch_on_device
        return clone


class LoadBlocks:
    """A Flux with weights in integer blocks, in a patcher of its own class."""

    CATEGORY, FUNCTION, RETURN_TYPES = "neighbour", "load", ("MODEL",)

    @classmethod
    def INPUT_TYPES(cls):  # noqa: N802
        return {"required": {"model": ("MODEL",)}}

    def load(self, model):
        found = reloaded(model, torch.float32, BlockOps, BlockPatcher)
        assert found.model.diffusion_model.double_blocks[1].img_mlp[0].weight.dtype == torch.int8
        found.patch_on_device = True
        return (found,)


class Describe:
    """What a MODEL is: the class of its patcher, and whether its own setting is still there."""

    CATEGORY, FUNCTION, RETURN_TYPES, OUTPUT_NODE = "neighbour", "describe", (), True

    @classmethod
    def INPUT_TYPES(cls):  # noqa: N802
        return {"required": {"model": ("MODEL",)}}

    def describe(self, model):
        return {"ui": {"text": [type(model).__name__, str(getattr(model, "patch_on_device", None))]}}


NODES = {kind.__name__: kind for kind in (LoadFp8, LoadBlocks, Describe)}
