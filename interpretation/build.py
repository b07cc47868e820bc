"""Building an atlas: one pass over pictures, from which every feature gets its figures and its examples."""

from __future__ import annotations

import hashlib
import os
import time
from dataclasses import asdict
from typing import Any

from tqdm import tqdm

from ..atlas import Atlas, AtlasWriter
from ..dictionaries import Dictionary
from ..dictionaries.fingerprint import fingerprint
from ..training.drawn import Drawn, PictureStream
from ..training.interrupt import Interrupts
from .gathering import Gatherer, Gathering


def build_atlas(
    stream: PictureStream,
    dictionary: Dictionary,
    folder: str | os.PathLike,
    config: Gathering | None = None,
    overwrite: bool = False,
    progress: bool = True,
    every_seconds: float = 60.0,
) -> Atlas:
    """An atlas of a dictionary of one of the stream's sites, whose examples are pictures of the stream.

    The same stream, dictionary and settings give the same atlas, whether the build was cut off and begun again or not;
    one that was cut off in any way goes on from its last checkpoint, and a finished one is opened. Memory does not grow
    with the number of pictures, nor does the folder beyond the pictures that are an example of some feature. Output
    scores are not part of it: see `output_score`.

    Args:
        folder: empty or not there, or with the part of this atlas that was built before.
        overwrite: replace the atlas that is there, finished or not.
        every_seconds: from one checkpoint to the next.

    Raises:
        AtlasError: where the folder holds anything else, or cannot be written.
        KeyboardInterrupt: when interrupted, saying how to go on.
        ValueError: for a dictionary of a site that the stream has not, or of a text site.
    """
    gatherer = Gatherer(dictionary, stream.grid, stream.sigmas, config)
    if gatherer.site not in stream.sites:
        raise ValueError(
            f"the stream has tokens of {', '.join(map(str, stream.sites))}; found {gatherer.site} asked for"
        )
    header = atlas_header(stream, dictionary, gatherer.config)
    with AtlasWriter.begin(folder, header, overwrite) as writer:
        if not writer.finished:
            _build(stream, gatherer, writer, progress, every_seconds)
    return Atlas.open(folder)


def _build(
    stream: PictureStream, gatherer: Gatherer, writer: AtlasWriter, progress: bool, every_seconds: float
) -> None:
    if writer.state is not None:
        gatherer.restore(writer.state)
    try:
        _pass(stream, gatherer, writer, progress, every_seconds)
    except KeyboardInterrupt:
        done = f"{writer.done} of {len(stream)} batches are kept"
        raise KeyboardInterrupt(f"{done} in {writer.folder}, and the same command goes on from them") from None
    writer.finish(gatherer.features(), gatherer.examples())


def atlas_header(stream: PictureStream, dictionary: Dictionary, config: Gathering) -> dict[str, Any]:
    """What an atlas says of itself: whose it is, and what it was made from, so that a build goes on with its own."""
    seeds = hashlib.sha256(" ".join(map(str, stream.seeds)).encode()).hexdigest()
    return {
        "fingerprint": fingerprint(dictionary),
        "dictionary": {
            "kind": dictionary.kind,
            "site": dictionary.site,
            "n_features": dictionary.n_features,
            "model": dict(dictionary.model),
        },
        "model": dict(stream.model),
        "grid": list(stream.grid),
        "size": list(stream.size),
        "sigmas": list(stream.sigmas),
        "prompts": len(stream.prompts),
        "capture": dict(stream.header) | {"seeds_sha256": seeds, "batches": len(stream)},
        "examples": asdict(config),
    }


def _pass(stream: PictureStream, gatherer: Gatherer, writer: AtlasWriter, progress: bool, every_seconds: float) -> None:
    """Take in the batches that are not in yet; those that are when it ends, in whatever way, are safe."""
    interrupts, done = Interrupts(), writer.done
    bar = tqdm(total=len(stream), initial=done, desc="atlas", unit="batch", mininterval=1, disable=not progress)
    started, saved, pictures = time.monotonic(), time.monotonic(), 0
    with bar, interrupts.listening():
        try:
            for drawn in stream.batches(done):
                with interrupts.uninterrupted():
                    _add(drawn, stream, gatherer, writer)
                    done, pictures = done + 1, pictures + len(drawn.pictures)
                    if time.monotonic() - saved >= every_seconds:
                        _save(gatherer, writer, done)
                        saved = time.monotonic()
                bar.set_postfix_str(f"{pictures / (time.monotonic() - started):.2f} pictures/s", refresh=False)
                bar.update()
        except KeyboardInterrupt:
            if done > writer.done:
                _save(gatherer, writer, done)
            raise
    if done < len(stream):
        raise ValueError(f"expected {len(stream)} batches from the stream, found {done}: draw the rest again")


def _add(drawn: Drawn, stream: PictureStream, gatherer: Gatherer, writer: AtlasWriter) -> None:
    maps = gatherer.add(drawn)
    for number in gatherer.wanted(drawn.first).tolist():
        place = number - drawn.first
        writer.add(number, stream.prompts[number], stream.seeds[number], drawn.pictures[place], maps[place])


def _save(gatherer: Gatherer, writer: AtlasWriter, done: int) -> None:
    writer.kept(gatherer.wanted().tolist())
    writer.checkpoint(done, gatherer.state())
