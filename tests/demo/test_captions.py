import numpy as np
import pytest

from fluxtionary.demo.captions import (
    STYLES,
    TEXT_TOKENS,
    CaptionError,
    caption_of,
    check_caption,
    named_factors,
    random_caption,
    words_of,
)
from fluxtionary.demo.scenes import FACTORS, sample_scenes


def test_captions_name_what_they_are_given_and_nothing_else():
    rng = np.random.default_rng(0)
    for scene in sample_scenes(300, 0, "train"):
        named = {name: value for name, value in scene.factors.items() if rng.random() < 0.5}
        for style in STYLES:
            text = caption_of(named, style)
            check_caption(text)
            assert named_factors(text) == named
            assert len(words_of(text)) <= TEXT_TOKENS - 2


def test_a_caption_reads_well():
    named = {"color": "orange", "shape": "ring", "size": "small", "position": "top left", "background": "navy"}
    assert caption_of(named) == "a small orange ring at the top left on a navy background"
    assert caption_of(named, "tags") == "small, orange, ring, top left, navy background"
    assert caption_of({"color": "orange"}) == "an orange shape"
    assert caption_of({}) == ""


def test_training_captions_are_true_and_of_every_kind():
    rng = np.random.default_rng(0)
    counts = []
    for scene in sample_scenes(2000, 0, "train"):
        named = named_factors(random_caption(scene.factors, rng, full=0.3))
        assert named.items() <= scene.factors.items()
        counts.append(len(named))
    assert set(counts) == set(range(len(FACTORS) + 1))
    assert 0.3 < counts.count(len(FACTORS)) / 2000 < 0.36 and 0.1 < counts.count(0) / 2000 < 0.16


@pytest.mark.parametrize(
    ("caption", "words"),
    [
        ("a scarlet circle", "'scarlet'.*color: red"),
        ("a red circle " * 6, "18 words.*at most 14"),
    ],
)
def test_captions_it_cannot_read_are_refused_with_a_hint(caption, words):
    with pytest.raises(CaptionError, match=words):
        check_caption(caption)


@pytest.mark.parametrize(
    ("caption", "words"), [("a red blue circle", "2 values of color"), ("a ring at the top bottom", "no one position")]
)
def test_contradictions_are_refused(caption, words):
    with pytest.raises(CaptionError, match=words):
        named_factors(caption)


def test_unknown_factors_are_refused():
    with pytest.raises(ValueError, match="colour"):
        caption_of({"colour": "red"})
