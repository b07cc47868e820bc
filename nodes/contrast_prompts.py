"""Contrast Prompts: a steering vector from prompts that have something, and prompts that lack it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import comfy.samplers
import latent_preview
import torch
from comfy_api.latest import io
from torch import Tensor

from ..dictionaries import ContrastMeter, Provenance, SteeringVector
from ..dictionaries.contrast import METHODS, Method, direction_of
from ..residual import Add, Plan, Record, Site, Tap, Window
from ..residual.comfy_host import Start, Task, model_shape, patch
from .prompt_pairs import Prompt, matched
from .sampling import check_acts, sample, schedule
from .say import say
from .sockets import FluxSteeringVector
from .tap import parse_sites


class ContrastPrompts(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        percent = {"min": 0.0, "max": 1.0, "step": 0.01}
        return io.Schema(
            node_id="FluxtionaryContrastPrompts",
            display_name="Contrast Prompts",
            category="Fluxtionary",
            description="Makes a steering vector of what Flux thinks with the positive prompts, minus what it thinks "
            "with the negative ones. The first steps of each picture are sampled; no picture is finished.",
            is_input_list=True,
            inputs=[
                io.Model.Input("model", tooltip="A Flux 1 model. Steering nodes on it act here too."),
                io.Conditioning.Input(
                    "positive", tooltip="Prompts that have it: one, or a list or batch that is matched in order."
                ),
                io.Conditioning.Input(
                    "negative", tooltip="Prompts that lack it: as many as positive, or one for all of these."
                ),
                io.Latent.Input("latent", tooltip="Usually an empty latent: gives the size, and pictures per seed."),
                io.String.Input(
                    "sites",
                    default="",
                    tooltip="Places in the model, such as double.9.img, separated by commas. Empty: both streams "
                    "after the middle double block, double.9.img and double.9.txt in Flux 1.",
                ),
                io.Int.Input(
                    "steps",
                    default=4,
                    min=1,
                    max=10_000,
                    tooltip="Steps of the whole schedule, of which only those up to end_percent are sampled.",
                ),
                io.Float.Input(
                    "start_percent",
                    default=0.0,
                    tooltip="When in sampling it begins to watch: 0 is the start.",
                    **percent,
                ),
                io.Float.Input(
                    "end_percent",
                    default=0.5,
                    tooltip="When it stops watching, and sampling too: 1 is the end.",
                    **percent,
                ),
                io.Int.Input(
                    "seeds",
                    default=1,
                    min=1,
                    max=10_000,
                    tooltip="Pictures for each prompt: with seed, seed + 1 and so on. More even out chance.",
                ),
                io.Int.Input(
                    "seed",
                    default=0,
                    min=0,
                    max=2**64 - 1,
                    tooltip="The first seed. Both prompts of a pair start from the same noise.",
                ),
                io.Combo.Input(
                    "method",
                    options=list(METHODS),
                    default=METHODS[0],
                    tooltip="mean difference: the mean of the pairs' differences. pca: the direction that most of "
                    "the differences lie along; needs several pairs, with one it is the same.",
                ),
                io.Combo.Input(
                    "scheduler",
                    options=comfy.samplers.SCHEDULER_NAMES,
                    default="simple",
                    tooltip="The schedule, as of a sampler. The sampler itself is euler, without guidance (cfg 1).",
                ),
            ],
            outputs=[
                FluxSteeringVector.Output(display_name="vector"),
                io.String.Output(display_name="about", tooltip="Pairs, tokens, and how well the pairs agree."),
            ],
            hidden=[io.Hidden.unique_id],
        )

    @classmethod
    def execute(
        cls,
        model: list[Any],
        positive: list[list],
        negative: list[list],
        latent: list[dict[str, Any]],
        **widgets: list,
    ) -> io.NodeOutput:
        settings = Settings(**{name: one(name, values) for name, values in widgets.items()})
        prompts = matched(positive, negative)
        vector, about = contrast(one("model", model), one("latent", latent), prompts, settings)
        say(cls.hidden.unique_id, about)
        return io.NodeOutput(vector, about)


@dataclass(frozen=True)
class Settings:
    """The node's widgets. Raises `ValueError` naming the one that cannot mean anything."""

    sites: str
    steps: int
    start_percent: float
    end_percent: float
    seeds: int
    seed: int
    method: Method
    scheduler: str

    def __post_init__(self) -> None:
        for name in ("steps", "seeds"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}: expected 1 or more, found {getattr(self, name)}")
        if not 0 <= self.start_percent <= self.end_percent <= 1:
            raise ValueError(
                "start_percent and end_percent: expected 0 <= start <= end <= 1, "
                f"found start {self.start_percent} and end {self.end_percent}"
            )

    def places(self, model: Any) -> list[Site]:
        """The sites to make directions for. Raises `ValueError` for one that cannot be steered."""
        double, single, width = model_shape(model)
        middle = (double - 1) // 2
        with naming("sites"):
            sites = parse_sites(self.sites) or parse_sites(f"double.{middle}.img, double.{middle}.txt")
            # as of the edits that the vector is made for
            Plan(Add(site, torch.ones(width), 1.0) for site in sites).check(double, single, width)
        return list(dict.fromkeys(sites))

    def window(self, model: Any) -> Window:
        to_sigma = model.get_model_object("model_sampling").percent_to_sigma
        return Window.from_percent(self.start_percent, self.end_percent, lambda share: float(to_sigma(share)))

    def numbers(self) -> list[int]:
        """The seeds, each of which is one picture of every prompt."""
        return [(self.seed + number) % 2**64 for number in range(self.seeds)]


