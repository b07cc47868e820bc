"""Training sparse autoencoders on a stream of activations: the settings, and the run from stream to dictionary."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


class TrainingError(ValueError):
    """Settings or tokens that no dictionary can be made with, or a training that came to nothing."""


@dataclass(frozen=True)
class SAETraining:
    """How a sparse autoencoder is trained."""

    kind: Literal["topk", "batchtopk", "jumprelu", "matryoshka"] = "topk"
    """What decides which features are active; matryoshka is batchtopk with nested groups of features."""
    features: int = 1536
    """Number of features."""
    k: int = 16
    """Active features a token; for all kinds but topk their mean."""
    tokens: int = 2_000_000
    """Tokens to train on, counting every use of a token."""
    batch: int = 2048
    """Tokens a step."""
    learning_rate: float | None = None
    """Peak of Adam; by default 2e-4 / sqrt(features / 2^14) as in Gao et al."""
    decay: float = 0.2
    """Share of the training, its end, over which the learning rate falls to zero."""
    aux_k: int = 64
    """Dead features that learn the error, a token."""
    aux_weight: float = 1 / 32
    """Weight of that auxiliary loss."""
    dead_after: int = 100_000
    """Tokens without being active after which a feature counts as dead."""
    l0_weight: float = 1.0
    """For jumprelu: weight of the penalty that holds the mean count of active features at k."""
    groups: tuple[float, ...] = (1 / 32, 1 / 16, 1 / 8, 1 / 4)
    """For matryoshka: shares of the features in all groups but the last, which has the rest."""
    normalize: Literal["standardise", "pca", "center", "scalar", "none"] = "standardise"
    """How activations are normalized; all of these fold into the weights."""
    clip: float | None = None
    """Largest normalized value that is let through; the normalization then stays in the file."""
    start: Literal["random", "data"] = "random"
    """What directions start from: random ones, or data points mixed with a fifth of random."""
    freeze_decoder: bool = False
    """Leave the directions as they start and train the rest: with random ones a baseline (arXiv 2602.14111)."""
    center: Literal["mean", "geometric_median"] = "mean"
    """What the decoder's bias starts from."""
    compute: Literal["bfloat16", "float32"] = "bfloat16"
    """Type of the products; weights and optimizer are float32 in any case."""
    buffer: float = 1.0
    """Memory for shuffling activations, in GiB."""
    reuse: float = 4.0
    """Times each captured token is used, on average."""
    seed: int = 0
    """Seed of the start and of the shuffling."""

    def __post_init__(self) -> None:
        for name in ("features", "k", "tokens", "batch", "aux_k", "dead_after"):
            if getattr(self, name) < 1:
                raise TrainingError(f"{name} must be at least 1, found {getattr(self, name)}")
        for name in ("buffer", "reuse"):
            if not getattr(self, name) > 0:
                raise TrainingError(f"{name} must be above 0, found {getattr(self, name)}")
        for name in ("learning_rate", "clip"):
            if getattr(self, name) is not None and not getattr(self, name) > 0:
                raise TrainingError(f"{name} must be above 0, or left out, found {getattr(self, name)}")
        if not 0 < self.decay <= 1:
            raise TrainingError(f"decay must lie above 0 and be at most 1, found {self.decay}")
        if self.k > self.features:
            raise TrainingError(f"k = {self.k} active features need at least as many features, found {self.features}")
        if self.kind == "matryoshka" and min(self.group_sizes()) < 1:
            raise TrainingError(f"{self.features} features are too few for groups of {self.groups} and a rest")

    def rate(self) -> float:
        """The peak learning rate."""
        return self.learning_rate or 2e-4 / (self.features / 2**14) ** 0.5

    def group_sizes(self) -> tuple[int, ...]:
        """Features in each group whose prefixes learn to do alone; one group but for matryoshka."""
        if self.kind != "matryoshka":
            return (self.features,)
        sizes = [round(share * self.features) for share in self.groups]
        return (*sizes, self.features - sum(sizes))
