"""What a rule makes of the features that were found: edits of one site, from dictionary features alone."""

import pytest
import torch
import torch.nn.functional as F

from fluxtionary.evaluation.recipes import (
    Recipe,
    contrast,
    feature_plan,
    features,
    one_feature,
    one_feature_plan,
    random_directions,
    random_feature,
    random_features,
)
from fluxtionary.evaluation.selection import ValueFeatures
from fluxtionary.residual import Site, Window


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


def test_controls_have_as_many_candidates_as_rules_and_no_two_alike(dictionary, found):
    rules = [Recipe(3, 0.3), Recipe(8, 0.4)]
    for make in (random_directions, random_features):
        method = make(dictionary, found, rules)
        assert [c.settings["strength"] for c in method.candidates] == [0.3, 0.4]
        edits = [next(iter(c.plan(value))) for c in method.candidates for value in found.values]
        directions = {tuple(edit.direction.tolist()) for edit in edits}
        assert len(directions) == len(edits) or make is random_features
        again = [next(iter(c.plan(value))) for c in method.candidates for value in found.values]
        assert all(torch.equal(one.direction, other.direction) for one, other in zip(edits, again, strict=True))
        assert [edit.strength for edit in edits] == [0.3] * 3 + [0.4] * 3


def test_methods_are_plans_by_value(dictionary, found):
    rule = Recipe(2, 0.4, Window(end=0.4))
    (candidate,) = features(dictionary, found, [rule]).candidates
    (edit,), (expected,) = candidate.plan("red"), feature_plan(dictionary, found, "red", rule)
    assert torch.equal(edit.direction, expected.direction) and candidate.settings == rule.describe()
    (candidate,) = one_feature(dictionary, found, [rule]).candidates
    assert candidate.settings == rule.describe() | {"features": 1}
    weak, strong = contrast(Site.parse("double.0.txt"), {"red": torch.ones(4)}, (0.5, 2.0)).candidates
    assert (next(iter(weak.plan("red"))).strength, next(iter(strong.plan("red"))).strength) == (0.5, 2.0)
