"""What one pass over pictures tells of each feature of a dictionary, in memory that does not grow with the pictures."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import get_args

import numpy as np

from ..atlas.entries import Example, Feature, Kind, Maps, Source
from ..dictionaries import ITDA, Dictionary
from ..residual import Site
from ..residual.tokens import Tokens
from ..training.drawn import Drawn
from .best_lists import BestLists, hashed
from .heat_maps import Active, Appearances, appearances, heat_maps
from .sketch import Sketch


@dataclass(frozen=True)
class Gathering:
    """What is kept of each feature."""

    top: int = 20
    """Pictures in which it is most active."""
    spread: int = 20
    """Pictures drawn uniformly from all in which it is active."""
    companions: int = 8
    """Features most active together with it."""
    sketch: int = 64
    """Places (a token of a picture) that are kept of it, to tell its companions."""

    def __post_init__(self) -> None:
        for name, least in (("top", 1), ("spread", 1), ("companions", 0), ("sketch", 1)):
            if getattr(self, name) < least:
                raise ValueError(f"{name} must be at least {least}, found {getattr(self, name)}")


class Gatherer:
    """Adds up batches of pictures; how large it is depends on the dictionary alone.

    Heat maps are signed where codes are, and the largest value is the largest by magnitude. Which pictures are kept of
    a feature does not depend on the order in which they come: those with the largest peaks (the lower number where two
    are equal), and a uniform sample: those whose number, hashed together with the feature's, comes out least.

    Args:
        dictionary: of an image site, on the device where it is to encode.
        grid: token rows and columns of a picture.
        sigmas: noise levels by which density is told apart; a token counts for the nearest.

    Raises `ValueError` for a dictionary of a text site.
    """

    def __init__(
        self, dictionary: Dictionary, grid: tuple[int, int], sigmas: Sequence[float], config: Gathering | None = None
    ):
        self.dictionary, self.grid, self.config = dictionary, grid, config or Gathering()
        self.site = Site.parse(dictionary.site)
        if self.site.stream != "img":
            raise ValueError(
                f"heat maps lie on the tokens of pictures: expected a dictionary of an img site, found {self.site}"
            )
        self.sigmas = np.asarray(sigmas, np.float64)
        n, self.tokens = dictionary.n_features, grid[0] * grid[1]
        self.read = np.zeros(len(self.sigmas), np.int64)
        self.active = np.zeros((len(self.sigmas), n), np.int64)
        self.values = np.zeros(n)
        self.pictures = np.zeros(n, np.int64)
        self.extents = np.zeros((2, n))
        self.top = BestLists(n, self.config.top, np.float32)
        self.spread = BestLists(n, self.config.spread, np.uint64)
        self.sketch = Sketch(n, self.config.sketch)

    def add(self, drawn: Drawn) -> list[Maps]:
        """Take in a batch; returns all heat maps of each of its pictures."""
        tokens, n = drawn.tokens[self.site], self.dictionary.n_features
        places = (tokens.picture.numpy() - drawn.first) * self.tokens + tokens.position.numpy()
        reads = np.bincount(places, minlength=len(drawn.pictures) * self.tokens)
        maps = heat_maps(self._encoded(tokens, places), reads, self.tokens, n)
        self.sketch.add(maps.feature, drawn.first * self.tokens + maps.place)
        self._take(drawn.first, appearances(maps, reads, self.grid))
        bounds = np.searchsorted(maps.place // self.tokens, np.arange(len(drawn.pictures) + 1))
        columns = maps.feature.astype(np.int32), (maps.place % self.tokens).astype(np.int32), maps.value
        return [Maps(*(column[start:end] for column in columns)) for start, end in pairwise(bounds)]

    def wanted(self, first: int = 0) -> np.ndarray:
        """Numbers of the pictures from `first` on that some feature has for an example so far, rising."""
        items = np.unique(np.concatenate([self.top.item.ravel(), self.spread.item.ravel()]))
        return items[items >= max(first, 0)]

    def features(self) -> Iterator[Feature]:
        """All features that were active, in order."""
        read, active = max(int(self.read.sum()), 1), self.active.sum(0)
        numbers, alike = self.sketch.companions(self.config.companions)
        profile = self.active / np.maximum(self.read, 1)[:, None]
        for n in np.flatnonzero(self.pictures).tolist():
            together = zip(numbers[n].tolist(), alike[n].tolist(), strict=True)
            yield Feature(
                number=n,
                pictures=int(self.pictures[n]),
                density=float(active[n] / read),
                mean=float(self.values[n] / active[n]),
                peak=float(self.top.value[n, 0]),
                spread=float(self.extents[0, n] / self.pictures[n]),
                coverage=float(self.extents[1, n] / self.pictures[n]),
                profile=tuple(profile[:, n].tolist()),
                companions=tuple((other, jaccard) for other, jaccard in together if other >= 0),
                source=source_of(self.dictionary, n),
            )

    def examples(self) -> Mapping[int, Sequence[Example]]:
        """Examples of each feature that was active, the top ones first; made when they are asked for."""
        return _Examples(self)

    def state(self) -> dict[str, np.ndarray]:
        """All that was added up, as arrays."""
        own = {name: getattr(self, name) for name in ("read", "active", "values", "pictures", "extents")}
        for kind, lists in (("top", self.top), ("spread", self.spread)):
            own |= {f"{kind}.{name}": getattr(lists, name) for name in ("key", "item", "value")}
        return own | {"sketch": self.sketch.kept}

    def restore(self, state: Mapping[str, np.ndarray]) -> None:
        """Go on from a `state`. Raises `ValueError` for that of a gatherer of other settings."""
        own = self.state()
        alike = state.keys() == own.keys() and all(
            (state[name].shape, state[name].dtype) == (array.shape, array.dtype) for name, array in own.items()
        )
        if not alike:
            raise ValueError("this state is of other settings, or of another dictionary: begin anew")
        for name, array in own.items():
            array[...] = state[name]

    def _encoded(self, tokens: Tokens, places: np.ndarray) -> Active:
        """Active values of the batch, counted by feature and noise level on the way."""
        code = self.dictionary.encode(tokens.x, moment=tokens)
        values, indices = code.values.numpy(), code.indices.numpy()
        row, column = values.nonzero()
        feature, value = indices[row, column], values[row, column]
        level = np.abs(tokens.sigma.numpy()[:, None] - self.sigmas).argmin(1)
        levels, n = self.active.shape
        self.read += np.bincount(level, minlength=levels)
        self.active += np.bincount(level[row] * n + feature, minlength=levels * n).reshape(levels, n)
        self.values += np.bincount(feature, value, minlength=n)
        return Active(feature, places[row], value)

    def _take(self, first: int, found: Appearances) -> None:
        """Add up what features look like in the pictures of a batch, and offer these as examples."""
        n, number = self.dictionary.n_features, found.picture + first
        self.pictures += np.bincount(found.feature, minlength=n)
        self.extents += [np.bincount(found.feature, extent, minlength=n) for extent in (found.spread, found.coverage)]
        self.top.add(found.feature, -np.abs(found.peak), number, found.peak)
        self.spread.add(found.feature, hashed(found.feature << 32 | number), number, found.peak)


class _Examples(Mapping):
    """What a gatherer's lists say of each feature: a million small objects would be a burden."""

    def __init__(self, gatherer: Gatherer):
        self._lists: dict[Kind, BestLists] = {"top": gatherer.top, "spread": gatherer.spread}
        self._numbers = np.flatnonzero(gatherer.pictures).tolist()
        self._pictures = gatherer.pictures

    def __len__(self) -> int:
        return len(self._numbers)

    def __iter__(self) -> Iterator[int]:
        return iter(self._numbers)

    def __getitem__(self, feature: int) -> list[Example]:
        if not (0 <= feature < len(self._pictures) and self._pictures[feature]):
            raise KeyError(feature)
        found = []
        for kind in get_args(Kind):
            items, values = self._lists[kind].item[feature], self._lists[kind].value[feature]
            items, values = items[items >= 0], values[items >= 0]
            ranked = np.lexsort((items, -np.abs(values)))
            found += [Example(int(items[i]), float(values[i]), kind, rank) for rank, i in enumerate(ranked)]
        return found


def source_of(dictionary: Dictionary, feature: int) -> Source | None:
    """Where an ITDA's atom was taken from; None for other kinds, and where the file does not say."""
    if not isinstance(dictionary, ITDA) or dictionary.sources is None:
        return None
    found = dictionary.sources.of(feature)
    try:
        place = {name: int(found[name]) for name in ("seed", "row", "column")}
        return Source(prompt=str(found["prompt"]), sigma=float(found["sigma"]), **place)
    except (KeyError, ValueError):
        return None
