"""Words of questions that may be anybody's."""

import pytest

from fluxtionary.browser.question import LENGTH, Question
from fluxtionary.browser.refusal import RefusedError


def test_numbers_and_texts_are_read():
    question = Question({"text": "a\0b <script>", "feature": "12", "low": "-3"})
    assert question.text("text") == "a\0b <script>" and question.text("order", "number") == "number"
    assert question.number("feature", 0, 12) == 12 and question.number("low", -5, 0) == -3
    assert question.number("limit", 1, 200, 50) == 50


@pytest.mark.parametrize(
    "word", ["", "x", "1.0", "1e3", " 1", "1\n", "+1", "0x1", "1_0", "٣", "²", "9" * 400, "-1", "201"]
)
def test_what_is_no_number_in_range_is_refused(word):
    with pytest.raises(RefusedError, match="limit: expected a number from 1 to 200, found") as refusal:
        Question({"limit": word}).number("limit", 1, 200)
    assert refusal.value.status == 400 and len(refusal.value.text) < 120


def test_missing_and_long_texts_are_refused():
    with pytest.raises(RefusedError, match="atlas: expected a text, found none"):
        Question({}).text("atlas")
    with pytest.raises(RefusedError, match=f"atlas: expected at most {LENGTH} characters"):
        Question({"atlas": "x" * (LENGTH + 1)}).text("atlas")
