"""Where commands take activations from: a Flux that draws prompts, or shards that were captured before."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NamedTuple

import tyro

from ..residual import Site
from ..training.capture import Capture
from ..training.models import DEMO_MODELS, Model, ModelError, device_of, load
from ..training.prompts import read_prompts, split_prompts
from ..training.sampling import Drawing, check_size
from ..training.stream import ActivationStream, Only
from ..training.workers import Workers

if TYPE_CHECKING:
    from ..dictionaries import Dictionary
    from ..training.sampling import FluxPipeline

DEMO_CAPTIONS = 2000
SEED_STEP = 1_000_003
"""From one picture of a demo caption to its next: a prime, so that neighboring seeds do not meet."""


def dictionary_named(name: str) -> Dictionary:
    """The dictionary in a file, or the one that comes with the demo Flux, which is called demo."""
    from ..demo import files
    from ..dictionaries import load_dictionary

    return load_dictionary(files.DICTIONARY if name in DEMO_MODELS else name)


class Captions(NamedTuple):
    """Prompts with the seeds of their pictures."""

    prompts: list[str]
    seeds: list[int]


@dataclass(frozen=True)
class Source:
    """Which activations a command works on."""

    model: Annotated[Model, tyro.conf.arg(name="")] = field(default_factory=Model)
    prompts: Path | None = None
    """Prompts: text (one a line), CSV, TSV, JSON or JSONL, each also gzipped; the demo has captions of its own."""
    column: str | None = None
    """Column, or key, of the prompts; by default prompt, caption or text."""
    pictures: int = 1
    """Pictures drawn of each prompt."""
    seed: int = 0
    """Seed of the pictures."""
    shards: tuple[Path, ...] = ()
    """Folders of activations, or of runs of them, instead of a model and prompts: from `fluxtionary capture` or from
    ComfyUI's Record Activations. Several are read one after another."""
    capture: Annotated[Capture, tyro.conf.arg(name="")] = field(default_factory=Capture)
    sampling: Drawing = field(default_factory=Drawing)

    def __post_init__(self) -> None:
        if self.pictures < 1:
            raise ModelError(f"pictures must be at least 1, found {self.pictures}")
        if self.shards and self.prompts is not None:
            raise ModelError("activations come from --shards or from --prompts: leave one of them out")
        check_size(self.model.model, self.sampling)

    def workers(self) -> Workers:
        """The processes of this run, on the device that the model is to have."""
        return Workers.connect(device_of(self.model))

    def captions(self, share: float = 0.0) -> tuple[Captions, Captions]:
        """Prompts to learn from, and those held out: about `share` of them, by a hash of their text.

        The demo models have captions of their own for both, from different splits of their scenes.
        """
        if self.prompts is None:
            if self.model.model not in DEMO_MODELS:
                raise ModelError(
                    f"--prompts is needed for {self.model.model!r}: a file of prompts (.txt, .csv, .jsonl)"
                )
            return self._demo_captions("train"), self._demo_captions("test")
        prompts = read_prompts(self.prompts, self.column)
        if self.model.model in DEMO_MODELS:
            from ..demo.captions import check_caption

            for prompt in prompts:
                check_caption(prompt)
        train, held_out = split_prompts(prompts, share)
        if not train:
            raise ModelError(
                f"{self.prompts}: all of its {len(prompts)} prompts are held out: add more, or hold out less"
            )
        return self._pictures(train), self._pictures(held_out)

    def _demo_captions(self, split: str) -> Captions:
        from ..evaluation.cases import sample_cases

        cases = sample_cases(DEMO_CAPTIONS, 2 + self.seed, split)
        drawn = [(case.caption, (case.seed + i * SEED_STEP) % 2**31) for case in cases for i in range(self.pictures)]
        return Captions([caption for caption, _ in drawn], [seed for _, seed in drawn])

    def _pictures(self, prompts: Sequence[str]) -> Captions:
        """A prompt's pictures follow one another, so that its embedding is computed once."""
        repeated = [prompt for prompt in prompts for _ in range(self.pictures)]
        return Captions(repeated, [self.seed * 100_000_000 + i for i in range(len(repeated))])

    def pipeline(self, workers: Workers) -> FluxPipeline:
        model = self.model if workers.count == 1 else replace(self.model, device=str(workers.device))
        return load(model)

    def live(self, pipeline: FluxPipeline, captions: Captions, sites: Sequence[Site]) -> ActivationStream:
        """What the pipeline sees while it draws some captions."""
        from ..residual import Plan, Tap
        from ..residual.diffusers_host import model_shape
        from ..training.capture import PipelineStream

        Plan([Tap(site) for site in sites]).check(*model_shape(pipeline.transformer))
        sampling = self.sampling.resolved(self.model.model, pipeline)
        stream = PipelineStream(
            pipeline, captions.prompts, captions.seeds, sites, self.capture, sampling, self.model.model
        )
        quantize = self.model.quantize  # activations depend on it: no run goes on with another
        stream.header["weights"] = str(pipeline.transformer.dtype).split(".")[-1] if quantize == "none" else quantize
        return stream

    def streams(
        self, sites: Sequence[Site], share: float, workers: Workers
    ) -> tuple[ActivationStream, ActivationStream | None]:
        """What is learned from, and what is held out, if anything is."""
        if not self.shards:
            train, held_out = self.captions(share)
            pipeline = self.pipeline(workers)
            rest = self.live(pipeline, held_out, sites) if held_out.prompts and share > 0 else None
            return self.live(pipeline, train, sites), rest
        import torch

        from ..training.shards import shard_stream

        stream, named = shard_stream(self.shards), ", ".join(map(str, self.shards))
        missing = [str(site) for site in sites if site not in stream.sites]
        if missing:
            there = ", ".join(map(str, stream.sites))
            raise ModelError(f"{named}: expected activations of {', '.join(missing)}, found those of {there}")
        away = set(split_prompts(list(stream.prompts), share)[1])
        keep = torch.tensor([prompt not in away for prompt in stream.prompts])
        if not bool(keep.any()):
            raise ModelError(f"{named}: all of its prompts are held out: hold out less")
        return Only(stream, keep, sites), Only(stream, ~keep, sites) if away else None
