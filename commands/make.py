"""`fluxtionary capture`, `train-sae`, `build-itda` and `compare-itda`: from prompts to dictionaries."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field, replace
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from ..residual import Site
from ..training.itda import ITDABuild
from ..training.sae import SAETraining
from .output import OutputError, check_writable
from .source import Source

if TYPE_CHECKING:
    from ..dictionaries import Dictionary
    from ..training.stream import ActivationStream
    from ..training.train import Wanted


@dataclass(frozen=True)
class CaptureActivations:
    """Write activations of a Flux to a folder of shards, which `train-sae`, `build-itda` and others read many times."""

    out: Path
    """The folder; where it holds a part of this capture, the capture goes on."""
    site: tuple[str, ...] = ("double.1.img",)
    """Where in the residual stream, such as double.18.img single.9.txt; all in one pass."""
    shard_tokens: int = 100_000
    """Tokens of a shard: so many are held in memory, and captured again after an interruption."""
    source: Annotated[Source, tyro.conf.arg(name="")] = field(default_factory=Source)

    def run(self) -> None:
        from ..training.shards import write_shards

        if self.source.shards:
            raise OutputError("capture writes shards: leave --shards out")
        if self.out.is_file():
            raise OutputError(f"{self.out}: expected a folder to write, found a file")
        check_writable(self.out / "manifest.json", overwrite=True)
        workers = self.source.workers()
        if workers.count > 1:
            raise OutputError(
                f"found {workers.count} processes, and one folder of shards is written by one: start one for each part "
                "of the prompts, or leave the shards out, for train-sae captures with all of them"
            )
        sites = [Site.parse(site) for site in self.site]
        stream = self.source.live(self.source.pipeline(workers), self.source.captions()[0], sites)
        shards = write_shards(stream, self.out, self.shard_tokens)
        print(f"{self.out}: " + ", ".join(f"{shards.tokens(site):,} tokens of {site}" for site in shards.sites))


@dataclass(frozen=True)
class Run:
    """How a long run keeps what it has."""

    resume: bool = False
    """Go on from the checkpoint of a run that was cut off."""
    overwrite: bool = False
    """Replace files that are there, and forget a run that was cut off."""
    checkpoint_seconds: float = 300.0
    """Seconds from one checkpoint to the next."""
    held_out: float = 0.02
    """Share of the prompts that is held out; the finished dictionary is measured on them. 0 for none."""
    measured: int = 50_000
    """Held-out tokens that it is measured on."""

    def __post_init__(self) -> None:
        if not 0 <= self.held_out < 1:
            raise OutputError(f"held-out is a share of the prompts, 0 or more and below 1, found {self.held_out}")
        if self.measured < 2:
            raise OutputError(f"measured must be at least 2 tokens, found {self.measured}; --held-out 0 measures none")


@dataclass(frozen=True)
class TrainSae:
    """Train sparse autoencoders on activations streamed out of a Flux while it draws, or read from shards."""

    out: Path
    """The dictionary file to write (.safetensors); a folder where there are several."""
    site: tuple[str, ...] = ("double.1.img",)
    """Where in the residual stream, such as double.18.img; a dictionary for each."""
    widths: tuple[int, ...] = ()
    """A dictionary for each of these numbers of features, instead of --sae.features."""
    counts: tuple[int, ...] = ()
    """A dictionary for each of these k, instead of --sae.k."""
    sae: SAETraining = field(default_factory=SAETraining)
    keep: Annotated[Run, tyro.conf.arg(name="")] = field(default_factory=Run)
    source: Annotated[Source, tyro.conf.arg(name="")] = field(default_factory=Source)

    def run(self) -> None:
        from ..training.train import Records, train_saes

        wanted, paths = self._wanted()
        first = next(iter(paths.values()))
        checkpoint, log = _records(first, self.out)
        _check_outputs(paths.values(), checkpoint, self.keep)
        workers = self.source.workers()
        sites = list(dict.fromkeys(each.site for each in wanted.values()))
        stream, held_out = self.source.streams(sites, self.keep.held_out, workers)
        records = Records(checkpoint, self.keep.checkpoint_seconds, self.keep.resume, log)
        dictionaries = train_saes(stream, wanted, records, workers)
        if workers.first:
            for name, dictionary in dictionaries.items():
                _finish(dictionary, paths[name], stream, held_out, self.keep.measured)
            checkpoint.unlink(missing_ok=True)
        workers.wait()

    def _wanted(self) -> tuple[dict[str, Wanted], dict[str, Path]]:
        """What is trained, by name, and the file of each."""
        from ..training.train import Wanted

        sites = dict.fromkeys(Site.parse(site) for site in self.site)
        variants = list(product(sites, self.widths or (self.sae.features,), self.counts or (self.sae.k,)))
        if len(variants) == 1:
            site, features, k = variants[0]
            return {"sae": Wanted(site, replace(self.sae, features=features, k=k))}, {"sae": self.out}
        wanted = {
            f"{site}.{features}.k{k}": Wanted(site, replace(self.sae, features=features, k=k))
            for site, features, k in variants
        }
        return wanted, {name: self.out / f"{name}.safetensors" for name in wanted}


@dataclass(frozen=True)
class BuildItda:
    """Build an ITDA dictionary, whose atoms are activations that the ones before could not explain."""

    out: Path
    """The dictionary file to write (.safetensors)."""
    site: str = "double.1.img"
    """Where in the residual stream, such as double.18.img."""
    reorder: int | None = None
    """Take the stream's batches in an order of this seed: a second dictionary to compare a first one with."""
    itda: ITDABuild = field(default_factory=ITDABuild)
    keep: Annotated[Run, tyro.conf.arg(name="")] = field(default_factory=Run)
    source: Annotated[Source, tyro.conf.arg(name="")] = field(default_factory=Source)

    def run(self) -> None:
        from ..training.itda import build_itda, reordered

        checkpoint, log = _records(self.out, self.out)
        _check_outputs([self.out], checkpoint, self.keep)
        workers = self.source.workers()
        if workers.count > 1:
            raise OutputError(
                f"an ITDA is built by one process, for each atom depends on those before; found {workers.count}"
            )
        site = Site.parse(self.site)
        stream, held_out = self.source.streams([site], self.keep.held_out, workers)
        order = stream if self.reorder is None else reordered(stream, self.reorder)
        dictionary = build_itda(order, site, self.itda, checkpoint, self.keep.checkpoint_seconds, self.keep.resume, log)
        _finish(dictionary, self.out, stream, held_out, self.keep.measured)
        checkpoint.unlink(missing_ok=True)


