"""The dictionaries that a comparison sets side by side, all made from one drawing of training pictures."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, NamedTuple

import torch

from ..demo.files import NAME
from ..dictionaries import ITDA, Dictionary, Normalization
from ..residual import Plan, Site, Tap
from ..residual.diffusers_host import neurons
from ..residual.tokens import Tokens
from ..training.capture import Capture, PipelineStream
from ..training.drawn import Drawn, DrawnPictures
from ..training.itda import build_itda
from ..training.itda_builder import ITDABuild
from ..training.sae import SAETraining
from ..training.sampling import Sampling
from ..training.stream import ActivationStream, Kept, mixed
from ..training.train import SAMPLE, Wanted, train_saes
from .cases import sample_cases
from .kept_pictures import KeptPictures
from .random_weights import beside, image_tokens, random_transformer
from .variants import by_product, by_pursuit, random_directions

if TYPE_CHECKING:
    from ..training.sampling import FluxPipeline

MAIN = ("sae", "itda", "neurons")
VARIANTS = ("sae_pursuit", "itda_encoder")
BASELINES = ("random_directions", "frozen_decoder", "random_weight_model")


class Way(NamedTuple):
    """One way of making dictionaries: what it is called, whose directions it has, and how it encodes."""

    title: str
    directions: str
    encoder: str


WAYS = {
    "sae": Way("SAE", "sae", "its own encoder, top k"),
    "itda": Way("ITDA", "itda", "pursuit (OMP)"),
    "neurons": Way("MLP neurons", "neurons", "the k largest units"),
    "sae_pursuit": Way("SAE rows, pursuit", "sae", "pursuit (OMP)"),
    "itda_encoder": Way("ITDA atoms, products", "itda", "products with the atoms, top k"),
    "random_directions": Way("Random directions", "random_directions", "products, top k"),
    "frozen_decoder": Way("Frozen random decoder", "frozen_decoder", "a trained encoder, top k"),
    "random_weight_model": Way("SAE of a random model", "random_weight_model", "its own encoder, top k"),
}
"""By name. Those with the same directions share features, so that their judgments are paired."""


@dataclass(frozen=True)
class Contestant:
    """One dictionary, what its atlas is made from, and what it took to make it.

    Attributes:
        way: name of the way it was made, one of `WAYS`.
        seed: place among the dictionaries of that way.
        pictures: held-out pictures with the activations of its site, in the model it is of.
        train: some training tokens of that site and model: means and deviations.
        tokens: tokens it learned from, counting every use.
        seconds: of learning, without the drawing of pictures.
    """

    way: str
    seed: int
    dictionary: Dictionary
    pictures: KeptPictures
    train: Tokens
    tokens: int
    seconds: float

    @property
    def name(self) -> str:
        return f"{self.way}-{self.seed}"

    @property
    def site(self) -> Site:
        return Site.parse(self.dictionary.site)


@dataclass(frozen=True)
class Drawing:
    """What all dictionaries are made from and looked at with: of the trained model and of random ones, by seed."""

    train: ActivationStream
    random_train: Sequence[ActivationStream]
    held_out: KeptPictures
    random_held_out: Sequence[KeptPictures]
    neurons_train: Tokens
    """Training tokens of the neurons' site, for mean and deviation alone."""


@dataclass(frozen=True)
class Making:
    """How contestants are made.

    `share` is that of the training pictures' tokens, over every step of sampling, that are kept.
    """

    site: Site
    seeds: int
    training_pictures: int
    pictures: int
    moments: int
    share: float
    k: int
    sae: SAETraining
    itda: ITDABuild
    sampling: Sampling


