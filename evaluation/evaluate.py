"""Everything that is measured of dictionaries: their reconstruction, its baselines, and what splicing it in costs."""

from __future__ import annotations

import hashlib
import math
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro
from tqdm import tqdm

from ..demo import files
from ..dictionaries import Dictionary
from ..residual import Plan, PlanError, Site, Splice, Tap
from ..residual.diffusers_host import model_shape
from ..residual.tokens import Tokens
from ..training.capture import Capture, PipelineStream
from ..training.sampling import Sampling, text_length
from .dictionary_report import numbers, write_dictionary_report
from .reconstruction import EDGES, BaselineFigures, Evaluator, Reconstruction, Reference, Sample, measure_baselines
from .spliced import PlainRun, Recovered, SpliceErrors, draw_plain, mean_dictionary, measure_plan, recovered

if TYPE_CHECKING:
    from ..training.sampling import FluxPipeline

DEMO_NOTE = (
    "Measured on the demo Flux, a tiny model of drawn scenes: a test of the method. "
    "It says nothing of Flux 1 itself; verdicts on that need Flux 1."
)


class EvaluationError(ValueError):
    """An evaluation that would not mean what it says."""


@dataclass(frozen=True)
class Evaluation:
    """How much dictionaries are measured on."""

    held_out: int = 200_000
    """Held-out tokens a site, in whole pictures: what every figure is measured on."""
    train: int = 200_000
    """Training tokens a site, in whole pictures: means, deviations, and what clock and place explain."""
    baseline_train: int = 40_000
    """How many of the training tokens baselines are fitted to; it also bounds their centres and atoms."""
    baseline_held_out: int = 4_096
    """How many of the held-out tokens baselines are measured on."""
    pictures: int = 8
    """Held-out prompts drawn with the reconstruction spliced in; 0 leaves that out."""
    seed: int = 0
    """Seed of the pictures (even ones for training prompts, odd ones for held-out prompts) and of the samples."""
    # the command line gives these two as options of their own
    capture: Annotated[Capture, tyro.conf.Suppress] = field(default_factory=Capture)
    """Which activations are taken."""
    sampling: Annotated[Sampling, tyro.conf.Suppress] = field(default_factory=Sampling)
    """How pictures are drawn."""

    def __post_init__(self) -> None:
        for name in ("held_out", "train", "baseline_train", "baseline_held_out"):
            if getattr(self, name) < 1:
                raise EvaluationError(f"{name} must be at least 1, found {getattr(self, name)}")
        if self.pictures < 0 or self.seed < 0:
            raise EvaluationError(f"pictures and seed start at 0, found {min(self.pictures, self.seed)}")


@dataclass(frozen=True)
class Measured:
    """What was measured of one dictionary's reconstruction, and of what stands beside it."""

    reconstruction: Reconstruction
    baselines: dict[str, BaselineFigures]


@dataclass(frozen=True)
class SpliceFigures:
    """A dictionary spliced into the model, its site replaced by the mean, and what the first has of the difference."""

    splice: SpliceErrors
    mean: SpliceErrors
    recovered: Recovered


def evaluate(
    pipeline: FluxPipeline,
    dictionaries: Mapping[str, Dictionary],
    train_prompts: Sequence[str],
    held_out_prompts: Sequence[str],
    config: Evaluation,
    out: Path,
) -> dict[str, Any]:
    """Measure dictionaries, by name, and write `report.html` and `metrics.json` into the folder `out`.

    Returns what `metrics.json` holds. Prompts are taken in order, again with other seeds where there are too few.

    Raises:
        EvaluationError: without dictionaries or prompts; where a held-out prompt is among the training prompts, or
            the held-out prompts are those a dictionary's file says it was trained on.
        SiteError, PlanError: for a dictionary of another depth or width than the model.
    """
    begun = time.monotonic()
    check(pipeline, dictionaries, train_prompts, held_out_prompts)
    references = _references(pipeline, dictionaries, train_prompts, config)
    measured = _reconstructions(pipeline, dictionaries, references, held_out_prompts, config)
    plain, spliced, notes = _splices(pipeline, dictionaries, references, held_out_prompts, config)
    figures = {
        "model": _model(pipeline),
        "note": DEMO_NOTE if _is_demo(pipeline) else None,
        "config": numbers(config),
        "prompts": {"train": len(train_prompts), "held_out": len(held_out_prompts), "sha256": _sha(held_out_prompts)},
        "dictionaries": {
            name: {
                **_described(dictionary),
                **_measured_numbers(measured[name]),
                "spliced": _spliced_numbers(spliced[name], config.pictures) if name in spliced else None,
                "spliced_note": notes.get(name),
            }
            for name, dictionary in dictionaries.items()
        },
        "seconds": round(time.monotonic() - begun, 1),
    }
    write_dictionary_report(figures, plain, {name: (one.splice, one.mean) for name, one in spliced.items()}, out)
    return figures


