"""The demo Flux as files: where they lie, the configurations of its parts, and its tokenizer.

This half knows neither diffusers nor ComfyUI, so every host can build on it.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from .captions import TEXT_TOKENS, WORDS

NAME = "fluxtionary-demo"
"""What the model is called in what is made of it."""
MODELS = Path(__file__).parent / "models"
SIZES = ("base", "small")
PIPELINE = MODELS / "flux"
"""The demo Flux, a folder that `FluxPipeline.from_pretrained` loads."""
SMALL_TRANSFORMER = MODELS / "flux-small" / "transformer"
"""The smaller transformer; it shares the text encoders and the VAE of `PIPELINE`, so only its size differs."""

DICTIONARIES = MODELS / "dictionaries"
DICTIONARY = DICTIONARIES / "demo-flux.double.1.img.safetensors"
"""A dictionary of `PIPELINE`'s image stream, trained by `fluxtionary demo`."""

ATLASES = MODELS / "atlases"
"""Atlases of `DICTIONARY`: what its features are about, for the feature browser."""

PAD, EOS, UNKNOWN, BOS = "<pad>", "</s>", "<unk>", "<s>"
VOCABULARY = {token: index for index, token in enumerate((PAD, EOS, UNKNOWN, BOS, *WORDS))}

TRANSFORMER = {
    "base": {"num_attention_heads": 6, "num_layers": 2, "num_single_layers": 4},
    "small": {"num_attention_heads": 4, "num_layers": 2, "num_single_layers": 2},
}
TRANSFORMER_COMMON: dict[str, Any] = {
    "patch_size": 1,
    "in_channels": 64,
    "attention_head_dim": 32,
    "axes_dims_rope": (8, 12, 12),
    "joint_attention_dim": 128,
    "pooled_projection_dim": 64,
    "guidance_embeds": False,
}
T5: dict[str, Any] = {
    "vocab_size": len(VOCABULARY),
    "d_model": 128,
    "d_kv": 32,
    "d_ff": 256,
    "num_heads": 4,
    "num_layers": 1,
    "feed_forward_proj": "gated-gelu",
    "dropout_rate": 0.0,
    "pad_token_id": VOCABULARY[PAD],
    "eos_token_id": VOCABULARY[EOS],
}
CLIP: dict[str, Any] = {
    "vocab_size": len(VOCABULARY),
    "hidden_size": 64,
    "intermediate_size": 128,
    "projection_dim": 64,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "max_position_embeddings": TEXT_TOKENS,
    "bos_token_id": VOCABULARY[BOS],
    "eos_token_id": VOCABULARY[EOS],
    "pad_token_id": VOCABULARY[PAD],
}


def tokenizer_json(starts_with_bos: bool) -> str:
    """A `tokenizers` file: one word, one token; CLIP's starts with `<s>`, T5's does not; both end with `</s>`."""
    ids = {token: {"id": token, "ids": [VOCABULARY[token]], "tokens": [token]} for token in (BOS, EOS)}
    pieces: list[dict] = [{"Sequence": {"id": "A", "type_id": 0}}, {"SpecialToken": {"id": EOS, "type_id": 0}}]
    if starts_with_bos:
        pieces.insert(0, {"SpecialToken": {"id": BOS, "type_id": 0}})
    special = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    return json.dumps(
        {
            "version": "1.0",
            "truncation": None,
            "padding": None,
            "added_tokens": [{"id": VOCABULARY[t], "content": t, **special} for t in (PAD, EOS, UNKNOWN, BOS)],
            "normalizer": {
                "type": "Sequence",
                "normalizers": [
                    {"type": "Lowercase"},
                    {"type": "Replace", "pattern": {"Regex": "[^a-z]+"}, "content": " "},
                ],
            },
            "pre_tokenizer": {"type": "WhitespaceSplit"},
            "post_processor": {"type": "TemplateProcessing", "single": pieces, "pair": pieces, "special_tokens": ids},
            "decoder": None,
            "model": {"type": "WordLevel", "vocab": VOCABULARY, "unk_token": UNKNOWN},
        },
        indent=1,
    )
