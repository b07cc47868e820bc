"""Streaming activations out of a diffusers Flux while it draws."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ..residual import Plan, Site, Tap
from ..residual.tokens import Tokens
from .sampling import Sampling, run_batches, text_length

if TYPE_CHECKING:
    from diffusers import FluxPipeline


def capture(
    pipeline: FluxPipeline, prompts: Sequence[str], seeds: Sequence[int], site: Site, sampling: Sampling
) -> Iterator[Tokens]:
    """Every token of every sampling step at one site, a batch of prompts at a time.

    Text sites leave out padding: only the prompt's own tokens and its end mark are kept.
    """
    tap = Tap(site)
    first = 0
    for _, run in run_batches(pipeline, prompts, seeds, sampling, Plan([tap])):
        assert run is not None
        count = len(run.records[tap][0].batch_rows)
        keep = _kept_tokens(pipeline, prompts[first : first + count], site)
        parts = []
        for record in run.records[tap]:
            x = record.activations
            assert x is not None
            rows, positions = keep.nonzero(as_tuple=True) if keep is not None else _everything(x)
            sigma = torch.full((len(rows),), record.moment.sigma)
            parts.append(Tokens(x[rows, positions].float(), sigma, positions, rows + first))
        first += count
        yield Tokens.joined(parts)


def _everything(x: Tensor) -> tuple[Tensor, Tensor]:
    grid = torch.meshgrid(torch.arange(x.shape[0]), torch.arange(x.shape[1]), indexing="ij")
    return grid[0].flatten(), grid[1].flatten()


def _kept_tokens(pipeline: FluxPipeline, prompts: Sequence[str], site: Site) -> Tensor | None:
    if site.stream == "img":
        return None
    encoded = pipeline.tokenizer_2(
        list(prompts), padding="max_length", max_length=text_length(pipeline), truncation=True, return_tensors="pt"
    )
    return encoded.attention_mask.bool()


def collect(stream: Iterable[Tokens], limit: int | None = None) -> Tokens:
    """A stream in memory, up to `limit` tokens."""
    parts, held = [], 0
    for tokens in stream:
        parts.append(tokens)
        held += len(tokens.x)
        if limit is not None and held >= limit:
            break
    if not parts:
        raise ValueError("nothing was captured: there were no prompts")
    return Tokens.joined(parts).rows(slice(limit))


def capture_header(prompts: Sequence[str], sampling: Sampling, length: int, n_tokens: int) -> dict[str, Any]:
    """What a dictionary file says about the activations it was trained on."""
    return {
        "sigmas": "every step of sampling",
        "steps": sampling.steps,
        "height": sampling.height,
        "width": sampling.width,
        "guidance": None,
        "max_sequence_length": length,
        "padding": "left out",
        "n_tokens": n_tokens,
        "prompts_sha256": hashlib.sha256("\n".join(prompts).encode()).hexdigest(),
    }
