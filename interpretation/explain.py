"""What features show, in the words of a vision-language model that sees their top pictures."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import NamedTuple

from ..atlas import Atlas
from .asking import ask_all
from .endpoint import Client, Endpoint, NoAnswer, Usage
from .pictures import Pictures
from .questions import Label, Question, explain_question
from .trials import EXPLAINED, explained


class Explained(NamedTuple):
    """Labels by feature, why the others have none, and what it took."""

    labels: dict[int, Label]
    missing: dict[int, str]
    usage: Usage


def explain(
    atlas: Atlas,
    numbers: Iterable[int],
    endpoint: Endpoint,
    keep: Callable[[int, Label], None] | None = None,
    progress: bool = True,
) -> Explained:
    """Ask an endpoint what the top pictures of some features share, which it sees plain and with their heat maps.

    A feature with fewer than `EXPLAINED` pictures is not asked about. `keep` is given each label when it is there, on
    the calling thread. What has no label is in `missing`; with the endpoint's cache a later call asks for that alone.
    """
    pictures, examples = Pictures(atlas), {}
    missing: dict[int, str] = {}
    for number in dict.fromkeys(numbers):
        top = explained(atlas, number)
        if len(top) < EXPLAINED:
            missing[number] = f"active in {len(top)} pictures of the atlas: {EXPLAINED} are needed"
        else:
            examples[number] = top

    def question(number: int) -> Question:
        top = examples[number]
        pairs = [pictures.pair(number, example.picture) for example in top]
        return explain_question(pairs, [abs(example.peak) for example in top])

    labels: dict[int, Label] = {}
    with Client(endpoint) as client:
        questions = ((number, lambda number=number: question(number)) for number in examples)
        for number, answer in ask_all(client, questions, len(examples), "explaining", progress):
            if isinstance(answer, NoAnswer):
                missing[number] = str(answer)
            else:
                labels[number] = answer
                if keep is not None:
                    keep(number, answer)
    return Explained(dict(sorted(labels.items())), dict(sorted(missing.items())), client.usage)
