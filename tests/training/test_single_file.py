"""Flux transformers in one file, in the original layout and in diffusers'."""

import pytest
import torch
from safetensors.torch import save_file

from fluxtionary.training.single_file import SingleFileError, _converted, check_fits, read_transformer

PARTS = {
    "double_blocks": {
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
    },
    "single_blocks": {
        "modulation.lin": ("norm.linear",),
        "linear1": ("attn.to_q", "attn.to_k", "attn.to_v", "proj_mlp"),
        "linear2": ("proj_out",),
        "norm.query_norm": ("attn.norm_q",),
        "norm.key_norm": ("attn.norm_k",),
    },
}
OUTSIDE = {
    "time_in": "time_text_embed.timestep_embedder",
    "vector_in": "time_text_embed.text_embedder",
    "guidance_in": "time_text_embed.guidance_embedder",
}


def original_layout(state):
    """A diffusers state dict under the names, and with the fused weights, of the first Flux release."""
    result = {}

    def put(name, *sources):
        for leaf in ("weight", "bias"):
            parts = [state[f"{source}.{leaf}"] for source in sources if f"{source}.{leaf}" in state]
            if parts:
                own = "scale" if name.endswith("_norm") else leaf
                result[f"{name}.{own}"] = torch.cat(parts).contiguous()

    for stage, folder in (("double_blocks", "transformer_blocks"), ("single_blocks", "single_transformer_blocks")):
        for number in {key.split(".")[1] for key in state if key.startswith(f"{folder}.")}:
            for name, sources in PARTS[stage].items():
                put(f"{stage}.{number}.{name}", *(f"{folder}.{number}.{source}" for source in sources))
    for name, source in OUTSIDE.items():
        put(f"{name}.in_layer", f"{source}.linear_1")
        put(f"{name}.out_layer", f"{source}.linear_2")
    for name, source in {
        "img_in": "x_embedder",
        "txt_in": "context_embedder",
        "final_layer.linear": "proj_out",
    }.items():
        put(name, source)
    for leaf in ("weight", "bias"):
        scale, shift = state[f"norm_out.linear.{leaf}"].chunk(2)
        result[f"final_layer.adaLN_modulation.1.{leaf}"] = torch.cat([shift, scale])
    return result


def small_transformer(**changes):
    from diffusers import FluxTransformer2DModel

    from fluxtionary.demo import files

    torch.manual_seed(1)
    return FluxTransformer2DModel(**{**files.TRANSFORMER_COMMON, **files.TRANSFORMER["small"], **changes})


@pytest.fixture(scope="module")
def transformer():
    return small_transformer(guidance_embeds=True)


def test_both_layouts_and_any_prefix_read_the_same(transformer, tmp_path):
    state = transformer.state_dict()
    original = original_layout(state)
    assert original["double_blocks.0.img_attn.qkv.weight"].shape == (3 * 128, 128)
    assert original["single_blocks.1.linear1.weight"].shape == (7 * 128, 128)
    elsewhere = {"vae.encoder.conv_in.weight": torch.ones(2), "text_encoders.t5xxl.scaled_fp8": torch.ones(1)}
    files = {
        "original": original,
        "diffusers": state,
        "comfyui": {f"model.diffusion_model.{key}": value for key, value in original.items()} | elsewhere,
        "prefixed": {f"transformer.{key}": value for key, value in state.items()},
    }
    for name, tensors in files.items():
        path = tmp_path / f"{name}.safetensors"
        save_file(tensors, path)
        found = read_transformer(path)
        assert found.keys() == state.keys(), name
        assert all(torch.equal(found[key], state[key]) for key in state), name
        check_fits(path, found, transformer.config, tmp_path)


def test_conversion_is_that_of_diffusers_at_the_width_it_knows():
    """Only the rows of the weights matter to it, so one column stands for all."""
    from diffusers.loaders.single_file_utils import convert_flux_transformer_checkpoint_to_diffusers

    with torch.device("meta"):
        full = small_transformer(
            attention_head_dim=128, num_attention_heads=24, axes_dims_rope=(16, 56, 56), guidance_embeds=True
        )
        original = original_layout(full.state_dict())
    thin = {
        key: torch.randn(value.shape[0], *[1] * (value.dim() - 1), generator=torch.Generator().manual_seed(number))
        for number, (key, value) in enumerate(original.items())
    }
    ours, theirs = _converted(thin), convert_flux_transformer_checkpoint_to_diffusers(dict(thin))
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[key], theirs[key]) for key in ours)


