"""Which features of a dictionary speak for which value of a factor: found from captions alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..demo.scenes import FACTORS
from ..dictionaries import Dictionary
from ..residual import Plan, Site, Tap
from ..training.capture import capture, collect
from ..training.sampling import FluxPipeline, Sampling, run_batches
from .cases import Case, sample_cases


@dataclass(frozen=True)
class ValueFeatures:
    """How each feature's mean value under captions that name a value differs from that under all others.

    `contrast` is float32 `[n_values, n_features]`, in units of strength: it is how far, along the feature's direction
    and as a share of the site's scale, naming the value moves an average token.
    """

    values: tuple[str, ...]
    contrast: Tensor
    density: Tensor
    """Share of tokens on which each feature is active `[n_features]`."""

    def top(self, value: str, count: int) -> list[int]:
        """The `count` features that naming a value raises most."""
        return self.contrast[self.values.index(value)].topk(count).indices.tolist()

    def everyone(self, count: int) -> tuple[int, ...]:
        """The `count` top features of every value, each once."""
        return tuple(dict.fromkeys(feature for value in self.values for feature in self.top(value, count)))


def find_value_features(
    pipeline: FluxPipeline, dictionary: Dictionary, cases: Sequence[Case], factor: str, sampling: Sampling
) -> ValueFeatures:
    """Draw the cases, which all name the factor, and contrast the features' mean values over tokens and steps."""
    values = FACTORS[factor]
    tap = Tap(Site.parse(dictionary.site), dictionary)
    total = torch.zeros(len(values), dictionary.n_features)
    active, tokens = torch.zeros(dictionary.n_features), 0
    count = torch.zeros(len(values))
    lengths = dictionary.decoder.float().norm(dim=1)
    captions, seeds = [case.caption for case in cases], [case.seed for case in cases]
    done = 0
    for _, run in run_batches(pipeline, captions, seeds, sampling, Plan([tap])):
        assert run is not None and dictionary.scale is not None
        rows = len(run.records[tap][0].batch_rows)
        named = torch.tensor([values.index(case.named[factor]) for case in cases[done : done + rows]])
        for record in run.records[tap]:
            assert record.code is not None
            amount = record.code.values / dictionary.scale.at(record.moment.sigma)
            picture = torch.zeros(rows, dictionary.n_features)
            picture.scatter_add_(1, record.code.indices.flatten(1), amount.flatten(1))
            total.index_add_(0, named, picture / amount.shape[1])
            count.index_add_(0, named, torch.ones(rows))
            active += torch.bincount(record.code.indices[amount != 0], minlength=dictionary.n_features)
            tokens += amount.shape[0] * amount.shape[1]
        done += rows
    mean = total / count[:, None]
    others = (mean.sum(0) - mean) / (len(values) - 1)
    return ValueFeatures(values, (mean - others) * lengths, active / tokens)


def find_text_directions(
    pipeline: FluxPipeline, site: Site, cases: Sequence[Case], factor: str, sampling: Sampling
) -> dict[str, Tensor]:
    """For each value of a factor, the mean token of captions that name it minus that of the others `[d_model]`."""
    values = FACTORS[factor]
    captions, seeds = [case.caption for case in cases], [case.seed for case in cases]
    tokens = collect(capture(pipeline, captions, seeds, site, sampling))
    named = torch.tensor([values.index(case.named[factor]) for case in cases])[tokens.picture]
    mean = torch.stack([tokens.x[named == i].mean(0) for i in range(len(values))])
    others = (mean.sum(0) - mean) / (len(values) - 1)
    return dict(zip(values, mean - others, strict=True))


def naming_cases(each: int, seed: int, split: str, factor: str) -> list[Case]:
    """`each` cases for every value of a factor, all naming it."""
    wanted = dict.fromkeys(FACTORS[factor], each)
    kept = []
    for case in sample_cases(each * len(wanted) * 4, seed, split, always=[factor]):
        if wanted[case.named[factor]]:
            wanted[case.named[factor]] -= 1
            kept.append(case)
    if any(wanted.values()):
        raise ValueError(f"too few scenes of the {split} split name every {factor}: {wanted} are missing")
    return kept