@dataclass(frozen=True)
class CompareItda:
    """How many data points two ITDA dictionaries share; build one twice, reordered, for the most that can be shared."""

    first: tyro.conf.Positional[Path]
    """An ITDA dictionary (.safetensors)."""
    second: tyro.conf.Positional[Path]
    """Another one."""

    def run(self) -> None:
        from ..dictionaries import ITDA, load_dictionary
        from ..training.itda import compare_itda

        loaded = []
        for path in (self.first, self.second):
            dictionary = load_dictionary(path)
            if not isinstance(dictionary, ITDA):
                raise OutputError(f"{path}: expected an ITDA dictionary, found one of kind {dictionary.kind}")
            loaded.append(dictionary)
        for name, value in compare_itda(*loaded).items():
            print(f"{name}: {value:.4g}")


def _records(beside: Path, out: Path) -> tuple[Path, Path]:
    """Checkpoint and log of a run: beside its first file, named like its output."""
    name = out.name.removesuffix(".safetensors")  # other dots are part of the name: v1 and v1.5 are two runs
    return beside.with_name(f"{name}.checkpoint"), beside.with_name(f"{name}.log.jsonl")


def _check_outputs(paths: Iterable[Path], checkpoint: Path, keep: Run) -> None:
    """Refuse before hours of work what would be refused after them, or would lose what is there."""
    resuming = keep.resume and checkpoint.exists()
    for path in paths:
        check_writable(path, keep.overwrite or resuming)
    if checkpoint.exists() and not resuming:
        if not keep.overwrite:
            raise OutputError(
                f"{checkpoint} is of a run that was cut off: --resume goes on with it, --overwrite forgets it"
            )
        checkpoint.unlink(missing_ok=True)


def _finish(
    dictionary: Dictionary, path: Path, stream: ActivationStream, held_out: ActivationStream | None, tokens: int
) -> None:
    """Write a dictionary, measure it on held-out prompts, write the figures into its file, and say them."""
    from ..dictionaries import save_dictionary
    from ..dictionaries.summary import summarise

    path.parent.mkdir(parents=True, exist_ok=True)
    save_dictionary(dictionary, path)  # before it is measured, which may fail
    if held_out is not None:
        try:
            dictionary.provenance.metrics.update(_figures(dictionary, stream, held_out, tokens))
        except ValueError as error:
            print(f"{path} is written, but without figures: {error}", file=sys.stderr)
        else:
            save_dictionary(dictionary, path)
    print(summarise(path))


def _figures(
    dictionary: Dictionary, stream: ActivationStream, held_out: ActivationStream, tokens: int
) -> dict[str, float]:
    """The measures of docs/design.md on `tokens` held-out tokens, with means from as many training tokens."""
    from ..evaluation.reconstruction import evaluate_reconstruction
    from ..training.capture import collect

    site = Site.parse(dictionary.site)
    train, rest = (collect((batch[site] for batch in part.batches()), tokens) for part in (stream, held_out))
    whole = asdict(evaluate_reconstruction(dictionary, train, [rest]).whole)
    return {name: round(value, 5) for name, value in whole.items() if value is not None}