def figures_for_header(figures: Mapping[str, Any]) -> dict[str, dict[str, float]]:
    """From what `evaluate` returns: for each dictionary by name what its file's header says under `metrics`."""
    header = {}
    for name, one in figures["dictionaries"].items():
        whole = one["reconstruction"]["whole"]
        found = {key: whole[key] for key in ("fvu", "fvu_raw", "fvu_within", "cosine", "bias", "dead", "l0", "tokens")}
        found |= {f"fvu_{key}": baseline["fvu"] for key, baseline in one["baselines"].items()}
        if one["spliced"] is not None:
            found |= {f"{key}_error": one["spliced"]["splice"][key] for key in ("velocity", "latent", "pixel")}
            found |= {f"{key}_recovered": one["spliced"]["recovered"][key] for key in ("velocity", "latent", "pixel")}
        header[name] = {key: value for key, value in found.items() if value is not None}
    return header


def check(
    pipeline: FluxPipeline,
    dictionaries: Mapping[str, Dictionary],
    train_prompts: Sequence[str],
    held_out_prompts: Sequence[str],
) -> None:
    """Raise what `evaluate` raises, before anything is drawn."""
    for what, given in (("dictionaries", dictionaries), ("training prompts", train_prompts)):
        if not given:
            raise EvaluationError(f"there is nothing to measure: expected {what}, found none")
    if not held_out_prompts:
        raise EvaluationError("there is nothing to measure on: expected held-out prompts, found none")
    known = {" ".join(prompt.split()) for prompt in train_prompts}
    if shared := sorted({" ".join(prompt.split()) for prompt in held_out_prompts} & known):
        listed = ", ".join(repr(prompt) for prompt in shared[:3])
        raise EvaluationError(
            f"held-out prompts must not be among the training prompts, found {len(shared)} in both, such as {listed}: "
            "figures on what was trained on would look better than they are"
        )
    for name, dictionary in dictionaries.items():
        Plan([Tap(Site.parse(dictionary.site), dictionary)]).check(*model_shape(pipeline.transformer))
        if dictionary.provenance.capture.get("prompts_sha256") == _sha(held_out_prompts):
            raise EvaluationError(
                f"{name} was trained on these very held-out prompts, as its file says: hold out others"
            )


