"""The run from a stream of activations to trained sparse autoencoders: checkpoints, log, progress."""

from __future__ import annotations

import hashlib
import json
import math
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor
from tqdm import tqdm

from ..dictionaries import Normalization, Provenance, Scale, SparseAutoencoder, SparseCode
from ..dictionaries.scale import ScaleMeter
from ..residual import Site
from ..residual.tokens import Tokens
from .buffer import Place, ShuffleBuffer
from .checkpoint import CheckpointError, load_checkpoint, save_checkpoint
from .interrupt import Interrupts
from .sae import SAETraining, TrainingError
from .stream import ActivationStream
from .trainer import Trainer
from .workers import ALONE, Workers

SAMPLE = 65_536
"""Tokens that normalization, scale and natural values are measured on."""
FIGURES = 20
"""Steps from one line of figures to the next."""


class Wanted(NamedTuple):
    """One dictionary to be trained."""

    site: Site
    config: SAETraining


@dataclass(frozen=True)
class Records:
    """What a run leaves behind while it goes.

    Attributes:
        checkpoint: file that the run can go on from; None for none.
        seconds: from one checkpoint to the next.
        resume: go on from the checkpoint, if there is one.
        log: JSONL file of figures; None for none.
    """

    checkpoint: Path | None = None
    seconds: float = 600.0
    resume: bool = False
    log: Path | None = None


def train_saes(
    stream: ActivationStream,
    wanted: Mapping[str, Wanted],
    records: Records = Records(),
    workers: Workers = ALONE,
) -> dict[str, SparseAutoencoder]:
    """Train several sparse autoencoders, by name, on one pass over a stream.

    They share the settings of the stream: `batch`, `tokens`, `buffer`, `reuse` and `seed`. With several workers each
    holds and sees its part of every batch, and the result is that of one within rounding.

    Raises:
        TrainingError: for settings that differ where they must not, an empty stream, and a loss that is no number.
        CheckpointError: for a checkpoint of another run, and where none can be written; the one before stays good.
        KeyboardInterrupt: after a checkpoint was written, if there is one to write.
    """
    return _Training(stream, wanted, records, workers).run()


