"""Pairs of prompts that differ in one thing: from a file, or from templates with slots."""

from __future__ import annotations

import logging
import random
import re
from collections.abc import Callable, Iterable, Sequence
from itertools import product
from pathlib import Path
from typing import NamedTuple

from .prompts import PromptError, read_columns, read_prompts

logger = logging.getLogger(__name__)

COLUMNS = ("positive", "negative")
ENOUGH = 80
"""Pairs beyond which more stop helping in language models (arXiv 2505.03189)."""
MANY = 1000
"""Pairs above which a run is long for nothing."""

_SLOT = re.compile(r"\{([^{}]*)\}")


class Pair(NamedTuple):
    """A prompt that has something, and one that lacks it."""

    positive: str
    negative: str


def read_pairs(path: Path, columns: tuple[str, str] = COLUMNS, slot: int = 1) -> list[Pair]:
    """The pairs of a file: two columns of a table or of JSON lines, or a text file with a template a line.

    Raises `PromptError`, with the row, for a row with one side or none.
    """
    if Path(path.name.removesuffix(".gz")).suffix.lower() == ".txt":
        templates = read_prompts(path)
        return [pair for template in templates for pair in expand(template, slot, f"{path}: ")]
    rows = read_columns(path, columns)
    if not rows:
        raise PromptError(f"{path}: expected pairs of prompts, found none")
    for number, row in enumerate(rows, 1):
        if not all(row):
            lacking = " or ".join(repr(name) for name, value in zip(columns, row, strict=True) if not value)
            raise PromptError(
                f"{path}, row {number} of {len(rows)}: expected a prompt on both sides, found none under {lacking}: "
                "fill it in, or take the row out"
            )
    return [Pair(*row) for row in rows]


def expand(template: str, slot: int = 1, named: str = "") -> list[Pair]:
    """The pairs of a template such as `a {red|blue} {circle|square} on a {black|white} background`.

    Slot number `slot`, from 1, is contrasted: its first value is the positive side, each other value a negative one.
    Every combination of the values of the other slots is a pair of its own, the same on both sides. A value may be
    empty: `a {large |}circle`.

    Raises `PromptError`, beginning with `named`, for a template without slots, and for slots that make no sense.
    """
    texts, slots = _parsed(template, named)
    if not 1 <= slot <= len(slots):
        raise PromptError(
            f"{named}template {template!r}: expected slot {slot} to be contrasted, found {len(slots)} slots"
        )
    toward, *away = slots[slot - 1]
    others = [values if number != slot else [""] for number, values in enumerate(slots, 1)]

    def filled(chosen: Sequence[str], value: str) -> str:
        words = [*chosen[: slot - 1], value, *chosen[slot:]]
        whole = texts[0] + "".join(word + text for word, text in zip(words, texts[1:], strict=True))
        return " ".join(whole.split())

    return [Pair(filled(chosen, toward), filled(chosen, value)) for chosen in product(*others) for value in away]


def _parsed(template: str, named: str) -> tuple[list[str], list[list[str]]]:
    """The text around the slots, and the values of each."""
    texts, slots = _SLOT.split(template)[::2], [found.split("|") for found in _SLOT.findall(template)]
    if any("{" in text or "}" in text for text in texts):
        raise PromptError(f"{named}template {template!r}: expected every {{ to have its }}, none inside another")
    if not slots:
        raise PromptError(f"{named}template {template!r}: expected a slot such as {{red|blue}}, found none")
    for values in slots:
        if len({value.strip() for value in values}) < max(2, len(values)):
            raise PromptError(
                f"{named}template {template!r}: expected two different values or more in each slot, "
                f"found {{{'|'.join(values)}}}"
            )
    return texts, slots


def checked(pairs: Iterable[Pair], check: Callable[[str], None] | None = None, limit: int | None = None) -> list[Pair]:
    """The pairs that can be learned from, in order; warnings say which are left out, and what of them is doubtful.

    Pairs of equal prompts, and those that were there before, are left out. `check` raises for a prompt that the model
    does not understand; at most `limit` pairs are kept, drawn at random but always the same. Raises `PromptError` where
    none is left, and where one pair is another turned round.
    """
    pairs = list(pairs)
    kept = list(dict.fromkeys(pair for pair in pairs if pair.positive != pair.negative))
    same = sum(pair.positive == pair.negative for pair in pairs)
    if not kept:
        example = f", such as {pairs[0].positive!r}" if pairs else ""
        raise PromptError(
            f"expected pairs of prompts that differ, found {len(pairs)}, {same} of them the same on both sides{example}"
        )
    there = set(kept)
    turned = [pair for pair in kept if Pair(pair.negative, pair.positive) in there]
    if turned:
        raise PromptError(
            f"expected pairs that point one way, found {len(turned)} of {len(kept)} that are another turned round, "
            f"such as {turned[0].positive!r} against {turned[0].negative!r}: they would cancel out"
        )
    if check is not None:
        for prompt in dict.fromkeys(prompt for pair in kept for prompt in pair):
            check(prompt)
    repeated = len(pairs) - same - len(kept)
    if same or repeated:
        logger.warning(
            "of %d pairs %d are left out: %d the same on both sides, %d repeated",
            *(len(pairs), same + repeated, same, repeated),
        )
    if limit is not None and limit < len(kept):
        chosen = sorted(random.Random(0).sample(range(len(kept)), limit))
        kept = [kept[number] for number in chosen]
    _warn_of_number(len(kept))
    return kept


def _warn_of_number(count: int) -> None:
    if count == 1:
        logger.warning(
            "1 pair: the vector has whatever sets these two prompts apart, and nothing says how well it holds for "
            "others; some %d pairs are better",
            ENOUGH,
        )
    if count > MANY:
        logger.warning(
            "%s pairs: beyond some %d more stop helping (arXiv 2505.03189), and each costs two pictures a seed; "
            "--limit takes a sample",
            *(f"{count:,}", ENOUGH),
        )


def groups(pairs: Sequence[Pair]) -> list[int]:
    """A number for each pair; those that share a prompt, also by way of others, have the same.

    What was seen of a prompt in one pair says something of every other that has it: they are held out together. Where
    all hang together, as with one negative prompt for all, each pair is a group of its own.
    """
    parent: dict[str, str] = {}

    def root(prompt: str) -> str:
        while parent.setdefault(prompt, prompt) != prompt:
            parent[prompt] = prompt = parent[parent[prompt]]
        return prompt

    for pair in pairs:
        parent[root(pair.positive)] = root(pair.negative)
    roots = [root(pair.positive) for pair in pairs]
    number = {name: place for place, name in enumerate(dict.fromkeys(roots))}
    return [number[name] for name in roots] if len(number) > 1 else list(range(len(pairs)))
