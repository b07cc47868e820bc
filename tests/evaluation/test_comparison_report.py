import json
import re
from xml.etree import ElementTree

import pytest

from fluxtionary.evaluation.comparison_figures import summary
from fluxtionary.evaluation.comparison_report import charts, write_comparison
from fluxtionary.evaluation.contestants import WAYS
from fluxtionary.evaluation.feature_cards import Card

from .findings import invented


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    out, found = tmp_path_factory.mktemp("out"), invented(truth=False)
    figures = summary(found, 3, 50)
    card = Card(
        7,
        "best",
        "<script>alert(1)</script>",
        {"interp": 0.9},
        0.01,
        ["data:image/png;base64,AA=="],
        ["a <b>red</b> circle"],
        "“a ring”, seed 3, row 1, column 2, sigma 0.50",
        "data:image/png;base64,BB==",
    )
    write_comparison(figures, found.stability, {"itda": [card]}, out)
    return out


def test_figures_are_plain_json_without_gaps_in_the_names(written):
    found = json.loads((written / "summary.json").read_text())
    assert found["sae"]["truth"]["coverage"] is None  # not measured here: null, not NaN
    assert found["sae"]["interp"]["low"] < found["sae"]["interp"]["score"]


def test_the_page_holds_everything_and_loads_nothing(written):
    page = (written / "report.html").read_text()
    for way in WAYS.values():
        assert way.title in page
    assert "stand-in" in page and "says nothing about vision-language models" in page
    assert "arXiv 2505.24360" in page and "not shown" in page
    assert "Its source, the framed token" in page and "seed 3, row 1, column 2" in page
    assert "<script>" not in page and "&lt;script&gt;alert" in page and "a &lt;b&gt;red" in page
    assert not re.search(r"(?:src|href)=\"(?!data:)", page) and "@import" not in page
    assert "nan" not in re.sub(r"<[^>]*>", " ", page)


def test_every_plot_is_well_formed(written):
    found = invented()
    drawn = charts(summary(found, 3, 20), found.stability)
    assert len(drawn) == 6
    for chart in drawn:
        ElementTree.fromstring(chart)
    assert "14.9" not in drawn[-1]  # products with atoms are no reconstruction: only in the table
