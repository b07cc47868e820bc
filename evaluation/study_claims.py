"""What the steering study shows: the five findings of arXiv 2505.03189 beside it, and what it recommends."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from .comparison_claims import Claim, Finding

SOURCE = "arXiv 2505.03189"
LEVEL = 0.05
"""Success within which a setting counts as good as the best."""
OPEN_LOW, COLLATERAL_MORE, CONTROL_HIGH, AGAINST_LOW = 0.90, 0.10, 0.40, 0.60
"""What is asked of the contrastive vector: bounds of success and collateral on open captions, against the caption."""
CONTROLS = ("random_direction", "random_feature")


def findings(figures: Mapping[str, Any]) -> list[Finding]:
    """Sentences on the contrastive vector beside the prompt edit, the controls and the other methods."""
    by, control = figures["by_method"], best_control(figures)
    own, edit = by["contrast"], by["prompt_edit"]
    features = by["feature"]
    return [
        Finding(
            own["success_low"] >= OPEN_LOW,
            f"Open captions: the contrastive vector succeeds in {share(own, 'success')} "
            f"(asked: lower bound at least {OPEN_LOW:.2f}).",
        ),
        Finding(
            own["collateral_high"] <= edit["collateral"] + COLLATERAL_MORE,
            f"Its collateral is {share(own, 'collateral')}, the prompt edit's {share(edit, 'collateral')} "
            f"(asked: upper bound at most {COLLATERAL_MORE:.2f} above the prompt edit).",
        ),
        Finding(
            by[control]["success_high"] <= CONTROL_HIGH,
            f"The best control ({control.replace('_', ' ')}) succeeds in {share(by[control], 'success')} "
            f"(asked: upper bound at most {CONTROL_HIGH:.2f}).",
        ),
        Finding(
            own["against_low"] >= AGAINST_LOW,
            f"Against the caption, with settings of its own, it succeeds in {share(own, 'against')} "
            f"at {own['against_settings']['site']} (asked: lower bound at least {AGAINST_LOW:.2f}).",
        ),
        Finding(
            None,
            f"SAE features reach {share(features, 'success')} on open captions and {share(features, 'against')} "
            f"against the caption; the prompt edit {share(edit, 'success')} and {share(edit, 'against')}.",
        ),
    ]


def claims(figures: Mapping[str, Any]) -> list[Claim]:
    """The paper's five findings, of language models, and one on layers, beside what came out here."""
    return [
        _distribution(figures),
        _pairs(figures),
        _reversal(figures),
        _harm(figures),
        _size(figures),
        _sites(figures),
    ]


def best_control(figures: Mapping[str, Any]) -> str:
    """The control that succeeds most often."""
    return max(CONTROLS, key=lambda name: figures["by_method"][name]["success"])


def enough_pairs(rows: Sequence[Mapping[str, Any]]) -> int | None:
    """The smallest number of pairs from which on success stays within `LEVEL` of the best; None without rows."""
    if not rows:
        return None
    best = max(row["success"] for row in rows)
    good = None
    for row in reversed(rows):
        if row["success"] < best - LEVEL:
            break
        good = row["pairs"]
    return good or rows[-1]["pairs"]


def recommended(figures: Mapping[str, Any]) -> dict[str, Any]:
    """Settings of a contrastive vector: those that the search chose, and enough pairs."""
    chosen = figures["by_method"]["contrast"]["settings"]
    return {
        "site": chosen["site"],
        "strength": chosen["strength"],
        "start": chosen["start"],
        "end": chosen["end"],
        "pairs": enough_pairs(figures["pairs_curve"]),
        "by_site": {row["site"]: row["strength"] for row in best_of_sites(figures["site_curve"])},
    }


