"""Invented findings of a comparison: judgments with known rates, for reports and figures that need no dictionary."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import torch

from fluxtionary.evaluation.comparison_figures import Findings, Result
from fluxtionary.evaluation.contestants import WAYS
from fluxtionary.evaluation.interpreted import Interpreted
from fluxtionary.evaluation.reconstruction import BaselineFigures, Measures
from fluxtionary.interpretation.judge import Judgment
from fluxtionary.interpretation.questions import Label
from fluxtionary.interpretation.region import Region

RATES = {
    "sae": 0.72,
    "itda": 0.71,
    "neurons": 0.6,
    "sae_pursuit": 0.7,
    "itda_encoder": 0.66,
    "random_directions": 0.6,
    "frozen_decoder": 0.63,
    "random_weight_model": 0.55,
}
"""Share of judgments that are right, by way."""
FVU = {"sae": 0.28, "sae_pursuit": 0.2, "itda": 0.22, "itda_encoder": 14.9, "neurons": 0.85}


def judgments(rng, features, rate, score, shuffled=False):
    rows = []
    for feature in features:
        for match in (True, False):
            for _ in range(5):
                right = rng.random() < (0.5 if shuffled else rate)
                answer = 0.5 + (0.4 if right == match else -0.4)
                rows.append(Judgment(feature, int(rng.integers(300)), match, answer, score))
    return rows


def invented(seeds=3, features=30, rates=RATES, truth=True):
    """Findings in which judges are right at `rates`; the paper's score is .1 higher."""
    found = Findings(seconds={"drawing pictures": 250.0, "making dictionaries": 400.0, "judging": 500.0})
    for place, way in enumerate(WAYS):
        for seed in range(1 if way == "neurons" else seeds):
            rng = np.random.default_rng([place, seed])
            count = features * seeds if way == "neurons" else features
            drawn = rng.permutation(1000)[:count].tolist()
            interpreted = Interpreted(
                Path("nowhere"),
                used=900,
                qualifying=600,
                features=drawn,
                qualified=set(drawn[: count * 2 // 3]),
                labels={number: Label("red, on the object", "They are red.") for number in drawn},
                judgments=judgments(rng, drawn, rates[way], "interp")
                + judgments(rng, drawn, rates[way] + 0.1, "paper"),
                shuffled=judgments(rng, drawn * 3, 0.5, "interp", shuffled=True) if way in ("sae", "itda") else [],
                regions=[Region(number, 1, 0.4) for number in drawn],
                output_scores=dict.fromkeys(drawn, 0.1) if way != "random_weight_model" else {},
            )
            fvu = FVU.get(way, 0.6)
            measures = Measures(fvu, fvu + 0.02, fvu + 0.1, 0.9, 1.0, 0.1, 0.9, 16.0, 32_768)
            known = SimpleNamespace(
                f1_mean=rates[way] - 0.3,
                iou_mean=rates[way] - 0.4,
                coverage=0.93 if way == "sae" else 0.6,
                prevalence=0.12,
                random_direction=0.3,
                best=0.8,
                probe=0.9,
                decoded=range(24),
            )
            tokens, seconds = (30_000, 8.0) if way.startswith("itda") else (1_200_000, 40.0)
            found.results.append(
                Result(
                    way,
                    seed,
                    "sae",
                    "double.1.img",
                    1000,
                    tokens,
                    seconds,
                    90_000.0,
                    measures,
                    interpreted,
                    known if truth and way != "random_weight_model" else None,
                )
            )
            values = torch.rand(1000, generator=torch.Generator().manual_seed(seed))
            spread = {"sae": 0.35, "itda": 0.3}.get(way, 0.05)
            found.stability.setdefault(way, []).append(
                torch.ones(1000) if way == "neurons" else (0.3 + 2 * spread * values).clamp(max=1)
            )
    found.shared_sources = [0.05, 0.06, 0.04]
    baselines = {"pca": 0.6, "kmeans": 0.5, "random_tokens": 0.25}
    found.baselines = {
        "residual": {name: BaselineFigures(16, fvu, ()) for name, fvu in baselines.items()},
        "neurons": {name: BaselineFigures(16, fvu, ()) for name, fvu in baselines.items()},
    }
    return found
