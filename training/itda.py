"""Building ITDA dictionaries from a stream of activations, and comparing them by where their atoms came from."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from itertools import chain
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from ..dictionaries import ITDA
from ..residual import Site
from ..residual.tokens import Tokens
from .checkpoint import CheckpointError, load_checkpoint, save_checkpoint
from .itda_builder import SOURCE, ITDABuild, ITDABuilder, Step
from .sae import TrainingError
from .stream import ActivationStream

__all__ = ["ITDABuild", "ITDABuilder", "build_itda", "compare_itda", "reordered"]


def build_itda(
    stream: ActivationStream,
    site: Site,
    config: ITDABuild,
    checkpoint: Path | None = None,
    every_seconds: float = 60.0,
    resume: bool = False,
    log: Path | None = None,
) -> ITDA:
    """Build a dictionary of one of the stream's sites.

    The same stream, site and settings give the same dictionary, whether the run was cut off and resumed or not; a run
    cut off in any way goes on from its last checkpoint.

    Args:
        stream: read once from its first batch to where the build ends; resumed, from the batch it was cut off in.
        checkpoint: file to keep the state in, every `every_seconds` seconds, at the end and when interrupted; one that
            is there already is written over, unless `resume`.
        resume: go on from that file, if there is one.
        log: JSON lines, one a batch: tokens looked at, atoms, and the FVU of the batch's tokens before they were added.

    Raises:
        CheckpointError: for a checkpoint of another run, and where none can be written; the one before stays good.
        KeyboardInterrupt: when interrupted, saying how to go on.
        TrainingError: for a site the stream has not, a stream of no tokens, and a threshold that no token reaches.
    """
    if site not in stream.sites:
        raise TrainingError(f"the stream has tokens of {', '.join(map(str, stream.sites))}; found {site} asked for")
    run = _Run(stream, site, config, checkpoint, log)
    run.begin(resume)
    try:
        run.go(every_seconds)
    except KeyboardInterrupt:
        raise KeyboardInterrupt(run.interrupted()) from None
    return run.builder.dictionary(site, stream, run.seconds())


class _Run:
    """A build with its files and its clock."""

    def __init__(
        self, stream: ActivationStream, site: Site, config: ITDABuild, checkpoint: Path | None, log: Path | None
    ):
        self.stream, self.site, self.config = stream, site, config
        self.checkpoint, self.log = checkpoint, log
        self.pool: Iterator[tuple[int, Tokens]] = iter(())
        self.started = self.saved = time.monotonic()

    def begin(self, resume: bool) -> None:
        """A builder, new or from the checkpoint, with the log as it was then."""
        if resume and self.checkpoint is not None and self.checkpoint.exists():
            tensors, state = load_checkpoint(self.checkpoint)
            _check_same(self.checkpoint, state, self._identity())
            self.builder = ITDABuilder.restore(tensors, state)
            self.pool = _pool(self.stream, self.site, self.config, self.builder.place[0])
            self.started -= state["seconds"]
        else:
            pool = _pool(self.stream, self.site, self.config)
            head = _head(pool, self.config.reference)
            if not head:
                raise TrainingError(f"the stream has no tokens of {self.site}")
            first = Tokens.joined([tokens for _, tokens in head]).rows(slice(0, self.config.reference))
            self.builder = ITDABuilder(first, self.config)
            self.pool = chain(head, pool)
        if self.log is not None:
            _cut_log(self.log, self.builder.tokens)

    def seconds(self) -> float:
        return time.monotonic() - self.started

    def go(self, every_seconds: float) -> None:
        """Look at tokens until the builder wants no more or the stream ends."""
        builder = self.builder
        with tqdm(
            total=self.config.tokens,
            initial=builder.tokens,
            desc=f"ITDA {self.site}",
            unit="token",
            unit_scale=True,
            mininterval=1,
        ) as bar:
            for number, tokens in self.pool:
                if builder.finished:
                    break
                self._look(number, tokens, every_seconds, bar)
        self.save()

    def _look(self, number: int, tokens: Tokens, every_seconds: float, bar: tqdm) -> None:
        """Look at a batch of the stream, or what is left of it."""
        builder = self.builder
        for begin, end in _parts(len(tokens.x), self.config.batch):
            if builder.finished:
                return
            if (number, begin) < builder.place:
                continue
            after = (number, end) if end < len(tokens.x) else (number + 1, 0)
            step = builder.add(tokens.rows(slice(begin, end)), after)
            self._note(step)
            bar.update(step.tokens)
            bar.set_postfix(atoms=len(builder.atoms), added=f"{step.added / step.tokens:.1%}", fvu=f"{step.fvu:.3f}")
            if time.monotonic() - self.saved >= every_seconds:
                self.save()

    def _note(self, step: Step) -> None:
        if self.log is None:
            return
        line = {
            "tokens": self.builder.tokens,
            "atoms": len(self.builder.atoms),
            "added": step.added,
            "fvu": step.fvu,
            "seconds": round(self.seconds(), 2),
        }
        with self.log.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")

    def save(self) -> None:
        if self.checkpoint is None:
            return
        tensors, state = self.builder.state()
        save_checkpoint(self.checkpoint, tensors, state | self._identity() | {"seconds": self.seconds()})
        self.saved = time.monotonic()

    def interrupted(self) -> str:
        """Keep what there is, and say how to go on."""
        what = f"interrupted after {self.builder.tokens} tokens"
        if self.checkpoint is None:
            return f"{what}; without a checkpoint nothing is kept"
        self.save()
        return f"{what}; `--resume` goes on from {self.checkpoint}"

    def _identity(self) -> dict[str, Any]:
        """What a checkpoint must agree in: as JSON gives it back, which knows no tuples."""
        stream = self.stream
        found = {
            "config": asdict(self.config),
            "stream": {
                "site": str(self.site),
                "batches": len(stream),
                "grid": stream.grid,
                "model": stream.model,
                "header": stream.header,
                "prompts": _digest(stream.prompts),
                "seeds": _digest(stream.seeds),
            },
        }
        return json.loads(json.dumps(found))


def _digest(values: Sequence[Any]) -> str:
    return hashlib.sha256("\n".join(map(str, values)).encode()).hexdigest()


def _check_same(path: Path, state: Mapping[str, Any], wanted: Mapping[str, Any]) -> None:
    for part, fields in wanted.items():
        found = state.get(part)
        if not isinstance(found, dict):
            raise CheckpointError(f"{path}: expected the checkpoint of an ITDA build, found one without {part!r}")
        for name in sorted({*fields, *found}):
            if found.get(name) != fields.get(name):
                raise CheckpointError(
                    f"{path} is of another run: its {part} has {name} = {found.get(name)}, this one "
                    f"{fields.get(name)}; resume with what it was begun with, or delete it to begin anew"
                )


def _cut_log(path: Path, tokens: int) -> None:
    """Take away lines written after the checkpoint, which will be written again."""
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True) if path.exists() and tokens else []
    kept = []
    for line in lines:
        try:
            if not line.endswith("\n") or json.loads(line)["tokens"] > tokens:
                break
        except (ValueError, KeyError, TypeError):  # cut off in the middle
            break
        kept.append(line)
    path.write_text("".join(kept), encoding="utf-8")


def _parts(count: int, batch: int) -> Iterator[tuple[int, int]]:
    """Ranges of at most `batch`, of about one size: the variance of a few left over would be no measure."""
    parts = -(-count // batch)
    for part in range(parts):
        yield part * count // parts, (part + 1) * count // parts


def _pool(stream: ActivationStream, site: Site, config: ITDABuild, start: int = 0) -> Iterator[tuple[int, Tokens]]:
    """Batches of the stream by number, the tokens to look at in the order to look at them.

    Which tokens of a picture these are depends on the picture and the seed alone, not on the order of pictures.
    """
    for number, batch in enumerate(stream.batches(start), start):
        tokens, generator = batch[site], torch.Generator()
        kept = []
        for picture in tokens.picture.unique().tolist():
            rows = (tokens.picture == picture).nonzero()[:, 0]
            generator.manual_seed(config.seed * 1_000_003 + picture)
            kept.append(rows[torch.randperm(len(rows), generator=generator)[: config.per_picture]])
        which = torch.cat(kept) if kept else torch.zeros(0, dtype=torch.long)
        generator.manual_seed(config.seed)
        yield number, tokens.rows(which[torch.randperm(len(which), generator=generator)])


def _head(pool: Iterator[tuple[int, Tokens]], count: int) -> list[tuple[int, Tokens]]:
    """The first batches, as few as have `count` tokens; the pool goes on after them."""
    head: list[tuple[int, Tokens]] = []
    while sum(len(tokens.x) for _, tokens in head) < count and (found := next(pool, None)) is not None:
        if len(found[1].x):
            head.append(found)
    return head


class _Reordered:
    """A stream with its batches in another order."""

    def __init__(self, stream: ActivationStream, seed: int):
        self._stream = stream
        self._order = torch.randperm(len(stream), generator=torch.Generator().manual_seed(seed)).tolist()
        self.sites, self.prompts, self.seeds = stream.sites, stream.prompts, stream.seeds
        self.grid, self.model, self.header = stream.grid, stream.model, stream.header | {"order": seed}

    def __len__(self) -> int:
        return len(self._order)

    def batches(self, start: int = 0, step: int = 1) -> Iterator[Mapping[Site, Tokens]]:
        for number in self._order[start::step]:
            yield from self._stream.batches(number, len(self))  # with so long a step this one alone


def reordered(stream: ActivationStream, seed: int) -> ActivationStream:
    """The same stream with its batches permuted by seed: what a second dictionary of the same tokens is built from."""
    return _Reordered(stream, seed)


def compare_itda(a: ITDA, b: ITDA) -> dict[str, float]:
    """How many atoms two dictionaries share, by where these came from (arXiv 2505.17769, section on comparing models).

    Two atoms are the same when prompt (its words), seed, sigma, row and column are; the activations may be of
    different sites or models. The ceiling is not 1: it is what a second build from the same stream reordered gives
    (`reordered`), for which tokens become atoms depends on the order they are looked at in.

    Returns:
        `jaccard` (intersection over union), `intersection`, `size_a`, `size_b`.

    Raises:
        TrainingError: where a dictionary does not say where its atoms came from.
    """
    one, other = (_source_set(dictionary, name) for dictionary, name in ((a, "first"), (b, "second")))
    shared = len(one & other)
    union = len(one | other)
    return {"jaccard": shared / union, "intersection": shared, "size_a": len(one), "size_b": len(other)}


def _source_set(dictionary: ITDA, name: str) -> set[tuple[float | str, ...]]:
    sources = dictionary.sources
    if sources is None or not {*SOURCE} <= {*sources.columns} or not sources.prompts:
        found = "none" if sources is None else ", ".join(sources.columns) + ("" if sources.prompts else ", no prompts")
        raise TrainingError(
            f"comparing needs {', '.join(SOURCE)} of every atom; found {found} in the {name} dictionary"
        )
    every = (sources.of(atom) for atom in range(len(sources.table)))
    # sigmas of two hosts may differ in the last bit
    return {tuple(round(v, 6) if isinstance(v, float) else v for v in (of[name] for name in SOURCE)) for of in every}
