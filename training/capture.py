"""Streaming activations out of a diffusers Flux: which pictures, which moments, which tokens."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor

from ..residual import Plan, Run, Site, Tap
from ..residual.diffusers_host import Stopped, attach
from ..residual.tokens import Tokens
from .embeddings import Embedded, embedded_batches
from .pictures import digest_of, listed_pictures, opened
from .sampling import ModelError, Sampling, text_length

if TYPE_CHECKING:
    from diffusers import FluxPipeline


@dataclass(frozen=True)
class Capture:
    """Which activations are taken while a Flux draws."""

    moments: Literal["trajectory", "noise", "noised"] = "trajectory"
    """Every step of sampling; pure noise, in one step (arXiv 2505.24360); or clean pictures noised to drawn sigmas."""
    sigmas: int = 4
    """For noised: sigmas drawn for each picture, uniform between 0 and 1."""
    images: Path | None = None
    """For noised: folder of pictures that go with the prompts in order of their names; else the model draws them."""
    share: float = 1.0
    """Share of each picture's tokens that are kept, drawn at random: fewer of more pictures vary more."""
    guidance: float = 3.5
    """Guidance that a guidance-distilled model (FLUX.1 dev) is told; others ignore it."""

    def __post_init__(self) -> None:
        if self.sigmas < 1:
            raise ModelError(f"sigmas must be at least 1, found {self.sigmas}")
        if not 0 < self.share <= 1:
            raise ModelError(f"share must lie above 0 and be at most 1, found {self.share}")
        if self.images is not None and self.moments != "noised":
            raise ModelError(f"images are for --moments noised alone, found --moments {self.moments}")


