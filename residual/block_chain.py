"""Chaining a plan into Flux blocks that a host lets others replace, as pure functions on plain dicts and callables.

The contract is ComfyUI's: `dit[("double_block", i)]` is called with the block's arguments (`img`, `txt`, ...) and
`{"original_block": callable}`, and returns `{"img": ..., "txt": ...}`; `("single_block", i)` is the same without
`txt`, its `img` being text, picture and reference tokens in one row. What others have put there still runs, inside
ours. Nothing here knows a host.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from .moment import WHOLE, Area, Moment, Row
from .plan import Run, Stopped
from .site import Site

BlockKey = tuple[str, int]
Block = Callable[[dict[str, Any], dict[str, Any]], dict[str, Any]]
Listen = Callable[[Site, Callable[[Tensor], None]], AbstractContextManager[None]]
"""Calls back with the hidden MLP units `[batch, tokens, units]` of a site's block while the context is open."""


@dataclass
class Call:
    """One call of the model: what is known of it, and which blocks it has reached."""

    moment: Moment
    image_tokens: int
    text_tokens: int = 0
    reached: set[BlockKey] = field(default_factory=set)
    stop: BlockKey | None = None
    """The block after which the call ends: `Stopped` is raised there."""


def block_key(site: Site) -> BlockKey:
    return f"{site.stage}_block", site.block


def token_grid(height: int, width: int, patch: int) -> tuple[int, int]:
    """Token rows and columns of a latent `height` by `width`, which the model pads to whole patches."""
    return -(-height // patch), -(-width // patch)


def batch_rows(chunks: Sequence[tuple[str, Area]], batch: int) -> tuple[Row, ...]:
    """What each batch row is: rows come in equal chunks, one for each conditioning `(role, area)` that is computed."""
    pictures, rest = divmod(batch, max(len(chunks), 1))
    if rest or not chunks:
        raise ValueError(f"expected a batch of {len(chunks)} equal chunks, found {batch} rows")
    return tuple(Row(role, picture, area) for role, area in chunks for picture in range(pictures))


def crop_area(crop: Sequence[int] | None, height: int, width: int) -> Area:
    """Where a crop `(height, width, y, x)`, in latent pixels, lies in a latent, as shares of it; None is all of it."""
    if crop is None:
        return WHOLE
    tall, wide, y, x = crop
    return (y / height, x / width, tall / height, wide / width)


def chain(dit: Mapping[BlockKey, Block], sites: Iterable[Site], run: Run, call: Call, listen: Listen) -> dict:
    """A copy of `dit` in which the blocks of `sites` run as before and then let `run` act on their output."""
    wanted: dict[BlockKey, list[Site]] = {}
    for site in sites:
        if site.stage == "single":
            wanted.setdefault(("double_block", 0), [])  # to learn how long the text is, which others may have changed
        wanted.setdefault(block_key(site), []).append(site)
    blocks = dict(dit)
    for key, own in wanted.items():
        blocks[key] = _around(blocks.get(key), key, own, run, call, listen)
    return blocks


def _around(inner: Block | None, key: BlockKey, sites: list[Site], run: Run, call: Call, listen: Listen) -> Block:
    read = _Double if key[0] == "double_block" else _Single

    def block(args: dict[str, Any], extra: dict[str, Any]) -> dict[str, Any]:
        call.reached.add(key)
        # blocks may add to their input in place
        before = {site: read(args, call).get(site).clone() for site in sites if site.part == "update"}
        units: dict[Site, Tensor] = {}
        with ExitStack() as stack:
            for site in sites:
                if site.part == "mlp":
                    stack.enter_context(listen(site, _keeper(units, site)))
            out = dict(inner(args, extra) if inner else extra["original_block"](args))
        if "txt" in out:
            call.text_tokens = out["txt"].shape[1]
        streams = read(out, call)
        for site in sites:
            if site.part == "update":
                run.visit(site, streams.get(site) - before[site], call.moment)
            elif site.part == "mlp":
                if site in units:  # a patch may have replaced the block altogether
                    run.visit(site, streams.own_units(site, units[site]), call.moment)
            else:
                stream = streams.get(site)
                changed = run.visit(site, stream, call.moment)
                if changed is not stream:
                    streams.put(site, changed)
        if key == call.stop:
            raise Stopped
        return out

    return block


@contextmanager
def hearing(module: Any, receive: Callable[[Tensor], None]) -> Iterator[None]:
    """Calls back with what a module puts out while the context is open."""
    handle = module.register_forward_hook(lambda _module, _args, output: receive(output))
    try:
        yield
    finally:
        handle.remove()


def _keeper(units: dict[Site, Tensor], site: Site) -> Callable[[Tensor], None]:
    def keep(found: Tensor) -> None:
        units[site] = found.clone()

    return keep


class _Double:
    """The two streams of a double block's arguments or output; reference tokens after the picture's stay out."""

    def __init__(self, values: dict[str, Any], call: Call):
        self.values, self.call = values, call

    def _range(self, site: Site) -> tuple[str, int]:
        return (site.stream, self.call.image_tokens if site.stream == "img" else self.values["txt"].shape[1])

    def get(self, site: Site) -> Tensor:
        name, count = self._range(site)
        return self.values[name][:, :count]

    def put(self, site: Site, stream: Tensor) -> None:
        name, count = self._range(site)
        rest = self.values[name][:, count:]
        self.values[name] = torch.cat([stream, rest], 1) if rest.shape[1] else stream

    def own_units(self, site: Site, units: Tensor) -> Tensor:
        return units[:, : self.call.image_tokens] if site.stream == "img" else units


class _Single:
    """The two streams of a single block's `img`: text, then picture, then reference tokens."""

    def __init__(self, values: dict[str, Any], call: Call):
        self.values, self.call = values, call

    def _range(self, site: Site) -> slice:
        text = self.call.text_tokens
        return slice(text, text + self.call.image_tokens) if site.stream == "img" else slice(0, text)

    def get(self, site: Site) -> Tensor:
        return self.values["img"][:, self._range(site)]

    def put(self, site: Site, stream: Tensor) -> None:
        whole, own = self.values["img"], self._range(site)
        self.values["img"] = torch.cat([whole[:, : own.start], stream, whole[:, own.stop :]], 1)

    def own_units(self, site: Site, units: Tensor) -> Tensor:
        return units[:, self._range(site)]
