"""`fluxtionary atlas`: a dictionary's features as a catalogue, built, explained, scored, and looked into."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from ..atlas.header import is_number
from ..atlas.plain_text import plain
from ..interpretation.gathering import Gathering
from ..interpretation.output_score import OutputScoring
from ..training.capture import Capture
from ..training.models import Model
from ..training.sampling import Drawing
from .output import OutputError, check_writable
from .source import Source, dictionary_named

if TYPE_CHECKING:
    from ..atlas import Atlas, Feature
    from ..dictionaries import Dictionary
    from ..training.sampling import FluxPipeline, Sampling


@dataclass(frozen=True)
class BuildAtlas:
    """Draw pictures of prompts, and keep of each feature of a dictionary those that show what it is about.

    Interrupted or killed, the same command goes on where it was.
    """

    dictionary: tyro.conf.Positional[str]
    """A dictionary file (.safetensors), or demo for the one that comes with the demo Flux."""
    out: Path
    """Folder for the atlas."""
    limit: int | None = None
    """Pictures at most: the first of the prompts. All of them by default."""
    read: int = 4
    """Moments of each drawing that are read, spread evenly."""
    output_scores: int = 500
    """Features of which it is measured how far they move what the model does next, drawn at random; 0 for none."""
    overwrite: bool = False
    """Replace the atlas that is there."""
    checkpoint_seconds: float = 60.0
    """Seconds from one checkpoint to the next."""
    gather: Gathering = field(default_factory=Gathering)
    effect: OutputScoring = field(default_factory=OutputScoring)
    source: Annotated[Source, tyro.conf.arg(name="")] = field(default_factory=Source)

    def run(self) -> None:
        from ..interpretation.build import build_atlas
        from ..residual import Site
        from ..training.drawn import DrawnPictures

        source = self.source
        if source.shards:
            raise OutputError("an atlas needs the pictures: it draws them itself, so leave --shards out")
        if source.capture.moments != "trajectory" or source.capture.share < 1:
            raise OutputError("an atlas reads whole pictures while they are drawn: leave --moments and --share out")
        if self.limit is not None and self.limit < 1:
            raise OutputError(f"limit must be at least 1, found {self.limit}")
        if self.output_scores < 0:
            raise OutputError(f"output-scores must be at least 0, found {self.output_scores}")
        check_writable(self.out / "atlas.sqlite", overwrite=True)
        dictionary = dictionary_named(self.dictionary)
        captions = source.captions()[0]
        pipeline = source.pipeline(source.workers())
        check_fits(dictionary, pipeline)
        sampling = source.sampling.resolved(source.model.model, pipeline)
        stream = DrawnPictures(
            pipeline,
            captions.prompts[: self.limit],
            captions.seeds[: self.limit],
            [Site.parse(dictionary.site)],
            sampling,
            self.read,
            source.model.model,
            source.capture.guidance,
        )
        here = dictionary.on(pipeline.transformer.device)
        every = self.checkpoint_seconds
        with build_atlas(stream, here, self.out, self.gather, self.overwrite, every_seconds=every) as atlas:
            pictures = f"{len(atlas.pictures()):,} pictures"
            print(f"{self.out}: {atlas.count():,} of {dictionary.n_features:,} features, {pictures}")
        if self.output_scores:
            guidance = source.capture.guidance
            _score_outputs(self.out, dictionary, pipeline, sampling, self.output_scores, self.effect, guidance)


@dataclass(frozen=True)
class ScoreOutputs:
    """Measure how far features move what the model does next, and put it into their atlas."""

    folder: tyro.conf.Positional[Path]
    """An atlas."""
    dictionary: tyro.conf.Positional[str]
    """Its dictionary's file (.safetensors), or demo."""
    features: int = 500
    """How many: drawn at random, those that have been measured before among them."""
    guidance: float | None = None
    """Guidance that a guidance-distilled model (FLUX.1 dev) is told; by default as the atlas's pictures were drawn."""
    overwrite: bool = False
    """Measure anew what was measured with other settings."""
    model: Annotated[Model, tyro.conf.arg(name="")] = field(default_factory=Model)
    sampling: Drawing = field(default_factory=Drawing)
    effect: OutputScoring = field(default_factory=OutputScoring)

    def run(self) -> None:
        from ..training.models import load
        from ..training.sampling import check_size

        if self.features < 1:
            raise OutputError(f"features must be at least 1, found {self.features}")
        check_size(self.model.model, self.sampling)
        dictionary, pipeline = dictionary_named(self.dictionary), load(self.model)
        sampling = self.sampling.resolved(self.model.model, pipeline)
        options = self.effect, self.guidance, self.overwrite
        _score_outputs(self.folder, dictionary, pipeline, sampling, self.features, *options)


@dataclass(frozen=True)
class SearchAtlas:
    """Features by the words of their labels, of what explains them, and of the captions of their top pictures."""

    folder: tyro.conf.Positional[Path]
    """An atlas."""
    text: tyro.conf.Positional[str]
    """What to look for, such as "red circle"."""
    limit: int = 20
    """Features to show."""
    order: str = "relevance"
    """relevance, or any figure: density, mean, peak, spread, coverage, output_score, pictures, interp."""

    def run(self) -> None:
        from ..atlas import Atlas

        if self.limit < 1:
            raise OutputError(f"limit must be at least 1, found {self.limit}")
        with Atlas.open(self.folder) as atlas:
            found = atlas.search(self.text, self.limit, order=self.order)
            if not found:
                print(f"no feature has anything of {self.text!r}; its captions and labels have other words")
            for feature in found:
                figures = f"{feature.number:>7}  {feature.pictures:>6} pictures  density {feature.density:.4f}"
                print(f"{figures}  {plain(_said(atlas, feature))}")


