"""What features stand for, measured on drawn scenes whose every token is labeled: no judge, no opinion.

A feature says a value of a factor on a token when its code there is at least a threshold. Definitions, fixed on
training and validation scenes before any test scene was measured:

- **tokens**: every image token of a picture, at noise levels up to `scene_tokens.CLEAR`: a linear probe decodes 16
  values there on validation scenes, and 14 over all levels. A token shows a value that more than half of its pixels
  show, and lacks one that at most a tenth show; what lies between (the edges of objects) does not count, for features,
  probe and baselines alike.
- **best match** of a feature: the value with the highest F1 on training scenes, with the threshold of that F1.
  Everything reported is of that pair on held-out scenes. A feature with values of both signs may speak with either.
- **AUROC**: of its code over all tokens, those on which it is inactive (or of the other sign) being equal.
- **mask IoU**: of the tokens where it says yes with the pixels that show the value, over all held-out scenes together,
  as in Network Dissection (arXiv 1704.05796, section 2); tokens of 16 pixels bound it below 1.
- **coverage**: of the values that the supervised probe decodes with F1 >= .8, the share for which the feature that was
  best on training scenes reaches .9 of the probe's F1. Both F1 are of held-out scenes.
- **baselines**: always saying yes (prevalence), and the best of as many random directions, of which each token keeps
  as many as it has active features.

The bar of one feature for a value is a hard one: where a dictionary tells red from orange by two features together, a
probe reads both and neither feature alone is red.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch

from ..dictionaries import Dictionary, SparseCode
from ..dictionaries.normalization import Noise
from ..residual import Site
from .probes import Probe, f1_of
from .scene_tokens import VALUES, SceneTokens

DECODED = 0.8
"""Least F1 of the probe for a value to count as decoded."""
REACHED = 0.9
"""Share of the probe's F1 that a feature must reach."""


class Match(NamedTuple):
    """A feature and a value, matched and given a threshold on training scenes, measured on held-out ones.

    Attributes:
        feature: its number; -1 where no feature was ever active on the value.
        value: factor and value, such as `("color", "red")`.
        threshold: it says yes at such a code and beyond; negative where it speaks with negative values.
        trained: F1 on training scenes, which it was chosen by.
        f1, auroc, iou: on held-out scenes.
    """

    feature: int
    value: tuple[str, str]
    threshold: float
    trained: float
    f1: float
    auroc: float
    iou: float


class ValueTruth(NamedTuple):
    """How well one value is found: by the best feature, by the probe, and by the baselines, all on held-out scenes."""

    value: tuple[str, str]
    best: Match
    probe: float
    prevalence: float
    random_direction: float

    @property
    def decoded(self) -> bool:
        return self.probe >= DECODED

    @property
    def covered(self) -> bool:
        return self.decoded and self.best.f1 >= REACHED * self.probe


@dataclass(frozen=True)
class Truth:
    """The truth about a dictionary: `features` are those that were active on training scenes."""

    values: tuple[ValueTruth, ...]
    features: tuple[Match, ...]

    @property
    def f1_mean(self) -> float:
        """Mean over features of the F1 of the best match."""
        return float(np.mean([match.f1 for match in self.features])) if self.features else 0.0

    @property
    def iou_mean(self) -> float:
        """Mean over features of the mask IoU of the best match."""
        return float(np.mean([match.iou for match in self.features])) if self.features else 0.0

    @property
    def decoded(self) -> tuple[ValueTruth, ...]:
        """The values that the probe decodes."""
        return tuple(value for value in self.values if value.decoded)

    @property
    def coverage(self) -> float:
        """Share of the decoded values that a feature covers; nan where none is decoded."""
        return sum(value.covered for value in self.decoded) / len(self.decoded) if self.decoded else float("nan")

    @property
    def best(self) -> float:
        """Mean F1 of the best features of decoded values; the baselines below it are over the same values."""
        return _mean([value.best.f1 for value in self.decoded])

    @property
    def probe(self) -> float:
        return _mean([value.probe for value in self.decoded])

    @property
    def prevalence(self) -> float:
        return _mean([value.prevalence for value in self.decoded])

    @property
    def random_direction(self) -> float:
        return _mean([value.random_direction for value in self.decoded])


