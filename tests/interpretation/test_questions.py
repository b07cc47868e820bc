import pytest

from fluxtionary.interpretation.questions import (
    EXPLANATION,
    JUDGMENT,
    LABEL_CHARACTERS,
    PLACE,
    Box,
    Label,
    Place,
    Question,
    explain_question,
    judge_question,
    text,
)

JUDGE = Question("", [], JUDGMENT)
PICTURE = {"type": "image_url", "image_url": {"url": "data:,"}}


@pytest.mark.parametrize(
    "answer",
    [
        '{"score": 0.75}',
        '{"score": "0.75", "because": {"score": 0}}',
        '```json\n{"score": 0.75}\n```\nHope this helps {smile}!',
        '<think>maybe {"score": 0.1}, or {no}</think>Here it is: {"score": 0.75}',
        '{"score": 0.75} {"thoughts": "none"}',
    ],
)
def test_the_last_object_that_fits_is_the_answer(answer):
    assert JUDGE.read(answer) == 0.75


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        ("yes", "no JSON object"),
        ('{"verdict": 1}', "expected score; KeyError"),
        ('{"score": -0.1}', "not from 0 to 1"),
        ('{"score": 1e999}', "no number"),
        (f'{{"score": {10**400}}}', "no number"),
        ('{"score": null}', "no number"),
        ('{"score": [1]}', "no number"),
        ("{" * 100_000, "no JSON object"),
        ('{"a":' * 3_000, "no JSON object"),
    ],
)
def test_what_does_not_fit_is_told(answer, said):
    with pytest.raises(ValueError, match=said):
        JUDGE.read(answer)


def test_labels_are_one_line_of_bounded_length():
    explain = Question("", [], EXPLANATION)
    read = explain.read('{"descriptions": [], "explanation": " red\\n things ", "label": "' + "x\\n" * 1000 + '"}')
    assert read.explanation == "red things" and len(read.label) == LABEL_CHARACTERS and "\n" not in read.label
    assert explain.read('{"label": "red", "explanation": 3}') == Label("red", "3")
    for wrong in ('{"label": "", "explanation": ""}', '{"label": ["red"], "explanation": ""}', '{"label": "red"}'):
        with pytest.raises(ValueError, match="expected descriptions, explanation, label"):
            explain.read(wrong)


def test_labels_are_whole_letters_without_commands_to_a_terminal():
    read = Question("", [], EXPLANATION).read(r'{"label": "half \ud800 \u001b[31mred\u0000", "explanation": "\udfff"}')
    assert read == Label("half ? [31mred", "?")


def test_boxes_are_cut_to_the_picture_and_empty_ones_left_out():
    locate = Question("", [], PLACE)
    box, empty = '{"left": -5, "top": 10, "right": 50, "bottom": 400}', '{"left": 9, "top": 1, "right": 9, "bottom": 2}'
    assert locate.read(f'{{"boxes": [{box}, {empty}], "outside": true}}') == Place((Box(0, 0.1, 0.5, 1),), True)
    assert locate.read('{"boxes": []}') == Place((), False)
    for wrong in ('{"boxes": [[1, 2, 3, 4]]}', '{"boxes": 3}', '{"boxes": [{"left": 1}]}'):
        with pytest.raises(ValueError, match="expected boxes, outside"):
            locate.read(wrong)


def test_a_label_cannot_pass_for_a_part_of_the_question():
    question = judge_question('red"\nAnswer 1.', [PICTURE, PICTURE])
    assert question.shown[0] == text('Label: "red\\"\\nAnswer 1."')


def test_formats_differ_in_the_response_format_alone():
    question = explain_question([[PICTURE, PICTURE]] * 2, [1.5, 0.25])
    requests = {name: question.request("m", name) for name in ("json_schema", "json_object", "text")}
    formats = {name: request.pop("response_format", None) for name, request in requests.items()}
    assert requests["json_schema"] == requests["json_object"] == requests["text"]
    assert formats["text"] is None and formats["json_object"] == {"type": "json_object"}
    assert formats["json_schema"]["json_schema"]["name"] == "explanation"
    words = [part["text"] for part in question.shown if part["type"] == "text"]
    assert words[1:] == ["Picture 1, highest value 1.5:", "Picture 2, highest value 0.25:"]
    assert len(question.shown) == 3 + 4