FLUX_2 = {
    "double_stream_modulation_img.lin.weight": torch.ones(2, 2),
    "double_blocks.0.img_attn.qkv.weight": torch.ones(2, 2),
}
FOREIGN = {
    "a LoRA": {"transformer.transformer_blocks.0.attn.add_q_proj.lora_A.weight": torch.ones(2, 2)},
    "a LoRA ": {"lora_unet_double_blocks_0_img_attn_proj.lora_up.weight": torch.ones(2, 2)},
    "a Nunchaku": {"transformer_blocks.0.qkv_proj.qweight": torch.ones(2)},
    "a bitsandbytes file": {
        "double_blocks.0.img_attn.qkv.weight": torch.ones(2),
        "double_blocks.0.img_attn.qkv.weight.absmax": torch.ones(2),
    },
    "a scaled fp8 file": {
        "double_blocks.0.img_attn.qkv.weight": torch.ones(2, 2).to(torch.float8_e4m3fn),
        "double_blocks.0.img_attn.qkv.scale_weight": torch.ones(()),
    },
    "a ControlNet": {
        "transformer_blocks.0.attn.add_q_proj.weight": torch.ones(2, 2),
        "controlnet_blocks.0.weight": torch.ones(2, 2),
    },
    "Chroma": {
        "double_blocks.0.img_attn.qkv.weight": torch.ones(2, 2),
        "distilled_guidance_layer.in_proj.weight": torch.ones(2, 2),
    },
    "Flux 2": {f"model.diffusion_model.{key}": value for key, value in FLUX_2.items()},
    "Stable Diffusion 3": {"model.diffusion_model.joint_blocks.0.x_block.attn.qkv.weight": torch.ones(2, 2)},
    "Stable Diffusion XL": {
        "model.diffusion_model.label_emb.0.0.weight": torch.ones(2, 2),
        "model.diffusion_model.input_blocks.0.0.weight": torch.ones(2, 2),
    },
    "a U-Net": {"model.diffusion_model.input_blocks.0.0.weight": torch.ones(2, 2)},
    "another double-stream": {
        "transformer_blocks.0.attn.add_q_proj.weight": torch.ones(2, 2),
        "transformer_blocks.0.img_mod.1.weight": torch.ones(2, 2),
    },
    "one that holds encoder.block.0.weight": {"encoder.block.0.weight": torch.ones(2, 2)},
}


@pytest.mark.parametrize("name", FOREIGN)
def test_other_files_are_named_for_what_they_are(tmp_path, name):
    path = tmp_path / "foreign.safetensors"
    save_file(FOREIGN[name], path)
    with pytest.raises(
        SingleFileError, match=f"foreign.safetensors: expected a Flux 1 transformer, found {name.strip()}"
    ):
        read_transformer(path)


def test_damaged_files_are_named(transformer, tmp_path):
    path = tmp_path / "cut.safetensors"
    save_file(transformer.state_dict(), path)
    path.write_bytes(path.read_bytes()[:5000])
    with pytest.raises(SingleFileError, match="cut.safetensors: expected a whole .safetensors file"):
        read_transformer(path)


def test_weights_must_be_those_of_the_configuration(transformer, tmp_path):
    path, config, state = tmp_path / "x.safetensors", dict(transformer.config), transformer.state_dict()
    cases = [
        ({"num_layers": 3}, state, "has 2 double and 2 single blocks; .*config.json says 3 and 2"),
        ({"guidance_embeds": False}, state, "is guidance-distilled, as FLUX.1-dev is, and .* guidance_embeds false"),
        ({"joint_attention_dim": 64}, state, r"context_embedder.weight is \[128, 128\], and .*\[128, 64\]"),
        ({}, {**state, "more.weight": torch.ones(1)}, "has 1 weights unknown to .*: more.weight"),
        ({}, {k: v for k, v in state.items() if k != "proj_out.bias"}, "lacks 1 weights .*asks for: proj_out.bias"),
        ({}, {**state, "proj_out.bias": state["proj_out.bias"].to(torch.int8)}, "proj_out.bias is torch.int8"),
    ]
    for changes, weights, words in cases:
        with pytest.raises(SingleFileError, match=words):
            check_fits(path, weights, config | changes, tmp_path)
    without = {k: v for k, v in state.items() if "guidance" not in k}
    with pytest.raises(SingleFileError, match="without guidance, as FLUX.1-schnell is, and .* guidance_embeds true"):
        check_fits(path, without, config, tmp_path)
