"""What a rule makes of the features that were found: edits of one site, from dictionary features alone."""

import pytest
import torch
import torch.nn.functional as F

from fluxtionary.dictionaries import Scale
from fluxtionary.dictionaries.scale import BINS
from fluxtionary.evaluation.recipes import Recipe, feature_plan, one_feature_plan, plan_for_each, random_feature
from fluxtionary.evaluation.selection import ValueFeatures
from fluxtionary.residual import Add, Moment, Plan, Row, Run, Site, Window


@pytest.fixture
def found():
    contrast = torch.zeros(3, 48)
    contrast[0, [4, 5]] = torch.tensor([3.0, 1.0])
    contrast[1, [5, 6]] = torch.tensor([2.0, 2.0])
    contrast[2, [7, 8]] = torch.tensor([1.0, 4.0])
    return ValueFeatures(("red", "green", "blue"), contrast, torch.linspace(0.01, 0.2, 48))


def test_a_value_s_features_are_summed_less_the_mean_of_all_values(dictionary, found):
    def toward(*shares):
        return F.normalize(sum(share * dictionary.direction(feature) for feature, share in shares), dim=0)

    red, green, blue = toward((4, 3.0), (5, 1.0)), toward((5, 2.0), (6, 2.0)), toward((8, 4.0), (7, 1.0))
    (edit,) = feature_plan(dictionary, found, "red", Recipe(2, 0.4, Window(end=0.4)))
    assert torch.allclose(edit.direction, red - (red + green + blue) / 3, atol=1e-6)
    assert (str(edit.site), edit.strength, edit.window) == ("double.1.img", 0.4, Window(end=0.4))
    assert edit.scale is dictionary.scale and edit.mask is None and edit.gate is None


def test_one_feature_is_one_feature(dictionary, found):
    (edit,) = one_feature_plan(dictionary, found, "blue", Recipe(8, 0.4))
    assert torch.equal(edit.direction, dictionary.direction(8))


def test_a_random_feature_is_about_as_dense(dictionary, found):
    own = found.density[4]
    for seed in range(20):
        direction = random_feature(dictionary, found, "red", seed)
        (feature,) = [f for f in range(48) if torch.equal(direction, dictionary.direction(f))]
        assert feature != 4 and own / 2 < found.density[feature] < own * 2


def test_in_a_batch_each_picture_follows_its_own_plan():
    site = Site.parse("double.1.img")
    x = torch.randn(3, 4, 128, generator=torch.Generator().manual_seed(0))
    moment = Moment(0.5, tuple(Row("cond", i) for i in range(3)), (2, 2))
    plans = [Plan([Add(site, torch.eye(128)[i], 1.0, Scale(torch.ones(BINS)))]) for i in range(2)]
    together = Run(plan_for_each(plans, [1, 0, 1])).visit(site, x, moment)
    alone = [Run(plan).visit(site, x, moment) for plan in plans]
    assert torch.equal(together, torch.stack([alone[1][0], alone[0][1], alone[1][2]]))
