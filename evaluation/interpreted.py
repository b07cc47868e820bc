"""One dictionary put to the test: its atlas, and a sample of its features explained, judged and located."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from ..atlas import Atlas, AtlasWriter
from ..interpretation.build import build_atlas
from ..interpretation.endpoint import Endpoint, Usage
from ..interpretation.explain import explain
from ..interpretation.judge import Judging, Judgment, judge, shuffled
from ..interpretation.questions import Label
from ..interpretation.region import Region, locate, region_score
from ..interpretation.scoring import interp_score, paper_score
from ..interpretation.trials import EXPLAINED, Trials, explained, qualifies
from .contestants import WAYS, Contestant


@dataclass(frozen=True)
class Interpreting:
    """How much of each dictionary is looked at.

    Attributes:
        features: used features, drawn uniformly, that are explained and judged.
        judging: how.
        located: held-out pictures a feature on which its label's place is marked; 0 for none.
        shuffles: times the labels are permuted and judged again, for the kinds that are controls.
        progress: show what asking takes, before and meanwhile.
    """

    features: int
    judging: Judging
    located: int
    shuffles: int
    progress: bool


@dataclass
class Interpreted:
    """What came of it.

    Attributes:
        folder: its atlas, with labels and scores.
        used: features that were ever active on the held-out pictures.
        qualifying: how many of all its features show enough to be explained (`trials.qualifies`).
        features: those that were drawn, whether they could be judged or not.
        qualified: which of them qualify.
        shuffled: judgments of permuted labels.
        missing: why drawn features have no judgment.
    """

    folder: Path
    used: int
    qualifying: int
    features: list[int]
    qualified: set[int]
    labels: dict[int, Label] = field(default_factory=dict)
    judgments: list[Judgment] = field(default_factory=list)
    shuffled: list[Judgment] = field(default_factory=list)
    regions: list[Region] = field(default_factory=list)
    missing: dict[int, str] = field(default_factory=dict)
    output_scores: dict[int, float] = field(default_factory=dict)
    usage: Usage = field(default_factory=Usage)


def interpret(
    contestant: Contestant, folder: Path, endpoint: Endpoint, config: Interpreting, controls: bool
) -> Interpreted:
    """Build a contestant's atlas into `folder`, and have some of its features explained and judged.

    With `controls`, permuted labels are judged too.
    """
    build_atlas(contestant.pictures, contestant.dictionary, folder, progress=False).close()
    with Atlas.open(folder) as atlas:
        used = [feature.number for feature in atlas.features(limit=atlas.count())]
        qualified = {number for number in used if qualifies(atlas, number)}
        features = drawn_features(contestant, used, config.features)
        found = Interpreted(folder, len(used), len(qualified), features, qualified & set(features))
        _ask(atlas, found, endpoint, config, controls)
    _write(found)
    return found


def drawn_features(contestant: Contestant, used: Sequence[int], count: int) -> list[int]:
    """A uniform sample of used features; of two dictionaries with the same directions as far as possible the same."""
    known = sorted(WAYS).index(WAYS[contestant.way].directions)
    order = np.random.default_rng([known, contestant.seed, 17]).permutation(contestant.dictionary.n_features)
    there = set(used)
    return [int(number) for number in order if int(number) in there][:count]


def _ask(atlas: Atlas, found: Interpreted, endpoint: Endpoint, config: Interpreting, controls: bool) -> None:
    wanted = [number for number in found.features if len(explained(atlas, number)) == EXPLAINED]
    told = explain(atlas, found.features, endpoint, progress=config.progress)
    found.labels, found.missing, found.usage = told.labels, dict(told.missing), told.usage
    labels = {number: told.labels[number].label for number in wanted if number in told.labels}
    trials = Trials(atlas, config.judging.seed)
    judged = judge(atlas, labels, endpoint, config.judging, progress=config.progress, trials=trials)
    found.judgments, found.usage = judged.judgments, found.usage + judged.usage
    found.missing |= judged.missing
    for seed in range(config.shuffles if controls and len(labels) > 1 else 0):
        again = judge(
            atlas, shuffled(labels, seed), endpoint, _plain(config.judging), progress=config.progress, trials=trials
        )
        found.shuffled += again.judgments
        found.usage += again.usage
    if config.located:
        located = locate(atlas, labels, endpoint, config.located, progress=config.progress, trials=trials)
        found.regions, found.usage = located.regions, found.usage + located.usage


def _plain(judging: Judging) -> Judging:
    """Controls are judged by the interpretation score alone."""
    return Judging(judging.pictures, paper=False, seed=judging.seed)


def _write(found: Interpreted) -> None:
    """Labels and scores into the atlas, where people look for them."""
    scores: dict[str, Mapping] = {
        "interp": interp_score(found.judgments),
        "interp_paper": paper_score(found.judgments),
        "region": region_score(found.regions),
    }
    with AtlasWriter.annotate(found.folder) as writer:
        for number, label in found.labels.items():
            writer.set_label(number, label.label, label.explanation)
            own = {name: table[number] for name, table in scores.items() if number in table}
            if own:
                writer.set_scores(number, own)