class _Training:
    def __init__(self, stream: ActivationStream, wanted: Mapping[str, Wanted], records: Records, workers: Workers):
        self.stream, self.wanted, self.records, self.workers = stream, dict(wanted), records, workers
        self.config = _shared(self.wanted)
        self.buffer = ShuffleBuffer(
            stream, self.config.buffer * 2**30, self.config.batch, self.config.reuse, self.config.seed, workers
        )
        self.trainers: dict[str, Trainer] = {}
        self.normalizations: dict[str, Normalization] = {}
        self.scales: dict[Site, Scale] = {}
        self.seconds = 0.0
        self._whole = True  # no step is half done

    def run(self) -> dict[str, SparseAutoencoder]:
        begun = time.monotonic()
        if not self._resumed():
            self._start()
        log = _Log(self.records.log if self.workers.first else None, self.number)
        saved = time.monotonic()
        before = self.seconds
        interrupts = Interrupts()
        try:
            with interrupts.listening(), self._bar() as bar:
                for batch in self.buffer:
                    if self.number >= self.steps:
                        break
                    with interrupts.uninterrupted():
                        self._whole = False
                        self._step(batch, log, bar)
                        self._whole = True
                        self.seconds = before + time.monotonic() - begun
                    if self._due(saved):
                        self._save()
                        saved = time.monotonic()
        except KeyboardInterrupt:
            if self.records.checkpoint is None or not self._whole:
                raise
            self._save()
            raise KeyboardInterrupt(f"--resume goes on from step {self.number:,} of {self.steps:,}") from None
        return {name: self._dictionary(name) for name in self.wanted}

    @property
    def number(self) -> int:
        return next(iter(self.trainers.values())).number

    @property
    def steps(self) -> int:
        return next(iter(self.trainers.values())).steps

    def _bar(self) -> tqdm:
        total, done = self.steps * self.config.batch, self.number * self.config.batch
        return tqdm(
            total=total,
            initial=done,
            desc="SAE " + ", ".join(dict.fromkeys(str(each.site) for each in self.wanted.values())),
            unit="token",
            unit_scale=True,
            mininterval=1,
            disable=not self.workers.first,
        )

    def _step(self, batch: Mapping[Site, Tensor], log: _Log, bar: tqdm) -> None:
        measure = self.number % FIGURES == 0 or self.number == self.steps - 1
        figures = {
            name: self.trainers[name].step(batch[each.site], measure=measure) for name, each in self.wanted.items()
        }
        bar.update(self.config.batch)
        if measure:
            log.write({"step": self.number, "tokens": self.number * self.config.batch, **figures})
            self._check_finite(figures)
            shown = next(iter(figures.values()))
            assert shown is not None
            bar.set_postfix(fvu=f"{shown['fvu']:.3f}", l0=f"{shown['l0']:.1f}", dead=f"{shown['dead']:.1%}")

    def _check_finite(self, figures: Mapping[str, dict[str, float] | None]) -> None:
        for name, found in figures.items():
            if found is not None and not math.isfinite(found["loss"]):
                rate = self.wanted[name].config.rate()
                raise TrainingError(
                    f"{name}: expected a finite loss, found {found['loss']} at step {self.number:,}: "
                    f"begin anew with a lower --sae.learning-rate (it is {rate:.2g})"
                )

    def _start(self) -> None:
        self.buffer.start()
        samples = self.buffer.sample(SAMPLE)
        for site, tokens in samples.items():
            meter = ScaleMeter(tokens.x.shape[1])
            meter.add(tokens.x, tokens.sigma)
            self.scales[site] = meter.scale()
        for name, (site, config) in self.wanted.items():
            normalization = Normalization.fit(samples[site].x, config.normalize, config.clip)
            self._add(name, normalization, samples[site].x)

    def _add(self, name: str, normalization: Normalization, sample: Tensor | None, d_model: int = 0) -> None:
        self.normalizations[name] = normalization
        d_model = d_model if sample is None else sample.shape[1]
        self.trainers[name] = Trainer(normalization, d_model, self.wanted[name].config, sample, self.workers)

    def _description(self) -> dict[str, Any]:
        """What must be the same for a checkpoint to belong to this run."""
        seen = json.dumps([list(self.stream.prompts), list(self.stream.seeds)]).encode()
        return {
            "dictionaries": {name: [str(site), asdict(config)] for name, (site, config) in self.wanted.items()},
            "model": self.stream.model,
            "capture": self.stream.header,
            "pictures": hashlib.sha256(seen).hexdigest(),
        }

    def _due(self, saved: float) -> bool:
        """All workers go by the clock of the first: they write checkpoints together."""
        if self.records.checkpoint is None:
            return False
        due = time.monotonic() - saved >= self.records.seconds
        if self.workers.count > 1:
            flag = torch.tensor([float(due and self.workers.first)], device=self.workers.device)
            due = bool(self.workers.sum(flag) > 0)
        return due

    def _save(self) -> None:
        if self.records.checkpoint is None or not self.workers.first:
            return
        tensors: dict[str, Tensor] = {}
        for name, trainer in self.trainers.items():
            tensors |= {f"{name}/{key}": tensor for key, tensor in trainer.state().items()}
            parts = zip(("mean", "std", "rotation"), self.normalizations[name].tensors(), strict=True)
            tensors |= {f"{name}/normalization.{key}": tensor for key, tensor in parts if tensor is not None}
        tensors |= {f"scale/{site}": scale.values for site, scale in self.scales.items()}
        state = {
            "description": json.loads(json.dumps(self._description())),
            "place": list(self.buffer.place),
            "captured": self.buffer.captured,
            "seconds": self.seconds,
        }
        save_checkpoint(self.records.checkpoint, tensors, state)

    def _resumed(self) -> bool:
        path = self.records.checkpoint
        if not self.records.resume or path is None or not path.exists():
            return False
        tensors, state = load_checkpoint(path)
        _check_same(path, state["description"], json.loads(json.dumps(self._description())))
        self.buffer.start(Place(*state["place"]))
        self.buffer.captured = state["captured"]
        self.seconds = state["seconds"]
        self.scales = {site: Scale(tensors[f"scale/{site}"]) for site in self.stream.sites}
        for name, (_, config) in self.wanted.items():
            own = {key.removeprefix(f"{name}/"): value for key, value in tensors.items() if key.startswith(f"{name}/")}
            parts = {key: own.get(f"normalization.{key}") for key in ("mean", "std", "rotation")}
            normalization = Normalization(**parts, kind=config.normalize, clip=config.clip)
            self._add(name, normalization, None, own["decoder"].shape[1])
            self.trainers[name].restore(own)
        return True

    def _dictionary(self, name: str) -> SparseAutoencoder:
        site, config = self.wanted[name]
        training = asdict(config) | {"seconds": round(self.seconds, 1)}
        capture = self.stream.header | {"n_tokens": self.buffer.captured}
        provenance = Provenance(model=self.stream.model, capture=capture, training=training)
        dictionary = self.trainers[name].dictionary(site, self.scales[site], provenance)
        tokens = self.buffer.sample(SAMPLE)[site]
        dictionary.natural = natural_values(dictionary, tokens)
        return dictionary


