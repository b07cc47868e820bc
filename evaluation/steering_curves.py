"""What the success of a steer depends on: strength, site, part of sampling, number of pairs, and the prompt."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch

from ..demo.captions import WORDS, words_of
from ..demo.scenes import FACTORS, Scene, sample_scenes
from ..residual import Site
from .cases import Case, case_of, sample_cases
from .harness import PROMPT_EDIT, Asked, Easel, Result, Showing, show, show_all
from .steering_methods import Choice, Directions, Rule, pair_directions
from .study_figures import first, joined, measures
from .study_targets import fitting_targets
from .value_pairs import ValueSides, watch_values


@dataclass(frozen=True)
class Curves:
    """What is varied, and on how many test captions each point is shown. Nothing is chosen by it."""

    strengths: tuple[float, ...] = (0.5, 0.75, 1.5, 2.0)
    """Factors of the strength that a method's search chose."""
    strength_targets: int = 16
    site_targets: int = 12
    spans: tuple[tuple[float, float], ...] = (
        (0.0, 0.25),
        (0.0, 0.5),
        (0.0, 0.75),
        (0.0, 1.0),
        (0.25, 0.5),
        (0.25, 1.0),
        (0.5, 0.75),
        (0.5, 1.0),
        (0.75, 1.0),
    )
    """Parts of sampling, by start and end."""
    span_targets: int = 32
    counts: tuple[int, ...] = (1, 2, 4, 8, 16, 32, 64, 128, 256)
    """Numbers of pairs; more than there are are left out."""
    draws: int = 2
    """Vectors of each number of pairs that are made of different pairs, as far as there are enough."""
    count_targets: int = 20
    related_targets: int = 20
    narrow: int = 32
    """Pairs a value of the vector that is made of one kind of scene alone."""

    def quick(self) -> Curves:
        return replace(
            self,
            strengths=(0.5, 2.0),
            strength_targets=4,
            site_targets=2,
            spans=((0.0, 0.5), (0.5, 1.0)),
            span_targets=4,
            counts=(1, 2, 4, 8),
            draws=1,
            count_targets=4,
            related_targets=4,
            narrow=4,
        )


NARROW = {"shape": "circle", "background": "black"}
"""What all captions name that the narrow vector is made of."""
Near = Callable[[str, str], float | None]
"""How related a caption is to the vector of a value."""


