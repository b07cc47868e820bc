"""Nodes for `host_overhead.py`: a wide Flux and dictionaries of random weights, and a clock around sampling."""

from __future__ import annotations

import sys
import time
from functools import cache

import comfy.model_management
import comfy.model_patcher
import comfy.supported_models
import torch
from comfy.patcher_extension import WrappersMP

CONTEXT, POOLED = 4096, 768
"""Widths of Flux 1's text."""
HEAD = 128


def fluxtionary(name):
    """The pack's package of this name, whatever the pack is called here."""
    return next(module for key, module in sys.modules.items() if key.endswith(f".{name}") and "custom_nodes" in key)


@cache
def wide_flux(d_model):
    """A Flux 1 of 2 double and 4 single blocks in float32; kept, so that every workflow samples the same one."""
    config = comfy.supported_models.FluxSchnell(
        {
            "image_model": "flux",
            "in_channels": 16,
            "out_channels": 16,
            "patch_size": 2,
            "vec_in_dim": POOLED,
            "context_in_dim": CONTEXT,
            "hidden_size": d_model,
            "num_heads": d_model // HEAD,
            "mlp_ratio": 4.0,
            "depth": 2,
            "depth_single_blocks": 4,
            "axes_dim": [16, 56, 56],
            "theta": 10_000,
            "qkv_bias": True,
            "guidance_embed": False,
            "txt_ids_dims": [],
        }
    )
    config.set_inference_dtype(torch.float32, None)
    model = config.get_model({}, "")
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, weight in model.diffusion_model.named_parameters():
            if name.endswith(".scale"):  # of a norm
                weight.fill_(1)
            elif weight.ndim == 1:
                weight.zero_()
            else:
                weight.normal_(std=0.02, generator=generator)
    device, offload = comfy.model_management.get_torch_device(), comfy.model_management.unet_offload_device()
    return comfy.model_patcher.ModelPatcher(model, load_device=device, offload_device=offload)


@cache
def random_dictionary(site, d_model, features, k):
    dictionaries = fluxtionary("dictionaries")
    generator = torch.Generator().manual_seed(0)
    rows = torch.randn(features, d_model, generator=generator) / d_model**0.5
    return dictionaries.SparseAutoencoder(
        site=site,
        encoder=rows,
        encoder_bias=torch.zeros(features),
        decoder=rows,
        decoder_bias=torch.zeros(d_model),
        activation=dictionaries.Activation("topk", k),
        scale=dictionaries.Scale(torch.ones(1)),
    )


class WideFlux:
    CATEGORY, FUNCTION, RETURN_TYPES = "benchmark", "load", ("MODEL", "CONDITIONING")

    @classmethod
    def INPUT_TYPES(cls):  # noqa: N802 (the host's name)
        return {"required": {"d_model": ("INT", {"max": 2**16}), "text": ("INT", {"max": 512})}}

    def load(self, d_model, text):
        generator = torch.Generator().manual_seed(0)
        prompt = torch.randn(1, text, CONTEXT, generator=generator)
        pooled = torch.randn(1, POOLED, generator=generator)
        return (wide_flux(d_model), [[prompt, {"pooled_output": pooled}]])


class RandomDictionary:
    CATEGORY, FUNCTION, RETURN_TYPES = "benchmark", "make", ("FLUX_DICTIONARY",)

    @classmethod
    def INPUT_TYPES(cls):  # noqa: N802
        whole = ("INT", {"max": 2**20})
        return {"required": {"site": ("STRING", {}), "d_model": whole, "features": whole, "k": whole}}

    def make(self, site, d_model, features, k):
        return (random_dictionary(site, d_model, features, k),)


class Timed:
    """A MODEL whose sampling is timed from the outside: its wrapper comes before all that are added to it later."""

    CATEGORY, FUNCTION, RETURN_TYPES = "benchmark", "time", ("MODEL", "SECONDS")

    @classmethod
    def INPUT_TYPES(cls):  # noqa: N802
        return {"required": {"model": ("MODEL",)}}

    def time(self, model):
        seconds = []

        def clock(executor, *args, **kwargs):
            started = time.perf_counter()
            out = executor(*args, **kwargs)
            seconds.append(time.perf_counter() - started)
            return out

        clone = model.clone()
        clone.add_wrapper_with_key(WrappersMP.OUTER_SAMPLE, "benchmark", clock)
        return (clone, seconds)

    @classmethod
    def IS_CHANGED(cls, **_):  # noqa: N802
        return float("nan")  # every workflow samples anew


class Seconds:
    """What the clock of a sampling that is over showed."""

    CATEGORY, FUNCTION, RETURN_TYPES, OUTPUT_NODE = "benchmark", "tell", (), True

    @classmethod
    def INPUT_TYPES(cls):  # noqa: N802
        return {"required": {"after": ("LATENT",), "seconds": ("SECONDS",)}}

    def tell(self, after, seconds):
        return {"ui": {"seconds": list(seconds), "finite": [bool(after["samples"].isfinite().all())]}}


NODE_CLASS_MAPPINGS = {f"Benchmark{kind.__name__}": kind for kind in (WideFlux, RandomDictionary, Timed, Seconds)}