class _Log:
    """Lines of JSON, from some step on: what a run that was cut off wrote after its checkpoint is written again."""

    def __init__(self, path: Path | None, done: int):
        self.path = path
        if path is None:
            return
        path.parent.mkdir(parents=True, exist_ok=True)
        kept = []
        if done and path.exists():
            for line in path.read_text().splitlines():
                try:
                    if json.loads(line)["step"] <= done:
                        kept.append(line)
                except (ValueError, KeyError, TypeError):
                    continue  # the line that was being written when the run was killed
        path.write_text("".join(f"{line}\n" for line in kept))

    def write(self, line: Mapping[str, Any]) -> None:
        if self.path is not None:
            with self.path.open("a") as file:
                file.write(json.dumps(line) + "\n")


def _shared(wanted: Mapping[str, Wanted]) -> SAETraining:
    if not wanted:
        raise TrainingError("nothing to train: name at least one dictionary")
    configs = [config for _, config in wanted.values()]
    for name in ("batch", "tokens", "buffer", "reuse", "seed"):
        found = {getattr(config, name) for config in configs}
        if len(found) > 1:
            raise TrainingError(f"dictionaries trained on one stream share {name}, found {sorted(found)}")
    return configs[0]


def _check_same(path: Path, found: Mapping[str, Any], expected: Mapping[str, Any], inside: str = "") -> None:
    """Name the first setting in which a checkpoint differs from this run."""
    for key in sorted({*found, *expected}):
        one, other = found.get(key), expected.get(key)
        if isinstance(one, Mapping) and isinstance(other, Mapping):
            _check_same(path, one, other, f"{inside}{key}.")
        elif isinstance(one, list) and isinstance(other, list) and len(one) == len(other):
            there, here = ({str(i): value for i, value in enumerate(values)} for values in (one, other))
            _check_same(path, there, here, f"{inside}{key}.")
        elif one != other:
            raise CheckpointError(
                f"{path} belongs to another run: {inside}{key} is {one} there, and {other} here; "
                "pass the settings it was begun with, or another --out"
            )


def natural_values(dictionary: SparseAutoencoder, tokens: Tokens, batch: int = 8192) -> Tensor:
    """Each feature's mean active value in units of strength `[n_features]`: `value * |direction| / scale(sigma)`."""
    scale = dictionary.scale
    assert scale is not None
    sigmas, place = tokens.sigma.unique(return_inverse=True)
    size = torch.tensor([scale.at(float(sigma)) for sigma in sigmas])[place]
    total, count = torch.zeros(dictionary.n_features), torch.zeros(dictionary.n_features)
    for start in range(0, len(tokens.x), batch):
        code: SparseCode = dictionary.encode(tokens.x[start : start + batch])
        share = code.values / size[start : start + batch, None]
        total.index_add_(0, code.indices.flatten(), share.flatten())
        count.index_add_(0, code.indices.flatten(), (code.values != 0).float().flatten())
    return total / count.clamp_min(1) * dictionary.decoder.float().norm(dim=1)
