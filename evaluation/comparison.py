"""The comparison of arXiv 2505.24360 run for real: SAE, ITDA and neurons, with baselines, controls and ground truth."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from ..atlas import AtlasWriter, Source
from ..demo.stand_in import StandIn
from ..dictionaries import ITDA, Dictionary, Noise, Normalization, save_dictionary
from ..interpretation.endpoint import DEMO, Endpoint
from ..interpretation.judge import Judging
from ..interpretation.output_score import OutputScoring, output_scores
from ..interpretation.probes import fit_probe
from ..interpretation.scene_tokens import scene_tokens
from ..interpretation.scoring import interp_score
from ..interpretation.truth import Truth, measure_truth
from ..residual import Site
from ..residual.tokens import Tokens
from ..training.itda import compare_itda
from ..training.itda_builder import ITDABuild
from ..training.models import load_pipeline
from ..training.sae import SAETraining
from ..training.sampling import Sampling, draw_pictures
from .comparison_figures import Findings, Result, summary
from .contestants import MAIN, WAYS, Contestant, Making, draw, make
from .feature_cards import Card, feature_cards
from .interpreted import Interpreted, Interpreting, interpret
from .reconstruction import Evaluator, Reference, measure_baselines
from .stability import stability, unit_directions

if TYPE_CHECKING:
    from ..training.sampling import FluxPipeline

SITE = Site.parse("double.1.img")
CONTROLS = ("sae", "itda")
"""Ways whose labels are also permuted and judged."""
SCORED = ("sae", "itda", "neurons", "random_directions", "frozen_decoder")
"""Ways whose features are injected into the model; the variants have the directions of these."""
BASELINE_TOKENS = 4096
"""Held-out tokens that PCA, k-means and random tokens are measured on."""
MEASURED = 4096
"""Tokens by which the speed of encoding is taken."""


@dataclass(frozen=True)
class Comparison:
    """How much of everything a comparison does."""

    seeds: int = 3
    """Dictionaries of each kind, each trained or built with a seed of its own."""
    training_pictures: int = 400
    """Pictures that all dictionaries learn from, half of the tokens of every step."""
    pictures: int = 400
    """Held-out pictures of the atlases."""
    moments: int = 4
    """Steps of each that are read."""
    k: int = 16
    """Active features a token, for every dictionary."""
    features: int = 40
    """Used features of each dictionary that are explained and judged."""
    located: int = 2
    """Held-out pictures on which each label's place is marked."""
    shuffles: int = 2
    """Times that labels are permuted and judged again, as a control."""
    measured: int = 32_768
    """Held-out tokens that reconstruction is measured on."""
    scenes: int = 200
    """Drawn scenes that features are matched with values on, and as many that this is measured on."""
    draws: int = 2000
    """Draws of the bootstrap."""
    judging: Judging = field(default_factory=Judging)
    sampling: Sampling = field(default_factory=Sampling)
    sae: SAETraining = field(
        default_factory=lambda: SAETraining(
            tokens=1_000_000, batch=512, learning_rate=2e-3, reuse=3.0, buffer=0.5, compute="float32"
        )
    )
    itda: ITDABuild = field(default_factory=lambda: ITDABuild(batch=256, nonnegative=True))

    def __post_init__(self) -> None:
        for name, least in (("seeds", 2), ("training_pictures", 1), ("pictures", 1), ("moments", 1), ("features", 2)):
            if getattr(self, name) < least:
                raise ValueError(f"{name} must be at least {least}, found {getattr(self, name)}")

    def quick(self) -> Comparison:
        """The same in about a minute: a test of the machinery, whose figures mean little."""
        return replace(
            self,
            seeds=2,
            training_pictures=20,
            pictures=40,
            moments=2,
            features=4,
            located=1,
            shuffles=1,
            measured=2048,
            scenes=20,
            draws=200,
            sampling=replace(self.sampling, steps=8, batch=20),
            sae=replace(self.sae, features=512, tokens=60_000),
            itda=replace(self.itda, atoms=512, tokens=5000),
        )


