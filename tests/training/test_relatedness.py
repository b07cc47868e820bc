import pytest
import torch

from fluxtionary.dictionaries import Provenance, SteeringVector
from fluxtionary.training.prompt_pairs import expand
from fluxtionary.training.relatedness import kept_pairs, relatedness

CONTEXTS = "{circle|square|triangle} on a {white|black|tan|gray} background"


def vector(pairs):
    prompts = {"positive": [pair.positive for pair in pairs], "negative": [pair.negative for pair in pairs]}
    return SteeringVector({"double.0.txt": torch.ones(192)}, provenance=Provenance(training={"prompts": prompts}))


@pytest.fixture(scope="module")
def value(demo_flux):
    red = vector(expand(f"a {{red|blue}} {CONTEXTS}"))
    return lambda prompt, of=red: relatedness(of, demo_flux, prompt).value


def test_its_own_prompts_are_related_whichever_side(value):
    assert value("a red circle on a white background") == 1
    assert value("a blue square on a tan background") == 1


def test_values_of_what_is_steered_do_not_count_and_contexts_do(value):
    new_color = value("a green circle on a white background")
    open_caption = value("a circle on a white background")
    new_combination = value("a large circle on a white background")
    elsewhere = value("a small green ring at the bottom right on a navy background")
    nothing = value("")
    assert 1 >= new_color > open_caption > 0.6 > elsewhere > nothing > 0
    assert new_combination > elsewhere


def test_it_names_the_nearest_and_says_how_many(demo_flux):
    found = relatedness(vector(expand(f"a {{red|blue}} {CONTEXTS}")), demo_flux, "a small square on a gray background")
    assert found.nearest.endswith("square on a gray background")
    assert found.prompts == 24
    assert str(found).startswith(f"{found.value:.2f} ") and found.nearest in str(found)


def test_values_of_more_than_two_do_not_make_their_own_prompts_doubles(value):
    """In three pairs of a context the positive prompt is the same: its neighbour is to be of another context."""
    several = vector(expand(f"a {{red|blue|green|pink}} {CONTEXTS}"))
    assert value("a circle on a white background", several) > 0.5
    assert value("", several) < 0.4


@pytest.mark.parametrize(
    "training",
    [
        {},
        {"prompts": None},
        {"prompts": ["a", "b"]},
        {"prompts": {"positive": ["a", "b"]}},
        {"prompts": {"positive": ["a", 3], "negative": ["c", "d"]}},
        {"prompts": {"positive": "ab", "negative": "cd"}},
        {"prompts": {"positive": ["a"], "negative": ["b"]}},
    ],
)
def test_a_file_without_two_pairs_of_prompts_says_nothing(demo_flux, training):
    empty = SteeringVector({"double.0.txt": torch.ones(192)}, provenance=Provenance(training=training))
    assert len(kept_pairs(empty)) < 2
    assert relatedness(empty, demo_flux, "a red circle") is None
