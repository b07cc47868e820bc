import numpy as np
import pytest

from fluxtionary.interpretation.probes import best_threshold, f1_of, fit_probe
from fluxtionary.interpretation.scene_tokens import VALUES

from .planted import SITE, column, planted


@pytest.fixture(scope="module")
def train():
    return planted(120, 0)


@pytest.fixture(scope="module")
def probe(train):
    return fit_probe(train, SITE)


def test_a_planted_value_is_decoded_on_other_scenes(probe):
    f1 = probe.f1(planted(80, 1, "test"), SITE)
    assert f1.shape == (len(VALUES),) and f1.min() > 0.9


def test_what_is_not_there_is_not_decoded(train):
    noise = planted(120, 0, noise=30.0)
    probe = fit_probe(noise, SITE)
    assert probe.f1(planted(80, 1, "test", noise=30.0), SITE)[column("color", "red")] < 0.2


def test_it_is_the_logistic_regression_of_sklearn(train, probe):
    from sklearn.linear_model import LogisticRegression

    value = column("background", "tan")
    sure = train.counted[:, value]
    noisy = planted(120, 0, noise=0.7)
    ours = fit_probe(noisy, SITE)
    x = noisy.tokens[SITE].x
    z = ((x - ours.mean) / ours.std).numpy()
    theirs = LogisticRegression(C=1 / (2e-5 * len(z)), tol=1e-8, max_iter=2000).fit(z[sure], noisy.labels[sure, value])
    assert np.corrcoef(theirs.decision_function(z), ours.scores(x)[:, value])[0, 1] > 0.999


def test_the_threshold_is_the_best_of_all():
    rng = np.random.default_rng(0)
    scores = rng.integers(0, 12, 60) / 4.0
    labels = rng.random(60) < scores / 4
    found = best_threshold(scores, labels)
    f1 = {cut: f1_of((labels & (scores >= cut)).sum(), (scores >= cut).sum(), labels.sum()) for cut in set(scores)}
    assert f1_of((labels & (scores >= found)).sum(), (scores >= found).sum(), labels.sum()) == max(f1.values())
    assert found not in scores  # midway
    assert best_threshold(scores, np.zeros(60, bool)) == float("inf")
