import gzip
import logging

import pytest

from fluxtionary.training.prompt_pairs import Pair, checked, expand, groups, read_pairs
from fluxtionary.training.prompts import PromptError

TWO = [Pair("a red circle", "a blue circle"), Pair("ein Käse, rot", "ein Käse")]
FILES = {
    "a.csv": 'positive,negative\na red circle,a blue circle\n\n" ein Käse, rot ",ein Käse\n',
    "more.csv": 'n,negative,positive\n1,a blue circle,a red circle\n2,ein Käse,"ein Käse, rot"\n',
    "a.tsv": "positive\tnegative\r\na red circle\ta blue circle\r\nein Käse, rot\tein Käse\r\n",
    "a.jsonl": '{"positive": "a red circle", "negative": "a blue circle"}\n'
    '{"negative": "ein Käse", "positive": "ein Käse, rot", "n": 2}\n',
    "a.json": '[{"positive": "a red circle", "negative": "a blue circle"},'
    ' {"positive": "ein Käse, rot", "negative": "ein Käse"}]',
    "a.txt": "a {red|blue} circle\n\nein Käse{, rot|}\n",
}


@pytest.mark.parametrize("name", FILES)
def test_every_kind_of_file_gives_its_pairs(tmp_path, name):
    path = tmp_path / name
    path.write_text(FILES[name], "utf-8")
    assert read_pairs(path) == TWO
    zipped = tmp_path / f"{name}.gz"
    zipped.write_bytes(gzip.compress(FILES[name].encode(), mtime=0))
    assert read_pairs(zipped) == TWO


def test_columns_can_have_other_names(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text("with,without\na red circle,a circle\n")
    assert read_pairs(path, ("with", "without")) == [Pair("a red circle", "a circle")]


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("a.csv", "positive,negative\na,b\nc,\n", "row 2 of 2: .* found none under 'negative'"),
        ("a.csv", 'positive,negative\n" ",b\n', "row 1 of 1: .* found none under 'positive'"),
        ("a.jsonl", '{"positive": "", "negative": null}\n', "found none under 'positive' or 'negative'"),
        ("a.csv", "positive,negative\na\n", "line 2: expected 2 columns as in the first row, found 1"),
        ("a.jsonl", '{"positive": "a"}\n', "expected an object with column 'negative', found positive$"),
        ("a.csv", "prompt,negative\na,b\n", "column 'positive', found prompt, negative$"),
        ("a.csv", "positive,negative\n", "expected pairs of prompts, found none"),
        ("a.csv", "", "expected pairs of prompts, found none"),
        ("a.txt", "", "expected prompts, found none"),
        ("a.txt", "a red circle\n", "a.txt: template 'a red circle': expected a slot such as {red|blue}, found none"),
        ("a.doc", "x", "expected .txt, .csv"),
        (None, None, "expected a file of prompts, found none"),
    ],
)
def test_a_file_without_pairs_is_refused_and_named(tmp_path, name, text, words):
    path = tmp_path / (name or "missing.csv")
    if name:
        path.write_text(text)
    with pytest.raises(PromptError, match=words) as error:
        read_pairs(path)
    assert str(path) in str(error.value)


def test_one_slot_is_contrasted_and_the_others_expanded():
    pairs = expand("a {red|blue} circle on a {black|white} background")
    assert pairs == [
        Pair("a red circle on a black background", "a blue circle on a black background"),
        Pair("a red circle on a white background", "a blue circle on a white background"),
    ]
    pairs = expand("a {red|blue} {circle|ring} on a {black|white|tan} background", slot=3)
    assert len(pairs) == 2 * 2 * 2
    assert pairs[0] == Pair("a red circle on a black background", "a red circle on a white background")
    assert all("black" in pair.positive and "black" not in pair.negative for pair in pairs)


def test_the_first_value_is_set_against_each_other_one_and_values_may_be_empty_or_phrases():
    assert expand("{an orange|a red|a blue} circle") == [
        Pair("an orange circle", "a red circle"),
        Pair("an orange circle", "a blue circle"),
    ]
    assert expand("a {large |}circle") == [Pair("a large circle", "a circle")]
    assert expand("a circle{|, on fire}") == [Pair("a circle", "a circle, on fire")]


@pytest.mark.parametrize(
    ("template", "slot", "words"),
    [
        ("a red circle", 1, "expected a slot such as {red|blue}, found none"),
        ("a {red} circle", 1, "two different values or more in each slot, found {red}"),
        ("a {red|red } circle", 1, "found {red|red }"),
        ("a {} circle", 1, "found {}"),
        ("a {red|blue circle", 1, "every { to have its }"),
        ("a {red|{blue|green}} circle", 1, "none inside another"),
        ("a {red|blue} circle", 2, "expected slot 2 to be contrasted, found 1 slots"),
        ("a {red|blue} circle", 0, "expected slot 0"),
    ],
)
def test_a_template_that_makes_no_sense_is_refused(template, slot, words):
    with pytest.raises(PromptError, match=words):
        expand(template, slot)


def test_equal_and_repeated_pairs_are_left_out_with_a_warning(caplog):
    pairs = [*TWO, Pair("a", "a"), TWO[0], Pair("b", "b"), Pair("c", "d")]
    assert checked(pairs) == [*TWO, Pair("c", "d")]
    assert "of 6 pairs 3 are left out: 2 the same on both sides, 1 repeated" in caplog.text


def test_good_pairs_are_kept_without_a_word(caplog):
    assert checked(TWO) == TWO
    assert not caplog.text


@pytest.mark.parametrize(
    ("pairs", "words"),
    [
        ([Pair("a", "a"), Pair("b", "b")], "found 2, 2 of them the same on both sides, such as 'a'"),
        ([], "found 0"),
        ([Pair("a", "b"), Pair("c", "d"), Pair("b", "a")], "found 2 of 3 that are another turned round, such as 'a'"),
    ],
)
def test_pairs_of_which_nothing_can_be_learned_are_refused(pairs, words):
    with pytest.raises(PromptError, match=words):
        checked(pairs)


def test_one_pair_and_thousands_are_warned_of_with_figures(caplog):
    caplog.set_level(logging.WARNING)
    checked(TWO[:1])
    assert "1 pair: " in caplog.text and "some 80 pairs are better" in caplog.text
    caplog.clear()
    many = [Pair(f"{number} red", f"{number} blue") for number in range(4000)]
    assert len(checked(many)) == 4000
    assert "4,000 pairs: beyond some 80 more stop helping" in caplog.text and "--limit" in caplog.text
    caplog.clear()
    some = checked(many, limit=50)
    assert len(some) == 50 and not caplog.text
    assert some == checked(many, limit=50) and some == sorted(some, key=many.index)
    assert len({many.index(pair) // 400 for pair in some}) > 7  # from all over


def test_what_the_model_does_not_understand_is_refused_before_anything_is_drawn():
    def check(prompt):
        if "dragon" in prompt:
            raise ValueError(f"unknown: {prompt}")

    with pytest.raises(ValueError, match="unknown: a blue dragon"):
        checked([*TWO, Pair("a red dog", "a blue dragon")], check)


def test_pairs_that_share_a_prompt_are_of_one_group():
    a, b, c = Pair("1", "2"), Pair("3", "4"), Pair("5", "6")
    assert groups([a, b, c]) == [0, 1, 2]
    assert groups([a, b, Pair("1", "7"), Pair("8", "7")]) == [0, 1, 0, 0]
    assert groups([a, Pair("3", "2"), Pair("9", "2")]) == [0, 1, 2]  # one negative for all: nothing else is left
