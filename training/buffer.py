"""A shuffle buffer of fixed size between a stream, which comes picture by picture, and training, which wants a mix."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import NamedTuple

import torch
from torch import Tensor

from ..residual import Site
from ..residual.tokens import Tokens
from .sae import TrainingError
from .stream import ActivationStream, Only
from .workers import ALONE, Workers

LOOKED_AT = 8
"""Batches by which size is judged where they differ in it."""


class Place(NamedTuple):
    """Where in a training a buffer is: the round, and how many of its batches were given out."""

    round: int = 0
    batch: int = 0


class _Half(NamedTuple):
    """Some neighbouring batches of the stream: this worker's part of them, and how many tokens all workers have.

    Attributes:
        tokens: by site.
        sizes: tokens of every batch by site, int64 `[batches]`, of whichever worker.
    """

    tokens: dict[Site, Tokens]
    sizes: dict[Site, Tensor]


class ShuffleBuffer:
    """Random batches from two neighbouring parts of a stream, in rounds; each round the next part replaces the first.

    Both parts together take at most `memory` bytes (over all workers), each token is given out `reuse` times on
    average, and after its end the stream begins anew. What round `i` gives out depends on the stream and `seed`
    alone, so that a run goes on anywhere by capturing two parts again, and several workers, who each capture some
    batches of the stream and keep them, give out the batches of one: each its own tokens of them.
    """

    def __init__(
        self,
        stream: ActivationStream,
        memory: float,
        batch: int,
        reuse: float,
        seed: int,
        workers: Workers = ALONE,
        note: Callable[[int], None] | None = None,
    ):
        if memory <= 0 or reuse <= 0 or batch < 1:
            raise ValueError(f"a buffer needs memory, reuse and batch above 0, found {memory}, {reuse} and {batch}")
        self.stream, self.batch, self.reuse, self.seed = stream, batch, reuse, seed
        self.workers, self.memory, self._note = workers, memory, note
        self.place = Place()
        self.captured = 0
        self._part = 0
        self._held: dict[int, _Half] = {}
        self._order: dict[Site, Tensor] = {}
        self._steps = 0

    @property
    def parts(self) -> int:
        """Parts that the stream falls into."""
        return -(-len(self.stream) // self._part)

    def start(self, place: Place = Place()) -> None:  # noqa: B008 - a tuple does not change
        """Get ready to give out what comes after a place; captures up to two parts."""
        self._measure()
        self.place = place
        self._begin_round()

    def sample(self, count: int) -> dict[Site, Tokens]:
        """Up to `count` tokens a site, drawn from the parts held, the same for every worker."""
        return {site: self._together(site, self._drawn(site, count)) for site in self.stream.sites}

    def __iter__(self) -> Iterator[dict[Site, Tensor]]:
        """Batches `[n, d_model]` by site without end: of one of `batch` tokens, those that this worker holds."""
        while True:
            while self.place.batch < self._steps:
                part = slice(self.place.batch * self.batch, (self.place.batch + 1) * self.batch)
                # noted before it is given out: once a step is done, the place is what comes after it
                self.place = Place(self.place.round, self.place.batch + 1)
                yield {site: self._own(site, order[part]) for site, order in self._order.items()}
            self.place = Place(self.place.round + 1, 0)
            self._begin_round()

    def _measure(self) -> None:
        """Batches of the stream in a part, by its first one that has tokens, or by the largest of a few."""
        if self._part:
            return
        size, seen = 0, 0
        for number in range(len(self.stream)):
            batch = next(
                iter(self.stream.batches(number, len(self.stream)))
            )  # asked for alone: others are not prepared
            # of a batch some or all pictures may be held out
            size = max(size, sum(sum(column.nbytes for column in tokens) for tokens in batch.values()))
            seen += any(len(tokens.x) > 0 for tokens in batch.values())
            if seen >= (LOOKED_AT if isinstance(self.stream, Only) else 1):
                break
        if not seen:
            raise TrainingError("expected activations to learn from, found none: add prompts, or hold out fewer")
        self._part = max(min(int(self.memory / 2 / size), len(self.stream)), 1)

    def _begin_round(self) -> None:
        # the first of the two parts leaves after this round
        wanted = dict.fromkeys((self.place.round % self.parts, (self.place.round + 1) % self.parts))
        self._held = {part: half for part, half in self._held.items() if part in wanted}
        for part in wanted:
            if part not in self._held:
                self._held[part] = self._capture(part)
        self._held = {part: self._held[part] for part in wanted}
        leaving = self._held[self.place.round % self.parts]
        most = max(int(sizes.sum()) for sizes in leaving.sizes.values())
        self._steps = max(int(self.reuse * most / self.batch), 1)
        self._order = {site: self._shuffled(number, site) for number, site in enumerate(self.stream.sites)}

    def _shuffled(self, number: int, site: Site) -> Tensor:
        """Numbers of the tokens that the round gives out, each of the pool once before any is given out again."""
        pool = sum(int(half.sizes[site].sum()) for half in self._held.values())
        generator = torch.Generator().manual_seed((self.seed * 1_000_003 + self.place.round) * 1009 + number)
        wanted = self._steps * self.batch
        times = -(-wanted // max(pool, 1))
        return torch.cat([torch.randperm(pool, generator=generator) for _ in range(times)])[:wanted]

    def _capture(self, part: int) -> _Half:
        first = part * self._part
        end = min(first + self._part, len(self.stream))
        workers, own = self.workers, []
        mine = range(first + (workers.index - first) % workers.count, end, workers.count)
        if len(mine):
            batches = self.stream.batches(mine[0], workers.count)
            for _ in mine:
                own.append(next(batches))
                if self._note:
                    self._note(max(len(tokens.x) for tokens in own[-1].values()))
        sizes = {site: torch.zeros(end - first, dtype=torch.long) for site in self.stream.sites}
        for number, batch in zip(mine, own, strict=True):
            for site, tokens in batch.items():
                sizes[site][number - first] = len(tokens.x)
        sizes = {site: workers.sum(count.to(workers.device)).cpu() for site, count in sizes.items()}
        self.captured += max(int(count.sum()) for count in sizes.values())
        return _Half({site: _joined(own, site) for site in self.stream.sites} if own else {}, sizes)

    def _own(self, site: Site, numbers: Tensor) -> Tensor:
        """Activations of those tokens of the pool, by number, that this worker holds."""
        return torch.cat([tokens.x[at] for tokens, at, _ in self._look_up(site, numbers)])

    def _look_up(self, site: Site, numbers: Tensor) -> list[tuple[Tokens, Tensor, Tensor]]:
        """Tokens that this worker holds, which of them are meant, and which of the numbers these have."""
        found, before = [], 0
        for part, half in self._held.items():
            sizes = half.sizes[site]
            ends = sizes.cumsum(0)
            inside = ((numbers >= before) & (numbers < before + int(ends[-1]))).nonzero()[:, 0]
            within = numbers[inside] - before
            before += int(ends[-1])
            batch = torch.searchsorted(ends, within, right=True)
            mine = (part * self._part + batch) % self.workers.count == self.workers.index
            if not half.tokens:
                continue
            # this worker's batches lie one after another, without those of the others between them
            held = (torch.arange(len(sizes)) + part * self._part) % self.workers.count == self.workers.index
            own_ends = (sizes * held).cumsum(0)
            at = within[mine] - (ends - sizes)[batch[mine]] + (own_ends - sizes * held)[batch[mine]]
            found.append((half.tokens[site], at, inside[mine]))
        if not found:
            raise RuntimeError("this worker has no batch of the stream: start fewer processes, or use more prompts")
        return found

    def _drawn(self, site: Site, count: int) -> Tensor:
        pool = sum(int(half.sizes[site].sum()) for half in self._held.values())
        return torch.randperm(pool, generator=torch.Generator().manual_seed(self.seed))[:count]

    def _together(self, site: Site, numbers: Tensor) -> Tokens:
        """Tokens of the pool by number, from all workers."""
        found = self._look_up(site, numbers)
        own = Tokens.joined([tokens.rows(at) for tokens, at, _ in found])
        places = torch.cat([place for _, _, place in found])
        if self.workers.count == 1:
            order = places.argsort()
            return own.rows(order)
        columns = []
        for column in own:
            kind = torch.float64 if column.ndim == 1 else torch.float32
            whole = torch.zeros(len(numbers), *column.shape[1:], dtype=kind)
            whole[places] = column.to(kind)
            columns.append(self.workers.sum(whole.to(self.workers.device)).cpu().to(column.dtype))
        return Tokens(*columns)


def _joined(batches: list[Mapping[Site, Tokens]], site: Site) -> Tokens:
    return Tokens.joined([batch[site] for batch in batches])
