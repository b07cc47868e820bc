"""Features of a value, found in drawn scenes with tokens that say which color they show."""

from types import SimpleNamespace

import numpy as np
import torch

from fluxtionary.demo.measure import measure, object_tokens
from fluxtionary.demo.scenes import FACTORS, draw, sample_scenes
from fluxtionary.dictionaries import SparseCode
from fluxtionary.evaluation.selection import find_value_features
from fluxtionary.residual import Site
from fluxtionary.residual.tokens import Tokens
from fluxtionary.training.drawn import Drawn

SITE = Site.parse("double.1.img")
COLORS = FACTORS["color"]
EVERYWHERE, BLANK = 10, 11


def code(x, moment):
    """Features are channels; the two largest are active."""
    return SparseCode(*x.topk(2))


def batch(first, pictures, blank):
    """On an object the channel of its color is 3, everywhere another 1; the last picture is to be unreadable."""
    x = torch.zeros(len(pictures), 64, 12)
    x[..., EVERYWHERE] = 1
    for i, picture in enumerate(pictures):
        reading = measure(picture)
        if reading.readable:
            x[i, torch.from_numpy(object_tokens(picture, reading)), COLORS.index(reading.color)] = 3
    if blank:
        pictures[-1] = 0
        x[-1, :, BLANK] = 5
    rows = torch.arange(len(pictures)).repeat_interleave(64)
    position = torch.arange(64).repeat(len(pictures))
    return Drawn(first, pictures, {SITE: Tokens(x.flatten(0, 1), torch.full(rows.shape, 0.5), position, rows + first)})


def test_a_feature_that_fires_on_objects_of_a_color_is_that_color_s_first():
    pictures = np.stack([draw(scene) for scene in sample_scenes(40, 0, "train")])
    drawn = [batch(0, pictures[:20], False), batch(20, pictures[20:], True)]
    found = find_value_features(SimpleNamespace(site=str(SITE), n_features=12, encode=code), drawn, "color")
    shown = {measure(picture).color for picture in pictures} - {None}
    assert found.values == tuple(COLORS) and len(shown) >= 6
    for value in shown:
        own = COLORS.index(value)
        assert found.top(value, 1) == [own] and torch.isclose(found.contrast[own, own], torch.tensor(3.0))
    # what fires on all objects speaks for no color, and unreadable pictures do not count
    common = 1 - (len(shown) - 1) / (len(COLORS) - 1)
    assert torch.allclose(found.contrast[:, EVERYWHERE][[COLORS.index(v) for v in shown]], torch.tensor(common))
    assert not found.contrast[:, BLANK].any()
    assert torch.isclose(found.density[EVERYWHERE], torch.tensor(1.0)) and 0 < found.density[BLANK] < 0.03