@dataclass
class CurveJob:
    """Shows test targets at other settings than those that were chosen.

    Attributes:
        sides: what contrastive vectors are made of.
        later: the same at sites that none was chosen at.
        best: what each method's search chose, by name.
        shown: what that did on test targets.
        near: from what a vector was made of to how related captions are to it.
        results: of the curves that a report has pictures of, as they were drawn.
    """

    easel: Easel
    curves: Curves
    factor: str
    to_sigma: Callable[[float], float]
    sides: ValueSides
    later: ValueSides
    best: Mapping[str, Choice]
    shown: Mapping[str, Result]
    test: Sequence[Asked]
    near: Callable[[ValueSides, Site], Near]
    results: dict[str, list[Result]] = field(default_factory=dict)

    def strengths(self) -> dict[str, list[dict[str, Any]]]:
        """Success against collateral: every method at other strengths than the chosen one, and at that too."""
        count, factors = self.curves.strength_targets, self.curves.strengths
        chosen = {name: first(self.shown[name], count) for name in self.best}
        drawn = iter(
            self._show(
                (name, directions, rule._replace(strength=factor * rule.strength), chosen[name].asked)
                for name, (directions, rule) in self.best.items()
                for factor in factors
            )
        )
        found = {}
        for name, (_, rule) in self.best.items():
            results = {1.0: chosen[name]} | {factor: next(drawn) for factor in factors}
            self.results[f"strength {name}"] = [results[factor] for factor in sorted(results)]
            found[name] = [
                {"strength": factor * rule.strength, **measures(results[factor])} for factor in sorted(results)
            ]
        return found

    def sites(self, image: Sequence[float], text: Sequence[float]) -> list[dict[str, Any]]:
        """Contrastive vectors at every site that was watched, at every strength of its stream, in the chosen part."""
        rule, on = self.best["contrast"].rule, self.test[: self.curves.site_targets]
        each = [
            (directions, strength)
            for directions in pair_directions(self.sides) + pair_directions(self.later)
            for strength in (image if directions.site.stream == "img" else text)
        ]
        drawn = self._show(("contrast", one, rule._replace(strength=strength), on) for one, strength in each)
        return [
            {"site": str(directions.site), "strength": strength, **measures(went)}
            for (directions, strength), went in zip(each, drawn, strict=True)
        ]

    def windows(self) -> list[dict[str, Any]]:
        """The contrastive vector in other parts of sampling, at the chosen site and strength."""
        directions, rule = self.best["contrast"]
        on, spans = self.test[: self.curves.span_targets], self.curves.spans
        drawn = self._show(("contrast", directions, Rule(rule.strength, start, end), on) for start, end in spans)
        self.results["windows"] = drawn
        return [{"start": start, "end": end, **measures(went)} for (start, end), went in zip(spans, drawn, strict=True)]

    def pairs(self) -> list[dict[str, Any]]:
        """The contrastive vector of fewer pairs, at the chosen site, strength and part of sampling.

        `cosine` is that with the vector of all pairs, mean over values.
        """
        directions, rule = self.best["contrast"]
        site, rows, there = directions.site, [], len(self.sides.captions)
        for count in (count for count in self.curves.counts if count <= there):
            draws = range(min(self.curves.draws, there // count))
            made = [self.sides.directions(site, slice(i * count, (i + 1) * count)) for i in draws]
            on = self.test[: self.curves.count_targets]
            went = joined(self._show(("contrast", replace(directions, by_value=own), rule, on) for own in made))
            cosines = [
                float(torch.cosine_similarity(own[value], directions.by_value[value], dim=0))
                for own in made
                for value in own
            ]
            rows.append({"pairs": count, "vectors": len(made), "cosine": float(np.mean(cosines)), **measures(went)})
        return rows

    def relatedness(self) -> dict[str, Any]:
        """Two vectors on prompts that are less and less related to their pairs, with the prompt edit beside.

        *broad* is that of the study: in distribution are captions of new scenes, then those of combinations that even
        the model has never seen, then words in disorder. *narrow* is made of black circles alone: captions that name
        a black circle, one of the two with another value, and neither.
        """
        directions, rule = self.best["contrast"]
        site = directions.site
        narrow = watch_values(self.easel.pipeline, self._narrow_pairs(), self.factor, [site])
        own = Directions(site, narrow.directions(site), narrow.scale(site))
        kinds = [
            ("broad", directions, self.near(self.sides, site), self._broad_cases()),
            ("narrow", own, self.near(narrow, site), self._narrow_cases()),
        ]
        rows, of_pictures = [], []
        for name, made, near, levels in kinds:
            for level, cases in levels.items():
                some = fitting_targets(self.easel, cases, self.factor)[: self.curves.related_targets]
                (went,) = self._show([(name, made, rule, some)])
                edit = show(self.easel, "prompt_edit", PROMPT_EDIT.candidates[0], some)
                related = [near(one.target.value, one.target.case.caption) for one in some]
                known = [value for value in related if value is not None]
                hits = [
                    after.reading.factors[self.factor] == one.target.value
                    for one, after in zip(some, went.steered, strict=True)
                ]
                of_pictures += [
                    (name, value, hit) for value, hit in zip(related, hits, strict=True) if value is not None
                ]
                rows.append(
                    {
                        "vector": name,
                        "prompts": level,
                        "relatedness": float(np.mean(known)) if known else None,
                        **measures(went),
                        "prompt_edit": edit.outcome.success.value,
                        "example": some[0].target.case.caption if some else "",
                    }
                )
        return {
            "rows": rows,
            "rank_correlation": {
                name: _correlation([p[1:] for p in of_pictures if p[0] == name]) for name, *_ in kinds
            },
        }

    def _broad_cases(self) -> dict[str, list[Case]]:
        n = self._wanted()
        rng = np.random.default_rng(13)
        spare = [
            word for word in WORDS if not any(word in value.split() for values in FACTORS.values() for value in values)
        ]

        def disordered(case: Case) -> Case:
            words = [*words_of(case.caption), *rng.choice(spare, 2)]
            return replace(case, caption=" ".join(rng.permutation(words)))

        return {
            "in distribution": [one.target.case for one in self.test[:n]],
            "new combinations": sample_cases(n, 8, "unseen", never=[self.factor]),
            "unrelated": [disordered(case) for case in sample_cases(n, 9, "test", never=[self.factor])],
        }

    def _narrow_cases(self) -> dict[str, list[Case]]:
        n, (one, other) = self._wanted(), NARROW
        return {
            "in distribution": self._scenes(n, 10, NARROW, (), "test"),
            "new combinations": [
                *self._scenes(n - n // 2, 11, {one: NARROW[one]}, (other,), "test"),
                *self._scenes(n // 2, 12, {other: NARROW[other]}, (one,), "test"),
            ],
            "unrelated": self._scenes(n, 13, {}, tuple(NARROW), "test"),
        }

    def _narrow_pairs(self) -> list[Case]:
        return self._scenes(self.curves.narrow, 14, NARROW, (), "train")

    def _wanted(self) -> int:
        """A few more than are shown: some cannot be read, and some show their target already."""
        return self.curves.related_targets + max(self.curves.related_targets // 6, 2)

    def _scenes(self, n: int, seed: int, fixed: Mapping[str, str], other: Sequence[str], split: str) -> list[Case]:
        """Captions of a split that name some values, and of some factors another than the narrow one; never ours."""
        rng, cases = np.random.default_rng(seed), []
        for scene in sample_scenes(60 * n, seed, split):
            scene = Scene(**{**scene.factors, **fixed}, seed=scene.seed)
            if scene.split != split or any(scene.factors[name] == NARROW[name] for name in other):
                continue
            free = [name for name in FACTORS if name not in (self.factor, *NARROW) and rng.random() < 0.6]
            cases.append(case_of(scene, {*NARROW, *free}))
            if len(cases) == n:
                return cases
        raise ValueError(f"expected {n} scenes of the {split} split with {dict(fixed)}, found {len(cases)}")

    def _show(self, wanted: Iterable[tuple[str, Directions, Rule, Sequence[Asked]]]) -> list[Result]:
        return show_all(
            self.easel,
            [Showing(name, directions.candidate(rule, self.to_sigma), on) for name, directions, rule, on in wanted],
        )


def _correlation(pairs: Sequence[tuple[float, bool]]) -> float | None:
    """Spearman's, of relatedness and success by picture; None where one of them never varies."""
    from scipy.stats import spearmanr  # takes a second, which `--help` need not wait for

    if len({value for value, _ in pairs}) < 2 or len({hit for _, hit in pairs}) < 2:
        return None
    return float(spearmanr([value for value, _ in pairs], [hit for _, hit in pairs]).statistic)
