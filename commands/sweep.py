"""What a steering plan means: its files read and checked, and one `Plan` for each strength and part of sampling."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import torch
from torch import Tensor

from ..demo import files
from ..dictionaries import Dictionary, FeatureError, SteeringVector, load_dictionary, load_vector
from ..residual import Add, Clamp, Gate, Plan, PlanError, Schedule, Site, SiteError, Window
from ..residual.mode import STRENGTH, Mode, check_mode, edit, has_scale, home
from .steering_plan import DEMO, Entry

ToSigma = Callable[[float], float]
Value = TypeVar("Value")

STRENGTHS: dict[Mode, float] = {"add": STRENGTH, "ablate": 1.0}
"""Where none is asked for; what to set a feature to must be said."""


class Part(NamedTuple):
    """One direction of a change: feature `feature` of a dictionary, at a site."""

    dictionary: Dictionary
    feature: int
    site: Site


@dataclass(frozen=True)
class Change:
    """An entry with its files read: what is steered with, and how strongly and when, each of which may be swept."""

    entry: Entry
    name: str
    parts: tuple[Part, ...]
    strengths: tuple[float, ...]
    spans: tuple[tuple[float, float], ...]
    """Shares of sampling, from where to where."""
    mask: Tensor | None
    gate: Gate | None
    vector: SteeringVector | None

    def edits(self, strength: float, span: tuple[float, float], to_sigma: ToSigma) -> list[Add | Clamp]:
        """What is done in one picture. Raises `PlanError` where this cannot mean anything."""
        factors = self.entry.schedule
        place: dict[str, Any] = {
            "schedule": Schedule.of_steps(factors, *span, to_sigma) if factors else None,
            "window": Window.from_percent(*span, to_sigma),
            "rows": self.entry.rows,
            "mask": self.mask,
            "gate": self.gate,
        }
        return [
            edit(self.entry.mode, dictionary, feature, strength, site, **place)
            for dictionary, feature, site in self.parts
        ]

    def described(self) -> str:
        """What is done, where and when, and how strong a feature is by itself."""
        mode = self.entry.mode
        done = {"add": "adding", "ablate": "taking out", "clamp": "setting it to"}[mode]
        sizes = [f"{strength:.0%}" if mode == "ablate" else f"{strength:g}" for strength in self.strengths]
        said = [f"{done} {', '.join(sizes)}"]
        unscaled = [str(part.site) for part in self.parts if not has_scale(part.dictionary, part.site)]
        if unscaled and mode != "ablate":
            how = "as a code: the file has no scale for" if mode == "clamp" else "of a scale measured now at"
            said[0] += f" ({how} {' and '.join(unscaled)})"
        if self.spans != ((0.0, 1.0),):
            said.append(f"in {', '.join(f'{start:g} to {end:g}' for start, end in self.spans)} of sampling")
        if self.entry.mask is not None:
            said.append(f"under the mask {self.entry.mask.name}")
        if self.gate is not None:
            said.append(f"where feature {' or '.join(map(str, self.gate.features))} is active")
        natural = self.parts[0].dictionary.natural
        by_itself = ""
        if self.vector is None and natural is not None:
            by_itself = f"; by itself it reaches {float(natural[self.parts[0].feature]):.2f}"
        sites = " and ".join(str(part.site) for part in self.parts)
        return f"{self.name} at {sites}: {', '.join(said)}{by_itself}"


class Cell(NamedTuple):
    """One picture of a sweep: the number of its strength and that of its part of sampling."""

    strength: int
    span: int


class Sweep:
    """The changes of one run, over the strengths and the parts of sampling that they are asked for.

    Strengths of several changes that are swept go in step, and so do parts of sampling: all of one length.
    """

    def __init__(self, changes: Sequence[Change]):
        self.changes = tuple(changes)
        self.n_strengths = _common("strengths", [len(change.strengths) for change in changes])
        self.n_spans = _common("parts of sampling", [len(change.spans) for change in changes])

    def cells(self) -> list[Cell]:
        """Every strength with every part of sampling."""
        return [Cell(strength, span) for span in range(self.n_spans) for strength in range(self.n_strengths)]

    def plan(self, cell: Cell, to_sigma: ToSigma) -> Plan:
        """What is done in one picture."""
        return Plan(
            item
            for change in self.changes
            for item in change.edits(_at(change.strengths, cell.strength), _at(change.spans, cell.span), to_sigma)
        )

    def strength_names(self) -> list[str]:
        """The strengths that vary, of each column of a grid."""
        swept = [change.strengths for change in self.changes if len(change.strengths) > 1]
        return _names([[f"{value:g}" for value in values] for values in swept], self.n_strengths)

    def span_names(self) -> list[str]:
        """The parts of sampling that vary, likewise."""
        swept = [change.spans for change in self.changes if len(change.spans) > 1]
        return _names([[f"{start:g} to {end:g}" for start, end in spans] for spans in swept], self.n_spans)

    def spans_of(self, windows: Collection[Window], to_sigma: ToSigma) -> list[str]:
        """The parts of sampling that some windows are, in words."""
        spans = dict.fromkeys(span for change in self.changes for span in change.spans)
        return [f"{a:g} to {b:g}" for a, b in spans if Window.from_percent(a, b, to_sigma) in windows]

    def vectors(self) -> list[tuple[str, SteeringVector]]:
        """The vectors it steers with, with their names, each once."""
        found = {id(change.vector): (change.name, change.vector) for change in self.changes}
        return [(name, vector) for name, vector in found.values() if vector is not None]


def read_sweep(entries: Sequence[Entry]) -> Sweep:
    """Read the files that entries name, each once: edits of one dictionary share its codes."""
    dictionary_at, vector_at = cache(_dictionary), cache(load_vector)
    changes = []
    for entry in entries:
        try:
            changes.append(_change(entry, dictionary_at, vector_at))
        except (PlanError, SiteError, FeatureError) as error:
            raise PlanError(f"{entry.named}{error}") from error
    return Sweep(changes)


def _dictionary(name: str) -> Dictionary:
    return load_dictionary(files.DICTIONARY if name == DEMO else name)


def _change(
    entry: Entry, dictionary_at: Callable[[str], Dictionary], vector_at: Callable[[Path], SteeringVector]
) -> Change:
    if (entry.feature is None) == (entry.vector is None):
        found = "neither" if entry.feature is None else "both"
        raise PlanError(f"expected a feature or a vector, found {found}")
    vector = vector_at(entry.vector) if entry.vector is not None else None
    if vector is not None:
        name, parts = f"vector {Path(str(entry.vector)).stem}", _vector_parts(vector, entry.sites)
    else:
        assert entry.feature is not None
        name, parts = f"feature {entry.feature}", _feature_parts(dictionary_at(entry.dictionary), entry)
    gate = None
    if entry.gate is not None:
        of = dictionary_at(entry.gate.dictionary or entry.dictionary)
        gate = Gate(of, entry.gate.features, entry.gate.threshold)
    mask = None if entry.mask is None else read_mask(entry.mask)
    change = Change(entry, name, parts, _strengths(entry), _spans(entry), mask, gate, vector)
    for span in change.spans:  # before a model is loaded: finds what no edit can be made of
        change.edits(change.strengths[0], span, lambda share: 1 - share)
    return change


def _vector_parts(vector: SteeringVector, wanted: Sequence[str]) -> tuple[Part, ...]:
    sites = [str(Site.parse(site)) for site in wanted] or list(vector.sites)
    for site in sites:
        if site not in vector.sites:
            raise PlanError(f"sites: expected some of the vector's own, {', '.join(vector.sites)}, found {site}")
    return tuple(Part(vector.at(site), 0, Site.parse(site)) for site in dict.fromkeys(sites))


def _feature_parts(dictionary: Dictionary, entry: Entry) -> tuple[Part, ...]:
    assert entry.feature is not None
    dictionary.check_feature(entry.feature)
    check_mode(entry.mode, dictionary)
    own = home(dictionary)
    sites = dict.fromkeys(Site.parse(site) for site in entry.sites) or {own: None}
    if entry.mode != "add" and set(sites) != {own}:
        raise PlanError(
            f"sites: expected {own} for mode {entry.mode}, found {', '.join(map(str, sites))}. How much of a feature "
            "there is can be read only where its dictionary was made for; with mode add it acts anywhere"
        )
    return tuple(Part(dictionary, entry.feature, site) for site in sites)


def _strengths(entry: Entry) -> tuple[float, ...]:
    if not entry.strength and entry.mode not in STRENGTHS:
        raise PlanError(f"strength: mode {entry.mode} needs one, what the feature is set to; found none")
    strengths = entry.strength or (STRENGTHS[entry.mode],)
    for strength in strengths:
        if not math.isfinite(strength):
            raise PlanError(f"strength must be a finite number, found {strength}")
    return strengths


def _spans(entry: Entry) -> tuple[tuple[float, float], ...]:
    count = _common("start and end", [len(entry.start), len(entry.end)])
    return tuple((_at(entry.start, place), _at(entry.end, place)) for place in range(count))


def read_mask(path: Path) -> Tensor:
    """A picture as a mask `[h, w]` in [0, 1]: white acts, black and what is transparent do not, gray acts in part."""
    from PIL import Image

    try:
        with Image.open(path) as picture:
            if picture.mode.startswith(("I", "F")):
                raise PlanError(f"{path}: expected a picture of 8 bits a channel as mask, found mode {picture.mode}")
            clear = picture.convert("RGBA")
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        if isinstance(error, PlanError):
            raise
        raise PlanError(f"{path}: expected a picture as mask (.png, .jpg), found none: {error}") from error
    light, opaque = (
        torch.frombuffer(bytearray(channel.tobytes()), dtype=torch.uint8).reshape(clear.height, clear.width).float()
        for channel in (clear.convert("L"), clear.getchannel("A"))
    )
    mask = light * opaque / 255**2
    if not bool(mask.any()):
        raise PlanError(f"{path}: a mask acts where it is light, and this one is black everywhere")
    return mask


def _at(values: Sequence[Value], place: int) -> Value:
    return values[place] if len(values) > 1 else values[0]


def _common(what: str, counts: Sequence[int]) -> int:
    """The one number of values above 1, or 1."""
    several = sorted({count for count in counts if count > 1})
    if len(several) > 1:
        raise PlanError(f"{what}: those that are swept go in step, so all need as many; found {several}")
    return several[0] if several else 1


def _names(swept: Sequence[Sequence[str]], count: int) -> list[str]:
    return [" / ".join(dict.fromkeys(values[place] for values in swept)) for place in range(count)]
