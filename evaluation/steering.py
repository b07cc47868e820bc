"""Whether a steer did what it should, and nothing else: the measures of docs/design.md."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

from ..demo.captions import STYLES, caption_of
from ..demo.scenes import FACTORS
from .cases import Case, Judged
from .intervals import Share


@dataclass(frozen=True)
class Target:
    """A case and the value that one of its factors shall take."""

    case: Case
    factor: str
    value: str

    @property
    def prompt_edit(self) -> Case:
        """The same case with the value named in the caption: the ceiling of steering."""
        named = {name: (self.case.named | {self.factor: self.value}).get(name) for name in FACTORS}
        kept = {name: value for name, value in named.items() if value is not None}
        style = STYLES[1] if "," in self.case.caption else STYLES[0]
        return replace(self.case, caption=caption_of(kept, style), named=kept)


def even_targets(plain: Sequence[Judged], factor: str = "color") -> list[Target]:
    """A value for each case to be steered to: every value equally often, none that its unsteered picture shows.

    Values go around in order; cases whose picture shows the value they are given exchange theirs among each other
    (where one value is more than half of these, some keep it, and will not count).
    """
    values = FACTORS[factor]
    given = [values[i % len(values)] for i in range(len(plain))]
    shown = sorted(
        (i for i, judged in enumerate(plain) if judged.reading.factors[factor] == given[i]), key=lambda i: given[i]
    )
    # in order of values, as far on as the commonest goes, there is another value
    moved, far = [given[i] for i in shown], max(Counter(given[i] for i in shown).values(), default=0)
    for place, i in enumerate(shown):
        given[i] = moved[(place + far) % len(moved)]
    return [Target(judged.case, factor, value) for judged, value in zip(plain, given, strict=True)]


def against_targets(cases: Sequence[Case], factor: str = "color") -> list[Target]:
    """For cases whose captions name a factor: each with another value of it, in turn."""
    targets = []
    for i, case in enumerate(cases):
        others = [value for value in FACTORS[factor] if value != case.named[factor]]
        targets.append(Target(case, factor, others[i % len(others)]))
    return targets


def counts(target: Target, before: Judged) -> bool:
    """Whether a target can be reached at all: its unsteered picture can be read, and shows another value."""
    return before.reading.readable and before.reading.factors[target.factor] != target.value


@dataclass(frozen=True)
class Outcome:
    """The measures of one way of steering over many targets."""

    success: Share
    collateral: Share
    joint: Share
    drift: Share


def outcome(targets: Sequence[Target], plain: Sequence[Judged], steered: Sequence[Judged]) -> Outcome:
    """Compare steered pictures with the unsteered ones of the same caption and seed.

    Targets that do not count (`counts`) are left out. *success*: the steered
    picture reads the target. *collateral*: it is unreadable, or a factor that the caption names (not the steered
    one) was right and now reads wrong. *joint*: success without collateral. *drift*: a factor that the caption does
    not name (nor the steered one) reads differently.
    """
    success, collateral, joint, drift = [], [], [], []
    for target, before, after in zip(targets, plain, steered, strict=True):
        if not counts(target, before):
            continue
        hit = after.reading.factors[target.factor] == target.value
        others = [name for name in FACTORS if name != target.factor]
        named = [name for name in others if name in target.case.named]
        broke = not after.reading.readable or any(
            before.right(name) and not _same(before, after, name) for name in named
        )
        success.append(hit)
        collateral.append(broke)
        joint.append(hit and not broke)
        drift.append(any(not _same(before, after, name) for name in others if name not in named))
    return Outcome(Share.of(success), Share.of(collateral), Share.of(joint), Share.of(drift))


def _same(before: Judged, after: Judged, factor: str) -> bool:
    return before.reading.factors[factor] == after.reading.factors[factor]