def draw(pipeline: FluxPipeline, making: Making, say: Callable[[str], None] = print) -> Drawing:
    """Draw training and held-out pictures, with random-weight models beside, one for each seed."""
    transformer, site = pipeline.transformer, making.site
    units = site._replace(part="mlp")
    others = [random_transformer(transformer, 1000 + seed) for seed in range(making.seeds)]
    cases = sample_cases(making.training_pictures, 2, "train")
    config = Capture(share=making.share)
    stream = PipelineStream(
        pipeline, [c.caption for c in cases], [c.seed for c in cases], [site], config, making.sampling, NAME
    )
    trained: list[Mapping[Site, Tokens]] = []
    random: list[list[Mapping[Site, Tokens]]] = [[] for _ in others]
    for batch, runs in beside(stream.batches(), transformer, others, Plan([Tap(site)])):
        for parts, run in zip(random, runs, strict=True):
            parts.append({site: image_tokens(run, site, len(trained) * making.sampling.batch, making.share)})
        trained.append(batch)
        say(f"drew {min(len(trained) * making.sampling.batch, len(cases))} of {len(cases)} training pictures")
    cases = sample_cases(making.pictures, 3, "test")
    drawn = DrawnPictures(
        pipeline,
        [c.caption for c in cases],
        [c.seed for c in cases],
        [site, units],
        making.sampling,
        making.moments,
        NAME,
    )
    plan = Plan([item for item in drawn.plan if item.site == site])
    batches: list[Drawn] = []
    random_batches: list[list[Drawn]] = [[] for _ in others]
    for held_out, runs in beside(drawn.batches(), transformer, others, plan):
        for pictures, run in zip(random_batches, runs, strict=True):
            pictures.append(held_out._replace(tokens={site: image_tokens(run, site, held_out.first)}))
        batches.append(held_out)
        say(f"drew {held_out.first + len(held_out.pictures)} of {len(cases)} held-out pictures")
    few = sample_cases(min(making.sampling.batch, 12), 2, "train")
    of_units = PipelineStream(
        pipeline, [c.caption for c in few], [c.seed for c in few], [units], config, making.sampling, NAME
    )
    return Drawing(
        Kept(stream, trained),
        [Kept(stream, parts) for parts in random],
        KeptPictures(drawn, batches),
        [
            KeptPictures(drawn, pictures, [site], {"weights": f"random, seed {1000 + seed}"})
            for seed, pictures in enumerate(random_batches)
        ],
        Tokens.joined([batch[units] for batch in of_units.batches()]),
    )


def make(pipeline: FluxPipeline, drawing: Drawing, making: Making) -> Iterator[Contestant]:
    """All dictionaries, seed by seed; the neurons, which have no seed, once."""
    site, held_out = making.site, drawing.held_out
    train = _some(drawing.train, site)
    normalization = Normalization.fit(train.x)
    unit = neurons(pipeline.transformer, site._replace(part="mlp"), making.k)
    unit.provenance.model.update(held_out.model)
    yield Contestant("neurons", 0, unit, held_out, drawing.neurons_train, 0, 0.0)
    for seed in range(making.seeds):
        sae = replace(making.sae, k=making.k, seed=seed)
        trained, seconds = _trained(drawing.train, site, sae)
        yield Contestant("sae", seed, trained, held_out, train, sae.tokens, seconds)
        pursued = by_pursuit(trained, normalization, making.k, making.itda.nonnegative)
        yield Contestant("sae_pursuit", seed, pursued, held_out, train, sae.tokens, seconds)
        itda, seconds = _built(drawing.train, site, replace(making.itda, k=making.k, seed=seed))
        looked = int(itda.provenance.capture["n_tokens"])
        yield Contestant("itda", seed, itda, held_out, train, looked, seconds)
        yield Contestant("itda_encoder", seed, by_product(itda, making.k), held_out, train, looked, seconds)
        rows = random_directions(str(site), normalization, sae.features, making.k, seed, trained.scale)
        yield Contestant("random_directions", seed, rows, held_out, train, 0, 0.0)
        frozen, seconds = _trained(drawing.train, site, replace(sae, freeze_decoder=True))
        yield Contestant("frozen_decoder", seed, frozen, held_out, train, sae.tokens, seconds)
        random, seconds = _trained(drawing.random_train[seed], site, sae)
        yield Contestant(
            "random_weight_model",
            seed,
            random,
            drawing.random_held_out[seed],
            _some(drawing.random_train[seed], site),
            sae.tokens,
            seconds,
        )


def _trained(stream: ActivationStream, site: Site, config: SAETraining) -> tuple[Dictionary, float]:
    begun = time.monotonic()
    return train_saes(stream, {"sae": Wanted(site, config)})["sae"], time.monotonic() - begun


def _built(stream: ActivationStream, site: Site, config: ITDABuild) -> tuple[ITDA, float]:
    begun = time.monotonic()
    return build_itda(mixed(stream, site, config.seed), site, config), time.monotonic() - begun


def _some(stream: ActivationStream, site: Site) -> Tokens:
    """A uniform sample of a stream's tokens, the same each time."""
    tokens = Tokens.joined([batch[site] for batch in stream.batches()])
    order = torch.randperm(len(tokens.x), generator=torch.Generator().manual_seed(0))
    return tokens.rows(order[:SAMPLE])
