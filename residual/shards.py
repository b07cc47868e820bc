"""Activation shards, schema 1: a capture on disk, described in docs/activation-shards.md.

A folder with `manifest.json` and, for each shard and each site, one safetensors file. The manifest is written last, so
it names whole files only, whatever ended the capture. Reading maps the files, checks every shape and type before a
tensor is read, and runs nothing from them.
"""

from __future__ import annotations

import bisect
import hashlib
import json
import os
import re
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from itertools import chain
from pathlib import Path
from typing import Any

import torch

from ..dictionaries.schema import shown
from .shard_files import PART, opened_shard, replace_file, shard_blocks, sync_folder, writing
from .shard_manifest import (
    DESCRIPTION,
    DTYPES,
    FORMAT,
    MANIFEST,
    MANIFEST_LIMIT,
    SCHEMA,
    Shard,
    ShardError,
    check_description,
    check_shards,
    decode_manifest,
    difference,
    manifest_bytes,
    plain,
)
from .site import Site
from .tokens import Tokens


class Shards:
    """A capture read from its folder. The manifest and the header of every file are checked here, tensors are not read.

    Attributes:
        sites, d_model, dtype: the sites, the width of each, and the type of all activations.
        model, header: whose activations these are and how they were captured, as a dictionary's header says it.
        prompts, seeds: those of picture `i`.
        grid: token rows and columns of a picture.
        batches: number of batches of the whole capture.
        done: number of batches that are here, from the first; `batches` where the capture is `complete`.
        shards: what each shard holds, in order.

    Raises `ShardError` for a folder, a manifest or a file that is not what it should be.
    """

    def __init__(self, folder: str | os.PathLike):
        self.folder = Path(folder)
        path = self.folder / MANIFEST
        data = decode_manifest(path, manifest_bytes(self.folder))
        self.sites, self.d_model = check_description(path, data)
        self.dtype = DTYPES[data["dtype"]]
        self.model: dict[str, Any] = data["model"]
        self.header: dict[str, Any] = data["header"]
        self.prompts: tuple[str, ...] = tuple(data["prompts"])
        self.seeds: tuple[int, ...] = tuple(data["seeds"])
        self.grid: tuple[int, int] = (data["grid"][0], data["grid"][1])
        self.batches: int = data["batches"]
        self.shards = check_shards(path, data, self.sites)
        self.done = self.shards[-1].end if self.shards else 0
        self.complete = self.done == self.batches
        self._ends = [shard.end for shard in self.shards]
        for shard in self.shards:
            for site in self.sites:
                with self._opened(site, shard):
                    pass

    def tokens(self, site: Site | str) -> int:
        """Number of tokens of a site that are here."""
        site = self._known(site)
        return sum(shard.files[site].tokens for shard in self.shards)

    def open(self, site: Site | str, shard: int) -> Tokens:
        """All tokens of a site in a shard: `x [n, d_model]`, `sigma` and `picture [n]` mapped, `position` as int64.

        Raises `ShardError` for a damaged file or an unknown site, `IndexError` for a shard that is not here.
        """
        if not 0 <= shard < len(self.shards):
            raise IndexError(f"{self.folder} has shards 0 to {len(self.shards) - 1}, not {shard}")
        return self._rows(self._known(site), self.shards[shard], slice(None))

    def batch(self, i: int) -> dict[Site, Tokens]:
        """Tokens of batch `i` by site, as they were captured; mapped as by `open`.

        Raises `ShardError` for a damaged file, `IndexError` for a batch that is not here.
        """
        if not 0 <= i < self.done:
            raise IndexError(f"{self.folder} has batches 0 to {self.done - 1}, not {i}")
        shard = self.shards[self.shard_of(i)]
        out = {}
        for site in self.sites:
            counts = shard.files[site].batch_tokens
            start = sum(counts[: i - shard.first])
            out[site] = self._rows(site, shard, slice(start, start + counts[i - shard.first]))
        return out

    def shard_of(self, i: int) -> int:
        """Number of the shard that batch `i` is in."""
        return bisect.bisect_right(self._ends, i)

    def verify(self, shard: int | None = None) -> None:
        """Read every file, or a shard's; raises `ShardError` naming those whose SHA-256 is not the manifest's."""
        damaged = []
        some = self.shards if shard is None else [self.shards[shard]]
        for part in chain.from_iterable(each.files.values() for each in some):
            digest = hashlib.sha256()
            try:
                with (self.folder / part.file).open("rb") as file:
                    while block := file.read(2**22):
                        digest.update(block)
            except OSError:
                digest = hashlib.sha256()
            if digest.hexdigest() != part.sha256:
                damaged.append(part.file)
        if damaged:
            remedy = "restore them from a copy, or capture again into an empty folder"
            found = f"damaged: {', '.join(damaged)}"
            raise ShardError(self.folder, "files with the manifest's checksums", found, remedy)

    def _known(self, site: Site | str) -> Site:
        if (known := Site.parse(site)) not in self.sites:
            sites = ", ".join(map(str, self.sites))
            raise ShardError(self.folder, f"one of the sites {sites}", str(known), "ask for one of these")
        return known

    def _rows(self, site: Site, shard: Shard, rows: slice) -> Tokens:
        with self._opened(site, shard) as file:
            x, sigma, position, picture = (file.get_tensor(name)[rows] for name in Tokens._fields)
        if len(picture) and (picture.min() < 0 or picture.max() >= len(self.prompts) or position.min() < 0):
            found = f"{int(picture.min())} to {int(picture.max())}, positions from {int(position.min())}"
            expected = f"pictures 0 to {len(self.prompts) - 1} and positions from 0"
            raise ShardError(self.folder / shard.files[site].file, expected, found)
        return Tokens(x, sigma, position.long(), picture)

    def _opened(self, site: Site, shard: Shard) -> AbstractContextManager[Any]:
        part = shard.files[site]
        return opened_shard(self.folder / part.file, part.tokens, self.d_model[site], self.dtype)


