"""Scenes in words, and words back into factors.

A caption names any subset of the factors; what it leaves out the model decides. The demo Flux knows two styles
(a sentence, and tags as artists write them) and the words in `WORDS`, no others.
"""

from __future__ import annotations

import re

import numpy as np

from ..dictionaries.schema import shown
from .scenes import BACKGROUNDS, COLORS, FACTORS, POSITIONS, RADII, SHAPES

STYLES = ("sentence", "tags")
TEXT_TOKENS = 16
"""The one text length of the demo Flux, in tokens, for both encoders; captions are padded to it."""

_GLUE = ("a", "an", "the", "of", "in", "at", "on", "with", "and", "shape", "background")
_PLACES = tuple(dict.fromkeys(word for name in POSITIONS for word in name.split()))
WORDS = (*_GLUE, *RADII, *COLORS, *SHAPES, *_PLACES, *BACKGROUNDS)
"""Every word the demo Flux was trained on (or may skip over, for the glue)."""


class CaptionError(ValueError):
    """A caption that the demo Flux cannot understand."""


def caption_of(named: dict[str, str], style: str = "sentence") -> str:
    """A caption that names exactly the given factors; empty where there are none."""
    unknown = named.keys() - FACTORS.keys()
    if unknown:
        raise ValueError(f"unknown factors {sorted(unknown)}: expected some of {', '.join(FACTORS)}")
    if not named:
        return ""
    noun = [named[factor] for factor in ("size", "color", "shape") if factor in named]
    if style == "tags":
        parts = [*noun, named.get("position", ""), f"{named['background']} background" if "background" in named else ""]
        return ", ".join(part for part in parts if part)
    if "shape" not in named:
        noun.append("shape")
    text = " ".join([("an" if noun[0] in ("orange",) else "a"), *noun])
    if "position" in named:
        text += f" at the {named['position']}"
    if "background" in named:
        text += f" on a {named['background']} background"
    return text


def words_of(caption: str) -> list[str]:
    """The words of a caption, lower case, without punctuation: what the tokenizer sees."""
    return re.sub(r"[^a-z]+", " ", caption.lower()).split()


def check_caption(caption: str) -> None:
    """Raise `CaptionError` for words the demo Flux was never trained on, or too many of them."""
    words = words_of(caption)
    unknown = [word for word in dict.fromkeys(words) if word not in WORDS]
    if unknown:
        named = ", ".join(shown(word) for word in unknown[:8])
        raise CaptionError(
            f"the demo Flux does not know {named} in {shown(caption)}. "
            f"It was trained on drawings of one object; use these words: "
            + "; ".join(f"{name}: {', '.join(values)}" for name, values in FACTORS.items())
        )
    if len(words) > TEXT_TOKENS - 2:
        raise CaptionError(f"{shown(caption)} has {len(words)} words: the demo Flux reads at most {TEXT_TOKENS - 2}")


def named_factors(caption: str) -> dict[str, str]:
    """The factors a caption names. Raises `CaptionError` where it names two values of one factor."""
    words = words_of(caption)
    named: dict[str, str] = {}
    for factor, values in FACTORS.items():
        if factor == "position":
            continue
        found = [value for value in values if value in words]
        if len(found) > 1:
            raise CaptionError(f"{caption!r} names {len(found)} values of {factor}: {', '.join(found)}")
        named |= dict.fromkeys([factor], found[0]) if found else {}
    places = {word for word in words if word in _PLACES}
    if places:
        match = [name for name in POSITIONS if set(name.split()) == places]
        if not match:
            raise CaptionError(f"{caption!r} names no one position: {', '.join(sorted(places))}")
        named["position"] = match[0]
    return named


def random_caption(factors: dict[str, str], rng: np.random.Generator, full: float, empty: float = 0.1) -> str:
    """A training caption: names all factors with chance `full`, none with chance `empty`, else each by coin."""
    kind = rng.random()
    names = [name for name in FACTORS if kind >= empty and (kind < empty + full or rng.random() < 0.5)]
    return caption_of({name: factors[name] for name in names}, STYLES[int(rng.random() < 0.3)])
