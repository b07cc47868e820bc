"""Captures: what a tap saw, kept run by run for as long as the runs' latents are of interest, within a memory limit."""

from __future__ import annotations

import hashlib
from collections.abc import Hashable, Sequence
from dataclasses import replace
from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor

from ..dictionaries import Dictionary, FitMeter, SparseCode
from .edits import Record, Tap
from .moment import ROUNDING
from .site import Site


class CaptureError(LookupError):
    """A capture was asked for something that it does not hold."""


class Origin(NamedTuple):
    """What started a run: `place` (the node that samples) keeps the runs of its latest `execution` only."""

    place: Hashable
    execution: Hashable


class Recording:
    """One run as a tap saw it, from its start to its end.

    Attributes:
        records: what was kept at each site, in the order of the model's calls.
        fits: for each site with a dictionary, how well it fits this run.
        sigmas: the run's schedule, the last one included; falling, but where a picture is turned into noise.
        latent: height and width of the latent it made, once it has ended.
        skipped: model calls that a cache left out, of which nothing was seen.
        lost: records that the memory limit left no room for.
    """

    def __init__(self, origin: Origin | None, sigmas: Sequence[float], dictionaries: dict[Site, Dictionary | None]):
        self.origin = origin
        self.sigmas = tuple(sigmas)
        self.dictionaries = dictionaries
        self.records: dict[Site, list[Record]] = {site: [] for site in dictionaries}
        self.fits = {site: FitMeter(own) for site, own in dictionaries.items() if own is not None}
        self.latent: tuple[int, int] | None = None
        self.skipped = 0
        self.lost = 0
        self.bytes = 0

    @property
    def steps(self) -> int:
        return max(len(self.sigmas) - 1, 1)

    def step(self, sigma: float) -> int:
        """The number of the step, from 0, in which the model was called at a sigma.

        A call at the very sigma where one step ends and the next begins, as the second one of Heun's method, counts
        for the one that begins there. One beyond both ends of the schedule counts for the nearer end.
        """
        steps = list(pairwise(self.sigmas))
        for number, (begin, end) in enumerate(steps):
            way = 1 if end < begin else -1
            if way * end < way * sigma - ROUNDING and way * sigma <= way * begin + ROUNDING:
                return number
        if not steps or abs(sigma - self.sigmas[0]) < abs(sigma - self.sigmas[-1]):
            return 0
        return len(steps) - 1

    def site(self, name: Site | str | None = None) -> Site:
        """One of its sites: the named one, or the only one."""
        if name:
            site = Site.parse(name)
            if site not in self.records:
                raise CaptureError(f"this capture has {_listed(self.records)}, not {site}: choose one of these")
            return site
        if len(self.records) > 1:
            raise CaptureError(f"this capture has {_listed(self.records)}: say which of them")
        return next(iter(self.records))


class Capture:
    """What a tap saw, by run. Runs are found by the latent they made; none is held longer than it is of use.

    A new run of one place (a sampler) replaces that place's earlier ones. Beyond `limit` bytes the oldest runs are
    let go (`evicted` counts them), and then what follows in the run under way is counted but not kept.
    """

    def __init__(self, dictionaries: dict[Site, Dictionary | None], limit: int):
        self.dictionaries = dictionaries
        self.limit = limit
        self.evicted = 0
        self._runs: dict[str, Recording] = {}

    def begin(self, origin: Origin | None, sigmas: Sequence[float]) -> Recording:
        """Start a run. What the same place recorded in an earlier execution is let go."""
        if origin is not None:
            earlier = [
                key
                for key, run in self._runs.items()
                if run.origin is not None and run.origin.place == origin.place and run.origin != origin
            ]
            for key in earlier:
                del self._runs[key]
        return Recording(origin, sigmas, dict(self.dictionaries))

    def add(self, recording: Recording, tap: Tap, record: Record, x: Tensor) -> None:
        """Keep a record of a run under way, made of activations `x [rows, tokens, d_model]`, where there is room."""
        if tap.dictionary is not None and record.code is not None:
            recording.fits[tap.site].add(tap.dictionary, x, record.code, record.moment)
        kept, size = _compact(record)
        while self._runs and self.get_ram_usage() + recording.bytes + size > self.limit:
            del self._runs[next(iter(self._runs))]
            self.evicted += 1
        if recording.bytes + size > self.limit:
            recording.lost += 1
            return
        recording.bytes += size
        recording.records[tap.site].append(kept)

    def finish(self, recording: Recording, latent: Tensor) -> None:
        """File a run that has ended under the latent it made."""
        key = latent_key(latent)
        recording.latent = (latent.shape[-2], latent.shape[-1])
        self._runs.pop(key, None)  # the newest last
        self._runs[key] = recording

    def run(self, latent: Tensor) -> Recording:
        """The run that made a latent. Raises `CaptureError` where there is none."""
        found = self._runs.get(latent_key(latent))
        if found is not None:
            return found
        if not self._runs:
            raise CaptureError(
                "this Tap has seen no sampling run: connect its model to the sampler whose latent comes in here. If it "
                "is connected, the host has let go of what was seen to save memory: change the sampler's seed to "
                "sample again"
            )
        raise CaptureError(
            f"this latent comes from none of the {len(self._runs)} runs that this Tap holds: connect the latent "
            "output of a sampler that uses the Tap's model, just as the sampler gives it. "
            + (
                f"{self.evicted} earlier runs were let go to stay within the Tap's memory: raise it, and change the "
                "sampler's seed to sample again"
                if self.evicted
                else "A sampler's earlier runs are let go: change its seed to sample again"
            )
        )

    def __len__(self) -> int:
        """Number of runs."""
        return len(self._runs)

    def get_ram_usage(self) -> int:
        """Bytes of all runs; ComfyUI asks for it by this name."""
        return sum(run.bytes for run in self._runs.values())


def latent_key(latent: Tensor) -> str:
    """A name for a latent's contents, the same on every device."""
    plain = latent.detach().to("cpu", torch.float32).contiguous()
    digest = hashlib.blake2b(repr(tuple(plain.shape)).encode(), digest_size=16)
    digest.update(plain.numpy().tobytes())
    return digest.hexdigest()


def _compact(record: Record) -> tuple[Record, int]:
    """A record as it is kept, and its bytes: feature numbers in 32 bits."""
    if record.code is None:
        x = record.activations
        return record, 0 if x is None else x.numel() * x.element_size()
    values, indices = record.code.values, record.code.indices.to(torch.int32)
    return replace(record, code=SparseCode(values, indices)), 4 * (values.numel() + indices.numel())


def _listed(sites: dict) -> str:
    return ", ".join(map(str, sites))