def measure_truth(dictionary: Dictionary, train: SceneTokens, test: SceneTokens, probe: Probe, seed: int = 0) -> Truth:
    """Match every feature to the values it speaks for, and say how far they reach; `seed` is that of the random ones.

    `train` and `test` are of different splits and hold the dictionary's site, which the probe was fitted at. Raises
    `ValueError` where they do not.
    """
    site = Site.parse(dictionary.site)
    for tokens in (train, test):
        if site not in tokens.tokens:
            there = ", ".join(map(str, tokens.tokens))
            raise ValueError(f"the dictionary is of {site}: expected scene tokens of it, found those of {there}")
    codes = _codes(dictionary, train, site), _codes(dictionary, test, site)
    ours = _Matching(Entries.of(codes[0]), Entries.of(codes[1]), train, test, dictionary.n_features)
    kept = max(round(float(codes[0].l0().double().mean())), 1)
    random = [_random_codes(part, site, probe, dictionary.n_features, kept, seed) for part in (train, test)]
    others = _Matching(Entries.of(random[0]), Entries.of(random[1]), train, test, dictionary.n_features)
    decoded, shown = probe.f1(test, site), test.labels.sum(0)
    prevalence = f1_of(shown, test.counted.sum(0), shown)
    values = tuple(
        ValueTruth(value, ours.of_value(i), float(decoded[i]), float(prevalence[i]), others.of_value(i).f1)
        for i, value in enumerate(VALUES)
    )
    return Truth(values, ours.of_features())


