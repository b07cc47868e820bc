"""An atlas of drawn scenes with invented features, of which it is known what they show."""

from __future__ import annotations

import numpy as np

from fluxtionary.atlas import Atlas, AtlasWriter, Example, Feature
from fluxtionary.atlas.entries import Maps
from fluxtionary.demo.captions import caption_of
from fluxtionary.demo.scenes import BACKGROUNDS, COLORS, GRID, SHAPES, SIZE, draw, sample_scenes, token_coverage

SHOWN = [*COLORS, *BACKGROUNDS, *SHAPES]
"""What the first features show: a color or shape on the object, a background beside it."""
NOISE = 6
"""Features after these are active in random places of random pictures."""
N_FEATURES = 40
HEADER = {
    "fingerprint": "0" * 64,
    "dictionary": {"kind": "sae", "site": "double.1.img", "n_features": N_FEATURES, "model": {}},
    "grid": [GRID, GRID],
    "size": [SIZE, SIZE],
    "sigmas": [0.5],
    "capture": {},
}


def invented_maps(scenes, rng) -> np.ndarray:
    """Heat maps of all features: float32 `[features, pictures, tokens]`."""
    maps = np.zeros((len(SHOWN) + NOISE, len(scenes), GRID * GRID), np.float32)
    for number, scene in enumerate(scenes):
        share = token_coverage(scene).flatten()
        for value in (scene.color, scene.shape):
            maps[SHOWN.index(value), number] = share * (share > 0.3)
        maps[SHOWN.index(scene.background), number] = (share < 0.02) * (rng.random(share.shape) < 0.6)
    noise = maps[len(SHOWN) :]
    noise[rng.random(noise.shape) < 0.02] = 1
    return maps * rng.uniform(0.3, 2.0, (1, len(scenes), 1)).astype(np.float32)


def write_atlas(folder, n_scenes: int = 150, seed: int = 0) -> Atlas:
    rng = np.random.default_rng(seed)
    scenes = sample_scenes(n_scenes, seed, "test")
    maps = invented_maps(scenes, rng)
    with AtlasWriter.begin(folder, HEADER) as writer:
        for number, scene in enumerate(scenes):
            feature, token = np.nonzero(maps[:, number])
            values = Maps(feature.astype(np.int32), token.astype(np.int32), maps[feature, number, token])
            writer.add(number, caption_of(scene.factors), scene.seed, draw(scene), values)
        active = maps != 0
        together = (active.reshape(len(maps), -1).astype(np.float32)) @ active.reshape(len(maps), -1).T
        features, examples = [], {}
        for number in range(len(maps)):
            peaks = maps[number].max(1)
            there = np.flatnonzero(peaks)
            companions = [int(n) for n in np.argsort(-together[number])[:9] if n != number and together[number, n]]
            features.append(
                Feature(
                    number,
                    pictures=len(there),
                    density=float(active[number].mean()),
                    mean=float(maps[number][active[number]].mean()),
                    peak=float(peaks.max()),
                    companions=tuple((other, 0.1) for other in companions),
                )
            )
            top = there[np.argsort(-peaks[there], kind="stable")]
            spread = np.sort(rng.choice(len(top), min(20, len(top)), replace=False))
            examples[number] = [
                *(Example(int(p), float(peaks[p]), "top", rank) for rank, p in enumerate(top[:20])),
                *(Example(int(p), float(peaks[p]), "spread", rank) for rank, p in enumerate(top[spread])),
            ]
        writer.finish(features, examples)
    return Atlas.open(folder)
