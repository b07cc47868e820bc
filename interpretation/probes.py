"""Linear probes: what a supervised reader decodes from activations, the ceiling for features found without labels."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ..residual import Site
from .scene_tokens import SceneTokens

STEPS = 100
"""Most iterations of L-BFGS."""
PENALTY = 1e-5
"""Weight of squared coefficients beside the mean loss of a token; ten times it is no better on validation scenes."""


@dataclass(frozen=True)
class Probe:
    """One logistic regression for each value of each factor, and the threshold at which each says yes.

    Attributes:
        mean, std: of the training tokens, `[d_model]`.
        weight, bias: for standardized tokens, `[d_model, values]` and `[values]`.
        thresholds: the score with the best F1 on training tokens, float `[values]`.
    """

    mean: Tensor
    std: Tensor
    weight: Tensor
    bias: Tensor
    thresholds: np.ndarray

    def scores(self, x: Tensor) -> np.ndarray:
        """Log-odds of each value, `[n, values]`, for activations `x [n, d_model]`."""
        return (((x.float() - self.mean) / self.std) @ self.weight + self.bias).numpy()

    def f1(self, test: SceneTokens, site: Site) -> np.ndarray:
        """F1 of each value on other tokens `[values]`, with the thresholds of training."""
        yes = (self.scores(test.tokens[site].x) >= self.thresholds) & test.counted
        return f1_of((yes & test.labels).sum(0), yes.sum(0), test.labels.sum(0))


def fit_probe(train: SceneTokens, site: Site) -> Probe:
    """Fit a probe on the tokens of training scenes at a site; tokens that are not `counted` have no part in it."""
    x = train.tokens[site].x.float()
    mean, std = x.mean(0), x.std(0).clamp_min(1e-6)
    labels, counted = torch.from_numpy(train.labels).float(), torch.from_numpy(train.counted).float()
    weight, bias = _logistic((x - mean) / std, labels, counted)
    probe = Probe(mean, std, weight, bias, np.zeros(labels.shape[1]))
    scores = probe.scores(x)
    columns = zip(scores.T, train.labels.T, train.counted.T, strict=True)
    thresholds = [best_threshold(score[sure], label[sure]) for score, label, sure in columns]
    return Probe(mean, std, weight, bias, np.array(thresholds))


def _logistic(z: Tensor, labels: Tensor, counted: Tensor) -> tuple[Tensor, Tensor]:
    """Logistic regressions of all columns of `labels` at once, by L-BFGS."""
    weight = torch.zeros(z.shape[1], labels.shape[1], requires_grad=True)
    bias = torch.zeros(labels.shape[1], requires_grad=True)
    optimizer = torch.optim.LBFGS([weight, bias], max_iter=STEPS, history_size=20, line_search_fn="strong_wolfe")

    def closure() -> float:
        optimizer.zero_grad()
        loss = F.binary_cross_entropy_with_logits(z @ weight + bias, labels, weight=counted, reduction="none")
        total = loss.sum() / len(z) + PENALTY * weight.square().sum()
        total.backward()
        return float(total.detach())

    optimizer.step(closure)
    return weight.detach(), bias.detach()


def best_threshold(scores: np.ndarray, labels: np.ndarray) -> float:
    """At and above which score to say yes, for the best F1; infinite where nothing is labeled.

    It lies midway between the last score that is a yes and the next: at the edge of what training showed, a perfect
    reader would miss half of what comes later.
    """
    if not labels.any():
        return float("inf")
    order = np.argsort(-scores, kind="stable")
    ranked = scores[order]
    last = np.append(ranked[1:] != ranked[:-1], True)  # equal scores are on one side of any threshold
    hits = np.cumsum(labels[order])
    f1 = np.where(last, f1_of(hits, np.arange(1, len(hits) + 1), labels.sum()), -1.0)
    best = int(f1.argmax())
    after = min(best + 1, len(ranked) - 1)
    return float(ranked[best] + ranked[after]) / 2


def f1_of(hits: np.ndarray, found: np.ndarray, shown: np.ndarray) -> np.ndarray:
    """F1 from counts: right yeses, all yeses, and tokens that show the value."""
    return 2 * hits / np.maximum(found + shown, 1)