class ComparisonJob:
    """Runs a comparison stage by stage; `findings` grows as it goes."""

    def __init__(self, config: Comparison, endpoint: Endpoint, folder: Path, say: Callable[[str], None] = print):
        self.config, self.endpoint, self.folder, self.say = config, endpoint, folder, say
        self.findings = Findings()
        self.pipeline: FluxPipeline = load_pipeline("demo")

    def run(self) -> Findings:
        config = self.config
        making = Making(
            site=SITE,
            seeds=config.seeds,
            training_pictures=config.training_pictures,
            pictures=config.pictures,
            moments=config.moments,
            share=0.5,
            k=config.k,
            sae=config.sae,
            itda=config.itda,
            sampling=config.sampling,
        )
        with self._timed("drawing pictures"):
            drawing = draw(self.pipeline, making, self.say)
        with self._timed("drawing scenes"):
            truth = Truths(self.pipeline, config.scenes)
        contestants, made = make(self.pipeline, drawing, making), []
        self.say(f"asking {self.endpoint.url}")
        with served(self.endpoint) as endpoint:
            while True:
                with self._timed("making dictionaries"):
                    contestant = next(contestants, None)
                if contestant is None:
                    break
                self._look_at(contestant, endpoint, truth)
                made.append(contestant)
        with self._timed("stability"):
            self._compare_seeds(made)
        with self._timed("baselines of reconstruction"):
            for space, way in (("residual", "sae"), ("neurons", "neurons")):
                first = next(contestant for contestant in made if contestant.way == way)
                known = measure_baselines(
                    Reference(first.train),
                    self._held_out(first, BASELINE_TOKENS),
                    first.dictionary.n_features,
                    config.k,
                )
                self.findings.baselines[space] = known
        return self.findings

    def figures(self) -> dict[str, Any]:
        """The summary of what was found."""
        return summary(self.findings, self.config.seeds, self.config.draws)

    def cards(self) -> dict[str, list[Card]]:
        """Some features of the first dictionary of each kind; the pictures of atoms' sources are drawn again."""

        def source_picture(source: Source) -> np.ndarray:
            return draw_pictures(self.pipeline, [source.prompt], [source.seed], self.config.sampling)[0]

        firsts = {way: self.findings.of(way)[0].found for way in MAIN}
        return {way: feature_cards(found.folder, found.features, source_picture) for way, found in firsts.items()}

    def _look_at(self, contestant: Contestant, endpoint: Endpoint, truth: Truths) -> None:
        """Everything that is asked of one dictionary alone."""
        config, dictionary = self.config, contestant.dictionary
        path = self.folder / "dictionaries" / f"{contestant.name}.safetensors"
        path.parent.mkdir(parents=True, exist_ok=True)
        save_dictionary(dictionary, path)
        once = config.seeds if contestant.way == "neurons" else 1  # what has no seed is looked at as much in all
        paid = self.endpoint.url != DEMO
        asked = Interpreting(config.features * once, config.judging, config.located, config.shuffles, paid)
        with self._timed("atlases and judging"):
            atlas = self.folder / "atlases" / contestant.name
            found = interpret(contestant, atlas, endpoint, asked, contestant.way in CONTROLS)
        with self._timed("reconstruction"):
            held_out = self._held_out(contestant, config.measured)
            evaluator = Evaluator(dictionary, Reference(contestant.train))
            evaluator.add(held_out)
            measures = evaluator.figures().whole
            some = held_out.rows(slice(MEASURED))
            begun = time.perf_counter()
            dictionary.encode(some.x, moment=Noise(some.sigma))
            speed = len(some.x) / (time.perf_counter() - begun)
        of_the_model = contestant.way != "random_weight_model"
        with self._timed("truth"):
            known = truth.measure(dictionary) if of_the_model else None
        if contestant.way in SCORED:
            with self._timed("output scores"):
                found.output_scores = self._output_scores(contestant, found)
        self.findings.results.append(
            Result(
                contestant.way,
                contestant.seed,
                dictionary.kind,
                dictionary.site,
                dictionary.n_features,
                contestant.tokens,
                contestant.seconds,
                speed,
                measures,
                found,
                known,
            )
        )
        score = interp_score(found.judgments)
        mean = sum(each.value for each in score.values()) / max(len(score), 1)
        self.say(
            f"{contestant.name}: fvu {measures.fvu:.3f}, {found.used:,} of {dictionary.n_features:,} used, "
            f"{len(found.labels)} explained, interpretation {mean:.3f} ({sum(self.findings.seconds.values()):.0f} s)"
        )

    def _output_scores(self, contestant: Contestant, found: Interpreted) -> dict[int, float]:
        pictures, config = contestant.pictures, self.config
        scored = dict(
            output_scores(
                self.pipeline,
                contestant.dictionary,
                found.features,
                pictures.prompts,
                pictures.seeds,
                config.sampling,
                OutputScoring(),
            )
        )
        with AtlasWriter.annotate(found.folder) as writer:
            for feature, value in scored.items():
                writer.set_output_score(feature, value)
        return scored

    def _held_out(self, contestant: Contestant, count: int) -> Tokens:
        """A uniform sample of the tokens of the held-out pictures, the same for all dictionaries of a site."""
        tokens = Tokens.joined([batch.tokens[contestant.site] for batch in contestant.pictures.batches()])
        order = torch.randperm(len(tokens.x), generator=torch.Generator().manual_seed(1))
        return tokens.rows(order[:count])

    def _compare_seeds(self, made: Sequence[Contestant]) -> None:
        for way in WAYS:
            own = [contestant for contestant in made if contestant.way == way]
            if len(own) < 2:  # the model's own units come back whatever the seed
                self.findings.stability[way] = [torch.ones(own[0].dictionary.n_features)]
                continue
            rows = []
            for contestant in own:
                deviation = Normalization.fit(contestant.train.x).std
                assert deviation is not None
                rows.append(unit_directions(contestant.dictionary, deviation))
            self.findings.stability[way] = stability(rows)
        built = [contestant.dictionary for contestant in made if contestant.way == "itda"]
        self.findings.shared_sources = [
            compare_itda(one, other)["jaccard"]
            for one, other in combinations(built, 2)
            if isinstance(one, ITDA) and isinstance(other, ITDA)
        ]

    @contextmanager
    def _timed(self, stage: str) -> Iterator[None]:
        begun = time.monotonic()
        try:
            yield
        finally:
            spent = self.findings.seconds.get(stage, 0.0) + time.monotonic() - begun
            self.findings.seconds[stage] = round(spent, 2)


class Truths:
    """What drawn scenes say of dictionaries of the demo Flux: drawn once, and a probe learned once a site."""

    def __init__(self, pipeline: FluxPipeline, scenes: int):
        self.sites = (SITE, SITE._replace(part="mlp"))
        self.train, self.test = (scene_tokens(pipeline, self.sites, scenes, 11, split) for split in ("train", "test"))
        self._probes: dict[Site, Any] = {}

    def measure(self, dictionary: Dictionary) -> Truth:
        site = Site.parse(dictionary.site)
        if site not in self._probes:
            self._probes[site] = fit_probe(self.train, site)
        return measure_truth(dictionary, self.train, self.test, self._probes[site])


@contextmanager
def served(endpoint: Endpoint) -> Iterator[Endpoint]:
    """The endpoint itself, or the demo's stand-in, started once for all questions: it remembers what it saw."""
    if endpoint.url != DEMO:
        yield endpoint
        return
    with StandIn() as server:
        yield replace(endpoint, url=server.url, model=endpoint.model or DEMO)
