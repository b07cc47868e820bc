"""The main job, end to end: judge the demo Flux, train a dictionary of its residual stream, steer pictures with it."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import islice, pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from ..demo.files import NAME
from ..demo.measure import measure
from ..demo.scenes import GRID
from ..dictionaries import ITDA, Dictionary, save_dictionary
from ..dictionaries.metrics import CellMeans, Reconstruction, measure_dictionary
from ..residual import Site, Window
from ..residual.tokens import Tokens
from ..training.capture import Capture, PipelineStream, collect
from ..training.drawn import Drawn, DrawnPictures
from ..training.itda_builder import ITDABuild
from ..training.models import load_pipeline
from ..training.sae import SAETraining
from ..training.sampling import Sampling
from ..training.side_by_side import lanes, side_by_side
from ..training.stream import mixed
from ..training.train import Wanted, train_saes
from . import recipes
from .atlas_sample import AtlasSample, sample_atlas
from .baselines import kmeans_fvu, pca_fvu, random_tokens_fvu
from .cases import Case, Judged, adherence, sample_cases
from .contestants import Contestant
from .drawn_first import DrawnFirst
from .harness import (
    PROMPT_EDIT,
    Asked,
    Easel,
    Method,
    Result,
    Showing,
    asked,
    figures,
    search,
    show_all,
    targets_needed,
)
from .itda_study import ITDAFindings, study_itda
from .kept_pictures import KeptPictures
from .recipes import Recipe
from .selection import find_text_directions, find_value_features, naming_cases
from .steering import against_targets, even_targets

if TYPE_CHECKING:
    from ..training.sampling import FluxPipeline

IMAGE_SITE = Site.parse("double.1.img")
TEXT_SITE = Site.parse("double.0.txt")
FACTOR = "color"


@dataclass(frozen=True)
class Demonstration:
    """How much of everything the main job does."""

    adherence_cases: int = 256
    """New captions that the demo Flux is judged on. Their pictures are also the unsteered ones of the steering."""
    unseen_cases: int = 48
    """Captions of combinations that the demo Flux has never seen, for comparison."""
    targets: int = 256
    """Open captions steered for the figures: the first whose unsteered pictures can be read."""
    compared: int = 32
    """How many of them the controls and all other ways of steering are shown on."""
    edited: int = 80
    """How many of them have the color named in the caption instead: the ceiling."""
    against: int = 16
    """Captions that name another value, steered for comparison."""
    search: int = 32
    """Validation pictures that each method, and each control, may draw to choose its setting."""
    naming: int = 32
    """Training captions a value that the text direction is made of."""
    held_out: int = 200_000
    """Held-out tokens that the dictionary is measured on, and training tokens that baselines are fitted to."""
    sampling: Sampling = field(default_factory=lambda: Sampling(batch=20))
    sae: SAETraining = field(
        default_factory=lambda: SAETraining(
            tokens=3_000_000, batch=512, learning_rate=2.5e-3, decay=1.0, reuse=6.5, buffer=0.15, compute="float32"
        )
    )
    itda: ITDABuild = field(default_factory=lambda: ITDABuild(batch=256))
    explained: int = 24
    """Features of the dictionary that are explained and judged."""
    builds: int = 5
    """ITDA dictionaries that are built, each beside as many random tokens drawn with its seed."""


EARLY = Window(end=0.4)
"""Down to sigma 0.4: chosen by hand on validation captions, where acting to the end broke more."""
RULES = tuple(Recipe(features=m, strength=s, window=EARLY) for m, s in ((3, 0.35), (3, 0.4), (8, 0.35), (8, 0.4)))
"""The candidates that features and controls are given, in this order."""
TEXT_STRENGTHS = (0.5, 1.0, 2.0)


@dataclass
class Findings:
    """Everything the report is written from."""

    seconds: dict[str, float] = field(default_factory=dict)
    known: list[Judged] = field(default_factory=list)
    unseen: list[Judged] = field(default_factory=list)
    reconstruction: Reconstruction | None = None
    baselines: dict[str, float] = field(default_factory=dict)
    dictionary: Dictionary | None = None
    itda: ITDAFindings | None = None
    atlas: AtlasSample | None = None
    features: dict[str, list[int]] = field(default_factory=dict)
    ways: dict[str, Result] = field(default_factory=dict)
    against: dict[str, Result] = field(default_factory=dict)


class MainJob:
    """Runs the demonstration stage by stage; `findings` grows as it goes.

    What was drawn for one stage serves the next: the activations of the pictures the model is judged by are those the
    dictionary is measured on, and in the first pictures it is trained on, which are finished, its features are found.
    """

    def __init__(self, config: Demonstration, say: Callable[[str], None] = print):
        self.config = config
        self.say = say
        self.pipeline: FluxPipeline = load_pipeline("demo")
        self.easel = Easel(self.pipeline, config.sampling)
        self.findings = Findings()
        # whole batches of pictures that have as many tokens as are to be measured on
        pictures = math.ceil(config.held_out / (config.sampling.steps * GRID * GRID))
        self.read = math.ceil(pictures / config.sampling.batch) * config.sampling.batch

    def run(self, out: Path) -> Findings:
        """Every stage; the dictionary is written to `out` as soon as it is trained, and again with its figures."""
        with self._stage("judging the demo Flux"):
            pictures, held_out = self._judge_model()
        with self._stage("training the dictionary"):
            seen, dictionary = self._train(IMAGE_SITE, self.config.sae)
            self.findings.dictionary = dictionary
            save_dictionary(dictionary, out / f"{IMAGE_SITE}.safetensors")
        with self._stage("measuring the dictionary"):
            itda = self._measure(dictionary, seen, held_out)
            save_dictionary(dictionary, out / f"{IMAGE_SITE}.safetensors")
            save_dictionary(itda, out / f"itda.{IMAGE_SITE}.safetensors")
        with self._stage("explaining some features"):
            seconds = float(dictionary.provenance.training["seconds"])
            own = Contestant("sae", 0, dictionary, pictures, held_out, self.config.sae.tokens, seconds)
            self.findings.atlas = sample_atlas(own, out / "atlas", self.config.explained)
        with self._stage("steering"):
            self._steer(dictionary, seen.drawn)
        return self.findings

    def _stage(self, name: str) -> _Timer:
        return _Timer(name, self.say, self.findings.seconds)

    def _drawn(self, cases: Sequence[Case]) -> KeptPictures:
        """Pictures with the activations of every step; drawn in as many parts as runs go side by side."""
        sampling = self.config.sampling
        prompts, seeds = [case.caption for case in cases], [case.seed for case in cases]

        def stream(pipeline: FluxPipeline) -> DrawnPictures:
            return DrawnPictures(pipeline, prompts, seeds, [IMAGE_SITE], sampling, sampling.steps, NAME)

        def draw(pipeline: FluxPipeline, part: range) -> list[Drawn]:
            return list(islice(stream(pipeline).batches(part.start), len(part)))

        own = stream(self.pipeline)
        beside = lanes(self.pipeline)
        bounds = [i * len(own) // beside for i in range(beside + 1)]
        parts = side_by_side(self.pipeline, draw, [range(*pair) for pair in pairwise(bounds)])
        return KeptPictures(own, [batch for part in parts for batch in part])

    def _judge_model(self) -> tuple[KeptPictures, Tokens]:
        """Returns the first pictures, and their tokens."""
        config = self.config
        cases = sample_cases(max(config.adherence_cases, self.read), 1, "test")
        drawn = self._drawn(cases[: self.read])
        pictures = [picture for batch in drawn.batches() for picture in batch.pictures]
        self.easel.remember(
            Judged(case, picture, measure(picture)) for case, picture in zip(cases, pictures, strict=False)
        )
        self.findings.known = self.easel.plain(cases[: config.adherence_cases])
        self.findings.unseen = self.easel.plain(sample_cases(config.unseen_cases, 1, "unseen"))
        return drawn, collect((batch.tokens[IMAGE_SITE] for batch in drawn.batches()), config.held_out)

    def _train(self, site: Site, config: SAETraining) -> tuple[DrawnFirst, Dictionary]:
        """A dictionary of one site, from activations streamed out of the pipeline while it draws."""
        sampling = self.config.sampling
        pictures = math.ceil(config.tokens / config.reuse / (sampling.steps * GRID * GRID)) + sampling.batch
        cases = sample_cases(max(pictures, self.read), 2, "train")
        prompts, seeds = [c.caption for c in cases], [c.seed for c in cases]
        live = PipelineStream(self.pipeline, prompts, seeds, [site], Capture(), sampling, NAME)
        seen = DrawnFirst(live, list(self._drawn(cases[: self.read]).batches()))
        return seen, train_saes(seen, {"sae": Wanted(site, config)})["sae"]

    def _measure(self, dictionary: Dictionary, seen: DrawnFirst, test: Tokens) -> ITDA:
        """The dictionary and its baselines, on held-out captions; cell means and baselines from training ones.

        ITDA and random tokens are taken from the same pictures, the first of the SAE's own.
        """
        config, kept = self.config, seen.kept()
        train = collect((batch[IMAGE_SITE] for batch in kept.batches()), config.held_out)
        normalization = dictionary.normalization
        assert normalization is not None
        cells = CellMeans(train.x, train.sigma, train.position)
        measured = measure_dictionary(dictionary, normalization, cells, test.x, test.sigma, test.position)
        self.findings.reconstruction = measured
        dictionary.provenance.metrics.update(measured._asdict())
        some = test.x[torch.randperm(len(test.x), generator=torch.Generator().manual_seed(0))[:4096]]
        fit = train.x[torch.randperm(len(train.x), generator=torch.Generator().manual_seed(0))[:40_000]]
        k, n = config.sae.k, config.sae.features
        self.findings.baselines = {
            "pca": pca_fvu(train.x, test.x, normalization, k),
            "kmeans": kmeans_fvu(fit, test.x, normalization, n),
            "random_tokens": random_tokens_fvu(fit, some, normalization, n, k),
        }
        self.findings.itda = study_itda(
            mixed(kept, IMAGE_SITE), IMAGE_SITE, config.itda, train.x, some, normalization, range(config.builds)
        )
        return self.findings.itda.built

    def _steer(self, dictionary: Dictionary, drawn: Sequence[Drawn]) -> None:
        found = find_value_features(dictionary, drawn, FACTOR)
        self.findings.features = {value: found.top(value, 3) for value in found.values}
        features = recipes.features(dictionary, found, RULES)
        methods = [
            recipes.random_directions(dictionary, found, RULES),
            recipes.random_features(dictionary, found, RULES),
            Method("text_stream", self._text().candidates),
            PROMPT_EDIT,
        ]
        validation = self._validation([features, *methods])
        test, opposed = self._test(), self._opposed()

        best = search(self.easel, features, validation, self.config.search)
        alone = recipes.one_feature(dictionary, found, [RULES[best.number]])
        chosen = {"features": best.candidate, alone.name: alone.candidates[0]}
        for method in methods:
            chosen[method.name] = search(self.easel, method, validation, self.config.search).candidate
        counts = {"features": self.config.targets, PROMPT_EDIT.name: self.config.edited}
        on_open = [Showing(name, one, test[: counts.get(name, self.config.compared)]) for name, one in chosen.items()]
        on_other = [Showing(name, chosen[name], opposed) for name in ("features", "text_stream", PROMPT_EDIT.name)]
        shown = show_all(self.easel, on_open + on_other)
        self.findings.ways = {one.name: one for one in shown[: len(on_open)]}
        self.findings.against = {one.name: one for one in shown[len(on_open) :]}

    def _text(self) -> Method:
        """A contrastive direction on the text stream: the mean difference between captions (arXiv 2505.03189)."""
        cases = naming_cases(self.config.naming, 7, "train", FACTOR)
        directions = find_text_directions(self.pipeline, TEXT_SITE, cases, FACTOR, self.config.sampling)
        return recipes.contrast(TEXT_SITE, directions, TEXT_STRENGTHS)

    def _validation(self, methods: Sequence[Method]) -> list[Asked]:
        wanted = max(targets_needed(len(method.candidates), self.config.search) for method in methods)
        # a few more: a value that most of a few exchange stays where it was
        plain = self.easel.readable(sample_cases(4 * wanted + 8, 4, "validation", never=[FACTOR]), wanted + 4)
        return asked(even_targets(plain, FACTOR), plain)

    def _test(self) -> list[Asked]:
        """Open captions: those that the model was judged on first, then new ones."""
        judged = [one.case for one in self.findings.known if FACTOR not in one.case.named]
        fresh = sample_cases(2 * self.config.targets, 5, "test", never=[FACTOR])
        plain = self.easel.readable([*judged, *fresh], self.config.targets)
        return asked(even_targets(plain, FACTOR), plain)

    def _opposed(self) -> list[Asked]:
        """Captions that name a value, of those that the model was judged on."""
        cases = [one.case for one in self.findings.known if FACTOR in one.case.named][: self.config.against]
        return asked(against_targets(cases, FACTOR), self.easel.plain(cases))


class _Timer:
    """Says what is being done, and notes how long it took."""

    def __init__(self, name: str, say: Callable[[str], None], seconds: dict[str, float]):
        self.name, self.say, self.seconds = name, say, seconds

    def __enter__(self) -> None:
        self.say(f"{self.name} ...")
        self.started = time.monotonic()

    def __exit__(self, *error: object) -> None:
        self.seconds[self.name] = round(time.monotonic() - self.started, 1)
        self.say(f"{self.name}: {self.seconds[self.name]:.0f} s")


def summary(findings: Findings, config: Demonstration) -> dict[str, Any]:
    """The figures, as `summary.json` holds them."""
    measured, dictionary = findings.reconstruction, findings.dictionary
    assert measured is not None and dictionary is not None and findings.itda is not None
    went = {name: way.outcome for name, way in findings.ways.items()}
    main, ceiling = went["features"], went["prompt_edit"]
    controls = [went["random_direction"], went["random_feature"]]
    return {
        "demo_flux": {
            "adherence": adherence(findings.known),
            "adherence_unseen": adherence(findings.unseen),
            "captions": len(findings.known),
            "captions_unseen": len(findings.unseen),
        },
        "dictionary": {
            **{name: getattr(measured, name) for name in ("fvu", "fvu_raw", "fvu_within", "dead", "l0")},
            "tokens": dictionary.provenance.training["tokens"],
            "captured_tokens": dictionary.provenance.capture["n_tokens"],
            "seconds": dictionary.provenance.training["seconds"],
            "held_out_tokens": measured.tokens,
            "features": dictionary.n_features,
            "k": config.sae.k,
            "site": dictionary.site,
        },
        "itda": findings.itda.figures(),
        "atlas": findings.atlas.figures() if findings.atlas else {},
        "baselines": {name: {"fvu": value} for name, value in findings.baselines.items()},
        "steering": {
            "n": main.success.n,
            "success": main.success.value,
            "success_low": main.success.low,
            "collateral": main.collateral.value,
            "collateral_high": main.collateral.high,
            "joint": main.joint.value,
            "drift": main.drift.value,
            "control_success_high": max(control.success.high for control in controls),
            "rule": dict(findings.ways["features"].settings),
            "features": findings.features,
            "prompt_edit": {
                "success": ceiling.success.value,
                "collateral": ceiling.collateral.value,
                "n": ceiling.success.n,
            },
            "ways": {name: figures(way) for name, way in findings.ways.items()},
        },
        "steering_against": {name: figures(way) for name, way in findings.against.items()},
        "seconds": findings.seconds,
        "note": "Measured on the demo Flux, a tiny model of drawn scenes: a test of the method, not of Flux 1 itself.",
    }
