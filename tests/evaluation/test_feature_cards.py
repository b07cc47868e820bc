import base64
import io

import numpy as np
import pytest
from PIL import Image

from fluxtionary.atlas import AtlasWriter, Example, Feature, Score, Source
from fluxtionary.atlas.entries import Maps
from fluxtionary.evaluation.feature_cards import feature_cards, shown

GRAY = np.full((32, 48, 3), 128, np.uint8)
HEADER = {
    "fingerprint": "0" * 64,
    "dictionary": {"kind": "itda", "site": "double.1.img", "n_features": 12, "model": {}},
    "grid": [4, 6],
    "size": [32, 48],
    "sigmas": [0.5],
    "capture": {},
}
VALUES = {0: 0.5, 1: 0.9, 2: 0.7, 3: 0.9, 4: 0.6, 5: 0.8, 6: 0.55, 7: None}
"""Interpretation scores of features; nobody judged the last one."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("cards") / "atlas"
    numbers = np.array([*VALUES], np.int32)
    with AtlasWriter.begin(folder, HEADER) as writer:
        for picture in range(6):
            values = np.linspace(1, 2, len(numbers), dtype=np.float32) + picture
            writer.add(picture, f"picture {picture}", picture, GRAY, Maps(numbers, numbers, values))
        features = [
            Feature(
                number,
                pictures=6,
                density=0.01 * number,
                peak=8.0,
                label=f"label {number}",
                source=Source("a ring" if number else "", 3, 0.25, 1, 2),
                scores={} if score is None else {"interp": Score(score, 0.0, 1.0, 10), "region": Score(0.3, 0, 1, 2)},
            )
            for number, score in VALUES.items()
        ]
        top = [Example(5 - rank, 6.0 - rank, "top", rank) for rank in range(6)]
        writer.finish(features, dict.fromkeys(VALUES, top))
    return folder


def test_the_best_the_middle_and_the_worst_are_shown_in_their_order(folder):
    cards = feature_cards(folder, [*VALUES], lambda source: GRAY)
    assert [(card.number, card.rank) for card in cards] == [
        (1, "best"),
        (3, "best"),  # as good: the lower number first
        (5, "middle"),
        (2, "middle"),
        (6, "worst"),
        (0, "worst"),
    ]
    assert cards[3].scores == {"interp": 0.7, "region": 0.3}
    assert (cards[3].label, cards[3].density) == ("label 2", pytest.approx(0.02))


def test_only_judged_features_of_those_asked_for_are_shown_and_none_twice(folder):
    assert [card.number for card in feature_cards(folder, [7, 5, 4], lambda source: GRAY)] == [5, 4]
    assert feature_cards(folder, [7], lambda source: GRAY) == []
    assert len(feature_cards(folder, [*VALUES], lambda source: GRAY, each=1)) == 3


def test_pictures_are_the_strongest_with_their_heat_maps(folder):
    (card,) = feature_cards(folder, [4], lambda source: GRAY)
    assert card.captions == [f"picture {n}" for n in (5, 4, 3, 2)] and len(card.pictures) == 4
    heat = decoded(card.pictures[0]).astype(int)
    changed = np.abs(heat - 128).max(-1) > 16
    assert changed[0:8, 32:40].all() and not changed[16:, :].any()  # token 4 of a row of 6


def test_an_atoms_source_is_told_and_its_token_framed(folder):
    asked = []
    (card,) = feature_cards(folder, [4], lambda source: asked.append(source) or GRAY)
    assert asked == [Source("a ring", 3, 0.25, 1, 2)]
    assert card.source == "“a ring”, seed 3, row 1, column 2, sigma 0.25"
    (bare,) = feature_cards(folder, [0], lambda source: GRAY)
    assert bare.source.startswith("“no caption”, seed 3")
    expected = GRAY.copy()
    for inset, color in ((0, 0), (1, 255)):
        expected[8 + inset : 16 - inset, 16 + inset : 24 - inset] = color
    expected[10:14, 18:22] = 128
    assert np.array_equal(decoded(card.source_picture), expected)


def test_figures_are_shown_as_short_as_they_can_be():
    assert [shown(value) for value in (0.12345, -1.5, 12.345, float("nan"))] == ["0.123", "-1.500", "12.3", "no figure"]


def decoded(url):
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(url.split(",")[1]))).convert("RGB"))
