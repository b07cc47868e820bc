"""Text embeddings, computed once and before the transformer runs, so that the encoders can leave its memory."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from .sampling import text_length

if TYPE_CHECKING:
    from diffusers import FluxPipeline

MEMORY = 4 * 2**30
"""Bytes of embeddings kept at a time. A prompt of 512 tokens takes 4 MB in bfloat16, too much to keep all of many."""


class Embedded(NamedTuple):
    """What the transformer is told of some prompts.

    Attributes:
        prompts: T5's `[n, tokens, d]`.
        pooled: CLIP's `[n, d]`.
        words: which tokens are the prompt's own and its end mark, not padding: bool `[n, tokens]`.
    """

    prompts: Tensor
    pooled: Tensor
    words: Tensor


def embed(pipeline: FluxPipeline, prompts: Sequence[str], length: int | None = None) -> Embedded:
    """Embeddings of prompts, on the CPU; equal ones are computed once. `length` is in T5 tokens, with padding."""
    different = list(dict.fromkeys(prompts))
    place = torch.tensor([different.index(prompt) for prompt in prompts])
    length = length or text_length(pipeline)
    encoded = pipeline.tokenizer_2(
        different, padding="max_length", max_length=length, truncation=True, return_tensors="pt"
    )
    with torch.inference_mode():
        embeds, pooled, _ = pipeline.encode_prompt(different, None, max_sequence_length=length)
    return Embedded(embeds.cpu()[place], pooled.cpu()[place], encoded.attention_mask.bool()[place])


def embedded_batches(
    pipeline: FluxPipeline, batches: Sequence[Sequence[str]], memory: int = MEMORY, length: int | None = None
) -> Iterator[Embedded]:
    """The embeddings of each batch in turn. The encoders are on the device only while they compute.

    Which prompts are embedded together depends on the batch alone: its embeddings have the same bits in every run.
    Where encoders make room for nothing, none is computed before it is asked for: most readers stop early.
    """
    if pipeline.transformer.device.type == "cpu" or _managed(pipeline):
        for batch in batches:
            yield embed(pipeline, batch, length)
        return
    number = 0
    while number < len(batches):
        held: list[Embedded] = []
        while number + len(held) < len(batches):
            held.append(embed(pipeline, batches[number + len(held)], length))
            if sum(one.prompts.nbytes for one in held) + held[-1].prompts.nbytes > memory:
                break
        number += len(held)
        with _encoders_away(pipeline):
            while held:
                yield held.pop(0)


@contextmanager
def _encoders_away(pipeline: FluxPipeline) -> Iterator[None]:
    """The encoders in main memory, and out of the pipeline, which looks for its device at its first module."""
    encoders = pipeline.text_encoder, pipeline.text_encoder_2
    device = pipeline.transformer.device
    for encoder in encoders:
        encoder.to("cpu")
    if device.type == "cuda":
        torch.cuda.empty_cache()
    pipeline.text_encoder = pipeline.text_encoder_2 = None
    try:
        yield
    finally:
        pipeline.text_encoder, pipeline.text_encoder_2 = (encoder.to(device) for encoder in encoders)


def _managed(pipeline: FluxPipeline) -> bool:
    return any(hasattr(part, "_hf_hook") for part in (pipeline.transformer, pipeline.text_encoder_2))
