"""The plan: the taps and edits of one run, in order. The same plan means the same thing in every host."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from ..dictionaries import Dictionary, Scale
from .edits import Add, Clamp, Edit, Record, Splice, Tap, altered
from .moment import Moment, PlanError
from .site import Site
from .site_pass import SitePass, token_scale

logger = logging.getLogger(__name__)

Item = Add | Clamp | Splice | Tap


class Stopped(Exception):  # noqa: N818 - nothing has gone wrong
    """A call of the model ended after the last block of a plan, as its host was told."""


class Plan:
    """Taps and edits in the order they act. Immutable; knows nothing of any run."""

    def __init__(self, items: Iterable[Item] = ()):
        self.items = tuple(items)
        for item in self.items:
            if not isinstance(item, Item):
                raise PlanError(f"a plan holds Tap, Add, Ablate, Clamp and Splice, found {type(item).__name__}")

    def __iter__(self) -> Iterator[Item]:
        return iter(self.items)

    def sites(self) -> list[Site]:
        """Every site the plan touches, once."""
        return list(dict.fromkeys(item.site for item in self.items))

    def last_site(self) -> Site | None:
        """The site that the model reaches last."""
        return max(self.sites(), key=lambda site: (site.stage == "single", site.block), default=None)

    def dictionaries(self) -> list[Dictionary]:
        """Every dictionary that encodes in this plan, once."""
        found = [item.dictionary for item in self.items if not isinstance(item, Add) and item.dictionary is not None]
        found += [item.gate.dictionary for item in self.items if isinstance(item, Edit) and item.gate is not None]
        return list({id(dictionary): dictionary for dictionary in found}.values())

    def on(self, device: str | torch.device) -> Plan:
        """The same plan with its dictionaries on a device; those of several items stay one."""
        return Plan(_on(item, device) for item in self.items)

    def check(self, double_blocks: int, single_blocks: int, d_model: int) -> None:
        """Raise `SiteError` or `PlanError` where the plan does not fit a model of this shape."""
        last = Site("single", single_blocks - 1, "txt")
        for item in self.items:
            item.site.check_depth(double_blocks, single_blocks)
            if isinstance(item, Edit) and item.site == last:
                raise PlanError(
                    f"an edit at {last} would do nothing: nothing reads the text stream after the last block"
                )
            if item.site.part == "mlp":
                continue
            for width in _widths(item):
                if width != d_model:
                    raise PlanError(
                        f"the model's residual stream is {d_model} wide, but what is used at {item.site} is "
                        f"{width} wide: it was made for another model"
                    )


def _on(item: Item, device: str | torch.device) -> Item:
    """An item whose dictionaries are on a device."""
    moved: dict[str, Any] = {}
    if not isinstance(item, Add) and item.dictionary is not None:
        moved["dictionary"] = item.dictionary.on(device)
    if isinstance(item, Edit) and item.gate is not None:
        moved["gate"] = replace(item.gate, dictionary=item.gate.dictionary.on(device))
    return altered(item, **moved) if moved else item


def _widths(item: Item) -> Iterator[int]:
    """The widths of everything an item brings to its site."""
    if isinstance(item, Add):
        yield item.direction.shape[0]
    elif item.dictionary is not None:
        yield item.dictionary.d_model
    if isinstance(item, Edit) and item.gate is not None:
        yield item.gate.dictionary.d_model


class Run:
    """What happens to a plan in one attachment to a model: applies it site by site and keeps what taps saw."""

    def __init__(self, plan: Plan):
        self.plan = plan
        self.records: dict[Tap, list[Record]] = {item: [] for item in plan if isinstance(item, Tap)}
        self._measured: dict[Add, float] = {}
        self._met: set[Item] = set()

    def visit(self, site: Site, x: Tensor, moment: Moment) -> Tensor:
        """Let the plan's items at a site act on `x [batch, tokens, d_model]`; returns the stream that goes on.

        Returns `x` itself where nothing changed.
        """
        visit = SitePass(x, moment)
        for item in self.plan:
            if item.site != site:
                continue
            if item.window.holds(moment.sigma):
                self._met.add(item)
            if isinstance(item, Tap):
                if (record := visit.record(item, x)) is not None:
                    self.records[item].append(record)
            elif isinstance(item, Add):
                x = visit.add(item, x, self._scale(item, visit))
            elif isinstance(item, Splice):
                x = visit.splice(item, x)
            else:
                x = visit.clamp(item, x)
        return x

    def idle(self) -> list[Item]:
        """Items whose window met no step so far."""
        return [item for item in self.plan if item not in self._met]

    def _scale(self, item: Add, visit: SitePass) -> Scale | float:
        if item.scale is not None:
            return item.scale
        if item not in self._measured:
            self._measured[item] = token_scale(visit.incoming)
            logger.info(
                "the direction at %s came without a scale: measured %.4g on the unedited stream at sigma %.3f",
                item.site,
                self._measured[item],
                visit.moment.sigma,
            )
        return self._measured[item]