class Part(NamedTuple):
    """The part of a schedule that is sampled, and those of its sigmas at which the model is watched."""

    sigmas: Tensor
    watched: list[float]
    window: Window


@dataclass
class Gauge:
    """What is measured at one site."""

    meter: ContrastMeter
    tokens: int = 0

    def add(self, x: Tensor, sigma: float, prompt: Prompt) -> None:
        """Take activations `x [pictures, tokens, d_model]` of a prompt, for every pair that it belongs to."""
        tokens = x.flatten(0, 1).cpu().double()
        self.tokens += len(tokens)
        for pair in prompt.pairs:
            self.meter.add(tokens, torch.full((len(tokens),), sigma), pair, prompt.positive)


class Watch(Task):
    """Measures what the model thinks of a prompt."""

    name = "Contrast Prompts"

    def __init__(self, gauges: dict[Site, Gauge], prompt: Prompt, window: Window):
        self.gauges, self.prompt, self.window = gauges, prompt, window

    def plan(self, start: Start) -> Plan:
        return Plan(Tap(site, window=self.window, rows="cond", receive=self.receive) for site in self.gauges)

    def receive(self, tap: Tap, record: Record, x: Tensor) -> None:
        with naming(tap.site):
            self.gauges[tap.site].add(x, record.moment.sigma, self.prompt)


def contrast(
    model: Any, latent: dict[str, Any], prompts: Sequence[Prompt], settings: Settings
) -> tuple[SteeringVector, str]:
    """The steering vector between the two sides of all pairs, and what there is to say of it."""
    double, single, width = model_shape(model)
    gauges = {site: Gauge(ContrastMeter(width)) for site in settings.places(model)}
    part = part_of(model, settings)
    for prompt in prompts:
        check_acts(prompt.side, model, prompt.conditioning, part.watched)
    measure(model, latent, prompts, gauges, part, settings.numbers())
    directions, figures = {}, {}
    for site, gauge in gauges.items():
        with naming("positive and negative", site):
            directions[str(site)] = gauge.meter.direction(settings.method)
        figures[str(site)] = figures_of(gauge, directions[str(site)], part.watched, settings.method)
    pairs = len({pair for prompt in prompts for pair in prompt.pairs})
    height, wide = (8 * side for side in latent["samples"].shape[-2:])
    provenance = Provenance(
        model={"family": "flux1", "double_blocks": double, "single_blocks": single, "d_model": width},
        capture=captured(part, settings) | {"height": height, "width": wide},
        training={"method": settings.method, "pairs": pairs},
        metrics=figures,
    )
    scales = {str(site): gauge.meter.scale() for site, gauge in gauges.items()}
    return SteeringVector(directions, scales, provenance), described(pairs, part, settings, figures)


