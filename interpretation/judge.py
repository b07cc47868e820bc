"""Whether labels tell pictures of a feature from others, judged by a vision-language model one picture at a time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from ..atlas import Atlas
from .asking import ask_all
from .endpoint import Client, Endpoint, NoAnswer, Usage
from .pictures import Pictures
from .questions import Question, judge_question
from .trials import ScoreName, Trial, Trials


class Judgment(NamedTuple):
    """A judge's answer to whether a picture with its heat map fits a feature's label.

    Attributes:
        feature: whose label it was.
        picture: number of the picture.
        match: whether the heat map was that feature's.
        answer: from 0 (no) to 1 (yes).
        score: which score it is for.
    """

    feature: int
    picture: int
    match: bool
    answer: float
    score: ScoreName


class Judged(NamedTuple):
    """Judgments by feature, score and trial; what of which features was not judged; and what it took."""

    judgments: list[Judgment]
    missing: dict[int, str]
    usage: Usage


@dataclass(frozen=True)
class Judging:
    """How labels are judged."""

    pictures: int = 5
    """Pictures in which the feature is active, and as many in which it is not, for each feature."""
    paper: bool = True
    """Judge also as arXiv 2505.24360 does, on the very pictures that were explained."""
    seed: int = 0
    """Seed of the paper's draw of other features."""

    def __post_init__(self) -> None:
        if self.pictures < 2:
            raise ValueError(f"expected at least 2 pictures of each sort to judge by, found {self.pictures}")


def judge(
    atlas: Atlas,
    labels: Mapping[int, str],
    endpoint: Endpoint,
    config: Judging | None = None,
    progress: bool = True,
    trials: Trials | None = None,
) -> Judged:
    """Judge features' labels on pictures that were not explained (`Trials.interp`), and as the paper did.

    Which pictures depends on the atlas and the seed alone: judging more features later, or the same with other labels,
    asks about the same ones. `trials` spares ordering the features again where several calls judge one atlas.
    """
    config = config or Judging()
    trials = trials or Trials(atlas, config.seed)
    pictures = Pictures(atlas)
    asked: list[Trial] = []
    missing: dict[int, str] = {}
    for number in sorted(labels):
        held_out = trials.interp(number, config.pictures)
        if not held_out:
            missing[number] = "too few pictures with it, or without it, that were not explained"
        asked += held_out + (trials.paper(number) if config.paper else [])

    def question(trial: Trial) -> Question:
        return judge_question(labels[trial.feature], pictures.pair(trial.shown, trial.picture))

    answers: dict[int, float] = {}
    reasons: dict[int, list[str]] = {}
    with Client(endpoint) as client:
        questions = ((i, lambda trial=trial: question(trial)) for i, trial in enumerate(asked))
        for i, answer in ask_all(client, questions, len(asked), "judging", progress):
            if isinstance(answer, NoAnswer):
                reasons.setdefault(asked[i].feature, []).append(str(answer))
            else:
                answers[i] = answer
    for number, found in sorted(reasons.items()):
        missing[number] = f"{len(found)} questions without an answer: {found[0]}"
    judgments = [
        Judgment(trial.feature, trial.picture, trial.match, answers[i], trial.score)
        for i, trial in enumerate(asked)
        if i in answers
    ]
    return Judged(judgments, dict(sorted(missing.items())), client.usage)


def shuffled(labels: Mapping[int, str], seed: int = 0) -> dict[int, str]:
    """A control: the same labels, given to features at random. Judged, they score about one half."""
    order = np.random.default_rng([seed, 5]).permutation(len(labels))
    values = list(labels.values())
    return {number: values[i] for number, i in zip(labels, order, strict=True)}


def constant(judgments: Sequence[Judgment], answer: float = 1.0) -> list[Judgment]:
    """A control: a judge that says the same of every picture."""
    return [judgment._replace(answer=answer) for judgment in judgments]
