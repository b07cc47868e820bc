"""Whether a steer did what it should, and nothing else: the measures of docs/design.md."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from ..demo.captions import STYLES, caption_of
from ..demo.scenes import FACTORS
from .cases import Case, Judged, sample_cases
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


def open_targets(n: int, seed: int, split: str, factor: str = "color") -> list[Target]:
    """Captions that leave a factor open; every value of it is a target equally often."""
    values = FACTORS[factor]
    cases = sample_cases(n, seed, split, never=[factor])
    return [Target(case, factor, values[i % len(values)]) for i, case in enumerate(cases)]


def against_targets(n: int, seed: int, split: str, factor: str = "color") -> list[Target]:
    """Captions that name a factor, each with another value of it as the target."""
    values = FACTORS[factor]
    targets = []
    for i, case in enumerate(sample_cases(n, seed, split, always=[factor])):
        others = [value for value in values if value != case.named[factor]]
        targets.append(Target(case, factor, others[i % len(others)]))
    return targets


@dataclass(frozen=True)
class Outcome:
    """The measures of one way of steering over many targets."""

    success: Share
    collateral: Share
    joint: Share
    drift: Share


def outcome(targets: Sequence[Target], plain: Sequence[Judged], steered: Sequence[Judged]) -> Outcome:
    """Compare steered pictures with the unsteered ones of the same caption and seed.

    Counted are the targets whose unsteered picture reads with another value of the factor. *success*: the steered
    picture reads the target. *collateral*: it is unreadable, or a factor that the caption names (not the steered
    one) was right and now reads wrong. *joint*: success without collateral. *drift*: a factor that the caption does
    not name (nor the steered one) reads differently.
    """
    success, collateral, joint, drift = [], [], [], []
    for target, before, after in zip(targets, plain, steered, strict=True):
        if not before.reading.readable or before.reading.factors[target.factor] == target.value:
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
