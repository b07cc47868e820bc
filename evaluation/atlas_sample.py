"""A dictionary's features as the demo shows them: an atlas of pictures that were drawn anyway, and a few features of it
explained and judged by the stand-in for a vision-language model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ..interpretation.endpoint import DEMO, Endpoint
from ..interpretation.judge import Judging, Judgment
from .bootstrap import Arm, Bootstrap, Measure
from .contestants import Contestant
from .feature_cards import Card, feature_cards
from .interpreted import Interpreted, Interpreting, interpret


@dataclass(frozen=True)
class AtlasSample:
    """What came of it: the judgments, and cards of some features. `n_features` is the dictionary's number of them."""

    found: Interpreted
    cards: list[Card]
    n_features: int

    def figures(self, draws: int = 1000) -> dict[str, Any]:
        """Scores with intervals over features and pictures; shuffled labels are the control (one half)."""
        found = self.found
        held_out = [j for j in found.judgments if j.score == "interp"]
        explained = [j for j in found.judgments if j.score == "paper" and j.feature in found.qualified]
        return {
            "used": found.used,
            "qualifying": found.qualifying / self.n_features,
            "drawn": len(found.features),
            "explained": len(found.labels),
            "interp": _scored(held_out, "balanced_accuracy", draws),
            "interp_paper": _scored(explained, "paper", draws),
            "shuffled": _scored(found.shuffled, "balanced_accuracy", draws),
        }


def sample_atlas(contestant: Contestant, folder: Path, features: int) -> AtlasSample:
    """Build a contestant's atlas into `folder`, and ask the stand-in about `features` of its used features."""
    from ..demo.stand_in import StandIn

    config = Interpreting(features, Judging(), located=1, shuffles=1, progress=False)
    with StandIn() as server:
        endpoint = replace(Endpoint(DEMO), url=server.url, model=DEMO)
        found = interpret(contestant, folder, endpoint, config, controls=True)
    return AtlasSample(found, feature_cards(folder, found.features, _no_source), contestant.dictionary.n_features)


def _no_source(source: Any) -> Any:
    raise NotImplementedError("the demo samples an SAE, whose features have no source")


def _scored(judgments: Sequence[Judgment], measure: Measure, draws: int) -> dict[str, float]:
    rows = [(0, j.feature, j.picture, j.match, j.answer) for j in judgments]
    return Bootstrap({"own": Arm.of(rows, "own")}, measure, draws).interval("own")._asdict()
