import re
from html.parser import HTMLParser

import numpy as np
import pytest

from fluxtionary.atlas import Atlas, AtlasWriter, Example, Feature, Maps, Score, Source
from fluxtionary.commands.atlas import described
from fluxtionary.evaluation.feature_page import feature_page

EVIL = "<script>alert(1)</script> \" onload='x"


@pytest.fixture(scope="module")
def atlas(tmp_path_factory):
    """Two features of an atlas that somebody else made, with texts that try to get out of the page."""
    folder = tmp_path_factory.mktemp("page") / "atlas"
    header = {
        "fingerprint": "0" * 64,
        "dictionary": {"kind": EVIL, "site": "double.1.img", "n_features": 8},
        "grid": [2, 2],
        "size": [16, 16],
        "sigmas": [0.9, 0.1],
        "capture": {},
    }
    feature = Feature(
        3, 2, 0.25, 1.0, -2.0, 0.5, 0.25, (0.4, 0.1), ((5, 0.5),), 0.75, Source(EVIL, 9, 0.5, 1, 0), EVIL, EVIL,
        {"interp": Score(0.8, 0.7, 0.9, 10)},
    )  # fmt: skip
    maps = Maps(np.array([3], np.int32), np.array([1], np.int32), np.array([-2.0], np.float32))
    with AtlasWriter.begin(folder, header) as writer:
        for number in range(2):
            writer.add(number, EVIL, number, np.full((16, 16, 3), 128, np.uint8), maps)
        examples = [Example(0, -2.0, "top", 0), Example(1, -2.0, "top", 1), Example(1, -2.0, "spread", 0)]
        writer.finish([feature, Feature(5, 1, peak=1.0)], {3: examples})
    with Atlas.open(folder) as atlas:
        yield atlas


class Tags(HTMLParser):
    def __init__(self):
        super().__init__()
        self.tags, self.sources = [], []

    def handle_starttag(self, tag, attrs):
        assert not [name for name, _ in attrs if name.startswith("on")], attrs
        self.tags.append(tag)
        self.sources += [value for name, value in attrs if name in ("src", "href")]


def test_the_page_shows_the_feature_and_nothing_in_it_runs(atlas):
    page = feature_page(atlas, 3)
    parser = Tags()
    parser.feed(page)
    assert "script" not in parser.tags and parser.tags.count("figure") == 3
    assert len(parser.sources) == 9 and all(source.startswith("data:image/webp;base64,") for source in parser.sources)
    for shown in ("25.00 %", "0.75", "0.80", "row 1, column 0", "5 (0.50)", "When it is active"):
        assert shown in page, shown


def test_views_differ_where_the_feature_is_active(atlas):
    page = feature_page(atlas, 3)
    views = re.findall(r'<img class="(\w+)" src="([^"]+)"', page)
    assert {name for name, _ in views} == {"plain", "blue", "cividis"}
    assert len({uri for _, uri in views[:3]}) == 3


def test_a_feature_of_which_little_is_known_has_a_page_too(atlas):
    page = feature_page(atlas, 5)
    assert "Feature 5" in page and "<figure>" not in page


def test_a_feature_in_words(atlas):
    text = "\n".join(described(atlas, atlas.feature(3)))
    for shown in (
        "in 2 pictures, on 25.00% of tokens",
        "0.90: 40.00%",
        "5 (0.50)",
        "0.80 (0.70 to 0.90, 10)",
        "seed 9",
    ):
        assert shown in text, shown
