"""Evolution over captions, and what counts as nullified or reversed: with a model that is made up."""

import numpy as np
import pytest

from fluxtionary.demo.captions import WORDS
from fluxtionary.demo.measure import UNREADABLE, Reading
from fluxtionary.demo.scenes import FACTORS
from fluxtionary.evaluation.adversarial import (
    Evolution,
    Search,
    evolve,
    grammatical,
    naming,
    study_adversarial,
)
from fluxtionary.evaluation.cases import Case, Judged, sample_cases

PICTURE = np.zeros((1, 1, 3), np.uint8)
VOCABULARY = ["a", "ring", "cross", "tan"]


def searches(*starts):
    return [Search("red", tuple(start.split()), 100 * i) for i, start in enumerate(starts)]


def test_evolution_climbs_and_asks_about_no_words_twice():
    asked = []

    def score(wanted):
        asked.extend(wanted)
        return [words.count("ring") / len(words) for _, words in wanted]

    config = Evolution(population=8, generations=12)
    best = evolve(searches("a small circle", "a square"), score, VOCABULARY, config, seed=0)
    assert [words.count("ring") / len(words) for words in best] > [0.8, 0.8]
    assert len(asked) == len(set(asked)) <= 2 * 8 * 12


def test_captions_stay_within_vocabulary_and_length():
    seen = []
    config = Evolution(population=6, generations=8, longest=5)
    evolve(
        searches("a small circle"),
        lambda wanted: [len(w) for _, w in wanted if not seen.append(w)],
        VOCABULARY,
        config,
        1,
    )
    assert {word for words in seen for word in words} <= {*VOCABULARY, "a", "small", "circle"}
    assert max(map(len, seen)) == 5 and min(map(len, seen)) >= 1


def test_the_same_seed_finds_the_same():
    def run(seed):
        return evolve(
            searches("a small circle"), lambda w: [hash(x[1][0]) % 7 for x in w], VOCABULARY, Evolution(), seed
        )

    assert run(3) == run(3)


def test_a_value_is_named_before_the_noun():
    assert naming(("a", "small", "circle"), "red") == ("a", "small", "red", "circle")
    assert naming(("tan", "on"), "red") == ("red", "tan", "on")


@pytest.mark.parametrize(
    ("caption", "right"),
    [
        ("a small ring on a tan background", True),
        ("small ring tan background", True),
        ("ring small a", False),
        ("a ring cross", False),
    ],
)
def test_grammar_is_that_of_training_captions(caption, right):
    assert grammatical(tuple(caption.split())) is right


class Made:
    """An easel: a steer hits unless the caption has the word "ring"; unsteered pictures are red where it has "tan"."""

    def __init__(self):
        self.seeds = set()

    def judged(self, case, color):
        self.seeds.add(case.seed)
        assert case.named == {}
        return Judged(case, PICTURE, Reading(color, "circle", "small", "top", "navy") if color else UNREADABLE)

    def steered(self, wanted):
        return [
            self.judged(one.case, "green" if "ring" in one.case.caption.split() else one.value) for one, _ in wanted
        ]

    def plain(self, cases):
        return [
            self.judged(one, next((v for v in FACTORS["color"] if v in one.caption.split()), None) or "green")
            for one in cases
        ]


def test_what_undoes_a_steer_is_found_and_controls_stay_quiet():
    easel, config = Made(), Evolution(searches=8, population=8, generations=12, seeds=1, fresh=3)
    cases = [
        case for case in sample_cases(60, 1, "test", never=["color"]) if case.named.get("shape", "circle") == "circle"
    ]
    found, pictures = study_adversarial(easel, None, cases, "color", config, lambda value, caption: 0.5)
    assert found["nullified"] >= 0.7 and found["natural"]["nullified"]["value"] <= 0.2
    assert found["unsteered_control"] == {"nullified": 0.0, "reversed": 0.0}
    assert found["unnatural"]["nullified"]["bits_per_word"] > found["unnatural"]["natural"]["bits_per_word"]
    assert found["unnatural"]["natural"]["grammatical"] == 1.0
    assert len(found["examples"]) == len(pictures) == 16
    colors = set(FACTORS["color"])
    assert not any(colors & set(one["caption"].split()) for one in found["examples"])
    assert all(set(one["caption"].split()) <= set(WORDS) for one in found["examples"])


def test_a_found_caption_is_judged_on_noise_that_its_search_never_saw():
    easel, config = Made(), Evolution(searches=2, population=2, generations=1, seeds=2, fresh=3)
    cases = [Case("a small circle", {}, seed) for seed in (5, 1000)]
    study_adversarial(easel, None, cases, "color", config, lambda value, caption: None)
    near = {seed for seed in easel.seeds if seed < 100_000}
    assert near == {5, 6, 1000, 1001} and len(easel.seeds) > 8
