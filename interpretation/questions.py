"""What a vision-language model is asked: the words, and the forms in which it answers."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from ..atlas.error import shown
from ..atlas.plain_text import plain

EXPLAIN = """\
You study one unit inside a text-to-image model. You see pictures that the model drew and in which the unit is most
active, each of them twice: plain, and with a heat map over it. The deeper the blue, the more active the unit is there;
where there is no blue it is not active.
Say in a few words what is under the blue in each picture. Then find what these places have in common and other places
in other pictures have not: an object, a color, a shape, a part of an object, a background, a texture, a style, a place
in the picture. Ignore what merely happens to be in the same pictures. Where nothing is common to them, say so.
Answer with a JSON object: "descriptions", a list with one short text a picture; "explanation", one or two sentences on
what they have in common; "label", at most 15 words, precise enough to tell such places from others."""

JUDGE = """\
A label describes what activates one unit inside a text-to-image model. You see one picture that the model drew, twice:
plain, and with a heat map of some unit over it. The deeper the blue, the more active that unit is there. Judge whether
the heat map may be that of the labelled unit: does what lies under the blue fit the label?
Answer with a JSON object: "score", a number from 0 (certainly not) to 1 (certainly)."""

LOCATE = """\
A label describes what activates one unit inside a text-to-image model. You see one picture that the model drew and in
which the unit is active. Mark where it is most active.
Answer with a JSON object: "boxes", a list of objects with "left", "top", "right" and "bottom" in percent of the
picture's width and height, measured from its top left corner, an empty list where nothing fits; and "outside", true if
the unit is active everywhere but in the boxes (as for a background), else false."""

LABEL_CHARACTERS = 300
"""Longest label that is kept: it is a line in a table."""
EXPLANATION_CHARACTERS = 2000

Part = dict[str, Any]
"""One part of a message: a text, or a picture as a data URL."""


class Label(NamedTuple):
    """What a feature shows: a few words, and why."""

    label: str
    explanation: str


class Box(NamedTuple):
    """A rectangle in shares of a picture's width and height, from its top left corner."""

    left: float
    top: float
    right: float
    bottom: float


class Place(NamedTuple):
    """The inside of some boxes, or the outside of all of them."""

    boxes: tuple[Box, ...]
    outside: bool


class Form(NamedTuple):
    """A JSON object to be filled in.

    Attributes:
        name: what the schema is called in a request.
        schema: JSON schema, in the part of the language that every server knows.
        tokens: about how many tokens an answer takes.
        read: the object as a value; raises `ValueError`, saying what is wrong with it.
    """

    name: str
    schema: Mapping[str, Any]
    tokens: int
    read: Callable[[Mapping[str, Any]], Any]


class Question(NamedTuple):
    """One request: what the model is told, what it is shown, and the form it is to fill in."""

    told: str
    shown: Sequence[Part]
    form: Form

    def request(self, model: str, format: str) -> dict[str, Any]:
        """The body of a chat completion that wants its answer as a `json_schema`, a `json_object` or `text`."""
        system, user = {"role": "system", "content": self.told}, {"role": "user", "content": list(self.shown)}
        request: dict[str, Any] = {"model": model, "messages": [system, user]}
        if format == "json_schema":
            described = {"name": self.form.name, "strict": True, "schema": self.form.schema}
            request["response_format"] = {"type": "json_schema", "json_schema": described}
        elif format == "json_object":
            request["response_format"] = {"type": "json_object"}
        return request

    def read(self, text: str) -> Any:
        """What the form reads in an answer: its last JSON object that fits. Raises `ValueError`.

        Models put their thoughts, fences and courtesies around the object where nothing keeps them from it.
        """
        wrong = "found no JSON object"
        for found in reversed(_objects(text)):
            try:
                return self.form.read(found)
            except (ValueError, TypeError, KeyError, AttributeError) as error:
                wrong = f"{type(error).__name__}: {error}" if not isinstance(error, ValueError) else str(error)
        raise ValueError(f"expected {', '.join(self.form.schema['properties'])}; {wrong}")


