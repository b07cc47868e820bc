"""Finding features by a text."""

import random

import pytest

from fluxtionary.atlas import Atlas, AtlasLookupError, AtlasWriter, Example, Feature
from fluxtionary.atlas.search import WORDS, words

from .atlases import build, header, maps, pixels

HOSTILE = (
    *('"', '""', "'", "*", "a*b", "NEAR(a b, 3)", "AND", "OR NOT", "label:", "{label} : x", "^red", "red - blue"),
    *("(" * 500, ")" * 500, "\0", "red\0blue", "\ud800", "\U0001f600", "½", "²", "_", "a" * 100_000, "a " * 100_000),
    *(
        "'; DROP TABLE features; --",
        "%s%n",
        "\\",
        "red\\",
        "\u202ered",
        "e\u0301",
        "你好",
        "ⅷ",
        "\x7f",
        "+",
        "rank MATCH x",
    ),
)


@pytest.fixture(scope="module")
def atlas(tmp_path_factory):
    with Atlas.open(build(tmp_path_factory.mktemp("search") / "atlas")) as atlas:
        yield atlas


@pytest.fixture(scope="module")
def ranked(tmp_path_factory):
    """40 pictures, red or green, of circles or squares; five features, each with its top pictures and texts."""
    folder = tmp_path_factory.mktemp("ranked") / "atlas"
    with AtlasWriter.begin(folder, header()) as writer:
        for number in range(40):
            shape, color = ("circle", "square")[number % 2], ("red", "green")[number // 2 % 2]
            writer.add(number, f"a {color} {shape}", 0, pixels(number), maps(number))
        red_circles, red_squares, rest = range(0, 40, 4), range(1, 40, 4), range(2, 40, 4)
        tops = {0: [*red_circles], 1: [*red_squares], 2: [0], 3: [*rest[:9], 0], 4: [3], 5: [3]}
        texts = {4: ("red circles", "These are what is meant."), 5: ("shapes", "Some are red, and one is a circle.")}
        features = [Feature(n, label=texts[n][0], explanation=texts[n][1]) if n in texts else Feature(n) for n in tops]
        writer.finish(features, {n: [Example(p, 1.0, "top", r) for r, p in enumerate(ps)] for n, ps in tops.items()})
    with Atlas.open(folder) as atlas:
        yield atlas


def numbers(found):
    return [each.number for each in found]


def test_labels_come_first_then_explanations_then_captions(ranked):
    # all ten pictures of 0 are red circles, the only one of 2 is, one of ten of 3 is, none of 1 is
    assert numbers(ranked.search("red circle")) == [4, 5, 0, 2, 3]


def test_captions_count_against_chance(ranked):
    assert numbers(ranked.search("red"))[:4] == [4, 5, 0, 1]
    assert numbers(ranked.search("square")) == [1, 4, 5]


def test_words_match_whatever_their_form(atlas):
    for text in ("blue squares", "BLUE Square", "squared blue", "blue, square!", "blue squar"):
        assert 1 in numbers(atlas.search(text)), text
    assert numbers(atlas.search("cafe")) == numbers(atlas.search("CAFÉ")) == [2, 0, 20]


def test_the_last_word_may_be_a_beginning(atlas):
    assert numbers(atlas.search("red squ")) == numbers(atlas.search("red square")) == [2, 0, 20]
    assert atlas.search("squ red") == atlas.search("red")  # no beginning where it is not the last
    assert numbers(atlas.search("re")) == []  # two letters begin too much


def test_all_words_have_to_be_there_unless_nothing_has_them_all(atlas):
    assert 0 not in numbers(atlas.search("blue things"))
    assert numbers(atlas.search("green elephant")) == numbers(atlas.search("green")) == [20]
    assert atlas.search("elephant") == atlas.search("purple elephant") == []


def test_of_words_that_are_not_together_the_rarest_count(ranked):
    assert numbers(ranked.search("a large shape that is a square"))[0] == 5  # of "shapes"; squares are everywhere


def test_an_order_other_than_relevance(ranked, atlas):
    assert numbers(ranked.search("red circle", order="number")) == [0, 2, 3, 4, 5]
    found = numbers(atlas.search("red", order="peak"))
    assert found == [number for number in numbers(atlas.features("peak")) if number in found] and len(found) == 3


def test_pages_of_results_follow_on_one_another(ranked):
    for order in ("relevance", "number"):
        whole = numbers(ranked.search("red circle", order=order))
        assert [numbers(ranked.search("red circle", 1, place, order))[0] for place in range(5)] == whole
        assert ranked.search("red circle", 5, 5, order) == ranked.search("red circle", 0, 0, order) == []


def test_a_text_without_words_finds_nothing(atlas):
    assert atlas.search("") == atlas.search(" ?! ") == []


@pytest.mark.parametrize("text", HOSTILE, ids=range(len(HOSTILE)))
def test_any_text_is_safe(atlas, text):
    assert isinstance(atlas.search(text), list)
    assert isinstance(atlas.search(f"red {text} circle"), list)
    assert atlas.count() == 4


def test_random_texts_are_safe(atlas):
    chance = random.Random(0)
    pieces = [
        "red",
        "circle",
        " ",
        '"',
        "*",
        "(",
        ")",
        ":",
        "AND",
        "NOT",
        "NEAR",
        "-",
        "^",
        "{",
        "}",
        "+",
        "\0",
        "é",
        "''",
    ]
    for _ in range(300):
        atlas.search("".join(chance.choice(pieces) for _ in range(chance.randrange(12))))
        atlas.search("".join(chr(chance.randrange(0x110000)) for _ in range(chance.randrange(12))))


def test_words_are_strings_to_the_index():
    assert words('red "circle" OR x*') == ['"red"', '"circle"', '"OR"', '"x"']
    assert words("red circles") == ['"red"', '"circles"*']
    assert words("red red red") == ['"red"*']
    assert words("The ring of a") == ['"ring"'] and words("of the") == ['"of"', '"the"*']


def test_all_of_many_words_count_and_too_many_are_refused(tmp_path):
    folder = build(tmp_path / "atlas")
    many = " ".join(f"word{n}" for n in range(WORDS - 1))
    with Atlas.open(folder) as atlas, AtlasWriter.annotate(folder) as writer:
        for number, last in ((0, "circle"), (1, "square")):
            writer.set_label(number, f"{many} {last}", "")
        assert numbers(atlas.search(f"{many} at the square")) == [1]
        with pytest.raises(AtlasLookupError, match="expected a text of at most 32 words, found 33; leave some out"):
            atlas.search(f"{many} square circle")