class Entries(NamedTuple):
    """Active codes, one number each: by detector, and the strongest first.

    A **detector** is one sign of a feature: `2 * feature`, and one more for its negative values.

    Attributes:
        detector: int64 `[e]`.
        size: magnitude of the code, float32 `[e]`.
        token: int64 `[e]`.
    """

    detector: np.ndarray
    size: np.ndarray
    token: np.ndarray

    @classmethod
    def of(cls, code: SparseCode) -> Entries:
        """From codes `[n, k]`."""
        values, features = (tensor.flatten().numpy() for tensor in code)
        active = np.flatnonzero(values)
        values = values[active]
        detector = 2 * features[active] + (values < 0)
        size = abs(values)
        order = np.lexsort((-size, detector))
        return cls(detector[order], size[order], active[order] // max(code.values.shape[-1], 1))

    def only(self, which: np.ndarray | slice) -> Entries:
        return Entries(*(column[which] for column in self))

    def of_detector(self, detector: int) -> Entries:
        return self.only(slice(*np.searchsorted(self.detector, [detector, detector + 1])))

    def starts(self) -> np.ndarray:
        """Where each detector that is there begins."""
        return np.flatnonzero(_changes(self.detector))


class _Matching:
    """Every detector of a dictionary against every value."""

    def __init__(self, train: Entries, test: Entries, seen: SceneTokens, held_out: SceneTokens, n_features: int):
        self.test, self.held_out = test, held_out
        self.detectors = 2 * n_features
        found = [_best_cuts(train, seen, value, self.detectors) for value in range(len(VALUES))]
        self.trained = np.stack([f1 for f1, _ in found])
        self.cuts = np.stack([cut for _, cut in found])
        self.used = np.bincount(train.detector // 2, minlength=n_features) > 0

    def of_value(self, value: int) -> Match:
        """The feature that was best for a value on training scenes."""
        detector = int(self.trained[value].argmax())
        if self.trained[value, detector] <= 0:
            return Match(-1, VALUES[value], float("inf"), 0.0, 0.0, 0.5, 0.0)
        own = self.test.of_detector(detector)
        values = np.full(self.detectors, value)
        figures = _held_out(own, self.held_out, values, self.cuts[value])
        return self._match(detector, value, *(float(figure[detector]) for figure in figures))

    def of_features(self) -> tuple[Match, ...]:
        """The best match of each feature that was active on training scenes."""
        values = self.trained.argmax(0)
        each = np.arange(self.detectors)
        figures = _held_out(self.test, self.held_out, values, self.cuts[values, each])
        trained = self.trained[values, each]
        negative = trained[1::2] > trained[::2]
        chosen = (2 * np.arange(self.detectors // 2) + negative)[self.used]
        return tuple(self._match(int(d), int(values[d]), *(float(figure[d]) for figure in figures)) for d in chosen)

    def _match(self, detector: int, value: int, f1: float, auroc: float, iou: float) -> Match:
        cut = float(self.cuts[value, detector]) * (-1 if detector % 2 else 1)
        return Match(detector // 2, VALUES[value], cut, float(self.trained[value, detector]), f1, auroc, iou)


def _best_cuts(entries: Entries, tokens: SceneTokens, value: int, detectors: int) -> tuple[np.ndarray, np.ndarray]:
    """The best F1 of every detector for one value, and the cut for it, `[detectors]`.

    A cut lies midway between the smallest code that is a yes and the next, as the probe's thresholds do.
    """
    f1, cuts = np.zeros(detectors), np.full(detectors, np.inf)
    own = entries.only(tokens.counted[entries.token, value])
    if not len(own.token):
        return f1, cuts
    labels = tokens.labels[:, value]
    starts = own.starts()
    lengths = np.diff(np.append(starts, len(own.token)))
    place = np.arange(len(own.token)) - np.repeat(starts, lengths)
    hits = _running(labels[own.token], starts, lengths)
    last = np.append((_changes(own.detector) | _changes(own.size))[1:], True)  # ties are on one side
    each = np.where(last, f1_of(hits, place + 1, labels.sum()), -1.0)
    best = np.maximum.reduceat(each, starts)
    at = np.minimum.reduceat(np.where(each == np.repeat(best, lengths), np.arange(len(each)), len(each)), starts)
    lower = np.append(np.where(own.detector[1:] == own.detector[:-1], own.size[1:], 0), 0)[at]
    f1[own.detector[starts]], cuts[own.detector[starts]] = best, (own.size[at] + lower) / 2
    return f1, cuts


def _held_out(
    entries: Entries, tokens: SceneTokens, values: np.ndarray, cuts: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """F1, AUROC and mask IoU of each detector for a value of its own at its own cut, `[detectors]` each."""
    labels, counted = tokens.labels, tokens.counted
    detectors = len(values)
    yes = entries.only(entries.size >= cuts[entries.detector])
    inside = tokens.shares[yes.token, values[yes.detector]]
    overlap = np.bincount(yes.detector, inside, detectors)
    area = np.bincount(yes.detector, minlength=detectors) + tokens.shares.sum(0, dtype=np.float64)[values] - overlap
    sure = yes.only(counted[yes.token, values[yes.detector]])
    hits = np.bincount(sure.detector, labels[sure.token, values[sure.detector]], detectors)
    f1 = f1_of(hits, np.bincount(sure.detector, minlength=detectors), labels.sum(0)[values])
    return f1, _auroc(entries, tokens, values), overlap / np.maximum(area, 1e-9)


def _auroc(entries: Entries, tokens: SceneTokens, values: np.ndarray) -> np.ndarray:
    """Chance that a token that shows the detector's value has a larger code than one that lacks it, `[detectors]`."""
    detectors = len(values)
    positives = tokens.labels.sum(0).astype(np.float64)[values]
    negatives = tokens.counted.sum(0)[values] - positives
    own = entries.only(tokens.counted[entries.token, values[entries.detector]])
    label = tokens.labels[own.token, values[own.detector]]
    starts = np.flatnonzero(_changes(own.detector) | _changes(own.size))  # of ties
    detector, lost, won = own.detector[starts], _sums(~label, starts), _sums(label, starts)
    first = np.flatnonzero(_changes(detector))
    above = _running(lost, first, np.diff(np.append(first, len(lost))))
    wins = np.bincount(detector, won * (negatives[detector] - above + 0.5 * lost), detectors)
    hits, misses = np.bincount(detector, won, detectors), np.bincount(detector, lost, detectors)
    silent = 0.5 * (positives - hits) * (negatives - misses)
    pairs = positives * negatives
    return np.where(pairs > 0, (wins + silent) / np.maximum(pairs, 1), 0.5)


def _codes(dictionary: Dictionary, tokens: SceneTokens, site: Site) -> SparseCode:
    own = tokens.tokens[site]
    return dictionary.encode(own.x, moment=Noise(own.sigma))


def _random_codes(tokens: SceneTokens, site: Site, probe: Probe, n: int, k: int, seed: int) -> SparseCode:
    """The `k` largest products of standardized tokens with `n` random directions."""
    directions = torch.randn(len(probe.mean), n, generator=torch.Generator().manual_seed(seed))
    directions /= directions.norm(dim=0)
    parts = []
    for x in tokens.tokens[site].x.split(4096):
        parts.append(((x.float() - probe.mean) / probe.std @ directions).topk(min(k, n), dim=1))
    return SparseCode(torch.cat([part.values for part in parts]), torch.cat([part.indices for part in parts]))


def _changes(numbers: np.ndarray) -> np.ndarray:
    """Where a number differs from the one before; true at the first."""
    return np.append(True, numbers[1:] != numbers[:-1]) if len(numbers) else np.zeros(0, bool)


def _sums(counts: np.ndarray, starts: np.ndarray) -> np.ndarray:
    """Sums from each start to the next."""
    return np.diff(np.append(0, np.cumsum(counts, dtype=np.int64))[np.append(starts, len(counts))])


def _running(counts: np.ndarray, starts: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """Sums up to and including each place, anew from each start."""
    total = np.cumsum(counts, dtype=np.int64)
    return total - np.repeat(total[starts] - counts[starts], lengths)


def _mean(figures: list[float]) -> float:
    return float(np.mean(figures)) if figures else float("nan")
