"""The study of steering (arXiv 2505.03189 on pictures): when contrastive vectors work, beside all other methods.

Everything is chosen on validation scenes, with as many pictures for each method, and shown on test scenes.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from ..demo.files import DICTIONARY, NAME
from ..demo.scenes import FACTORS
from ..dictionaries import load_dictionary
from ..residual import Site
from ..residual.diffusers_host import neurons, percent_to_sigma
from ..training.drawn import DrawnPictures
from ..training.first_steps import Size
from ..training.itda import build_itda
from ..training.itda_builder import ITDABuild
from ..training.models import load_pipeline
from ..training.relatedness import relatedness
from ..training.sampling import Sampling
from ..training.stream import Kept
from .adversarial import Evolution, study_adversarial
from .cases import Case, sample_cases
from .dictionary_report import numbers
from .harness import PROMPT_EDIT, Asked, Easel, Method, Result, search, show, targets_needed
from .model_size import SizeStudy, study_sizes
from .selection import find_value_features
from .steering_curves import CurveJob, Curves, Near
from .steering_methods import (
    TITLES,
    Choice,
    Way,
    at_random,
    choices,
    contrast_choices,
    feature_directions,
    of_random_features,
    pair_directions,
    text_embedding,
)
from .study_claims import COLLATERAL_MORE, recommended
from .study_figures import method_figures
from .study_targets import Targets, open_targets, opposed_targets
from .text_shift import TextEasel, text_shifts
from .value_pairs import ValueSides, watch_values

if TYPE_CHECKING:
    from ..training.sampling import FluxPipeline

FACTOR = "color"
SITE = Site.parse("double.1.img")
MAIN = ("contrast", "prompt_edit")
"""Methods that are shown on more test captions, for narrower intervals."""
NOTE = (
    "Measured on the demo Flux, a tiny model of drawn scenes: a test of the method and not of Flux 1, whose quality "
    "needs measures of its own (such as CLIPScore or a preference model), which are left to other tools."
)
SITES = tuple(
    map(Site.parse, ("double.0.txt", "double.1.txt", "single.0.txt", "double.0.img", "double.1.img", "single.0.img"))
)
"""Where contrastive vectors, probes and random directions may be added."""
LATER = tuple(map(Site.parse, ("single.1.txt", "single.2.txt", "single.1.img", "single.2.img", "single.3.img")))
"""Sites that are shown too, with fewer pairs: language models' best ones are early to middle (arXiv 2505.03189)."""


@dataclass(frozen=True)
class SteeringStudy:
    """How much of everything the study does; by default some 8,800 pictures in all."""

    targets: int = 320
    """Open test captions, on which the contrastive vector and the prompt edit are shown."""
    compared: int = 96
    """How many of them the other methods are shown on."""
    against: int = 80
    """Test captions that name another value, for the contrastive vector and the prompt edit."""
    against_compared: int = 40
    """How many of them the other methods are shown on."""
    search: int = 240
    """Validation pictures that each method, and each control, may draw to choose its setting for open captions."""
    search_against: int = 120
    """The same, for captions that name another value."""
    pairs: int = 256
    """Pairs a value that contrastive vectors, probes and text embeddings are made of."""
    pairs_later: int = 64
    """Pairs a value at the later sites, which are shown and not chosen among."""
    drawn: int = 120
    """Training pictures that features, atoms and neurons of a value are found in; the ITDA is built of them too."""
    moments: int = 11
    """Steps of each of these that are read."""
    image_strengths: tuple[float, ...] = (0.4, 0.45, 0.5)
    """Strengths that vectors may have at image sites."""
    text_strengths: tuple[float, ...] = (1.2,)
    """Strengths that vectors may have at text sites."""
    feature_strengths: tuple[float, ...] = (0.25, 0.35, 0.45, 0.6)
    """Strengths that features, atoms and neurons may have."""
    embedding_strengths: tuple[float, ...] = (0.25, 0.5, 0.75, 1.0, 1.5, 2.0, 3.0, 4.0)
    """Strengths that the difference of text embeddings may have."""
    ends: tuple[float, ...] = (0.6, 1.0)
    """Shares of sampling after which adding may end."""
    counts: tuple[int, ...] = (1, 3, 8)
    """How many features may be summed."""
    curves: Curves = field(default_factory=Curves)
    evolution: Evolution = field(default_factory=Evolution)
    sizes: SizeStudy = field(default_factory=SizeStudy)
    sampling: Sampling = field(default_factory=lambda: Sampling(batch=20))
    itda: ITDABuild = field(default_factory=lambda: ITDABuild(batch=256, nonnegative=True, per_picture=96))

    def quick(self) -> SteeringStudy:
        """The same in about 3 minutes: a test of the machinery, whose figures mean little."""
        return replace(
            self,
            targets=12,
            compared=6,
            against=6,
            against_compared=6,
            search=18,
            search_against=18,
            pairs=8,
            pairs_later=4,
            drawn=20,
            moments=2,
            image_strengths=(0.5,),
            text_strengths=(1.0,),
            feature_strengths=(0.4, 0.6),
            embedding_strengths=(1.0,),
            ends=(1.0,),
            counts=(3,),
            curves=self.curves.quick(),
            evolution=replace(self.evolution, searches=2, population=3, generations=2, seeds=1, fresh=2),
            sizes=self.sizes.quick(),
            sampling=replace(self.sampling, steps=6),
            itda=replace(self.itda, atoms=256, tokens=3000),
        )