def best_of_sites(rows: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """For each site the row of highest joint success, of the strengths that were shown; the best site first."""
    best: dict[str, Mapping[str, Any]] = {}
    for row in rows:
        if row["site"] not in best or row["joint"] > best[row["site"]]["joint"]:
            best[row["site"]] = row
    return sorted(best.values(), key=lambda row: -row["joint"])


def _distribution(figures: Mapping[str, Any]) -> Claim:
    rows = figures["relatedness"]["rows"]
    texts, apart = [], []
    for name in ("broad", "narrow"):
        own = [row for row in rows if row["vector"] == name]
        near, far = own[0], own[-1]
        texts.append(f"{name} vector " + ", ".join(f"{row['prompts']} {row['success']:.2f}" for row in own))
        apart.append(near["success_low"] > far["success_high"])
    verdict = "agrees" if all(apart) else "agrees for one vector of two" if any(apart) else "not seen here"
    return Claim(SOURCE, "1. Steering is reliable only in distribution", "success: " + "; ".join(texts), verdict)


def _pairs(figures: Mapping[str, Any]) -> Claim:
    rows = figures["pairs_curve"]
    enough = enough_pairs(rows)
    text = ", ".join(f"{row['pairs']}: {row['success']:.2f}" for row in rows)
    if enough is None or enough == rows[-1]["pairs"]:
        verdict = "no end seen"
    else:
        verdict = f"agrees that more stop helping, from {enough} on"
    return Claim(SOURCE, "2. More pairs stop helping at about 80", f"success by pairs {text}", verdict)


def _reversal(figures: Mapping[str, Any]) -> Claim:
    found = figures["adversarial"]
    control, odd = found["unsteered_control"], found["unnatural"]
    low, high = (found["intervals"]["reversed"][end] for end in ("low", "high"))
    text = (
        f"of searches, {found['nullified']:.2f} nullify and {found['reversed']:.2f} ({low:.2f} to {high:.2f}) reverse "
        f"on fresh noise; where nothing is steered {control['nullified']:.2f} and {control['reversed']:.2f}; "
        f"{odd['nullified']['bits_per_word']:.1f} bits a word against {odd['natural']['bits_per_word']:.1f}"
    )
    more = found["intervals"]["reversed"]["low"] > control["reversed"]
    nullify = found["intervals"]["nullified"]["low"] > control["nullified"]
    verdict = "agrees" if more else "nullified, not reversed" if nullify else "not seen beyond the control"
    return Claim(SOURCE, "3. Adversarial inputs reverse the steer, and are unnatural", text, verdict)


def _harm(figures: Mapping[str, Any]) -> Claim:
    own, edit = figures["by_method"]["contrast"], figures["by_method"]["prompt_edit"]
    rows = figures["strength_curve"]["contrast"]
    strong, chosen = rows[-1], own["settings"]["strength"]
    text = (
        f"no longer a scene: {own['quality_loss']:.3f} at the chosen strength, {strong['quality_loss']:.3f} at "
        f"{strong['strength']:.2g}, prompt edit {edit['quality_loss']:.3f}; something named breaks: "
        f"{own['collateral']:.2f}, {strong['collateral']:.2f}, {edit['collateral']:.2f}; other factors changed: "
        f"{own['changed']:.2f}, {strong['changed']:.2f}, {edit['changed']:.2f}"
    )
    broken = [row for row in rows if row["collateral_low"] > edit["collateral_high"] and row["strength"] > chosen]
    if own["quality_loss"] > edit["quality_loss_high"]:
        verdict = "agrees"
    elif strong["quality_loss"] > edit["quality_loss_high"]:
        verdict = "only when too strong"
    else:
        verdict = f"stays a scene; more breaks from {broken[0]['strength']:.2g} on" if broken else "not seen here"
    return Claim(SOURCE, "4. Steering harms the model (perplexity)", text, verdict)


def _size(figures: Mapping[str, Any]) -> Claim:
    rows = figures["model_size"]["matched"]
    claim = "5. Larger models resist the harm better"
    if not rows:
        return Claim(SOURCE, claim, "the two sizes reach no common share of success", "not comparable")
    row = rows[-1]
    difference = row["base_minus_small"]["collateral"]
    text = (
        f"at success {row['success']:.2f} collateral {row['base']['collateral']:.2f} (base), "
        f"{row['small']['collateral']:.2f} (small): {difference['mean']:+.2f} "
        f"({difference['low']:+.2f} to {difference['high']:+.2f}); two sizes show a difference, not a trend"
    )
    agrees, opposite = difference["high"] < 0, difference["low"] > 0
    verdict = "agrees, for two sizes" if agrees else "the other way round" if opposite else "cannot be told"
    sites = {name: one["settings"]["site"] for name, one in figures["model_size"]["sizes"].items()}
    if len(set(sites.values())) > 1:
        text += "; each is steered where it is steered best: " + ", ".join(f"{k} at {v}" for k, v in sites.items())
        verdict += ", at different sites"
    return Claim(SOURCE, claim, text, verdict)


def _sites(figures: Mapping[str, Any]) -> Claim:
    ranked = best_of_sites(figures["site_curve"])
    text = "joint success by site: " + ", ".join(f"{row['site']} {row['joint']:.2f}" for row in ranked)
    best = [row["site"] for row in ranked if row["joint"] == ranked[0]["joint"]]
    early = [site.startswith("double") for site in best]
    verdict = "agrees" if early and all(early) else "a tie" if any(early) else "not here"
    return Claim(SOURCE, "Beside them: early to middle layers are best", text, verdict)


def share(figures: Mapping[str, Any], name: str) -> str:
    """A share with the bounds that a summary has of it."""
    return f"{figures[name]:.2f} ({figures[f'{name}_low']:.2f} to {figures[f'{name}_high']:.2f})"
