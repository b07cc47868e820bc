"""The edit of one feature: what each mode makes of strength, schedule, scale and normalization."""

import pytest
import torch

from fluxtionary.dictionaries import Neurons, Normalization
from fluxtionary.residual import Ablate, Add, Clamp, PlanError, Schedule, Site, Window
from fluxtionary.residual.edits import altered
from fluxtionary.residual.mode import edit, home

SITE = Site.parse("double.1.img")
FALLING = Schedule((1.0, 0.0), (1.0, 0.0))


def test_adding_is_in_units_of_strength_where_the_scale_is_known(dictionary):
    item = edit("add", dictionary, 3, 0.4, SITE, FALLING, window=Window(end=0.5), rows="both")
    assert isinstance(item, Add) and torch.equal(item.direction, dictionary.direction(3)) and item.gain is None
    assert (item.strength, item.scale, item.schedule) == (0.4, dictionary.scale, FALLING)
    assert (item.window, item.rows) == (Window(end=0.5), "both")
    assert edit("add", dictionary, 3, 0.4, SITE._replace(stream="txt")).scale is None


def test_the_strength_of_an_ablation_is_the_share_taken_out(dictionary):
    item = edit("ablate", dictionary, 3, 0.5, SITE, FALLING)
    assert isinstance(item, Ablate) and item.targets == {3: 0.0} and item.scale is None
    assert (item.schedule.at(1.0), item.schedule.at(0.5)) == (0.5, 0.25)
    assert edit("ablate", dictionary, 3, 0.5, SITE).schedule.at(0.3) == 0.5


def test_a_clamp_sets_a_strength(dictionary):
    item = edit("clamp", dictionary, 3, 0.5, SITE)
    assert isinstance(item, Clamp) and item.targets == {3: 0.5} and item.scale is dictionary.scale


def test_a_direction_normalized_by_noise_level_carries_its_gain(dictionary):
    generator = torch.Generator().manual_seed(0)
    x, sigma = torch.randn(500, 128, generator=generator), torch.rand(500, generator=generator)
    dictionary.normalization = Normalization.fit(x, "sigma", None, sigma)
    assert edit("add", dictionary, 3, 0.5, SITE).gain is dictionary.normalization.std


def test_neurons_can_only_be_added_where_they_write():
    neurons = Neurons("double.1.img.mlp", torch.eye(8, 4), 2)
    assert home(neurons) == SITE and edit("add", neurons, 1, 0.5, SITE).scale is None
    with pytest.raises(PlanError, match="expected add for a dictionary of neurons, found clamp"):
        edit("clamp", neurons, 1, 0.5, SITE)


def test_an_edit_can_be_altered_whatever_it_is_made_of(dictionary):
    before = edit("ablate", dictionary, 3, 0.5, SITE)
    after = altered(before, pictures=frozenset({1}))
    assert type(after) is Ablate and after.targets == before.targets
    assert (after.pictures, before.pictures) == (frozenset({1}), None)
