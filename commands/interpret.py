"""`fluxtionary atlas explain` and `atlas score`: a vision-language model says what features show, and judges it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

import tyro

from ..interpretation.endpoint import Endpoint, EndpointError
from ..interpretation.judge import Judging

if TYPE_CHECKING:
    from ..atlas import AtlasError
    from ..interpretation.endpoint import Usage
    from ..interpretation.questions import Label


@dataclass(frozen=True)
class ExplainAtlas:
    """Have a vision-language model say what features show, and put its labels into their atlas."""

    folder: tyro.conf.Positional[Path]
    """An atlas, made with `fluxtionary atlas build`."""
    endpoint: Endpoint
    features: int = 100
    """Features that are explained, drawn at random from those that were active: more later include the same ones."""
    numbers: tuple[int, ...] = ()
    """The features to explain instead."""
    seed: int = 0
    """Seed of the draw."""

    def run(self) -> None:
        from ..atlas import Atlas
        from ..interpretation.explain import explain
        from ..interpretation.trials import sample_features

        if self.features < 1:
            raise EndpointError(f"features must be at least 1, found {self.features}")
        endpoint = self.endpoint.kept_beside(self.folder)
        labels: dict[int, Label] = {}
        refused: dict[int, AtlasError] = {}
        try:
            with Atlas.open(self.folder) as atlas:
                numbers = self.numbers or sample_features(atlas, self.features, self.seed)
                explained = explain(atlas, numbers, endpoint, keep=labels.__setitem__)
        finally:  # an interruption keeps what is there
            refused = _put_labels(self.folder, labels)
        put = {number: label for number, (label, _) in explained.labels.items() if number not in refused}
        for number, label in list(put.items())[:20]:
            print(f"{number:>6}  {label}")
        if len(put) > 20:
            print(f"   ...  {len(put) - 20} more: fluxtionary atlas search {self.folder} WORDS")
        print(f"{len(put)} features have labels now")
        _say(explained.missing | {number: str(error) for number, error in refused.items()}, explained.usage, endpoint)


@dataclass(frozen=True)
class ScoreAtlas:
    """Have labels judged on pictures that they were not made from, and put the scores into the atlas."""

    folder: tyro.conf.Positional[Path]
    """An atlas with labels, from `fluxtionary atlas explain`."""
    endpoint: Endpoint
    numbers: tuple[int, ...] = ()
    """The features to score; by default all that have labels."""
    regions: int = 4
    """Pictures of each feature in which the label's place is marked and compared with the heat map; 0 for none."""
    shuffled: bool = False
    """Judge also with the labels given to features at random, which should score one half: as many questions again."""
    judging: Judging = field(default_factory=Judging)

    def run(self) -> None:
        from ..atlas import Atlas, AtlasWriter, Score
        from ..interpretation.judge import judge, shuffled
        from ..interpretation.region import locate, region_score
        from ..interpretation.scoring import interp_score, paper_score
        from ..interpretation.trials import Trials

        if self.regions < 0:
            raise EndpointError(f"regions must be at least 0, found {self.regions}")
        endpoint = self.endpoint.kept_beside(self.folder)
        scores: dict[str, dict[int, Score]] = {}
        with Atlas.open(self.folder) as atlas:
            wanted = [atlas.feature(n) for n in self.numbers] or atlas.features(limit=atlas.count())
            labels = {feature.number: feature.label for feature in wanted if feature.label}
            if not labels:
                raise EndpointError(f"{self.folder}: expected labels to score, found none: run `atlas explain` first")
            trials = Trials(atlas, self.judging.seed)
            judged = judge(atlas, labels, endpoint, self.judging, trials=trials)
            usage, missing = judged.usage, judged.missing
            scores["interp"] = interp_score(judged.judgments)
            scores["interp_paper"] = paper_score(judged.judgments)
            if self.regions:
                located = locate(atlas, labels, endpoint, self.regions, trials=trials)
                scores["region"] = region_score(located.regions)
                usage, missing = usage + located.usage, {**located.missing, **missing}
            if self.shuffled:
                alone = replace(self.judging, paper=False)
                control = judge(atlas, shuffled(labels, self.judging.seed), endpoint, alone, trials=trials)
                usage += control.usage
        with AtlasWriter.annotate(self.folder) as writer:
            for number in labels:
                mine = {name: found[number] for name, found in scores.items() if number in found}
                if mine:
                    writer.set_scores(number, mine)
        for name, found in scores.items():
            print(f"{name}: {_mean(found)} over {len(found)} features")
        if self.shuffled:
            print(f"interp of shuffled labels: {_mean(interp_score(control.judgments))}")
        _say(missing, usage, endpoint)


def _put_labels(folder: Path, labels: Mapping[int, Label]) -> dict[int, AtlasError]:
    """Labels into their atlas; those that it refuses, and why, keep no others out. Raises where it refuses all."""
    from ..atlas import AtlasError, AtlasWriter

    refused: dict[int, AtlasError] = {}
    if not labels:
        return refused
    with AtlasWriter.annotate(folder) as writer:
        for number, (label, explanation) in labels.items():
            try:
                writer.set_label(number, label, explanation)
            except AtlasError as error:
                refused[number] = error
    if len(refused) == len(labels):
        raise next(iter(refused.values()))
    return refused


def _mean(scores: Mapping) -> str:
    return f"{sum(score.value for score in scores.values()) / len(scores):.3f}" if scores else "none"


def _say(missing: Mapping[int, str], usage: Usage, endpoint: Endpoint) -> None:
    """What asking took and left out. Raises `EndpointError` where questions were asked and none was answered."""
    print(usage)
    reasons = Counter(missing.values()).most_common(5)
    if missing:
        print(f"{len(missing)} features are not complete:")
        for reason, count in reasons:
            print(f"  {count} x {reason}")
    if usage.failed:
        print(f"run it again to ask what is missing: answers are kept in {endpoint.cache}")
    if usage.refused + usage.rubbish:
        print("refusals and what could not be read are asked about again with --endpoint.ask-again")
    if usage.missing and not usage.answered:
        raise EndpointError(f"expected answers, found none to any of {usage.missing:,} questions: {reasons[0][0]}")
