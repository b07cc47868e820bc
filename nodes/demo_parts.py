"""The demo Flux as ComfyUI's MODEL, CLIP and VAE.

ComfyUI finds out what a model is from its weights and takes any Flux for one of the full size, so the parts of the
small one are put together here, from the same classes.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import comfy.latent_formats
import comfy.model_detection
import comfy.model_management
import comfy.model_patcher
import comfy.sd
import comfy.sd1_clip
import comfy.supported_models
import comfy.supported_models_base
import comfy.text_encoders.t5
import torch
from safetensors.torch import load_file
from torch import Tensor

from ..demo import files
from ..demo.captions import TEXT_TOKENS, CaptionError, check_caption, words_of


def load_model(size: str) -> comfy.model_patcher.ModelPatcher:
    """The transformer of a demo Flux, `base` or `small`."""
    folder = files.PIPELINE / "transformer" if size == "base" else files.SMALL_TRANSFORMER
    weights = comfy.model_detection.convert_diffusers_mmdit(_weights(folder))
    own, common = files.TRANSFORMER[size], files.TRANSFORMER_COMMON
    config = comfy.supported_models.FluxSchnell(
        {
            "image_model": "flux",
            "in_channels": common["in_channels"] // 4,  # ComfyUI counts latent channels; a token is 2x2 latent pixels
            "out_channels": common["in_channels"] // 4,
            "patch_size": 2,
            "vec_in_dim": common["pooled_projection_dim"],
            "context_in_dim": common["joint_attention_dim"],
            "hidden_size": own["num_attention_heads"] * common["attention_head_dim"],
            "num_heads": own["num_attention_heads"],
            "mlp_ratio": 4.0,
            "depth": own["num_layers"],
            "depth_single_blocks": own["num_single_layers"],
            "axes_dim": list(common["axes_dims_rope"]),
            "theta": 10_000,
            "qkv_bias": True,
            "guidance_embed": common["guidance_embeds"],
            "txt_ids_dims": [],
        }
    )
    config.set_inference_dtype(torch.float32, None)
    device, offload = comfy.model_management.get_torch_device(), comfy.model_management.unet_offload_device()
    model = config.get_model(weights, "").to(offload)
    model.load_model_weights(weights, "")
    return comfy.model_patcher.ModelPatcher(model, load_device=device, offload_device=offload)


def load_clip() -> comfy.sd.CLIP:
    """The two text encoders of the demo Flux, with its tokenizer."""
    target = comfy.supported_models_base.ClipTarget(_Tokenizer, _TextEncoders)
    clip = comfy.sd.CLIP(target, model_options={"dtype": torch.float32})
    encoders = clip.cond_stage_model
    encoders.t5xxl.transformer.load_state_dict(_weights(files.PIPELINE / "text_encoder_2"))
    pooled = {f"text_model.{name}": weight for name, weight in _weights(files.PIPELINE / "text_encoder").items()}
    # ComfyUI's CLIP knows one size of vocabulary, so the rows of words that the demo Flux lacks stay 0
    name, clip_l = "text_model.embeddings.token_embedding.weight", encoders.clip_l.transformer
    known = torch.zeros(clip_l.get_input_embeddings().weight.shape)
    known[: len(pooled[name])] = pooled[name]
    pooled[name] = known
    # and a projection after it, which Flux does not use
    pooled["text_projection.weight"] = torch.eye(files.CLIP["hidden_size"])
    clip_l.load_state_dict(pooled)
    return clip


def load_vae() -> comfy.sd.VAE:
    """The VAE of the demo Flux, which ComfyUI knows as a TAESD with 16 channels."""
    renamed = {}
    for name, weight in _weights(files.PIPELINE / "vae").items():
        half, _, number, *rest = name.split(".")
        # ComfyUI's decoder starts with a clamp that has no weights, so it counts from one later
        layer = int(number) + (half == "decoder")
        renamed[".".join((f"taesd_{half}", str(layer), *rest))] = weight
    # the demo's latents are what its transformer takes; ComfyUI keeps Flux latents scaled, and the VAE scales them back
    latents = comfy.latent_formats.Flux()
    renamed["vae_scale"], renamed["vae_shift"] = torch.tensor(latents.scale_factor), torch.tensor(latents.shift_factor)
    return comfy.sd.VAE(sd=renamed, dtype=torch.float32)


def _weights(folder: Path) -> dict[str, Tensor]:
    (path,) = folder.glob("*.safetensors")
    return {name: weight.float() for name, weight in load_file(path).items()}


class _WordTokens:
    """One word, one token: what `SDTokenizer` asks of a tokenizer. Unknown words are an error, not a guess."""

    def __init__(self, starts_with_bos: bool):
        self.start = [files.BOS] if starts_with_bos else []

    @classmethod
    def from_pretrained(cls, starts_with_bos: bool) -> _WordTokens:
        return cls(starts_with_bos)

    def __call__(self, text: str) -> dict[str, list[int]]:
        check_caption(text)
        return {"input_ids": [files.VOCABULARY[token] for token in (*self.start, *words_of(text), files.EOS)]}

    def get_vocab(self) -> dict[str, int]:
        return files.VOCABULARY


class _OneLength(comfy.sd1_clip.SDTokenizer):
    """Captions of one fixed length, as the demo Flux was trained; the host would split longer ones."""

    def __init__(self, key: str, width: int, starts_with_bos: bool, **host: Any):
        super().__init__(
            starts_with_bos,
            max_length=TEXT_TOKENS,
            pad_with_end=False,
            embedding_key=key,
            embedding_size=width,
            tokenizer_class=_WordTokens,
            has_start_token=starts_with_bos,
            **host,
        )

    def tokenize_with_weights(self, text: str, *args: Any, **kwargs: Any) -> list:
        parts = super().tokenize_with_weights(text, *args, **kwargs)
        if len(parts) > 1:
            raise CaptionError(
                f"{text!r} is too long: the demo Flux reads at most {TEXT_TOKENS - 2} words; make it shorter"
            )
        return parts


class _Tokenizer:
    """Both tokenizers, as `comfy.sd.CLIP` wants them for Flux."""

    def __init__(self, embedding_directory: Any = None, tokenizer_data: dict | None = None):
        host = {"embedding_directory": embedding_directory, "tokenizer_data": tokenizer_data or {}}
        self.clip_l = _OneLength("clip_l", files.CLIP["hidden_size"], True, **host)
        self.t5xxl = _OneLength("t5xxl", files.T5["d_model"], False, **host)

    def tokenize_with_weights(self, text: str, return_word_ids: bool = False, **kwargs: Any) -> dict[str, list]:
        return {
            "l": self.clip_l.tokenize_with_weights(text, return_word_ids, **kwargs),
            "t5xxl": self.t5xxl.tokenize_with_weights(text, return_word_ids, **kwargs),
        }

    def untokenize(self, pairs: list) -> list:
        return self.clip_l.untokenize(pairs)

    def state_dict(self) -> dict:
        return {}


class _TextEncoders(torch.nn.Module):
    """Both text encoders, with the interface of ComfyUI's own for Flux."""

    def __init__(self, device: Any = "cpu", dtype: torch.dtype | None = None, model_options: dict | None = None):
        super().__init__()
        options = {"device": device, "dtype": dtype, "model_options": model_options or {}}
        special = {"end": files.VOCABULARY[files.EOS], "pad": files.VOCABULARY[files.PAD]}
        self.clip_l = comfy.sd1_clip.SDClipModel(
            max_length=TEXT_TOKENS,
            textmodel_json_config=dict(files.CLIP) | {"hidden_act": "quick_gelu"},
            special_tokens=special | {"start": files.VOCABULARY[files.BOS]},
            return_projected_pooled=False,
            **options,
        )
        self.t5xxl = comfy.sd1_clip.SDClipModel(
            textmodel_json_config=dict(files.T5)
            | {"dense_act_fn": "gelu_pytorch_tanh", "is_gated_act": True, "model_type": "t5"},
            special_tokens=special,
            model_class=comfy.text_encoders.t5.T5,
            **options,
        )
        self.dtypes = {dtype}

    def set_clip_options(self, options: dict) -> None:
        self.clip_l.set_clip_options(options)
        self.t5xxl.set_clip_options(options)

    def reset_clip_options(self) -> None:
        self.clip_l.reset_clip_options()
        self.t5xxl.reset_clip_options()

    def encode_token_weights(self, pairs: dict[str, list]) -> tuple[Tensor, Tensor]:
        text, _ = self.t5xxl.encode_token_weights(pairs["t5xxl"])
        _, pooled = self.clip_l.encode_token_weights(pairs["l"])
        return text, pooled
