import numpy as np
import pytest
import torch
from sklearn.metrics import f1_score, roc_auc_score

from fluxtionary.dictionaries import Activation, SparseAutoencoder, SparseCode
from fluxtionary.interpretation.probes import fit_probe
from fluxtionary.interpretation.scene_tokens import VALUES
from fluxtionary.interpretation.truth import Entries, measure_truth

from .planted import SITE, column, planted

WIDE = len(VALUES)


def dictionary_of(encoder, k=6, relu=True):
    return SparseAutoencoder(
        site=str(SITE),
        encoder=encoder,
        encoder_bias=torch.zeros(len(encoder)),
        decoder=encoder.clone(),
        decoder_bias=torch.zeros(encoder.shape[1]),
        activation=Activation("topk", k, relu=relu),
    )


@pytest.fixture(scope="module")
def scenes():
    train, test = planted(70, 0), planted(40, 1, "test")
    return train, test, fit_probe(train, SITE)


@pytest.fixture(scope="module")
def mixed():
    """Features of red, of red or blue, of any background, of green with a negative sign, and one of nothing."""
    encoder = torch.zeros(5, WIDE)
    encoder[0, column("color", "red")] = 1
    encoder[1, [column("color", "red"), column("color", "blue")]] = 1
    encoder[2, [i for i, (factor, _) in enumerate(VALUES) if factor == "background"]] = 1
    encoder[3, column("color", "green")] = -1
    return dictionary_of(encoder, k=5, relu=False)


@pytest.fixture(scope="module")
def truth(mixed, scenes):
    return measure_truth(mixed, *scenes)


def dense(dictionary, tokens):
    return dictionary.encode(tokens.tokens[SITE].x).dense(dictionary.n_features).numpy()


def test_features_are_matched_with_the_values_they_were_planted_for(truth):
    by_number = {match.feature: match for match in truth.features}
    assert sorted(by_number) == [0, 1, 2, 3]  # the fifth is never active
    assert by_number[0].value == ("color", "red") and by_number[0].f1 > 0.95
    assert by_number[1].value in (("color", "red"), ("color", "blue")) and 0.4 < by_number[1].f1 < 0.9
    assert by_number[3].value == ("color", "green") and by_number[3].threshold < 0 and by_number[3].f1 > 0.95
    assert by_number[2].value[0] != "color"


def test_figures_are_those_of_sklearn_and_of_pixels(truth, mixed, scenes):
    test = scenes[1]
    codes = dense(mixed, test)
    for match in truth.features:
        value = VALUES.index(match.value)
        score = np.maximum(codes[:, match.feature] * np.sign(match.threshold), 0)
        yes, sure = score >= abs(match.threshold), test.counted[:, value]
        assert match.f1 == pytest.approx(f1_score(test.labels[sure, value], yes[sure]))
        assert match.auroc == pytest.approx(roc_auc_score(test.labels[sure, value], score[sure]))
        share = test.shares[:, value]
        assert match.iou == pytest.approx(share[yes].sum() / (yes.sum() + share[~yes].sum()), rel=1e-5)


def test_thresholds_are_the_best_of_training_scenes(truth, mixed, scenes):
    train = scenes[0]
    codes = dense(mixed, train)
    for match in truth.features:
        value = VALUES.index(match.value)
        sure = train.counted[:, value]
        labels, score = train.labels[sure, value], (codes[:, match.feature] * np.sign(match.threshold))[sure]
        tried = [f1_score(labels, score >= cut) for cut in np.quantile(score[score > 0], np.linspace(0, 1, 40))]
        assert match.trained == pytest.approx(f1_score(labels, score >= abs(match.threshold)))
        assert match.trained >= max(tried) - 1e-9


def test_coverage_counts_decoded_values_that_a_feature_reaches(truth):
    covered = {value.value for value in truth.values if value.covered}
    assert {("color", "red"), ("color", "green")} <= covered
    assert ("background", "black") not in covered
    assert len(truth.decoded) == WIDE  # the probe reads all planted values
    assert truth.coverage == pytest.approx(len(covered) / WIDE)


def test_a_dictionary_of_all_values_covers_them_all_and_random_directions_do_not(scenes):
    truth = measure_truth(dictionary_of(torch.eye(WIDE)), *scenes)
    assert truth.coverage == 1 and truth.best > 0.95 and truth.probe > 0.95
    assert truth.prevalence < 0.2 and truth.random_direction < 0.7
    assert truth.f1_mean > 0.9 and truth.iou_mean > 0.5


def test_a_dictionary_of_another_site_is_refused(scenes):
    other = dictionary_of(torch.eye(WIDE))
    other.site = "double.0.img"
    with pytest.raises(ValueError, match="expected scene tokens of it, found those of double.1.img"):
        measure_truth(other, *scenes)


def test_choice_and_threshold_know_nothing_of_held_out_scenes(mixed, scenes):
    train, test, probe = scenes
    other = measure_truth(mixed, train, planted(40, 9, "unseen"), probe)
    first = measure_truth(mixed, train, test, probe)
    chosen = [[match[:4] for match in truth.features] for truth in (first, other)]
    assert chosen[0] == chosen[1]


def test_entries_are_in_order_and_without_padding():
    code = SparseCode(torch.tensor([[2.0, 0.0], [-1.0, 3.0]]), torch.tensor([[1, 0], [1, 0]]))
    found = Entries.of(code)
    assert (
        found.detector.tolist() == [0, 2, 3] and found.size.tolist() == [3, 2, 1] and found.token.tolist() == [1, 0, 1]
    )
