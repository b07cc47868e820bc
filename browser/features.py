"""Features of an atlas as a browser is told of them: rows of a list, and a page of each."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from ..atlas import Atlas, Feature
from ..atlas.search import WORDS, words
from .question import Question
from .refusal import BAD_REQUEST, RefusedError

LIMIT = 200
"""The most features of one answer."""
FAR = 2**24
_SCORE = "interp"
"""The score that stands for a feature where it has several."""
_EXAMPLES, _COMPANIONS, _BINS = 100, 50, 24
_PROMPT, _SOURCE = 600, 2000
"""The most examples of a kind, features active together, bars of a histogram, and characters of a prompt."""


def page(atlas: Atlas, question: Question) -> dict[str, Any]:
    """Some features of an atlas, in an order, or of those that a text is about."""
    text, order = question.text("text", "").strip(), question.text("order", "")
    if (count := len(words(text))) > WORDS:
        raise RefusedError(BAD_REQUEST, f"text: expected at most {WORDS} words, found {count}; leave some out")
    offset, limit = question.number("offset", 0, FAR, 0), question.number("limit", 1, LIMIT, 50)
    numbers = _numbers(atlas, text, order or ("relevance" if text else "number"), question)
    shown = [int(number) for number in numbers[offset : offset + limit]]
    return {"features": rows(atlas, shown), "more": offset + limit < len(numbers), "total": len(numbers)}


def _numbers(atlas: Atlas, text: str, order: str, question: Question) -> Any:
    if order == "coactive":
        like = atlas.feature(question.number("like", 0, atlas.n_features - 1))
        companions = [number for number, _ in like.companions]
        inside = set(atlas.found(text).tolist()) if text else set(companions)
        return [number for number in companions if number in inside]
    if text:
        return atlas.found(text, order)
    if order == "relevance":
        raise RefusedError(BAD_REQUEST, "order: expected a text beside relevance, found none; give one")
    return atlas.numbers(order)


def rows(atlas: Atlas, numbers: list[int]) -> list[dict[str, Any]]:
    """What a list shows of features, in their order."""
    found = atlas.those(numbers)
    pictures = atlas.first_pictures([feature.number for feature in found])
    return [_row(atlas, feature, picture) for feature, picture in zip(found, pictures, strict=True)]


def _row(atlas: Atlas, feature: Feature, picture: int | None) -> dict[str, Any]:
    name = _SCORE if _SCORE in feature.scores else min(feature.scores, default=None)
    score = None if name is None else {"name": name, **_interval(feature, name)}
    figures = ("density", "mean", "peak", "spread", "coverage", "output_score", "pictures")
    return {
        "feature": feature.number,
        "label": feature.label,
        **{figure: getattr(feature, figure) for figure in figures},
        "sigma": atlas.most_active_at(feature),
        "score": score,
        "picture": picture,
    }


def _interval(feature: Feature, name: str) -> dict[str, float]:
    score = feature.scores[name]
    return {"value": score.value, "low": score.low, "high": score.high}


def detail(atlas: Atlas, number: int, natural: float | None) -> dict[str, Any]:
    """All that is known of a feature. Seeds are texts: they may be larger than numbers of a browser are exact."""
    feature = atlas.feature(number)
    examples = [one for kind in ("top", "spread") for one in atlas.examples(number, kind)[:_EXAMPLES]]
    drawn = {one.picture: atlas.picture(one.picture) for one in examples}
    return {
        **_row(atlas, feature, examples[0].picture if examples else None),
        "explanation": feature.explanation,
        "scores": {name: {**_interval(feature, name), "n": feature.scores[name].n} for name in sorted(feature.scores)},
        "sigma_profile": [list(pair) for pair in zip(atlas.header["sigmas"], feature.profile, strict=False)],
        "histogram": histogram(atlas, number),
        "coactive": _coactive(atlas, feature),
        "source": _source(feature),
        "natural": natural,
        "examples": [
            {
                **{name: getattr(one, name) for name in ("picture", "peak", "kind", "rank")},
                "prompt": drawn[one.picture].prompt[:_PROMPT],
                "seed": str(drawn[one.picture].seed),
            }
            for one in examples
        ],
    }


def histogram(atlas: Atlas, number: int) -> list[list[float]] | None:
    """How often the feature has which value, where it is active: `[from, to, count]` each, over the tokens of pictures
    drawn uniformly from those in which it is active. None without such pictures."""
    sample = atlas.examples(number, "spread")[:_EXAMPLES] or atlas.examples(number, "top")[:_EXAMPLES]
    values = [atlas.heat_map(number, one.picture).ravel() for one in sample]
    active = np.concatenate([one[one != 0] for one in values]) if values else np.zeros(0, np.float32)
    if not len(active):
        return None
    low, high = min(float(active.min()), 0.0), max(float(active.max()), 0.0)
    counts, edges = np.histogram(active.astype(np.float64), _BINS, (low, high))
    return [[float(a), float(b), int(n)] for a, b, n in zip(edges[:-1], edges[1:], counts, strict=True)]


def _coactive(atlas: Atlas, feature: Feature) -> list[dict[str, Any]]:
    companions = feature.companions[:_COMPANIONS]
    labels = {one.number: one.label for one in atlas.those([number for number, _ in companions])}
    return [
        {"feature": number, "label": labels.get(number), "share": share if math.isfinite(share) else None}
        for number, share in companions
    ]


def _source(feature: Feature) -> dict[str, Any] | None:
    if feature.source is None:
        return None
    return {**feature.source._asdict(), "prompt": feature.source.prompt[:_SOURCE], "seed": str(feature.source.seed)}
