"""The demo Flux as diffusers and transformers objects: new with random weights, or loaded from its files."""

from __future__ import annotations

import tempfile
from pathlib import Path

from diffusers import AutoencoderTiny, FlowMatchEulerDiscreteScheduler, FluxPipeline, FluxTransformer2DModel
from transformers import CLIPTextConfig, CLIPTextModel, PreTrainedTokenizerFast, T5Config, T5EncoderModel

from . import files
from .captions import TEXT_TOKENS


def new_tokenizer(starts_with_bos: bool) -> PreTrainedTokenizerFast:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "tokenizer.json"
        path.write_text(files.tokenizer_json(starts_with_bos))
        return PreTrainedTokenizerFast(
            tokenizer_file=str(path),
            model_max_length=TEXT_TOKENS,
            pad_token=files.PAD,
            eos_token=files.EOS,
            unk_token=files.UNKNOWN,
            bos_token=files.BOS if starts_with_bos else None,
        )


def new_transformer(size: str) -> FluxTransformer2DModel:
    return FluxTransformer2DModel(**files.TRANSFORMER_COMMON, **files.TRANSFORMER[size])


def new_pipeline(transformer: FluxTransformer2DModel, vae: AutoencoderTiny) -> FluxPipeline:
    """A whole `FluxPipeline` with new text encoders: for training, and small enough for tests."""
    return FluxPipeline(
        scheduler=FlowMatchEulerDiscreteScheduler(shift=1.0, use_dynamic_shifting=False),
        text_encoder=CLIPTextModel(CLIPTextConfig(**files.CLIP)).eval(),
        tokenizer=new_tokenizer(starts_with_bos=True),
        text_encoder_2=T5EncoderModel(T5Config(**files.T5)).eval(),
        tokenizer_2=new_tokenizer(starts_with_bos=False),
        transformer=transformer,
        vae=vae,
    )
