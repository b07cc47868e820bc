import json

import pytest

from fluxtionary.atlas import Atlas
from fluxtionary.commands.compare import Compare
from fluxtionary.dictionaries import load_dictionary
from fluxtionary.dictionaries.fingerprint import fingerprint
from fluxtionary.evaluation.comparison import Comparison
from fluxtionary.evaluation.contestants import WAYS, Contestant
from fluxtionary.evaluation.interpreted import drawn_features
from tests.conftest import make_dictionary


def contestant(way, seed=0, n_features=48):
    return Contestant(way, seed, make_dictionary("double.1.img", n_features=n_features), None, None, 0, 0.0)


def test_dictionaries_with_the_same_directions_are_judged_by_the_same_features():
    used = [n for n in range(48) if n % 5]
    one = drawn_features(contestant("sae"), used, 12)
    assert one == drawn_features(contestant("sae_pursuit"), used, 12)
    assert len(set(one)) == 12 and all(n % 5 for n in one)
    assert one != drawn_features(contestant("sae", seed=1), used, 12)
    assert one != drawn_features(contestant("itda"), used, 12)
    fewer = [n for n in used if n != one[3]]
    assert drawn_features(contestant("sae_pursuit"), fewer, 12)[:11] == [n for n in one if n != one[3]]
    assert len(drawn_features(contestant("sae"), used, 1000)) == len(used)


def test_every_used_feature_is_as_likely_to_be_drawn():
    used, counts = list(range(0, 48, 2)), dict.fromkeys(range(48), 0)
    for seed in range(200):
        for number in drawn_features(contestant("sae", seed), used, 6):
            counts[number] += 1
    assert all(counts[n] == 0 for n in range(1, 48, 2))
    assert all(25 <= counts[n] <= 80 for n in used)  # 50 expected


def test_too_little_is_refused():
    with pytest.raises(ValueError, match="seeds must be at least 2, found 1"):
        Comparison(seeds=1)


@pytest.mark.long
def test_a_quick_comparison_leaves_a_report_the_dictionaries_and_their_atlases(tmp_path):
    out = tmp_path / "compared"
    Compare(out=out, quick=True).run()
    figures = json.loads((out / "summary.json").read_text())
    for way in ("sae", "itda", "neurons"):
        for name in ("fvu", "l0", "used", "qualifying", "stability"):
            assert figures[way][name] is not None, (way, name)
        assert {"score", "low", "high"} <= figures[way]["interp"].keys()
        assert figures[way]["truth"].keys() >= {"f1_mean", "iou_mean", "coverage"}
    assert figures["sae"]["l0"] == pytest.approx(16, abs=0.01)
    assert figures["sae"]["fvu"] < figures["baselines"]["frozen_decoder"]["fvu"]
    assert figures["variants"]["sae_pursuit"]["fvu"] < figures["sae"]["fvu"]
    assert figures["itda"]["stability"] > figures["baselines"]["random_directions"]["stability"]
    assert figures["controls"]["constant_judge"] == 0.5
    assert 0.3 < figures["controls"]["shuffled"] < 0.7  # a few dozen judgments
    assert "Its source" in (out / "report.html").read_text() or figures["itda"]["judged"]["judged"] == 0
    for way in WAYS:
        path = out / "dictionaries" / f"{way}-0.safetensors"
        with Atlas.open(out / "atlases" / f"{way}-0", fingerprint(load_dictionary(path))) as atlas:
            assert atlas.count() > 0
            labelled = [feature for feature in atlas.features(limit=atlas.count()) if feature.label]
            assert labelled or way == "random_weight_model"