class PipelineStream:
    """An `ActivationStream` captured live: batch `i` is the pictures `[i * batch, (i + 1) * batch)`.

    Blocks after the last site are not computed where nothing needs them: in the last step of a trajectory, and
    always for the other moments. Text sites leave out padding.
    """

    def __init__(
        self,
        pipeline: FluxPipeline,
        prompts: Sequence[str],
        seeds: Sequence[int],
        sites: Sequence[Site],
        config: Capture,
        sampling: Sampling,
        name: str = "",
    ):
        if len(prompts) != len(seeds):
            raise ValueError(f"expected one seed a prompt, found {len(prompts)} prompts and {len(seeds)} seeds")
        if not prompts:
            raise ValueError("nothing to capture: there are no prompts")
        self.pipeline, self.config, self.sampling = pipeline, config, sampling
        self.prompts: Sequence[str] = list(prompts)
        self.seeds: Sequence[int] = list(seeds)
        self.sites = tuple(dict.fromkeys(sites))
        self.model = {"family": "flux1", "name": name}
        cell = pipeline.vae_scale_factor * 2
        self.grid = (sampling.height // cell, sampling.width // cell)
        self.header = _header(self.prompts, config, sampling, text_length(pipeline))
        self._images = listed_pictures(config.images, len(prompts)) if config.images else None
        if self._images:
            self.header["images_sha256"] = digest_of(self._images)

    def __len__(self) -> int:
        return -(-len(self.prompts) // self.sampling.batch)

    def batches(self, start: int = 0, step: int = 1) -> Iterator[dict[Site, Tokens]]:
        numbers = range(start, len(self), step)
        embedded = embedded_batches(self.pipeline, [self.prompts[self._pictures(number)] for number in numbers])
        for number, text in zip(numbers, embedded, strict=True):
            yield self._batch(number, text)

    def _pictures(self, number: int) -> slice:
        return slice(number * self.sampling.batch, (number + 1) * self.sampling.batch)

    def _batch(self, number: int, text: Embedded) -> dict[Site, Tokens]:
        part = self._pictures(number)
        plan = Plan([Tap(site) for site in self.sites])
        device, dtype = self.pipeline._execution_device, self.pipeline.transformer.dtype
        on_device = text._replace(prompts=text.prompts.to(device, dtype), pooled=text.pooled.to(device, dtype))
        sigmas = None
        if self.config.moments == "noised":
            run, sigmas = self._noised(plan, on_device, part)
        else:
            run = self._drawn(plan, on_device, part)
        generator = torch.Generator().manual_seed(self.seeds[part][0])
        taken = {
            tap.site: self._kept(run, tap, text.words if tap.site.stream == "txt" else None, sigmas, generator)
            for tap in plan
            if isinstance(tap, Tap)
        }
        return {site: tokens._replace(picture=tokens.picture + part.start) for site, tokens in taken.items()}

    def _drawn(self, plan: Plan, text: Embedded, part: slice) -> Run:
        last = 0 if self.config.moments == "noise" else self.sampling.steps - 1
        with attach(self.pipeline, plan, lambda call: call >= last) as run:
            try:
                self._draw(text, part)
            except Stopped:
                self.pipeline.maybe_free_model_hooks()
        return run

    def _draw(self, text: Embedded, part: slice) -> Tensor:
        """Latents of finished pictures, packed as the transformer has them."""
        sampling = self.sampling
        with torch.inference_mode():
            return self.pipeline(
                prompt_embeds=text.prompts,
                pooled_prompt_embeds=text.pooled,
                height=sampling.height,
                width=sampling.width,
                num_inference_steps=sampling.steps,
                guidance_scale=self.config.guidance,
                generator=[torch.Generator().manual_seed(seed) for seed in self.seeds[part]],
                output_type="latent",
            ).images

    def _noised(self, plan: Plan, text: Embedded, part: slice) -> tuple[Run, Tensor]:
        """Each picture between itself and noise, as in training a flow: `(1 - sigma) * clean + sigma * noise`.

        Also returns the sigmas `[moments, pictures]`, each picture's drawn by its own seed.
        """
        pipeline, count = self.pipeline, len(self.seeds[part])
        clean = self._encoded(part) if self._images else self._draw(text, part)
        rows, columns = self.grid
        ids = pipeline._prepare_latent_image_ids(count, rows, columns, clean.device, clean.dtype)
        words = torch.zeros(text.prompts.shape[1], 3, device=clean.device, dtype=clean.dtype)
        generators = [torch.Generator().manual_seed(seed) for seed in self.seeds[part]]
        sigmas = torch.stack([torch.rand(self.config.sigmas, generator=generator) for generator in generators], 1)
        guidance = None
        if pipeline.transformer.config.guidance_embeds:
            guidance = torch.full([count], self.config.guidance, device=clean.device)
        with attach(pipeline, plan, lambda call: True) as run, torch.inference_mode():
            for sigma in sigmas:
                noise = torch.stack([torch.randn(clean.shape[1:], generator=generator) for generator in generators])
                share = sigma[:, None, None].to(clean.device)
                mixed = (1 - share) * clean.float() + share * noise.to(clean.device)
                with suppress(Stopped):
                    pipeline.transformer(
                        hidden_states=mixed.to(clean.dtype),
                        timestep=sigma.to(clean.device, clean.dtype),
                        guidance=guidance,
                        pooled_projections=text.pooled,
                        encoder_hidden_states=text.prompts,
                        txt_ids=words,
                        img_ids=ids,
                        return_dict=False,
                    )
            pipeline.maybe_free_model_hooks()
        return run, sigmas

    def _encoded(self, part: slice) -> Tensor:
        """Latents of the pictures given, scaled and packed as the pipeline's own."""
        assert self._images is not None
        pipeline, sampling = self.pipeline, self.sampling
        pictures = [opened(path) for path in self._images[part]]
        x = pipeline.image_processor.preprocess(pictures, sampling.height, sampling.width)
        with torch.inference_mode():
            encoded = pipeline.vae.encode(x.to(pipeline.vae.device, pipeline.vae.dtype))
            latents = encoded.latents if hasattr(encoded, "latents") else encoded.latent_dist.mode()
        latents = (latents - pipeline.vae.config.shift_factor) * pipeline.vae.config.scaling_factor
        return pipeline._pack_latents(latents, *latents.shape)

    def _kept(
        self, run: Run, tap: Tap, words: Tensor | None, sigmas: Tensor | None, generator: torch.Generator
    ) -> Tokens:
        """What a tap saw, pictures numbered from 0; `sigmas [moments, pictures]` where they differ among pictures."""
        parts = []
        for number, record in enumerate(run.records[tap]):
            x = record.activations
            assert x is not None
            keep = torch.ones(x.shape[:2], dtype=torch.bool) if words is None else words.clone()
            if self.config.share < 1:
                keep &= torch.rand(keep.shape, generator=generator) < self.config.share
            rows, positions = keep.nonzero(as_tuple=True)
            sigma = torch.full((len(rows),), record.moment.sigma) if sigmas is None else sigmas[number, rows]
            parts.append(Tokens(x.flatten(0, 1) if bool(keep.all()) else x[rows, positions], sigma, positions, rows))
        return Tokens.joined(parts)


def capture(
    pipeline: FluxPipeline, prompts: Sequence[str], seeds: Sequence[int], site: Site, sampling: Sampling
) -> Iterator[Tokens]:
    """Every token of every sampling step at one site, a batch of prompts at a time."""
    stream = PipelineStream(pipeline, prompts, seeds, [site], Capture(), sampling)
    return (batch[site] for batch in stream.batches())


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


def _header(prompts: Sequence[str], config: Capture, sampling: Sampling, length: int) -> dict[str, Any]:
    """What a dictionary file says about the activations it was trained on."""
    described = {
        "trajectory": "every step of sampling",
        "noise": "pure noise",
        "noised": f"{config.sigmas} drawn uniformly a picture",
    }
    return {
        "sigmas": described[config.moments],
        "steps": sampling.steps,
        "height": sampling.height,
        "width": sampling.width,
        "guidance": config.guidance,
        "share": config.share,
        "max_sequence_length": length,
        "padding": "left out",
        "prompts_sha256": hashlib.sha256("\n".join(prompts).encode()).hexdigest(),
    }