def text(words: str) -> Part:
    return {"type": "text", "text": words}


def explain_question(pictures: Sequence[Sequence[Part]], peaks: Sequence[float]) -> Question:
    """`pictures` are pairs of a plain picture and one with its heat map, `peaks` their highest values."""
    shown = [text(f"{len(pictures)} pictures, each plain and with its heat map.")]
    for number, (pair, peak) in enumerate(zip(pictures, peaks, strict=True), 1):
        shown += [text(f"Picture {number}, highest value {peak:.3g}:"), *pair]
    return Question(EXPLAIN, shown, EXPLANATION)


def judge_question(label: str, picture: Sequence[Part]) -> Question:
    """`picture` is a pair of a plain picture and one with its heat map."""
    return Question(JUDGE, [text(_labelled(label)), *picture], JUDGMENT)


def locate_question(label: str, plain: Part) -> Question:
    return Question(LOCATE, [text(_labelled(label)), plain], PLACE)


def _labelled(label: str) -> str:
    # A label may be anybody's words: as a JSON string it cannot pass for a part of the question.
    return f"Label: {json.dumps(label, ensure_ascii=False)}"


def _read_explanation(found: Mapping[str, Any]) -> Label:
    label, explanation = (" ".join(plain(str(found[name])).split()) for name in ("label", "explanation"))
    if not isinstance(found["label"], str) or not label:
        raise ValueError("its label is empty")
    return Label(label[:LABEL_CHARACTERS], explanation[:EXPLANATION_CHARACTERS])


def _read_judgment(found: Mapping[str, Any]) -> float:
    score = _number(found["score"])
    if not 0 <= score <= 1:
        raise ValueError(f"its score is {score}, not from 0 to 1")
    return score


def _read_place(found: Mapping[str, Any]) -> Place:
    boxes = []
    for box in found["boxes"]:
        left, top, right, bottom = (min(max(_number(box[side]) / 100, 0), 1) for side in Box._fields)
        if left < right and top < bottom:
            boxes.append(Box(left, top, right, bottom))
    return Place(tuple(boxes), found.get("outside") is True)


def _number(value: Any) -> float:
    try:
        number = float(value) if isinstance(value, int | float | str) and not isinstance(value, bool) else math.nan
    except OverflowError:  # a whole number of hundreds of digits
        number = math.inf
    if not math.isfinite(number):
        raise ValueError(f"{shown(value)} is no number")
    return number


def _objects(text: str) -> list[Mapping[str, Any]]:
    """The JSON objects in a text, one after another; those inside another are not counted."""
    decoder, found, at, tries = json.JSONDecoder(), [], 0, 0
    while (start := text.find("{", at)) >= 0 and tries < 100:
        tries += 1
        try:
            value, at = decoder.raw_decode(text, start)
            found.append(value)
        except (ValueError, RecursionError):
            at = start + 1
    return found


def _object(properties: Mapping[str, Any]) -> dict[str, Any]:
    """Strict schemas want every property required and no others."""
    return {
        "type": "object",
        "properties": dict(properties),
        "required": list(properties),
        "additionalProperties": False,
    }


_TEXT, _NUMBER = {"type": "string"}, {"type": "number"}
EXPLANATION = Form(
    "explanation",
    _object({"descriptions": {"type": "array", "items": _TEXT}, "explanation": _TEXT, "label": _TEXT}),
    250,
    _read_explanation,
)
JUDGMENT = Form("judgment", _object({"score": _NUMBER}), 15, _read_judgment)
PLACE = Form(
    "place",
    _object(
        {
            "boxes": {"type": "array", "items": _object(dict.fromkeys(Box._fields, _NUMBER))},
            "outside": {"type": "boolean"},
        }
    ),
    60,
    _read_place,
)
