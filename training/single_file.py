"""A Flux transformer in one file: what it is, and its weights under diffusers' names.

diffusers converts the original layout too, but only at the width of the full Flux (3072 is a constant in its
converter), and what a file lacks or has too much stays uninitialized or is dropped. Here widths are read off the
weights, and whatever does not fit is an error.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

ENDINGS = (".safetensors", ".gguf")

_ORIGINAL = "double_blocks.0.img_attn.qkv.weight"
_DIFFUSERS = "transformer_blocks.0.attn.add_q_proj.weight"
_KNOWN = (_ORIGINAL, _DIFFUSERS)

_OUTSIDE = {
    "time_in.in_layer": "time_text_embed.timestep_embedder.linear_1",
    "time_in.out_layer": "time_text_embed.timestep_embedder.linear_2",
    "vector_in.in_layer": "time_text_embed.text_embedder.linear_1",
    "vector_in.out_layer": "time_text_embed.text_embedder.linear_2",
    "guidance_in.in_layer": "time_text_embed.guidance_embedder.linear_1",
    "guidance_in.out_layer": "time_text_embed.guidance_embedder.linear_2",
    "txt_in": "context_embedder",
    "img_in": "x_embedder",
    "final_layer.linear": "proj_out",
    "final_layer.adaLN_modulation.1": "norm_out.linear",
}
_DOUBLE = {
    "img_mod.lin": ("norm1.linear",),
    "txt_mod.lin": ("norm1_context.linear",),
    "img_attn.qkv": ("attn.to_q", "attn.to_k", "attn.to_v"),
    "txt_attn.qkv": ("attn.add_q_proj", "attn.add_k_proj", "attn.add_v_proj"),
    "img_attn.norm.query_norm": ("attn.norm_q",),
    "img_attn.norm.key_norm": ("attn.norm_k",),
    "txt_attn.norm.query_norm": ("attn.norm_added_q",),
    "txt_attn.norm.key_norm": ("attn.norm_added_k",),
    "img_attn.proj": ("attn.to_out.0",),
    "txt_attn.proj": ("attn.to_add_out",),
    "img_mlp.0": ("ff.net.0.proj",),
    "img_mlp.2": ("ff.net.2",),
    "txt_mlp.0": ("ff_context.net.0.proj",),
    "txt_mlp.2": ("ff_context.net.2",),
}
_SINGLE = {
    "modulation.lin": ("norm.linear",),
    "linear1": ("attn.to_q", "attn.to_k", "attn.to_v", "proj_mlp"),
    "linear2": ("proj_out",),
    "norm.query_norm": ("attn.norm_q",),
    "norm.key_norm": ("attn.norm_k",),
}

# Marks of what is no plain Flux transformer; the first that is found among its own keys names the file.
_FOREIGN = (
    ((".lora_", "lora_unet_", ".lora.", "lora_transformer_"), "a LoRA"),
    ((".absmax", ".quant_state."), "a bitsandbytes file, which diffusers reads from folders alone"),
    ((".qweight", ".wscales"), "a Nunchaku (SVDQuant) file, whose blocks diffusers cannot run"),
    ((".scale_weight", ".weight_scale", "scaled_fp8"), "a scaled fp8 file, whose scales diffusers would drop"),
    (("controlnet_",), "a ControlNet"),
    (("distilled_guidance_layer.",), "Chroma"),
    (("double_stream_modulation_img.",), "Flux 2"),
    (("joint_blocks.", "pos_embed.proj.weight"), "Stable Diffusion 3"),
    (("label_emb.0.0.weight", "add_embedding.linear_1.weight"), "Stable Diffusion XL"),
    (("input_blocks.0.0.weight", "down_blocks.0.resnets"), "a U-Net such as Stable Diffusion 1 or a VAE"),
    (("img_attn_qkv.", "transformer_blocks.0.img_mod."), "another double-stream transformer"),
)


class SingleFileError(ValueError):
    """A file that holds no Flux transformer, or not the one that a configuration describes."""


def read_transformer(path: Path) -> dict[str, Tensor]:
    """A single file's transformer as a state dict under diffusers' names, of whatever width and depth.

    Takes the original layout (`double_blocks.0.img_attn.qkv.weight`) and diffusers' own, below any prefix such as
    `model.diffusion_model.` of a full ComfyUI checkpoint, from `.safetensors` (mapped, not read) or `.gguf`. Raises
    `SingleFileError` for another architecture and for a damaged file, `ImportError` where reading GGUF needs a
    library.
    """
    from diffusers.loaders.single_file_utils import load_single_file_checkpoint

    try:
        state = load_single_file_checkpoint(str(path))
    except (OSError, ValueError) as error:
        raise SingleFileError(f"{path}: expected a whole {path.suffix} file, found a damaged one. {error}") from error
    prefix = next(
        (key.removesuffix(known) for known in _KNOWN for key in state if f".{key}".endswith(f".{known}")), None
    )
    own = {key.removeprefix(prefix or ""): value for key, value in state.items() if key.startswith(prefix or "")}
    found = next((name for marks, name in _FOREIGN if any(mark in key for key in own for mark in marks)), None)
    if found is None and prefix is None:
        found = f"one that holds {', '.join(sorted(state)[:3]) or 'nothing'}"
    if found is not None:
        raise SingleFileError(
            f"{path}: expected a Flux 1 transformer, found {found}. "
            "Take the transformer itself, in bf16, plain fp8 or GGUF"
        )
    return _converted(own) if _ORIGINAL in own else own


def _converted(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Every weight under diffusers' name; names that are unknown stay, for the comparison to name them."""
    converted = {}
    width = len(state[_ORIGINAL]) // 3
    for key, value in state.items():
        module, _, leaf = key.rpartition(".")
        leaf = "weight" if leaf == "scale" else leaf
        stage, _, rest = module.partition(".")
        block, _, inside = rest.partition(".")
        if stage in ("double_blocks", "single_blocks"):
            double = stage == "double_blocks"
            targets = (_DOUBLE if double else _SINGLE).get(inside, (inside,))
            sizes = [width] * (len(targets) - 1) + [len(value) - width * (len(targets) - 1)]
            folder = "transformer_blocks" if double else "single_transformer_blocks"
            for target, part in zip(targets, value.split(sizes) if len(targets) > 1 else [value], strict=True):
                converted[f"{folder}.{block}.{target}.{leaf}"] = part
        elif module == "final_layer.adaLN_modulation.1":
            shift, scale = value.chunk(2, dim=0)  # diffusers has the scale first
            converted[f"norm_out.linear.{leaf}"] = torch.cat([scale, shift], dim=0)
        else:
            converted[f"{_OUTSIDE.get(module, module)}.{leaf}" if module else key] = value
    return converted


