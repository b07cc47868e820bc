"""An ITDA beside as many uniformly drawn tokens: whether choosing atoms is better than drawing them."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..dictionaries import ITDA, Normalization
from ..residual import Site
from ..training.itda import build_itda, reordered
from ..training.itda_builder import ITDABuild
from ..training.stream import ActivationStream
from .baselines import fvu_of, random_tokens_fvu


@dataclass(frozen=True)
class Pair:
    """One build and one draw of as many tokens, with the same seed: fvu of each on the same held-out tokens."""

    seed: int
    itda: float
    random: float


@dataclass(frozen=True)
class ITDAFindings:
    """What came of the builds.

    `built` is the first of them, `pairs` all; `course` has a line a batch of the first build (tokens looked at, atoms,
    fvu of the batch before it added any), `sizes` (atoms, its fvu, that of random tokens) for its first atoms alone,
    measured on half of the tokens.
    """

    built: ITDA
    l0: float
    pairs: tuple[Pair, ...]
    course: tuple[dict[str, float], ...]
    sizes: tuple[tuple[int, float, float], ...]

    def figures(self) -> dict[str, Any]:
        """Means over the pairs, and what else `summary.json` says."""
        training = self.built.provenance.training
        return {
            "fvu": sum(pair.itda for pair in self.pairs) / len(self.pairs),
            "random_tokens_fvu": sum(pair.random for pair in self.pairs) / len(self.pairs),
            "pairs": [vars(pair) for pair in self.pairs],
            "atoms": self.built.n_features,
            "tokens": training["looked_at"],
            "seconds": training["seconds"],
            "l0": self.l0,
        }


def study_itda(
    stream: ActivationStream,
    site: Site,
    config: ITDABuild,
    train: Tensor,
    held_out: Tensor,
    normalization: Normalization,
    seeds: Sequence[int] = range(5),
) -> ITDAFindings:
    """Build with each seed, and measure on `held_out [n, d_model]`; random tokens are drawn from `train`.

    A seed decides which tokens the build looks at and in which order, and which tokens are drawn.
    """
    builds, pairs = [], []
    course: list[dict[str, float]] = []
    for seed in seeds:
        with tempfile.TemporaryDirectory() as folder:
            log = Path(folder) / "log.jsonl"
            with _one_thread():
                built = build_itda(reordered(stream, seed), site, replace(config, seed=seed), log=log)
            course = course or [json.loads(line) for line in log.read_text().splitlines()]
        drawn = random_tokens_fvu(train, held_out, normalization, built.n_features, config.k, seed)
        builds.append(built)
        pairs.append(Pair(seed, fvu_of(built.reconstruct, held_out, normalization), drawn))
    first, few = builds[0], held_out[: len(held_out) // 2]
    sizes = []
    for share in (16, 4):
        n = max(first.n_features // share, config.k)
        drawn = random_tokens_fvu(train, few, normalization, n, config.k, pairs[0].seed)
        sizes.append((n, fvu_of(_first_atoms(first, n).reconstruct, few, normalization), drawn))
    sizes.append((first.n_features, pairs[0].itda, pairs[0].random))
    l0 = float((first.encode(few).values != 0).sum()) / len(few)
    return ITDAFindings(first, l0, tuple(pairs), tuple(course), tuple(sizes))


@contextmanager
def _one_thread() -> Iterator[None]:
    """A build of this size is thousands of small operations, which take many times as long shared between cores."""
    count = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(count)


def _first_atoms(built: ITDA, n: int) -> ITDA:
    return ITDA(built.site, torch.clone(built.atoms[:n]), built.k, built.method, built.nonnegative, built.normalization)