def _captured(
    pipeline: FluxPipeline, prompts: Sequence[str], odd: bool, sites: Sequence[Site], tokens: int, config: Evaluation
) -> Iterator[Mapping[Site, Tokens]]:
    """Activations of whole pictures, a batch of pictures at a time, until every site has about `tokens`."""
    capture, sampling = config.capture, config.sampling
    moments = {"trajectory": sampling.steps, "noise": 1, "noised": capture.sigmas}[capture.moments]
    some = pipeline.tokenizer_2(list(prompts[:256]), truncation=True, max_length=text_length(pipeline)).input_ids
    cell = pipeline.vae_scale_factor * 2
    a_moment = {
        "img": (sampling.height // cell) * (sampling.width // cell),
        "txt": sum(map(len, some)) / len(some),
    }
    least = min(a_moment[site.stream] for site in sites) * moments * capture.share
    chosen, seeds = _pictures(prompts, odd, math.ceil(tokens / least), config)
    stream = PipelineStream(pipeline, chosen, seeds, sites, capture, sampling)
    part = "held-out" if odd else "training"
    yield from tqdm(stream.batches(), desc=f"{part} pictures", total=len(stream), unit="batch", mininterval=1)


def _pictures(prompts: Sequence[str], odd: bool, count: int, config: Evaluation) -> tuple[list[str], list[int]]:
    """Prompts, again from the first where there are too few, and seeds that the other side never has."""
    chosen = [prompts[i % len(prompts)] for i in range(count)]
    return chosen, [2 * (1_000_000 * config.seed + i) + odd for i in range(count)]


def _sites(dictionaries: Mapping[str, Dictionary]) -> dict[Site, list[str]]:
    """Names of the dictionaries of each site."""
    found: dict[Site, list[str]] = {}
    for name, dictionary in dictionaries.items():
        found.setdefault(Site.parse(dictionary.site), []).append(name)
    return found


def _references(
    pipeline: FluxPipeline, dictionaries: Mapping[str, Dictionary], prompts: Sequence[str], config: Evaluation
) -> dict[Site, Reference]:
    held: dict[Site, list[Tokens]] = {site: [] for site in _sites(dictionaries)}
    for batch in _captured(pipeline, prompts, False, list(held), config.train, config):
        for site, tokens in batch.items():
            if sum(len(part.x) for part in held[site]) < config.train:  # sites have unlike numbers of tokens
                held[site].append(tokens)
    return {site: Reference(Tokens.joined(held.pop(site)), config.baseline_train, config.seed) for site in list(held)}


def _reconstructions(
    pipeline: FluxPipeline,
    dictionaries: Mapping[str, Dictionary],
    references: Mapping[Site, Reference],
    prompts: Sequence[str],
    config: Evaluation,
) -> dict[str, Measured]:
    sites = _sites(dictionaries)
    evaluators = {
        name: Evaluator(dictionaries[name], references[site]) for site, names in sites.items() for name in names
    }
    samples = {site: Sample(config.baseline_held_out, config.seed) for site in sites}
    for batch in _captured(pipeline, prompts, True, list(sites), config.held_out, config):
        for site, tokens in batch.items():
            if samples[site].seen < config.held_out:
                samples[site].add(tokens)
                for name in sites[site]:
                    evaluators[name].add(tokens)
    measured = {}
    for site, names in sites.items():
        for name in tqdm(names, desc=f"baselines at {site}", unit="dictionary"):
            figures, sample = evaluators[name].figures(), samples[site].tokens
            assert sample is not None
            n, k = dictionaries[name].n_features, round(figures.whole.l0)
            measured[name] = Measured(figures, measure_baselines(references[site], sample, n, k, config.seed))
    return measured


def _splices(
    pipeline: FluxPipeline,
    dictionaries: Mapping[str, Dictionary],
    references: Mapping[Site, Reference],
    prompts: Sequence[str],
    config: Evaluation,
) -> tuple[PlainRun | None, dict[str, SpliceFigures], dict[str, str]]:
    """The plain run, what splicing each dictionary changes, and why some cannot be spliced."""
    plans, notes = {}, {}
    for name, dictionary in dictionaries.items():
        try:
            plans[name] = Plan([Splice(Site.parse(dictionary.site), dictionary)])
            plans[name].check(*model_shape(pipeline.transformer))
        except PlanError as error:
            plans.pop(name, None)
            notes[name] = str(error)
    if not config.pictures or not plans:
        return None, {}, notes
    plain = draw_plain(pipeline, *_pictures(prompts, True, config.pictures, config), config.sampling)
    means: dict[Site, SpliceErrors] = {}
    found = {}
    for name, plan in tqdm(plans.items(), desc="splicing", unit="dictionary"):
        (site,) = plan.sites()
        if site not in means:
            mean = references[site].normalization.mean
            assert mean is not None
            means[site] = measure_plan(pipeline, Plan([Splice(site, mean_dictionary(str(site), mean))]), plain)
        splice = measure_plan(pipeline, plan, plain)
        found[name] = SpliceFigures(splice, means[site], recovered(splice, means[site]))
    return plain, found, notes


def _is_demo(pipeline: FluxPipeline) -> bool:
    """Whether it is of the demo Flux's make; text as narrow as that has no other."""
    names = ("joint_attention_dim", "pooled_projection_dim")
    return all(pipeline.transformer.config[name] == files.TRANSFORMER_COMMON[name] for name in names)


def _model(pipeline: FluxPipeline) -> dict[str, Any]:
    source = str(pipeline.config.get("_name_or_path") or "")
    name = Path(source).name if Path(source).exists() else source  # where it lies on this machine is no one's concern
    double, single, width = model_shape(pipeline.transformer)
    shape = {"double_blocks": double, "single_blocks": single, "d_model": width}
    return {"family": "flux1", "name": "demo Flux" if _is_demo(pipeline) else name, **shape}


def _described(dictionary: Dictionary) -> dict[str, Any]:
    about = dictionary.provenance
    return {
        "kind": dictionary.kind,
        "site": dictionary.site,
        "n_features": dictionary.n_features,
        "d_model": dictionary.d_model,
        "model": numbers(about.model),
        "capture": numbers(about.capture),
        "training": numbers(about.training),
    }


def _measured_numbers(measured: Measured) -> dict[str, Any]:
    found = measured.reconstruction
    return {
        "reconstruction": {
            "whole": numbers(found.whole),
            "by_sigma": [
                {"sigma": part.sigma, "weight": part.weight, **numbers(part.measures)} for part in found.by_sigma
            ],
            "density": list(found.density),
            "histogram": {"log10_edges": list(EDGES), "features": list(found.histogram)},
        },
        "baselines": numbers(measured.baselines),
    }


def _spliced_numbers(spliced: SpliceFigures, pictures: int) -> dict[str, Any]:
    def errors(of: SpliceErrors) -> dict[str, Any]:
        return numbers({name: value for name, value in vars(of).items() if name != "pictures"})

    return {
        "pictures": pictures,
        "splice": errors(spliced.splice),
        "mean": errors(spliced.mean),
        "recovered": numbers(spliced.recovered),
    }


def _sha(prompts: Sequence[str]) -> str:
    """As a dictionary's header names the prompts of its capture."""
    return hashlib.sha256("\n".join(prompts).encode()).hexdigest()
