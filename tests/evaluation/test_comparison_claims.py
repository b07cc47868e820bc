from fluxtionary.evaluation.comparison_claims import claims, findings
from fluxtionary.evaluation.comparison_figures import summary

from .findings import RATES, invented


def told(**rates):
    return summary(invented(rates=RATES | rates), 3, 200)


def test_a_difference_above_zero_is_shown_and_another_is_not_and_says_why():
    better = findings(told(sae=0.9))[0]
    assert better.shown and "Frozen random decoder" in better.text
    worse = findings(told(sae=0.6))[0]
    assert worse.shown is False
    assert "It is not shown" in worse.text and "Why" in worse.text and "Frozen random decoder" in worse.text


def test_the_reason_says_whether_ground_truth_agrees_with_the_judge():
    figures = told(sae=0.6)
    assert "Ground truth agrees" in findings(figures)[0].text
    truth = figures["sae"]["truth"] | {"f1_mean": 0.9}
    assert "does tell them apart" in findings(figures | {"sae": figures["sae"] | {"truth": truth}})[0].text


def test_what_is_not_told_apart_is_not_called_better():
    near = next(f.text for f in findings(told(sae=0.71, itda=0.71)) if f.text.startswith("SAE less ITDA"))
    assert "not told apart" in near and "is better" not in near
    far = next(f.text for f in findings(told(sae=0.9, itda=0.6)) if f.text.startswith("SAE less ITDA"))
    assert far.count("SAE is better") == 2
    reverse = next(f.text for f in findings(told(sae=0.6, itda=0.9)) if f.text.startswith("SAE less ITDA"))
    assert reverse.count("ITDA is better") == 2


def test_controls_that_fail_are_said_to():
    fine = told()
    assert findings(fine)[1].shown
    leaning = fine | {"controls": fine["controls"] | {"shuffled": 0.56}}
    assert findings(leaning)[1].shown is False


def test_claims_go_by_the_data():
    held = claims(told(sae=0.8, itda=0.8, neurons=0.55))[0]
    assert held.verdict == "so here too"
    other = claims(told(sae=0.6, itda=0.85, neurons=0.7))[0]
    assert other.verdict.startswith("not all of it here")
    assert all(claim.here and claim.verdict and claim.source.startswith("arXiv") for claim in claims(told()))


def test_nothing_measured_is_written_as_none():
    found = invented(truth=False)
    for result in found.results:
        result.found.judgments = []
    figures = summary(found, 3, 20)
    texts = [finding.text for finding in findings(figures)] + [claim.here for claim in claims(figures)]
    assert any("none" in text for text in texts) and not any("nan" in text for text in texts)
    assert findings(figures)[0].shown is False
