import numpy as np
import pytest

from fluxtionary.commands.find import Find
from fluxtionary.demo.captions import CaptionError, named_factors
from fluxtionary.demo.files import DICTIONARY
from fluxtionary.dictionaries import load_dictionary
from fluxtionary.interpretation.probes import fit_probe
from fluxtionary.interpretation.query import Pair, pairs_in_contexts, pairs_of_scenes, rank_features
from fluxtionary.interpretation.scene_tokens import scene_tokens
from fluxtionary.interpretation.truth import measure_truth
from fluxtionary.residual import Site
from fluxtionary.training.models import ModelError
from fluxtionary.training.sampling import Drawing, Sampling


def test_pairs_differ_by_the_phrase_alone():
    for pair in pairs_of_scenes("red circle", 20):
        phrased, plain = named_factors(pair.phrased), named_factors(pair.plain)
        assert phrased == plain | {"color": "red", "shape": "circle"}
        assert not {"color", "shape"} & plain.keys()
    assert len({pair.plain for pair in pairs_of_scenes("red circle", 20)}) > 3


def test_any_model_is_asked_in_several_contexts():
    pairs = pairs_in_contexts("a {cat}", 10)
    assert all("a {cat}" in pair.phrased and "cat" not in pair.plain for pair in pairs)
    assert len({pair.plain for pair in pairs}) == 8 and len({pair.seed for pair in pairs}) == 10


@pytest.mark.parametrize("phrase", ["a dog", "", "shape", "tan"])
def test_a_phrase_that_names_nothing_is_refused(phrase):
    with pytest.raises(CaptionError):
        pairs_of_scenes(phrase, 2)


def test_ranking_needs_pairs(random_flux, dictionary):
    with pytest.raises(ValueError, match="at least 2 pairs"):
        rank_features(random_flux, dictionary, [Pair("a", "b", 0)], Sampling())


def test_equal_prompts_move_nothing(random_flux, dictionary):
    pairs = [Pair("a red circle", "a red circle", seed) for seed in range(3)]
    assert rank_features(random_flux, dictionary, pairs, Sampling(steps=1, batch=2)) == []


def test_the_ranking_is_of_mean_codes_with_and_without(random_flux, dictionary):
    pairs = pairs_of_scenes("red", 4)
    found = rank_features(random_flux, dictionary, pairs, Sampling(steps=1, batch=3))
    again = rank_features(random_flux, dictionary, pairs, Sampling(steps=1, batch=8))
    assert [one.score for one in found] == sorted((one.score for one in found), reverse=True)
    first, second = ({one.feature: one.difference for one in ranking} for ranking in (found, again))
    assert first.keys() == second.keys()
    assert np.allclose([first[f] for f in first], [second[f] for f in first], atol=1e-5)
    turned = rank_features(
        random_flux, dictionary, [Pair(p.plain, p.phrased, p.seed) for p in pairs], Sampling(steps=1)
    )
    assert {one.feature: round(-one.difference, 4) for one in turned} == {f: round(d, 4) for f, d in first.items()}


def test_the_command_lists_what_a_phrase_raises(capsys):
    Find(DICTIONARY, "red circle", top=3, pairs=2, sampling=Drawing(steps=1)).run()
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split()[0] == "feature" and len(lines) == 4
    scores = [float(line.split()[1]) for line in lines[1:]]
    assert scores == sorted(scores, reverse=True) and scores[-1] > 0


def test_the_command_refuses_what_it_cannot_do():
    with pytest.raises(ModelError, match="pairs at least 2"):
        Find(DICTIONARY, "red", pairs=1)
    with pytest.raises(CaptionError, match="does not know 'dog'"):
        Find(DICTIONARY, "dog").run()


@pytest.mark.long
def test_what_is_found_without_labels_agrees_with_the_truth(demo_flux):
    """The feature that labels show to be a value's best is among the ten that its name finds, of 1,536."""
    dictionary = load_dictionary(DICTIONARY)
    site = Site.parse(dictionary.site)
    train, held_out = (
        scene_tokens(demo_flux, [site], n, 5, split) for n, split in ((160, "train"), (20, "validation"))
    )
    truth = measure_truth(dictionary, train, held_out, fit_probe(train, site))
    best = {value.value: value.best.feature for value in truth.values}
    for value in (("color", "green"), ("color", "orange"), ("background", "white"), ("background", "brown")):
        phrase = value[1] if value[0] == "color" else f"{value[1]} background"
        found = rank_features(demo_flux, dictionary, pairs_of_scenes(phrase, 12), Sampling(batch=24))
        assert best[value] in [one.feature for one in found[:10]], value