def captured(part: Part, settings: Settings) -> dict[str, Any]:
    """How the activations were had, as a vector's header says it."""
    return {
        "sigmas": part.watched,
        "steps": settings.steps,
        "scheduler": settings.scheduler,
        "seeds": settings.numbers(),
    }


def part_of(model: Any, settings: Settings) -> Part:
    """What is sampled: up to the last step that begins in the watched part, and no further."""
    sigmas, window = schedule(model, settings.scheduler, settings.steps), settings.window(model)
    inside = [number for number, sigma in enumerate(sigmas[:-1].tolist()) if window.holds(sigma)]
    if not inside:
        raise ValueError(
            f"start_percent and end_percent: expected a part of sampling in which one of the {settings.steps} steps "
            f"begins, found none from {settings.start_percent} to {settings.end_percent}: widen it, or raise steps"
        )
    return Part(sigmas[: inside[-1] + 2], [float(sigmas[number]) for number in inside], window)


def measure(
    model: Any,
    latent: dict[str, Any],
    prompts: Sequence[Prompt],
    gauges: dict[Site, Gauge],
    part: Part,
    seeds: Sequence[int],
) -> None:
    """Sample every prompt with every seed, with one progress bar over all."""
    steps = len(part.sigmas) - 1
    total = len(prompts) * len(seeds) * steps
    show = latent_preview.prepare_callback(model, total)
    for place, prompt in enumerate(prompts):
        watched = patch(model, Watch(gauges, prompt, part.window))
        for number, seed in enumerate(seeds):
            done = (place * len(seeds) + number) * steps

            def progress(step: int, clean: Tensor, x: Tensor, _: int, done: int = done) -> None:
                show(done + step, clean, x, total)

            sample(watched, latent, prompt.conditioning, part.sigmas, seed, progress)


def figures_of(gauge: Gauge, direction: Tensor, sigmas: Sequence[float], method: Method) -> dict[str, Any]:
    """How well the pairs agree on a direction, how well it tells others apart, and its length in units of strength."""
    return {"tokens": gauge.tokens, **gauge.meter.quality(direction, sigmas, partial(direction_of, method=method))}


def described(pairs: int, part: Part, settings: Settings, figures: dict[str, dict[str, Any]]) -> str:
    """Lines for the user: what was compared, and what came out at each site."""
    sigmas = ", ".join(f"{sigma:.3g}" for sigma in part.watched)
    lines = [
        f"{settings.method} of {_counted(pairs, 'pair')}, {_counted(settings.seeds, 'seed')}; watched at "
        f"sigma {sigmas}: {_counted(len(part.watched), 'step')} of {settings.steps}"
    ]
    for site, own in figures.items():
        agreed = ""
        if own["auroc"] is not None:
            agreed = (
                f", split-half cosine {own['split_half_cosine']:.2f}, explained {own['explained']:.2f}, held-out pairs "
                f"told apart with AUROC {own['auroc']:.2f}"
            )
        lines.append(f"{site}: {own['tokens']:,} tokens{agreed}, length {own['length']:.3g} of the usual size there")
    return "\n".join(lines)


def one(name: str, values: list) -> Any:
    """The only value of an input that takes one."""
    if len(values) != 1:
        raise ValueError(f"{name}: expected one, found a list of {len(values)}; positive and negative take lists")
    return values[0]


@contextmanager
def naming(*names: Any) -> Iterator[None]:
    """What is amiss inside is said of these."""
    try:
        yield
    except ValueError as error:
        raise ValueError(": ".join(map(str, (*names, error)))) from error


def _counted(count: int, name: str) -> str:
    return f"{count} {name}" if count == 1 else f"{count} {name}s"
