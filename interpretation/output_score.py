"""How far a feature moves what the model does next: features that move nothing are no use for steering."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor

from ..dictionaries import Dictionary
from ..dictionaries.scale import Scale
from ..residual import Add, Plan, Tap
from ..residual.diffusers_host import attach
from ..residual.mode import has_scale, home, noise_gain
from ..residual.site_pass import token_scale
from ..training.drawn import read_steps
from ..training.sampling import Sampling, text_length

if TYPE_CHECKING:
    from ..training.sampling import FluxPipeline


@dataclass(frozen=True)
class OutputScoring:
    """At how many places the effect of a feature is measured; its score is the mean over them."""

    pictures: int = 2
    """Pictures that are being drawn."""
    moments: int = 2
    """Moments of each, the middle ones of equal parts of sampling."""
    batch: int = 32
    """Features whose effect is computed at once."""

    def __post_init__(self) -> None:
        for name in ("pictures", "moments", "batch"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, found {getattr(self, name)}")


def score_settings(config: OutputScoring, sampling: Sampling, guidance: float) -> dict[str, Any]:
    """What output scores depend on besides dictionary, model and pictures: those of other settings do not compare."""
    return {
        "pictures": config.pictures,
        "moments": config.moments,
        "steps": sampling.steps,
        "height": sampling.height,
        "width": sampling.width,
        "guidance": guidance,
    }


class _Place(NamedTuple):
    """A call of the transformer with one picture, what came out of it, and the size of activations at the site."""

    given: dict[str, Any]
    velocity: Tensor
    scale: Scale


def output_scores(
    pipeline: FluxPipeline,
    dictionary: Dictionary,
    features: Sequence[int],
    prompts: Sequence[str],
    seeds: Sequence[int],
    sampling: Sampling,
    config: OutputScoring | None = None,
    guidance: float = 3.5,
) -> Iterator[tuple[int, float]]:
    """Each feature with its score, a batch of them at a time.

    What is measured: a unit of the feature, strength 1 in the words of docs/design.md, is added to every token of the
    dictionary's stream in one call of the model, and the score is `rms(v' - v) / rms(v)` of the velocity `v` that the
    model predicts, over all image tokens and channels: the mean over the first pictures of `prompts` and over moments
    of their sampling. A unit is as large as the activations themselves, so scores of different directions and sites
    compare. It is the effect of one call: what sampling makes of it later is not in it. (Choosing features by their
    effect on the output: arXiv 2505.20063.)

    Where the file does not know the scale of the site (neurons), it is measured on the same pictures.
    """
    config = config or OutputScoring()
    for feature in features:
        dictionary.check_feature(feature)
    places = _places(pipeline, dictionary, prompts[: config.pictures], seeds, sampling, config.moments, guidance)
    for start in range(0, len(features), config.batch):
        part = list(features[start : start + config.batch])
        moved = torch.stack([_moved(pipeline, dictionary, part, place) for place in places])
        yield from zip(part, moved.mean(0).tolist(), strict=True)


def _places(
    pipeline: FluxPipeline,
    dictionary: Dictionary,
    prompts: Sequence[str],
    seeds: Sequence[int],
    sampling: Sampling,
    moments: int,
    guidance: float,
) -> list[_Place]:
    """Draw pictures, and take down the calls of the transformer at some steps."""
    site, steps = home(dictionary), read_steps(sampling, moments)
    calls: list[tuple[dict[str, Any], Tensor]] = []

    def take_down(module: Any, args: tuple, given: dict[str, Any], output: Any) -> None:
        calls.append((given, output[0]))

    tap = Tap(site)
    handle = pipeline.transformer.register_forward_hook(take_down, with_kwargs=True)
    try:
        with attach(pipeline, Plan([tap])) as run, torch.inference_mode():
            pipeline(
                prompt=list(prompts),
                height=sampling.height,
                width=sampling.width,
                num_inference_steps=sampling.steps,
                guidance_scale=guidance,
                max_sequence_length=text_length(pipeline),
                generator=[torch.Generator().manual_seed(seed) for seed in seeds[: len(prompts)]],
                output_type="latent",
            )
    finally:
        handle.remove()
    places = []
    for step in steps:
        given, velocity = calls[step]
        activations = run.records[tap][step].activations
        assert activations is not None
        scale = dictionary.scale if has_scale(dictionary, site) else None
        scale = scale or Scale(torch.tensor([token_scale(activations)]))
        for i in range(len(prompts)):
            own = {name: _row(name, value, i) for name, value in given.items()}
            places.append(_Place(own, velocity[i].float(), scale))
    return places


def _moved(pipeline: FluxPipeline, dictionary: Dictionary, features: Sequence[int], place: _Place) -> Tensor:
    """The score of some features at one place, float32 `[features]`: each acts on a row of its own."""
    site, gain = home(dictionary), noise_gain(dictionary)
    directions = [dictionary.direction(feature) for feature in features]
    plan = Plan(
        Add(site, direction, 1.0, place.scale, gain, pictures=frozenset({i}))
        for i, direction in enumerate(directions)
        if bool(direction.any())  # an atom that is 0 adds nothing
    )
    rows = {
        name: value.expand(len(features), *value.shape[1:]) if name in _BATCHED and value is not None else value
        for name, value in place.given.items()
    }
    with attach(pipeline, plan), torch.inference_mode():
        velocity = pipeline.transformer(**rows)[0].float()
    return (velocity - place.velocity).square().mean((1, 2)).sqrt().cpu() / place.velocity.square().mean().sqrt().cpu()


_BATCHED = ("hidden_states", "encoder_hidden_states", "pooled_projections", "timestep", "guidance")


def _row(name: str, value: Any, picture: int) -> Any:
    """What one picture of a batch gives to the transformer, as a batch of one."""
    return value[picture : picture + 1] if name in _BATCHED and value is not None else value
