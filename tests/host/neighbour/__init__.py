"""Another pack in the same ComfyUI: what the tests need to watch a run from outside, and packs that get in the way."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import folder_paths
import torch
from comfy.ldm.flux.model import Flux
from comfy.patcher_extension import WrappersMP
from safetensors.torch import save_file

from . import captures, control, hosts, numbers, prompts, quantized


def fluxtionary(name):
    """A module of the pack under test, whatever it is called here."""
    return next(module for key, module in sys.modules.items() if key.endswith(f".{name}") and "custom_nodes" in key)


class Watch:
    """A foreign patch that keeps what goes into a block, and moves the first channel of what comes out by `shift`."""

    CATEGORY, FUNCTION, RETURN_TYPES = "neighbour", "patch", ("MODEL",)

    @classmethod
    def INPUT_TYPES(cls):  # noqa: N802 (the host's name)
        return {
            "required": {
                "model": ("MODEL",),
                "stage": (["double_block", "single_block"],),
                "block": ("INT", {"default": 0}),
                "shift": ("FLOAT", {"default": 0.0, "min": -1000.0, "max": 1000.0}),
                "name": ("STRING", {"default": "watch"}),
            }
        }

    def patch(self, model, stage, block, shift, name):
        calls = []

        def watch(args, extra):
            options = args["transformer_options"]
            kept = {key: args[key].clone() for key in ("img", "txt") if key in args}
            kept["sigma"] = options["sigmas"][:1].clone()
            kept["cond_or_uncond"] = torch.tensor(options["cond_or_uncond"])
            calls.append(kept)
            flat = {f"{i}.{key}": value for i, call in enumerate(calls) for key, value in call.items()}
            save_file(flat, Path(folder_paths.get_output_directory()) / f"{name}.safetensors")
            out = extra["original_block"](args)
            if shift:
                out["img"][..., 0] += shift  # one channel: the norms of the next block would take out a common shift
            return out

        clone = model.clone()
        clone.set_model_patch_replace(watch, "dit", stage, block)
        return (clone,)

    @classmethod
    def IS_CHANGED(cls, **_):  # noqa: N802
        return float("nan")  # always anew: the file is the point


class Wrap:
    """A foreign DIFFUSION_MODEL wrapper that scales the model's output."""

    CATEGORY, FUNCTION, RETURN_TYPES = "neighbour", "patch", ("MODEL",)

    @classmethod
    def INPUT_TYPES(cls):  # noqa: N802
        return {"required": {"model": ("MODEL",), "factor": ("FLOAT", {"default": 1.0})}}

    def patch(self, model, factor):
        clone = model.clone()
        clone.add_wrapper_with_key(
            WrappersMP.DIFFUSION_MODEL, "neighbour", lambda executor, *a, **k: factor * executor(*a, **k)
        )
        return (clone,)


class ApplyPlan:
    """A plan straight from JSON, for edits and sites that no node offers."""

    CATEGORY, FUNCTION, RETURN_TYPES = "neighbour", "patch", ("MODEL",)

    @classmethod
    def INPUT_TYPES(cls):  # noqa: N802
        return {"required": {"model": ("MODEL",), "plan": ("STRING", {"multiline": True})}}

    def patch(self, model, plan):
        residual, dictionaries = fluxtionary("residual"), fluxtionary("dictionaries")
        items = []
        for item in json.loads(plan):
            kind, site = item.pop("kind"), item.pop("site")
            for key in ("mask", "direction"):
                if key in item:
                    item[key] = torch.tensor(item[key])
            if "window" in item:
                item["window"] = residual.Window(*item["window"])
            if kind == "clamp":
                item["dictionary"] = dictionaries.load_dictionary(item["dictionary"])
                item["targets"] = {int(feature): value for feature, value in item["targets"].items()}
                items.append(residual.Clamp(residual.Site.parse(site), **item))
            else:
                item["scale"] = dictionaries.Scale(torch.full((fluxtionary("scale").BINS,), item["scale"]))
                items.append(residual.Add(residual.Site.parse(site), **item))
        return (fluxtionary("comfy_host").patch(model, residual.Plan(items), "Apply Plan"),)


class KeepTap:
    """A tap straight from the library: keeps what is at a site, with the sigma and the role of every row."""

    CATEGORY, FUNCTION, RETURN_TYPES = "neighbour", "patch", ("MODEL",)

    @classmethod
    def INPUT_TYPES(cls):  # noqa: N802
        return {"required": {"model": ("MODEL",), "site": ("STRING", {}), "name": ("STRING", {})}}

    def patch(self, model, site, name):
        residual = fluxtionary("residual")
        kept = {}

        def keep(_tap, record, _x):
            number = len(kept) // 3
            roles = [record.moment.rows[i].role == "uncond" for i in record.batch_rows.tolist()]
            kept[f"{number}.img"] = record.activations
            kept[f"{number}.sigma"] = torch.tensor([record.moment.sigma])
            kept[f"{number}.rows"] = torch.tensor(roles).long()
            save_file(kept, Path(folder_paths.get_output_directory()) / f"{name}.safetensors")

        tap = residual.Tap(residual.Site.parse(site), receive=keep)
        return (fluxtionary("comfy_host").patch(model, residual.Plan([tap]), "Keep Tap"),)

    @classmethod
    def IS_CHANGED(cls, **_):  # noqa: N802
        return float("nan")


class Hollow(Flux):
    """A Flux whose own blocks are never called."""

    def forward(self, x, timestep, context, *args, **kwargs):
        return torch.zeros_like(x)


class Foreign(torch.nn.Module):
    """Somebody's wrapper around a Flux that runs elsewhere, as Nunchaku's."""

    def __init__(self, inner):
        super().__init__()
        self.inner, self.dtype = inner, inner.dtype

    def forward(self, x, timestep, context, *args, **kwargs):
        return torch.zeros_like(x)


class ReplaceFlux:
    """A MODEL whose diffusion model does not run ComfyUI's Flux blocks."""

    CATEGORY, FUNCTION, RETURN_TYPES = "neighbour", "replace", ("MODEL",)

    @classmethod
    def INPUT_TYPES(cls):  # noqa: N802
        return {"required": {"model": ("MODEL",), "kind": (["hollow", "foreign"],)}}

    def replace(self, model, kind):
        clone = model.clone()
        flux = clone.get_model_object("diffusion_model")
        if kind == "foreign":
            clone.add_object_patch("diffusion_model", Foreign(flux))
        else:
            hollow = Hollow.__new__(Hollow)
            hollow.__dict__.update(flux.__dict__)
            clone.add_object_patch("diffusion_model", hollow)
        return (clone,)


NODES = {kind.__name__: kind for kind in (Watch, Wrap, ApplyPlan, KeepTap, ReplaceFlux)}
MODULES = (captures, control, hosts, numbers, prompts, quantized)
NODE_CLASS_MAPPINGS = {
    f"Neighbour{name}": kind for nodes in (NODES, *(module.NODES for module in MODULES)) for name, kind in nodes.items()
}
