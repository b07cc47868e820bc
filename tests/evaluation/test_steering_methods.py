"""Directions from pairs, dictionaries and text embeddings, and the settings that methods may choose among."""

from itertools import combinations

import torch
import torch.nn.functional as F

from fluxtionary.demo.captions import named_factors
from fluxtionary.demo.scenes import FACTORS
from fluxtionary.dictionaries import Neurons, Scale
from fluxtionary.dictionaries.contrast import direction_of
from fluxtionary.dictionaries.scale import BINS
from fluxtionary.evaluation.cases import Case, sample_cases
from fluxtionary.evaluation.harness import PROMPT_EDIT, Candidate
from fluxtionary.evaluation.selection import ValueFeatures
from fluxtionary.evaluation.steering import Target
from fluxtionary.evaluation.steering_methods import (
    Directions,
    Rule,
    Way,
    at_random,
    choices,
    contrast_choices,
    feature_directions,
    of_random_features,
    pair_directions,
    text_embedding,
)
from fluxtionary.evaluation.steering_study import SteeringStudy, pair_cases
from fluxtionary.evaluation.text_shift import Shift, ShiftedText, TextEasel, shifted, text_shifts
from fluxtionary.evaluation.value_pairs import watch_values, wordings
from fluxtionary.residual import Site
from fluxtionary.training.embeddings import embed
from fluxtionary.training.sampling import Sampling

COLORS = FACTORS["color"]
IMAGE, TEXT = Site.parse("double.1.img"), Site.parse("double.0.txt")


def to_sigma(share):
    return 1 - share


def test_wordings_differ_in_the_value_alone():
    for case in sample_cases(20, 1, "train", always=["color"]):
        named = [named_factors(caption) for caption in wordings(case, "color")]
        assert [one["color"] for one in named] == list(COLORS)
        assert all({**one, "color": ""} == {**case.named, "color": ""} for one in named)


def test_pairs_never_name_a_whole_scene():
    cases = pair_cases(100)
    assert len(cases) == 100 and all("color" in case.named and len(case.named) < 5 for case in cases)


def test_pairs_of_every_value_are_watched_once_and_taken_apart(random_flux):
    cases = pair_cases(3)
    sides = watch_values(random_flux, cases, "color", [IMAGE, TEXT])
    assert sides.sites == [IMAGE, TEXT] and len(sides.meters[IMAGE].sides()) == 3 * len(COLORS)
    for number, pair in enumerate(sides.pairs("green")):
        assert pair.positive == sides.captions[number][COLORS.index("green")]
        assert pair.negative in sides.captions[number] and pair.negative != pair.positive
    assert len({named_factors(pair.negative)["color"] for pair in sides.pairs("green")}) == 3
    own = sides.meters[TEXT].sides()[COLORS.index("green") :: len(COLORS)]
    assert torch.equal(sides.directions(TEXT)["green"], direction_of(own))
    assert torch.equal(sides.directions(TEXT, slice(1, 3))["green"], direction_of(own[1:3]))
    probe = sides.directions(TEXT, method="probe")["green"]
    assert not torch.allclose(probe, direction_of(own)) and torch.isclose(probe.norm(), direction_of(own).norm())
    vector = sides.vector(TEXT, "green")
    assert vector.provenance.training["prompts"]["positive"] == [pair.positive for pair in sides.pairs("green")]
    (directions,) = (one for one in pair_directions(sides) if one.site == TEXT)
    assert vector.sites == (str(TEXT),)
    assert torch.equal(vector.directions[str(TEXT)], directions.by_value["green"].float())


def found_features():
    contrast = torch.zeros(len(COLORS), 48)
    for i in range(len(COLORS)):
        contrast[i, [3 * i, 3 * i + 1]] = torch.tensor([3.0, 1.0])
    return ValueFeatures(COLORS, contrast, torch.linspace(0.01, 0.2, 48))


def test_directions_of_features_are_less_the_mean_of_all_values(dictionary):
    one, two = feature_directions(dictionary, found_features(), (1, 2))
    assert one.about == {"features": 1} and two.site == IMAGE and one.scale is dictionary.scale
    units = {value: F.normalize(dictionary.direction(3 * i), dim=0) for i, value in enumerate(COLORS)}
    mean = torch.stack(list(units.values())).mean(0)
    assert torch.allclose(one.by_value["red"], units["red"] - mean, atol=1e-6)
    assert torch.stack(list(two.by_value.values())).sum(0).abs().max() < 1e-5


def test_neurons_are_added_where_their_block_writes():
    units = Neurons("double.1.img.mlp", torch.randn(48, 128, generator=torch.Generator().manual_seed(0)), 8)
    flat = Scale(torch.ones(BINS))
    (made,) = feature_directions(units, found_features(), (1,), flat)
    assert made.site == IMAGE and made.scale is flat
    (edit,) = made.candidate(Rule(0.5, 0.25, 0.75), to_sigma).plan("red")
    assert edit.window.holds(0.5) and not edit.window.holds(0.8) and not edit.window.holds(0.2)


