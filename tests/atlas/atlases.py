"""A small atlas, made anew for each test."""

import numpy as np

from fluxtionary.atlas import AtlasWriter, Example, Feature, Maps, Score, Source

FINGERPRINT = "ab" * 32
GRID, SIZE, N_FEATURES, CELLS = (2, 3), (32, 48), 40, 6
CAPTIONS = (
    "a red circle on the left",
    "a blue square",
    "a red square above a café",
    "a green circle",
    "a blue circle, small",
    "a blue star",
)


def header(**changes):
    about = {"kind": "sae", "site": "double.1.img", "n_features": N_FEATURES}
    capture = {"steps": 22, "moments": 4}
    fields = {"grid": list(GRID), "size": list(SIZE), "sigmas": [0.9, 0.5], "capture": capture, "prompts": 6}
    return {"fingerprint": FINGERPRINT, "dictionary": about, **fields, **changes}


def pixels(number):
    picture = np.zeros((*SIZE, 3), np.uint8)
    picture[:, : 8 * (number % 6 + 1)] = (30 * number % 256, 200, 90)
    return picture


def maps(number):
    """Feature `number` and feature 20, which is active in all."""
    feature, token = np.array([number % 20] * 2 + [20]), np.array([1, 4, number % CELLS])
    return Maps(feature.astype(np.int32), token.astype(np.int32), np.array([0.3, 2.5, -1.0 - number], np.float32))


def features():
    source = Source("a red circle", 2**63 + 3, 0.8, 1, 2)
    scores = {"interp": Score(0.5, 0.25, 0.75, 8)}
    figures = {"pictures": 3, "density": 0.25, "mean": 0.5, "spread": 0.1, "coverage": 0.4}
    return [
        Feature(0, peak=2.5, profile=(0.25, 0.5), companions=((20, 0.75), (3, 0.125)), source=source, **figures),
        Feature(1, peak=2.0, label="blue things", explanation="All are blue.", scores=scores),
        Feature(2, peak=-3.0, density=0.125, output_score=0.5),
        Feature(20, peak=-6.0, label="any picture", explanation="Red, blue: it is active in all."),
    ]


def examples():
    return {
        0: [Example(0, 2.5, "top", 0), Example(2, 2.0, "top", 1), Example(3, 1.0, "spread", 0)],
        1: [Example(1, 2.0, "top", 0), Example(4, 1.0, "top", 1), Example(4, 1.0, "spread", 0)],
        2: [Example(2, -3.0, "top", 0)],
        20: [Example(n, -1.0 - n, "top", rank) for rank, n in enumerate((4, 3, 2, 1, 0))],
    }


def build(folder, finish=True, upto=6):
    """Pictures by twos, a checkpoint after each; picture 5 is no example of any feature."""
    with AtlasWriter.begin(folder, header()) as writer:
        for batch in range(upto // 2 if writer.finished else writer.done, upto // 2):
            for number in (2 * batch, 2 * batch + 1):
                writer.add(number, CAPTIONS[number], 1000 + number, pixels(number), maps(number))
            seen = 0 if writer.state is None else int(writer.state["seen"])
            writer.checkpoint(batch + 1, {"seen": np.array(seen + 2), "empty": np.zeros((0, 3))})
        if finish and not writer.finished:
            writer.finish(features(), examples())
    return folder
