"""Methods of steering compared: each searched over its settings on validation targets, then shown on test targets.

A method is data: a name and candidates. Every method's search may draw equally many pictures, controls included.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice, pairwise
from typing import TYPE_CHECKING, Any, NamedTuple

from ..residual import Plan
from ..residual.edits import altered
from ..training.sampling import Sampling
from ..training.side_by_side import lanes, side_by_side
from .cases import Case, Judged, judge
from .steering import Outcome, Target, counts, outcome

if TYPE_CHECKING:
    from ..training.sampling import FluxPipeline


def _as_it_is(target: Target) -> Case:
    return target.case


@dataclass(frozen=True)
class Candidate:
    """One setting of a method.

    Attributes:
        settings: plain numbers and words, for a report.
        plan: from a value to the edits that ask for it; None where nothing is edited.
        case: from a target to what the model is asked to draw.
    """

    settings: Mapping[str, Any] = field(default_factory=dict)
    plan: Callable[[str], Plan] | None = None
    case: Callable[[Target], Case] = _as_it_is

    @property
    def edits(self) -> bool:
        """Whether more than the caption is changed."""
        return self.plan is not None


class Method(NamedTuple):
    """A way of steering, with the settings that may be chosen among."""

    name: str
    candidates: tuple[Candidate, ...]


PROMPT_EDIT = Method("prompt_edit", (Candidate(case=lambda target: target.prompt_edit),))
"""The value named in the caption: the ceiling."""


class Asked(NamedTuple):
    """A target that counts, with its unsteered picture."""

    target: Target
    plain: Judged


def asked(targets: Sequence[Target], plain: Sequence[Judged]) -> list[Asked]:
    """The targets that count: no picture is drawn for the others, which no measure would look at."""
    return [Asked(*pair) for pair in zip(targets, plain, strict=True) if counts(*pair)]


class Easel:
    """Draws and reads pictures, and remembers those drawn without any edit."""

    def __init__(self, pipeline: FluxPipeline, sampling: Sampling):
        self.pipeline, self.sampling = pipeline, sampling
        self._known: dict[tuple[str, int], Judged] = {}

    def remember(self, judged: Iterable[Judged]) -> None:
        """Take in unsteered pictures that were drawn elsewhere, with the same sampling."""
        self._known |= {(one.case.caption, one.case.seed): one for one in judged}

    def plain(self, cases: Sequence[Case]) -> list[Judged]:
        """Unsteered pictures."""
        fresh = {(c.caption, c.seed): c for c in cases if (c.caption, c.seed) not in self._known}
        todo = list(fresh.values())
        self.remember(self._drawn(lambda pipeline, part: judge(pipeline, todo[part], self.sampling), len(todo)))
        return [self._known[case.caption, case.seed] for case in cases]

    def readable(self, cases: Sequence[Case], count: int) -> list[Judged]:
        """Unsteered pictures of the first `count` cases that can be read; only as many are drawn as that takes.

        Raises `ValueError` where there are too few.
        """
        found: list[Judged] = []
        looked_at = 0
        while len(found) < count and looked_at < len(cases):
            some = cases[looked_at : looked_at + count - len(found)]
            looked_at += len(some)
            found += [one for one in self.plain(some) if one.reading.readable]
        if len(found) < count:
            raise ValueError(f"expected {count} readable pictures, found {len(found)} of {len(cases)} cases")
        return found

    def steered(self, wanted: Sequence[tuple[Target, Candidate]]) -> list[Judged]:
        """A picture of each target, steered to its value by the candidate beside it. Candidates share batches."""
        if not any(candidate.edits for _, candidate in wanted):
            return self.plain([candidate.case(target) for target, candidate in wanted])
        return self._drawn(lambda pipeline, part: self._batch(pipeline, wanted[part]), len(wanted))

    def _batch(self, pipeline: FluxPipeline, wanted: Sequence[tuple[Target, Candidate]]) -> list[Judged]:
        own = [(id(candidate), target.value) for target, candidate in wanted]
        plans = {
            key: candidate.plan(target.value)
            for key, (target, candidate) in zip(own, wanted, strict=True)
            if candidate.plan is not None
        }
        numbers = [list(plans).index(key) if key in plans else None for key in own]
        plan = plan_for_each(list(plans.values()), numbers)
        return judge(pipeline, [candidate.case(target) for target, candidate in wanted], self.sampling, plan)

    def _drawn(self, draw: Callable[[FluxPipeline, slice], list[Judged]], count: int) -> list[Judged]:
        """`count` pictures, drawn in equal parts of at most a batch."""
        if not count:
            return []
        beside = lanes(self.pipeline)
        parts = min(beside * math.ceil(count / (beside * self.sampling.batch)), count)
        bounds = [i * count // parts for i in range(parts + 1)]
        drawn = side_by_side(self.pipeline, draw, [slice(*pair) for pair in pairwise(bounds)])
        return [one for judged in drawn for one in judged]


def plan_for_each(plans: Sequence[Plan], numbers: Sequence[int | None]) -> Plan:
    """One plan for a batch in which picture `i` follows `plans[numbers[i]]`, or none where that is None."""
    return Plan(
        altered(item, pictures=frozenset(i for i, number in enumerate(numbers) if number == own))
        for own, plan in enumerate(plans)
        for item in plan
    )


@dataclass(frozen=True)
class Tried:
    """How a candidate did on the validation targets it was tried on."""

    settings: Mapping[str, Any]
    outcome: Outcome


@dataclass(frozen=True)
class Found:
    """The candidate that a search settled on, its number, and what all of them did; `pictures` were drawn for it."""

    candidate: Candidate
    number: int
    tried: tuple[Tried, ...]
    pictures: int


def rounds(candidates: int, budget: int) -> list[tuple[int, int]]:
    """For each round of a search, how many candidates are left, and on how many new targets each is tried.

    Raises `ValueError` for a budget that leaves a round without targets.
    """
    left, plan = candidates, []
    count = math.ceil(math.log2(candidates)) if candidates > 1 else 0
    while left > 1:
        plan.append((left, budget // (count * left)))
        left = -(-left // 2)
    if any(not each for _, each in plan):
        raise ValueError(f"a search among {candidates} candidates needs at least {candidates * count} pictures")
    return plan


def targets_needed(candidates: int, budget: int) -> int:
    """Targets that a search looks at."""
    return sum(each for _, each in rounds(candidates, budget))


def search(
    easel: Easel, method: Method, validation: Sequence[Asked], budget: int, allowed: float | None = None
) -> Found:
    """The best candidate by joint success, then success, then order; at most `budget` pictures are drawn.

    With `allowed`, a share of collateral that may be: by success less the collateral beyond it, then joint success.

    Sequential halving (Karnin, Koren and Somekh 2013, "Almost optimal exploration in multi-armed bandits"): every
    round has an equal part of the budget, all candidates of a round see the same new targets, the better half goes on.
    """
    plan = rounds(len(method.candidates), budget)
    if len(validation) < (wanted := sum(each for _, each in plan)):
        raise ValueError(f"searching {method.name} takes {wanted} validation targets, found {len(validation)}")
    left, done, pictures = list(range(len(method.candidates))), 0, 0
    judged: list[list[Judged]] = [[] for _ in left]
    went: dict[int, Outcome] = {}
    for _, each in plan:
        part = validation[done : done + each]
        done += each
        drawn = iter(easel.steered([(one.target, method.candidates[number]) for number in left for one in part]))
        for number in left:
            judged[number] += islice(drawn, each)
            pictures += each
            went[number] = _outcome(validation[:done], judged[number])
        left.sort(key=lambda i: (*_rank(went[i], allowed), i))
        left = sorted(left[: -(-len(left) // 2)])
    tried = tuple(Tried(method.candidates[number].settings, went[number]) for number in sorted(went))
    return Found(method.candidates[left[0]], left[0], tried, pictures)


def _rank(went: Outcome, allowed: float | None) -> tuple[float, float]:
    success, joint = went.success.value, went.joint.value
    if allowed is None:
        return -joint, -success
    return max(went.collateral.value - allowed, 0.0) - success, -joint


@dataclass(frozen=True)
class Result:
    """A method at one setting on some targets, with the pictures."""

    name: str
    settings: Mapping[str, Any]
    outcome: Outcome
    asked: Sequence[Asked]
    steered: Sequence[Judged]

    @classmethod
    def of(cls, name: str, settings: Mapping[str, Any], on: Sequence[Asked], steered: Sequence[Judged]) -> Result:
        """With what came of it."""
        return cls(name, settings, _outcome(on, steered), on, steered)


class Showing(NamedTuple):
    """What is to be shown: a candidate of a method of some name, on targets."""

    name: str
    candidate: Candidate
    test: Sequence[Asked]


def show(easel: Easel, name: str, candidate: Candidate, test: Sequence[Asked]) -> Result:
    """One candidate on targets."""
    return show_all(easel, [Showing(name, candidate, test)])[0]


def show_all(easel: Easel, showings: Sequence[Showing]) -> list[Result]:
    """Several, in batches that they share: sooner than one after another."""
    drawn = iter(easel.steered([(one.target, showing.candidate) for showing in showings for one in showing.test]))
    return [
        Result.of(name, candidate.settings, test, list(islice(drawn, len(test)))) for name, candidate, test in showings
    ]


def figures(result: Result) -> dict[str, Any]:
    """What a summary says of it: the settings, and each measure with its interval."""
    return {name: share._asdict() for name, share in vars(result.outcome).items()} | {"settings": dict(result.settings)}


def _outcome(on: Sequence[Asked], steered: Sequence[Judged]) -> Outcome:
    return outcome([one.target for one in on], [one.plain for one in on], steered)