class ShardWriter:
    """Writes a capture into a folder, shard by shard, and goes on where the folder has a part of the same capture.

    Batches are gathered until the fullest site has `shard_tokens` tokens; so much is held in memory, and lost when the
    capture is cut off. A capture that was cut off and resumed leaves the same bytes as one that was not.

    Args:
        folder: made where it is missing; must be empty or hold a part of this capture. Files in it that a capture cut
            off has left behind, unnamed by the manifest, are removed.
        sites, d_model: the sites, and the width of each.
        dtype: float32, float16 or bfloat16; activations are cast to it.
        model, header, prompts, seeds, grid: as `Shards` gives them back.
        batches: number of batches of the whole capture; with the last of them the capture is complete. Where the
            number is not known, more than there can be: `finish` then says how many there were.

    Attributes:
        done: number of batches safely written: the one to go on from.
        complete: whether all are.

    Raises `ShardError` for a folder that may not be written or is full, of another capture, or complete already.
    """

    def __init__(
        self,
        folder: str | os.PathLike,
        *,
        sites: Sequence[Site],
        d_model: Mapping[Site, int],
        dtype: torch.dtype,
        model: Mapping[str, Any],
        header: Mapping[str, Any],
        prompts: Sequence[str],
        seeds: Sequence[int],
        grid: tuple[int, int],
        batches: int,
        shard_tokens: int,
    ):
        if shard_tokens < 1:
            raise ValueError(f"a shard needs room for at least one token, found shard_tokens = {shard_tokens}")
        self.folder, self.dtype, self.shard_tokens = Path(folder), dtype, shard_tokens
        name = {kind: name for name, kind in DTYPES.items()}.get(dtype, str(dtype))
        width = {str(site): d for site, d in d_model.items()}
        values = ([str(site) for site in sites], width, name, dict(model), dict(header), [*prompts], [*seeds], [*grid])
        self._manifest: dict[str, Any] = {"format": FORMAT, "schema": SCHEMA} | dict(
            zip(DESCRIPTION, (plain(self.folder, value) for value in (*values, batches)), strict=True)
        )
        self._manifest |= {"shards": [], "complete": False}
        try:
            self.sites, self.d_model = check_description(self.folder, self._manifest)
        except ShardError as error:
            raise ShardError(self.folder, error.expected, error.found, "describe the capture so") from error
        self._held: list[dict[Site, Tokens]] = []
        self._closed = False
        with writing(self.folder):
            self._begin()

    def __enter__(self) -> ShardWriter:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def done(self) -> int:
        return self._manifest["shards"][-1]["batches"][1] if self._manifest["shards"] else 0

    @property
    def complete(self) -> bool:
        return self._manifest["complete"]

    def add(self, batch: Mapping[Site, Tokens]) -> None:
        """Take the next batch, batch `done` at first; writes a shard when there is enough for one, or no more to come.

        Raises `ShardError` for tokens that are not what the description says, not finite, or too large for `dtype`
        (nothing is taken then), and for a shard that cannot be written: the writer is closed then.
        """
        self._check_open()
        if batch.keys() != set(self.sites):
            wanted, found = (", ".join(map(str, sites)) for sites in (self.sites, batch))
            raise ShardError(self.folder, f"tokens of {wanted}", f"of {found}", "pass every site's")
        self._held.append({site: self._copied(site, batch[site]) for site in self.sites})
        fullest = max(sum(len(each[site].x) for each in self._held) for site in self.sites)
        if fullest >= self.shard_tokens or self.done + len(self._held) == self._manifest["batches"]:
            self._flush(self._manifest["batches"])

    def finish(self) -> None:
        """End a capture whose number of batches was not known: it is complete with those that were added.

        Without any there is no capture, and what was begun is removed, as by `discard`. Raises `ShardError` for a
        writer that is closed, and where the rest cannot be written: the writer is closed then.
        """
        if self.complete:
            return
        self._check_open()
        if added := self.done + len(self._held):
            self._flush(added)
        else:
            self.discard()

    def discard(self) -> None:
        """Remove the capture, whatever of it is written, and the folder where that leaves it empty.

        Raises `ShardError` for what cannot be removed.
        """
        self.close()
        with writing(self.folder):
            (self.folder / MANIFEST).unlink(missing_ok=True)  # first, for it names whole files only
            self._tidy(set())
            if not any(self.folder.iterdir()):
                self.folder.rmdir()

    def close(self) -> None:
        """Let go of batches that do not make a whole shard yet: the capture goes on from batch `done`."""
        self._closed = True
        self._held.clear()

    def _check_open(self) -> None:
        if self._closed or self.complete:
            raise ShardError(self.folder, "an open, incomplete capture", "a closed one", "open a new writer to go on")

    def _begin(self) -> None:
        """Start an empty folder with a manifest without shards, or check and tidy one that has a part of this."""
        self.folder.mkdir(parents=True, exist_ok=True)
        path = self.folder / MANIFEST
        if not path.exists():
            others = [entry.name for entry in self.folder.iterdir() if entry.name != MANIFEST + PART]
            if others := [name for name in others if not name.startswith(".")]:
                found = f"no {MANIFEST} but {shown(sorted(others)[0])}"
                raise ShardError(self.folder, "an empty folder, or one of this capture", found, "give another folder")
            self._bytes = _write_manifest(path, self._manifest)
            return
        self._bytes = manifest_bytes(self.folder)
        there = decode_manifest(path, self._bytes)
        check_description(path, there)
        for name in DESCRIPTION:
            if different := difference(name, there[name], self._manifest[name]):
                field, old, new = different
                remedy = "capture into another folder, or with what this one was begun with"
                raise ShardError(path, f"the same capture, {field} = {shown(new)}", f"{field} = {shown(old)}", remedy)
        shards = Shards(self.folder)
        if shards.complete:
            remedy = "read it, or capture into another folder"
            raise ShardError(self.folder, "a capture to go on with", "one that is complete", remedy)
        self._manifest = there
        self._tidy({part.file for shard in shards.shards for part in shard.files.values()})

    def _tidy(self, named: set[str]) -> None:
        """Remove what a writer of this capture left behind; anything else in the folder is the user's own."""
        sites = "|".join(re.escape(str(site)) for site in self.sites)
        own = re.compile(rf"(?:(?:{sites})-\d{{5,}}\.safetensors|manifest\.json)(?:\.part)?")
        for entry in list(self.folder.iterdir()):
            if own.fullmatch(entry.name) and entry.name not in named and entry.name != MANIFEST:
                entry.unlink()

    def _copied(self, site: Site, tokens: Tokens) -> Tokens:
        """Checked tokens in the file's types, on the CPU; what is kept is a copy."""
        width, n = self.d_model[site], len(tokens.x)
        if tokens.x.shape != (n, width) or any(column.shape != (n,) for column in tokens[1:]):
            expected = f"at {site} x [n, {width}], and sigma, position and picture [n]"
            found = f"shapes {[tuple(column.shape) for column in tokens]}"
            raise ShardError(self.folder, expected, found, "pass tokens of the width described")
        kinds = (self.dtype, torch.float32, torch.int32, torch.int64)
        out = Tokens(*(c.detach().to("cpu", kind, copy=True) for c, kind in zip(tokens, kinds, strict=True)))
        for part, most in ((out.picture, len(self._manifest["prompts"]) - 1), (tokens.position, 2**31 - 1)):
            if n and not 0 <= int(part.min()) <= int(part.max()) <= most:
                found = f"{int(part.min())} to {int(part.max())}"
                raise ShardError(self.folder, f"numbers from 0 to {most} at {site}", found, "number them from 0")
        if n * width and not all(bool(torch.isfinite(end)) for end in (*out.x.aminmax(), *out.sigma.aminmax())):
            largest = float(tokens.x.detach().abs().max())
            remedy = "capture in bfloat16 or float32, unless the model itself overflowed"
            expected = f"finite activations at {site} in {self._manifest['dtype']}"
            raise ShardError(self.folder, expected, f"a largest one of {largest:.4g}", remedy)
        return out

    def _flush(self, batches: int) -> None:
        """Write what is held, and a manifest that names it, of a capture of so many batches; else close."""
        path = self.folder / MANIFEST
        try:
            with writing(self.folder):
                if path.read_bytes() != self._bytes:
                    remedy = "let one capture at a time write in a folder"
                    raise ShardError(path, "the manifest that this capture wrote", "another one", remedy)
                end = self.done + len(self._held)
                shards = [*self._manifest["shards"], *([self._shard(end)] if self._held else [])]
                manifest = {**self._manifest, "batches": batches, "shards": shards, "complete": end == batches}
                self._bytes = _write_manifest(path, manifest)
        except BaseException:
            self.close()
            raise
        self._manifest = manifest
        self._held.clear()

    def _shard(self, end: int) -> dict[str, Any]:
        """Write the files of what is held, up to batch `end`; returns what the manifest says of them."""
        number, files = len(self._manifest["shards"]), {}
        for site in self.sites:
            parts = [batch[site] for batch in self._held]
            name = f"{site}-{number:05d}.safetensors"
            digest = replace_file(self.folder / name, shard_blocks(parts, self.d_model[site], self.dtype))
            counts = [len(part.x) for part in parts]
            files[str(site)] = {"file": name, "tokens": sum(counts), "batch_tokens": counts, "sha256": digest}
        sync_folder(self.folder)
        return {"batches": [self.done, end], "files": files}


def _write_manifest(path: Path, manifest: dict[str, Any]) -> bytes:
    data = json.dumps(manifest).encode()
    if len(data) > MANIFEST_LIMIT:
        found = f"one of {len(data)}"
        raise ShardError(path, f"a manifest of at most {MANIFEST_LIMIT} bytes", found, "split the capture in several")
    replace_file(path, [data])
    sync_folder(path.parent)
    return data