class Shown(NamedTuple):
    """A method with what its searches settled on; `number` is its place among the choices, for open captions."""

    open: Result
    against: Result
    number: int
    figures: dict[str, Any]


@dataclass
class Findings:
    """Everything the report is written from: figures as `summary.json` holds them, and pictures."""

    figures: dict[str, Any] = field(default_factory=dict)
    shown: dict[str, Shown] = field(default_factory=dict)
    curves: dict[str, list[Result]] = field(default_factory=dict)
    """Pictures of the curves, by name."""
    adversarial: list[Any] = field(default_factory=list)
    """Of each search its example's steered and unsteered picture."""


class StudyJob:
    """Runs the study stage by stage; `findings` grows as it goes, and its figures are kept in `folder`."""

    def __init__(self, config: SteeringStudy, folder: Path, say: Callable[[str], None] = print):
        self.config, self.folder, self.say = config, folder, say
        self.findings = Findings()
        self.pipeline: FluxPipeline = load_pipeline("demo")
        self.easel: Easel = TextEasel(self.pipeline, config.sampling)
        self.to_sigma = percent_to_sigma(self.pipeline, config.sampling.height, config.sampling.width)
        self.pair_cases = pair_cases(max(config.pairs, config.sizes.pairs))
        self._begun = time.monotonic()

    def run(self) -> Findings:
        config, keep = self.config, self._keep
        with self._timed("making directions"):
            ways, embedding, sides, later = self._methods()
        methods = [*(way.method for way in ways), embedding, PROMPT_EDIT]
        with self._timed("unsteered pictures"):
            most = max(targets_needed(len(method.candidates), config.search) for method in methods)
            open_captions = open_targets(self.easel, most, config.targets, FACTOR)
            most = max(targets_needed(len(method.candidates), config.search_against) for method in methods)
            against = opposed_targets(self.easel, most, config.against, FACTOR)
        shown = self.findings.shown
        with self._timed("searching and showing"):
            allowed = [self._allowed(targets.validation) for targets in (open_captions, against)]
            keep("allowed_collateral", dict(zip(("open", "against"), allowed, strict=True)))
            for method in methods:
                shown[method.name] = self._show(method, open_captions, against, allowed)
        keep("by_method", {name: shown[name].figures for name in TITLES})
        best = {way.name: way.choices[shown[way.name].number] for way in ways}
        job = CurveJob(
            self.easel,
            config.curves,
            FACTOR,
            self.to_sigma,
            sides,
            later,
            best,
            {name: one.open for name, one in shown.items()},
            open_captions.test,
            self._near,
        )
        self.findings.curves = job.results
        with self._timed("strengths"):
            keep("strength_curve", job.strengths())
        with self._timed("sites"):
            keep("site_curve", job.sites(config.image_strengths, config.text_strengths))
        with self._timed("windows"):
            keep("window_curve", job.windows())
        with self._timed("numbers of pairs"):
            keep("pairs_curve", job.pairs())
        with self._timed("relatedness"):
            keep("relatedness", job.relatedness())
        with self._timed("adversarial captions"):
            keep("adversarial", self._adversarial(best["contrast"], sides))
        with self._timed("model size"):
            keep("model_size", self._sizes())
        keep("recommended", recommended(self.findings.figures))
        keep("note", NOTE)
        return self.findings

    def _methods(self) -> tuple[list[Way], Method, ValueSides, ValueSides]:
        """Methods that add directions, the one that adds to the text embedding, and what vectors are made of."""
        config, transformer = self.config, self.pipeline.transformer
        size = Size(config.sampling.height, config.sampling.width)
        sides, later = (
            watch_values(self.pipeline, self.pair_cases[:count], FACTOR, sites, size)
            for count, sites in ((config.pairs, SITES), (config.pairs_later, LATER))
        )
        units = neurons(transformer, SITE._replace(part="mlp"))
        cases = sample_cases(config.drawn, 2, "train")
        stream = DrawnPictures(
            self.pipeline,
            [case.caption for case in cases],
            [case.seed for case in cases],
            [SITE, Site.parse(units.site)],
            config.sampling,
            config.moments,
            NAME,
        )
        drawn = list(stream.batches())
        itda = build_itda(Kept(stream, [batch.tokens for batch in drawn]), SITE, config.itda)  # type: ignore[arg-type]
        sae = load_dictionary(DICTIONARY)
        dictionaries = {"feature": sae, "itda": itda, "neuron": units}
        found = {name: find_value_features(one, drawn, FACTOR) for name, one in dictionaries.items()}
        made = {
            name: choices(
                feature_directions(one, found[name], config.counts, sides.scale(SITE)),
                config.feature_strengths,
                config.ends,
            )
            for name, one in dictionaries.items()
        }
        for name, method in (("contrast", "mean difference"), ("probe", "probe")):
            directions = pair_directions(sides, method)
            made[name] = contrast_choices(directions, config.image_strengths, config.text_strengths, config.ends)
        made["random_direction"] = at_random(made["contrast"], FACTOR, transformer.inner_dim)
        made["random_feature"] = of_random_features(made["feature"], sae, found["feature"])
        shifts = text_shifts(self.pipeline, sides.captions, FACTOR)
        ways = [Way(name, those, self.to_sigma) for name, those in made.items()]
        return ways, text_embedding(shifts, config.embedding_strengths), sides, later

    def _allowed(self, validation: Sequence[Asked]) -> float:
        """Collateral that a setting may have and still be the best: what the bars allow beyond the prompt edit's."""
        edit = show(self.easel, "prompt_edit", PROMPT_EDIT.candidates[0], validation)
        return edit.outcome.collateral.value + COLLATERAL_MORE

    def _show(self, method: Method, open_captions: Targets, against: Targets, allowed: Sequence[float]) -> Shown:
        """One method at the best settings of its two searches, on test captions of both kinds."""
        config, main = self.config, method.name in MAIN
        found = search(self.easel, method, open_captions.validation, config.search, allowed[0])
        opposed = search(self.easel, method, against.validation, config.search_against, allowed[1])
        went = show(
            self.easel,
            method.name,
            found.candidate,
            open_captions.test[: config.targets if main else config.compared],
        )
        turned = show(
            self.easel,
            method.name,
            opposed.candidate,
            against.test[: config.against if main else config.against_compared],
        )
        said = method_figures(went, turned, found, opposed)
        self.say(
            f"{TITLES[method.name]}: success {said['success']:.2f}, collateral {said['collateral']:.2f}, "
            f"against {said['against']:.2f}, {said['settings']} ({time.monotonic() - self._begun:.0f} s)"
        )
        return Shown(went, turned, found.number, said)

    def _near(self, sides: ValueSides, site: Site) -> Near:
        vectors = {value: sides.vector(site, value) for value in FACTORS[FACTOR]}

        def near(value: str, caption: str) -> float | None:
            found = relatedness(vectors[value], self.pipeline, caption)
            return found.value if found else None

        return near

    def _adversarial(self, best: Choice, sides: ValueSides) -> dict[str, Any]:
        cases = sample_cases(200, 21, "test", never=[FACTOR])  # all for what is natural, the first to begin with
        candidate = best.directions.candidate(best.rule, self.to_sigma)
        near = self._near(sides, best.directions.site)
        found, pictures = study_adversarial(self.easel, candidate, cases, FACTOR, self.config.evolution, near)
        self.findings.adversarial = pictures
        return found

    def _sizes(self) -> dict[str, Any]:
        config = self.config
        return study_sizes(
            self.easel,
            self.pair_cases,
            FACTOR,
            config.sizes,
            config.sampling,
            (config.image_strengths, config.text_strengths, config.ends),
        )

    def _keep(self, name: str, figures: Any) -> None:
        """Note figures, also on disk: a run that is cut off leaves what it had."""
        self.findings.figures[name] = figures
        text = json.dumps(numbers(self.findings.figures), indent=2, allow_nan=False)
        (self.folder / "summary.json").write_text(text + "\n")

    @contextmanager
    def _timed(self, stage: str) -> Iterator[None]:
        self.say(f"{stage} ...")
        begun = time.monotonic()
        yield
        seconds = self.findings.figures.setdefault("seconds", {})
        seconds[stage] = round(time.monotonic() - begun, 1)
        self.say(f"{stage}: {seconds[stage]:.0f} s")


def pair_cases(count: int) -> list[Case]:
    """Training captions that pairs are made of: they name the factor, and not all of the scene.

    A caption of everything, with another value in it, may be of a combination that belongs to another split.
    """
    cases = sample_cases(2 * count + 20, 7, "train", always=[FACTOR])
    return [case for case in cases if len(case.named) < len(FACTORS)][:count]
