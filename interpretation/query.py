"""Finding features by words without labels: the model itself says which of them a phrase moves."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch

from ..demo.captions import CaptionError, caption_of, check_caption, named_factors, words_of
from ..demo.scenes import sample_scenes
from ..dictionaries import Dictionary
from ..dictionaries.normalization import Noise
from ..residual import Site
from ..training.capture import Capture, PipelineStream
from ..training.sampling import Sampling

if TYPE_CHECKING:
    from ..training.sampling import FluxPipeline

CONTEXTS = (
    ("{}", ""),
    ("a photo of {}", "a photo"),
    ("a painting of {}", "a painting"),
    ("{} in a street", "a street"),
    ("{} in a room", "a room"),
    ("{} outdoors", "outdoors"),
    ("a close-up of {}", "a close-up"),
    ("a drawing of {}", "a drawing"),
)
"""Where a phrase is put, and what is left without it."""


TRAJECTORY = Capture()


class Pair(NamedTuple):
    """A prompt with a phrase and the same without it; both pictures have the same seed."""

    phrased: str
    plain: str
    seed: int


class Found(NamedTuple):
    """A feature that a phrase moves.

    Attributes:
        feature: its number.
        score: mean difference over pairs, divided by its standard error; see `rank_features`.
        difference: mean code over a picture's tokens with the phrase, minus that without.
        pairs: share of the pairs in which the phrase raises it.
    """

    feature: int
    score: float
    difference: float
    pairs: float


def pairs_in_contexts(phrase: str, n: int, seed: int = 0) -> list[Pair]:
    """`n` pairs for any model, through `CONTEXTS` in turn."""
    chosen = [CONTEXTS[i % len(CONTEXTS)] for i in range(n)]
    return [Pair(text.format(phrase), plain, seed * 100_000_000 + i) for i, (text, plain) in enumerate(chosen)]


def pairs_of_scenes(phrase: str, n: int, seed: int = 0) -> list[Pair]:
    """`n` pairs for the demo Flux, whose words are few: what the phrase leaves open is named or not, by coin.

    Raises `CaptionError` for words that it does not know, and for a phrase that names nothing it draws.
    """
    check_caption(phrase)
    named = named_factors(phrase)
    if not named:
        known = "a color, shape, size, position or background"
        raise CaptionError(f"{phrase!r} names nothing that the demo Flux draws: name {known}, such as 'red circle'")
    if words_of(phrase)[-1:] != ["background"] and set(named) == {"background"}:
        raise CaptionError(f"{phrase!r} is a background: write {named['background'] + ' background'!r}")
    rng = np.random.default_rng([seed, 17])
    pairs = []
    for scene in sample_scenes(n, seed, "train"):
        around = {name: value for name, value in scene.factors.items() if name not in named and rng.random() < 0.5}
        pairs.append(Pair(caption_of(named | around), caption_of(around), scene.seed % 2**31))
    return pairs


def rank_features(
    pipeline: FluxPipeline,
    dictionary: Dictionary,
    pairs: Sequence[Pair],
    sampling: Sampling,
    capture: Capture = TRAJECTORY,
) -> list[Found]:
    """Features in the order in which a phrase raises them; those that it never moves are left out.

    Each pair is drawn, and each feature's code averaged over all tokens and steps of either picture. The score is the
    mean difference over its standard error, to which the median standard error of all features is added, as in SAM
    (Tusher et al. 2001): features that are always on vary of themselves and do not win, nor do tiny steady changes.
    """
    if len(pairs) < 2:
        raise ValueError(f"a ranking needs at least 2 pairs of pictures, found {len(pairs)}")
    prompts = [prompt for pair in pairs for prompt in (pair.phrased, pair.plain)]
    seeds = [pair.seed for pair in pairs for _ in range(2)]
    means = _mean_codes(pipeline, dictionary, prompts, seeds, sampling, capture)
    difference = means[0::2] - means[1::2]
    mean = difference.mean(0)
    moved = np.flatnonzero(difference.any(0))
    error = difference[:, moved].std(0, ddof=1) / len(pairs) ** 0.5
    score = mean[moved] / np.maximum(error + np.median(error) if len(moved) else error, 1e-12)
    order = np.argsort(-score, kind="stable")
    raised = (difference[:, moved] > 0).mean(0)
    return [Found(int(moved[i]), float(score[i]), float(mean[moved[i]]), float(raised[i])) for i in order]


def _mean_codes(
    pipeline: FluxPipeline,
    dictionary: Dictionary,
    prompts: Sequence[str],
    seeds: Sequence[int],
    sampling: Sampling,
    capture: Capture,
) -> np.ndarray:
    """Mean code of every feature over a picture's tokens and steps, `[pictures, n_features]`."""
    site = Site.parse(dictionary.site)
    total = torch.zeros(len(prompts), dictionary.n_features)
    count = torch.zeros(len(prompts))
    for batch in PipelineStream(pipeline, prompts, seeds, [site], capture, sampling).batches():
        tokens = batch[site]
        code = dictionary.encode(tokens.x, moment=Noise(tokens.sigma))
        rows = tokens.picture[:, None].expand_as(code.indices)
        total.index_put_((rows.flatten(), code.indices.flatten()), code.values.flatten(), accumulate=True)
        count += torch.bincount(tokens.picture, minlength=len(prompts))
    return (total / count.clamp_min(1)[:, None]).numpy()