@dataclass(frozen=True)
class ShowFeature:
    """What an atlas knows of a feature, in words; with --out as a page with its pictures."""

    folder: tyro.conf.Positional[Path]
    """An atlas."""
    feature: tyro.conf.Positional[int]
    """The feature's number."""
    out: Path | None = None
    """A page to write (.html), with pictures, heat maps and plots in the one file."""
    overwrite: bool = False
    """Replace the page if there is one."""

    def run(self) -> None:
        from ..atlas import Atlas
        from ..evaluation.feature_page import feature_page

        if self.out is not None:
            check_writable(self.out, self.overwrite)
        with Atlas.open(self.folder) as atlas:
            feature = atlas.feature(self.feature)
            print("\n".join(plain(line) for line in described(atlas, feature)))
            if self.out is not None:
                self.out.parent.mkdir(parents=True, exist_ok=True)
                page = feature_page(atlas, self.feature).replace("\0", "\ufffd")  # as a browser shows what HTML forbids
                self.out.write_text(page, encoding="utf-8")
                print(f"page: {self.out}")


def described(atlas: Atlas, feature: Feature) -> Iterator[str]:
    """Lines about a feature: label, figures, and the pictures in which it is most active."""
    about = atlas.header["dictionary"]
    yield f"feature {feature.number} of {about['n_features']:,}, {about['kind']} at {about['site']}"
    if feature.label:
        yield f"  {feature.label}: {feature.explanation}"
    levels = zip(atlas.header["sigmas"], feature.profile, strict=False)
    rows = [
        ("active", f"in {feature.pictures:,} pictures, on {feature.density:.2%} of tokens"),
        ("value", f"mean {feature.mean:.3g}, peak of a heat map {feature.peak:.3g}"),
        ("where", f"{feature.coverage:.1%} of a picture's tokens, spread {feature.spread:.2f} (1 is everywhere)"),
        ("by sigma", ", ".join(f"{sigma:.2f}: {density:.2%}" for sigma, density in levels)),
        ("together with", ", ".join(f"{other} ({share:.2f})" for other, share in feature.companions)),
    ]
    if feature.output_score is not None:
        rows.append(("output score", f"{feature.output_score:.3f}"))
    for name, score in sorted(feature.scores.items()):
        rows.append((name, f"{score.value:.2f} ({score.low:.2f} to {score.high:.2f}, {score.n})"))
    if (source := feature.source) is not None:
        place = f"seed {source.seed}, sigma {source.sigma:.2f}, row {source.row}, column {source.column}"
        rows.append(("source", f"{source.prompt!r}, {place}"))
    yield from (f"  {name:14}{text}" for name, text in rows)
    yield "  most active in"
    for example in atlas.examples(feature.number, "top")[:5]:
        yield f"  {example.peak:>8.3g}  {atlas.picture(example.picture).prompt}"


def _said(atlas: Atlas, feature: Feature) -> str:
    """Its label, or the caption of its top picture."""
    if feature.label:
        return feature.label
    top = atlas.examples(feature.number, "top")[:1]
    return f"({atlas.picture(top[0].picture).prompt})" if top else ""


def check_fits(dictionary: Dictionary, pipeline: FluxPipeline) -> None:
    """Raise `PlanError` or `SiteError` for a dictionary that was made for another model, before anything is drawn."""
    from ..residual import Plan, Site, Tap
    from ..residual.diffusers_host import model_shape

    Plan([Tap(Site.parse(dictionary.site), dictionary)]).check(*model_shape(pipeline.transformer))


def _score_outputs(
    folder: Path,
    dictionary: Dictionary,
    pipeline: FluxPipeline,
    sampling: Sampling,
    count: int,
    config: OutputScoring,
    guidance: float | None = None,
    overwrite: bool = False,
) -> None:
    """Give output scores to features of an atlas that have none; each is kept once it is measured.

    Raises `AtlasError` where others were measured with other settings, unless those are to be overwritten.
    """
    from tqdm import tqdm

    from ..atlas import Atlas, AtlasWriter
    from ..dictionaries.fingerprint import fingerprint
    from ..interpretation.output_score import output_scores, score_settings
    from ..interpretation.trials import sample_features

    with Atlas.open(folder, fingerprint(dictionary)) as atlas:
        if guidance is None:
            drawn_with = atlas.header["capture"].get("guidance")
            guidance = float(drawn_with) if is_number(drawn_with) else Capture().guidance
        settings = score_settings(config, sampling, guidance)
        with AtlasWriter.annotate(folder) as writer:
            writer.begin_output_scores(settings, overwrite)
        numbers = [n for n in sample_features(atlas, count) if atlas.feature(n).output_score is None]
        drawn = [atlas.picture(n) for n in atlas.pictures()[: config.pictures]]
    prompts, seeds = [one.prompt for one in drawn], [one.seed for one in drawn]
    here = dictionary.on(pipeline.transformer.device)
    scores = output_scores(pipeline, here, numbers, prompts, seeds, sampling, config, guidance)
    try:
        with AtlasWriter.annotate(folder) as writer:
            for number, score in tqdm(scores, "output scores", len(numbers), unit="feature", mininterval=1):
                writer.set_output_score(number, score)
    except KeyboardInterrupt:
        raise KeyboardInterrupt("what was measured is kept: the same command goes on") from None
