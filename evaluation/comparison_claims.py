"""What a comparison shows and what not, in sentences that follow from its figures; the papers' claims beside them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

from .comparison_figures import figures_of
from .contestants import WAYS

CONTROL = 0.03
"""How far from one half permuted labels may score."""
COVERED = 0.9
"""Share of what a probe decodes that features are to cover."""


class Finding(NamedTuple):
    """A sentence, and whether what it is about was shown: True, False, or None where it is a mere figure."""

    shown: bool | None
    text: str


class Claim(NamedTuple):
    """What a paper says, what came out here, and how the two go together."""

    source: str
    claim: str
    here: str
    verdict: str


def findings(figures: Mapping[str, Any]) -> list[Finding]:
    """The sentences of the report, the main one first."""
    return [
        _against_baselines(figures),
        _shuffled(figures),
        *(_pair(figures, one, other) for one, other in (("sae", "itda"), ("sae", "neurons"), ("itda", "neurons"))),
        _optimism(figures),
        _encoding(figures),
        _coverage(figures),
        _stability(figures),
    ]


def claims(figures: Mapping[str, Any]) -> list[Claim]:
    """What the papers claim of such dictionaries on Flux 1 schnell, beside what came out on the demo Flux."""
    sae, itda, neurons = (figures[way] for way in ("sae", "itda", "neurons"))
    flux, data = "arXiv 2505.24360", "arXiv 2505.17769"
    paper = figures["differences"]["interp_paper"]
    as_claimed = _includes_zero(paper["sae_minus_itda"]) and all(
        _above_zero(paper[f"{way}_minus_neurons"]) for way in ("sae", "itda")
    )
    return [
        Claim(
            flux,
            "By the judge's score the SAE is about equal to ITDA, and both are above neurons",
            f"by the same score SAE {_s(sae['interp_paper'])}, ITDA {_s(itda['interp_paper'])}, "
            f"neurons {_s(neurons['interp_paper'])}",
            _verdict(as_claimed, paper),
        ),
        Claim(
            flux,
            "That score is taken on the very pictures that were explained",
            f"on pictures never explained: SAE {_s(sae['interp'])}, ITDA {_s(itda['interp'])}, "
            f"neurons {_s(neurons['interp'])}",
            "another score as well as other pictures: hard negatives, and yes or no instead of shares",
        ),
        Claim(
            flux,
            "ITDA generally explains more variance than an SAE of like size (SAE .57 to .71, k 15 to 65)",
            f"explained, standardised: ITDA {_f(1 - itda['fvu'])}, SAE {_f(1 - sae['fvu'])}",
            _either(itda["fvu"] < sae["fvu"], "so here too", "not here"),
        ),
        Claim(
            flux,
            "About a third of the SAE's features qualify for being explained",
            f"{_percent(sae['qualifying'])} by a rule that differs in its threshold",
            "not comparable but in kind: the demo Flux has far fewer things to show",
        ),
        Claim(
            flux,
            "With normalized inputs under 30 % of features are dead",
            f"{_percent(1 - sae['used'])} of the SAE's were never active on the held-out pictures",
            _either(sae["used"] > 0.7, "so here too", "not here"),
        ),
        Claim(
            data,
            "ITDA takes about 1 % of an SAE's tokens and time",
            f"{_percent(_ratio(itda['cost']['tokens'], sae['cost']['tokens']))} of the tokens and "
            f"{_percent(_ratio(itda['cost']['seconds'], sae['cost']['seconds']))} of the time",
            "the SAE is small here: its time grows with its width and with its tokens",
        ),
        Claim(
            "arXiv 2602.14111, 2501.17727",
            "Frozen random SAEs and random transformers score nearly as well (language models)",
            f"frozen decoder {_s(figures_of(figures, 'frozen_decoder')['interp'])}, "
            f"random model {_s(figures_of(figures, 'random_weight_model')['interp'])}, "
            f"SAE {_s(sae['interp'])}",
            f"SAE less the best baseline: {_interval(figures['sae_minus_best_baseline'], 'mean')}",
        ),
        Claim(
            "arXiv 2501.16615",
            "TopK features depend on the seed",
            f"{_percent(sae['found_again'])} of the SAE's features have a match of cosine .7 in another seed's",
            "share the same pictures; seed of the start and of the shuffling",
        ),
    ]


def _against_baselines(figures: Mapping[str, Any]) -> Finding:
    found = figures["sae_minus_best_baseline"]
    best = figures_of(figures, found["best"])
    name, interval = WAYS[found["best"]].title, _interval(found, "mean")
    if _above_zero(found):
        return Finding(
            True,
            f"The SAE's features are judged better than those of the best baseline, {name}: by {interval}, "
            "an interval above 0.",
        )
    sae = figures["sae"]
    return Finding(
        False,
        f"It is not shown that the SAE's features are judged better than those of the best baseline, {name}: the "
        f"difference is {interval}, which is not above 0. Why: the score asks no more than whether a label tells a "
        f"feature's pictures and places from others, and labels of {name} do that too ({_s(best['interp'])}, the SAE's "
        f"{_s(sae['interp'])}). {_by_truth(sae, best, name)}",
    )


def _by_truth(sae: Mapping[str, Any], best: Mapping[str, Any], name: str) -> str:
    """Whether ground truth, which no judge has a part in, agrees with the judge."""
    one, other = (figures["truth"]["f1_mean"] for figures in (sae, best))
    if math.isnan(one) or math.isnan(other):
        return "Ground truth was not measured of both."
    agrees = "agrees: a feature's" if one <= other else "does tell them apart: a feature's"
    figures = f"{_f(one)} (SAE) and {_f(other)} ({name})"
    return f"Ground truth {agrees} best match with a drawn value has a mean F1 of {figures}."


def _shuffled(figures: Mapping[str, Any]) -> Finding:
    score, constant = figures["controls"]["shuffled"], figures["controls"]["constant_judge"]
    fine = abs(score - 0.5) <= CONTROL
    return Finding(
        fine,
        f"Permuted labels score {_f(score)} and a judge that always says yes {_f(constant)}"
        + (
            ": what labels earn above one half, they earn by what they say."
            if fine
            else f", further than {CONTROL} from .50: judgments lean to one side for a reason that is not the label."
        ),
    )


def _pair(figures: Mapping[str, Any], one: str, other: str) -> Finding:
    """By both scores."""
    names = WAYS[one].title, WAYS[other].title
    parts = []
    for score, words in (("interp", "on pictures never explained"), ("interp_paper", "by the paper's score")):
        difference = figures["differences"][score][f"{one}_minus_{other}"]
        if _includes_zero(difference):
            parts.append(f"{words} they are not told apart ({_interval(difference)})")
        else:
            better = names[0] if difference["score"] > 0 else names[1]
            parts.append(f"{words} {better} is better ({_interval(difference)})")
    return Finding(None, f"{names[0]} less {names[1]}: {'; '.join(parts)}.")


def _optimism(figures: Mapping[str, Any]) -> Finding:
    gaps = [
        figures[way]["interp_paper"]["score"] - figures[way]["interp"]["score"] for way in ("sae", "itda", "neurons")
    ]
    gap = sum(gaps) / len(gaps)
    way = "higher" if gap > 0 else "lower"
    return Finding(
        None,
        f"The paper's score is {_f(abs(gap))} {way} than balanced accuracy on pictures never explained (mean of SAE, "
        "ITDA and neurons). The two differ in pictures, negatives and grading, so it measures none of these alone.",
    )


def _encoding(figures: Mapping[str, Any]) -> Finding:
    differences = figures["differences"]["interp"]
    return Finding(
        None,
        "How codes are found, the directions being the same: an SAE's encoder less pursuit over its rows "
        f"{_interval(differences['sae_minus_sae_pursuit'])}; products with atoms less pursuit over them "
        f"{_interval(differences['itda_encoder_minus_itda'])}.",
    )


def _coverage(figures: Mapping[str, Any]) -> Finding:
    coverage = figures["sae"]["truth"]["coverage"]
    return Finding(
        coverage >= COVERED,
        "Of the values that a supervised probe decodes, some SAE feature reaches .9 of its F1 for "
        f"{_percent(coverage)} ({_percent(COVERED)} asked for); ITDA "
        f"{_percent(figures['itda']['truth']['coverage'])}, neurons "
        f"{_percent(figures['neurons']['truth']['coverage'])}, random directions "
        f"{_percent(figures_of(figures, 'random_directions')['truth']['coverage'])}.",
    )


def _stability(figures: Mapping[str, Any]) -> Finding:
    chance = figures_of(figures, "random_directions")["stability"]
    return Finding(
        None,
        f"Best cosine with another seed's features: SAE {_f(figures['sae']['stability'])}, ITDA "
        f"{_f(figures['itda']['stability'])}; directions at random have {_f(chance)}. Neurons are the model's own.",
    )


def _verdict(as_claimed: bool, paper: Mapping[str, Any]) -> str:
    if as_claimed:
        return "so here too"
    told = [
        f"SAE less ITDA {_interval(paper['sae_minus_itda'])}",
        f"SAE less neurons {_interval(paper['sae_minus_neurons'])}",
        f"ITDA less neurons {_interval(paper['itda_minus_neurons'])}",
    ]
    return "not all of it here: " + ", ".join(told)


def _either(is_so: bool, one: str, other: str) -> str:
    return one if is_so else other


def _above_zero(difference: Mapping[str, float]) -> bool:
    return difference["low"] > 0


def _includes_zero(difference: Mapping[str, float]) -> bool:
    """Also where nothing is known."""
    return not (difference["low"] > 0 or difference["high"] < 0)


def _ratio(over: float, under: float) -> float:
    return over / under if under else math.nan


def _s(score: Mapping[str, float]) -> str:
    return _f(score["score"])


def _interval(found: Mapping[str, float], name: str = "score") -> str:
    return f"{_f(found[name])} ({_f(found['low'])} to {_f(found['high'])})"


def _f(value: float) -> str:
    """Two digits without the 0 before the point, as scores are written."""
    if math.isnan(value):
        return "none"
    text = f"{value:.3f}"
    return text.replace("0.", ".", 1) if abs(value) < 1 else text


def _percent(share: float) -> str:
    if math.isnan(share):
        return "none"
    return f"{100 * share:.1f} %" if 0 < share < 0.01 else f"{100 * share:.0f} %"