def test_a_choice_is_a_candidate_that_says_what_it_does(dictionary):
    made = feature_directions(dictionary, found_features(), (1, 2))
    way = Way("feature", choices(made, (0.2, 0.4), (0.5, 1.0)), to_sigma)
    assert len(way.method.candidates) == len(way.choices) == 8
    candidate, choice = way.method.candidates[5], way.choices[5]
    expected = {"site": "double.1.img", "strength": 0.2, "start": 0.0, "end": 1.0, "features": 2}
    assert candidate.settings == expected and choice.rule == Rule(0.2)
    (edit,) = candidate.plan("blue")
    assert torch.equal(edit.direction, made[1].by_value["blue"]) and edit.strength == 0.2


def test_controls_choose_among_as_many_settings_of_the_same_kind(dictionary):
    made = feature_directions(dictionary, found_features(), (1,))
    like = contrast_choices(made, (0.3, 0.6), (9.0,), (0.5, 1.0))
    assert [one.rule.strength for one in like] == [0.3, 0.3, 0.6, 0.6]
    for drawn in (at_random(like, "color", 128), of_random_features(like, dictionary, found_features())):
        assert [(one.rule, one.directions.site) for one in drawn] == [(one.rule, one.directions.site) for one in like]
        assert all(one.directions.by_value.keys() == set(COLORS) for one in drawn)
    drawn = at_random(like, "color", 128)
    rows = torch.stack([row for one in drawn for row in one.directions.by_value.values()])
    assert (F.normalize(rows, dim=1) @ F.normalize(rows, dim=1).T).fill_diagonal_(0).abs().max() < 0.5


def test_text_shifts_point_from_other_captions_to_those_of_a_value(random_flux):
    captions = [wordings(case, "color") for case in pair_cases(4)]
    shifts = text_shifts(random_flux, captions, "color")
    x = embed(random_flux, [words for one in captions for words in one]).pooled.float()
    usual = (x - x.mean(0)).square().sum(1).mean().sqrt()
    assert torch.isclose(shifts["red"].pooled.norm(), usual, rtol=1e-4)
    along = x @ shifts["red"].pooled
    assert along.unflatten(0, (4, 8)).mean(0).argmax() == COLORS.index("red")
    both, pooled = text_embedding(shifts, (0.5,)).candidates[2], text_embedding(shifts, (0.5,)).candidates[1]
    assert torch.allclose(both.shift("red").prompt, 0.5 * shifts["red"].prompt)
    assert pooled.shift("red").prompt.abs().max() == 0 and pooled.settings == {"strength": 0.5, "part": "pooled"}


def test_each_picture_is_told_its_own_shift_and_only_inside(random_flux, draw):
    prompts, (d, pooled) = ["a red circle", "a circle"], (128, 64)
    nothing, much = Shift(torch.zeros(d), torch.zeros(pooled)), Shift(torch.ones(d), torch.ones(pooled))
    plain = draw(random_flux, prompts)
    for first in (nothing, None):
        with shifted(random_flux, [first, much]):
            told = draw(random_flux, prompts)
        assert torch.equal(plain[0], told[0]) and not torch.allclose(plain[1], told[1])
    with shifted(random_flux, [None, None]):
        assert torch.equal(draw(random_flux, prompts), plain)
    assert torch.equal(draw(random_flux, prompts), plain)


def test_the_plan_of_pictures_fits_its_budget():
    for study in (SteeringStudy(), SteeringStudy().quick()):
        sites, ends = 6, len(study.ends)
        vectors = sites // 2 * ends * (len(study.image_strengths) + len(study.text_strengths))
        sums = len(study.counts) * len(study.feature_strengths) * ends
        for candidates in (vectors, sums, 3 * len(study.embedding_strengths)):
            rounds = (candidates - 1).bit_length()
            assert candidates * rounds <= min(study.search, study.search_against)
        assert study.compared <= study.targets and study.against_compared <= study.against


def test_edits_shifts_and_other_captions_share_a_batch_of_a_real_model(demo_flux):
    case = Case("a circle at the center", {"shape": "circle", "position": "center"}, 5)
    target, direction = Target(case, "color", "red"), torch.randn(demo_flux.transformer.inner_dim)
    own = Directions(Site.parse("double.1.img"), {"red": direction}, Scale(torch.ones(BINS)))
    shift = Shift(2 * torch.ones(demo_flux.transformer.config.joint_attention_dim), 2 * torch.ones(64))
    candidates = [
        own.candidate(Rule(100.0), to_sigma),
        ShiftedText(shift=lambda _: shift),
        PROMPT_EDIT.candidates[0],
        Candidate(),
    ]
    easel = TextEasel(demo_flux, Sampling(steps=3, batch=4))
    together = [one.picture.astype(int) for one in easel.steered([(target, one) for one in candidates])]
    for picture, candidate in zip(together, candidates, strict=True):
        (alone,) = TextEasel(demo_flux, Sampling(steps=3)).steered([(target, candidate)])
        assert abs(picture - alone.picture).max() <= 3  # other batches round another way
    assert all(abs(one - other).max() > 30 for one, other in combinations(together, 2))