def check_fits(path: Path, state: Mapping[str, Tensor], config: Mapping[str, Any], folder: Path) -> None:
    """Raise `SingleFileError` unless the weights are exactly those of `folder/transformer/config.json`."""
    from diffusers import FluxTransformer2DModel

    with torch.device("meta"):
        expected = FluxTransformer2DModel.from_config(dict(config)).state_dict()
    missing, extra = expected.keys() - state.keys(), state.keys() - expected.keys()
    there = folder / "transformer" / "config.json"
    found = [_depth(keys) for keys in (state, expected)]
    if found[0] != found[1]:
        double, single = found[0]
        raise SingleFileError(
            f"{path} has {double} double and {single} single blocks; {there} says {found[1][0]} and {found[1][1]}. "
            "Point --config at a pipeline of the same model"
        )
    if any("guidance_embedder" in key for key in missing | extra):
        has = any("guidance_embedder" in key for key in state)
        raise SingleFileError(
            f"{path} is {'guidance-distilled, as FLUX.1-dev is' if has else 'without guidance, as FLUX.1-schnell is'}, "
            f"and {there} says guidance_embeds {str(not has).lower()}. Point --config at a pipeline of that kind"
        )
    for keys, what in ((missing, "lacks {} weights that {} asks for"), (extra, "has {} weights unknown to {}")):
        if keys:
            raise SingleFileError(f"{path} {what.format(len(keys), there)}: {', '.join(sorted(keys)[:3])}")
    for key, weight in expected.items():
        shape = getattr(state[key], "quant_shape", None)  # of GGUF
        if shape is None:
            shape = state[key].shape
            if not state[key].is_floating_point():
                raise SingleFileError(f"{path}: {key} is {state[key].dtype}, expected bf16, fp16, fp32 or plain fp8")
        if tuple(shape) != tuple(weight.shape):
            raise SingleFileError(
                f"{path}: {key} is {list(shape)}, and {there} makes it {list(weight.shape)}. "
                "Point --config at a pipeline of the same model"
            )


def _depth(keys: Iterable[str]) -> tuple[int, int]:
    """Double and single blocks that a state dict has weights of."""
    stages = [stage for stage, _ in {tuple(key.split(".")[:2]) for key in keys if "." in key}]
    return stages.count("transformer_blocks"), stages.count("single_transformer_blocks")
