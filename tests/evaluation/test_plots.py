import math
from itertools import pairwise
from xml.etree import ElementTree

import pytest

from fluxtionary.evaluation import plots
from fluxtionary.evaluation.plots import (
    Line,
    Range,
    bar_chart,
    histogram,
    line_chart,
    log_ticks,
    number,
    range_chart,
    ticks,
)

NS = "{http://www.w3.org/2000/svg}"


def texts(svg):
    return [node.text for node in ElementTree.fromstring(svg).iter(f"{NS}text")]


def lines(svg):
    found = ElementTree.fromstring(svg).iter(f"{NS}polyline")
    return [[tuple(map(float, pair.split(","))) for pair in node.get("points").split()] for node in found]


def dots(svg):
    return [(float(c.get("cx")), float(c.get("cy"))) for c in ElementTree.fromstring(svg).iter(f"{NS}circle")]


@pytest.mark.parametrize(("low", "high"), [(0, 1), (-3.3, 12.7), (0.981, 0.987), (0, 2.4e6), (-6, 0)])
def test_ticks_are_round_numbers_inside_the_range(low, high):
    found = ticks(low, high)
    assert 3 <= len(found) <= 8
    assert all(low - 1e-9 <= tick <= high + 1e-9 for tick in found)
    gaps = {f"{b - a:.3e}" for a, b in pairwise(found)}
    assert len(gaps) == 1 and gaps.pop()[0] in "125"


def test_ticks_of_a_logarithmic_axis():
    assert log_ticks(1e-4, 1) == pytest.approx([1e-4, 1e-3, 1e-2, 1e-1, 1])
    assert log_ticks(0.01, 0.2) == pytest.approx([0.01, 0.02, 0.05, 0.1, 0.2])
    assert log_ticks(0.31, 0.36) == pytest.approx([0.31, 0.32, 0.33, 0.34, 0.35, 0.36])
    assert len(log_ticks(1e-30, 1)) <= 9


def test_numbers_are_short():
    assert [number(v) for v in (0, 0.05, 12, 9999, 30_000, 1_200_000)] == ["0", "0.05", "12", "9999", "30k", "1.2M"]


def test_points_lie_where_their_numbers_say():
    svg = line_chart([Line("a", [0, 1, 2], [0, 5, 10])], "t", "x", "y")
    left, right, bottom, top = plots.LEFT, plots.WIDTH - plots.RIGHT, plots.HEIGHT - plots.BOTTOM, plots.TOP
    assert lines(svg) == [[(left, bottom), ((left + right) / 2, (bottom + top) / 2), (right, top)]]
    assert dots(svg) == lines(svg)[0]
    (backwards,) = lines(line_chart([Line("a", [0, 1, 2], [0, 5, 10])], "t", "x", "y", reverse_x=True))
    assert backwards == [(right, bottom), ((left + right) / 2, (bottom + top) / 2), (left, top)]


def test_a_logarithmic_axis_gives_each_decade_as_much_room():
    (found,) = lines(line_chart([Line("a", [0, 1, 2], [0.001, 0.01, 1])], "t", "x", "y", log_y=True))
    (_, a), (_, b), (_, c) = found
    assert (a - b) * 2 == pytest.approx(b - c, abs=0.05)


def test_zero_is_taken_in_when_asked():
    series = [Line("a", [0, 1], [0.5, 0.6])]
    bottom, top = plots.HEIGHT - plots.BOTTOM, plots.TOP
    (without,) = lines(line_chart(series, "t", "x", "y"))
    assert without[0][1] == bottom
    (found,) = lines(line_chart(series, "t", "x", "y", zero=True))
    assert found[0][1] == pytest.approx(bottom - 5 / 6 * (bottom - top), abs=0.01)


@pytest.mark.parametrize("gap", [None, math.nan, math.inf])
def test_what_is_no_number_is_a_gap(gap):
    svg = line_chart([Line("a", [0, 1, 2, 3, 4], [1, 2, gap, 2, 1])], "t", "x", "y")
    assert [len(piece) for piece in lines(svg)] == [2, 2]
    assert len(dots(svg)) == 4


def test_what_a_logarithmic_axis_cannot_show_is_a_gap():
    assert len(dots(line_chart([Line("a", [0, 1, 2], [0.0, 0.1, -1])], "t", "x", "y", log_y=True))) == 1


def test_axes_titles_and_names_are_there_and_escaped():
    svg = line_chart([Line("a<b", [0, 1], [0, 1]), Line("c", [0, 1], [1, 0])], "A & B", "steps", "loss")
    found = texts(svg)
    assert {"A & B", "steps", "loss", "a<b", "c", "0.2", "0.8"} <= set(found)
    assert ElementTree.fromstring(svg).find(f"{NS}title").text == "A & B"
    colors = [node.get("stroke") for node in ElementTree.fromstring(svg).iter(f"{NS}polyline")]
    assert colors == list(plots.COLORS[:2])


@pytest.mark.parametrize("series", [[], [Line("a", [], [])], [Line("a", [1], [math.nan])]])
def test_nothing_to_draw_is_said(series):
    assert "nothing to draw" in texts(line_chart(series, "t", "x", "y"))


def test_one_point_is_drawn():
    assert len(dots(line_chart([Line("a", [3], [7])], "t", "x", "y"))) == 1


def test_bars_are_as_long_as_their_values():
    svg = bar_chart([("dictionary", 0.2), ("PCA", 0.4), ("other", None)], "t", "FVU")
    wide = [float(node.get("width")) for node in ElementTree.fromstring(svg).iter(f"{NS}rect")]
    assert wide[1] == pytest.approx(2 * wide[0], abs=0.02) and wide[2] == 0
    assert {"dictionary", "PCA", "FVU", "0.2", "0.4", "none"} <= set(texts(svg))


def test_long_names_are_cut_in_the_middle():
    found = texts(bar_chart([("a-dictionary-of.double.18.img", 1.0)], "t", "FVU"))
    assert "a-dictionary…ouble.18.img" in found


def test_a_histogram_has_one_bar_a_bin():
    svg = histogram([-2, -1, 0], [3, 6], "t", "log10", "features")
    high = [float(node.get("height")) for node in ElementTree.fromstring(svg).iter(f"{NS}rect")]
    assert len(high) == 2 and high[1] == pytest.approx(2 * high[0], abs=0.02)
    with pytest.raises(ValueError, match="2 counts need 3 edges, found 2"):
        histogram([-2, -1], [3, 6], "t", "x", "y")


def test_ranges_lie_about_their_values_and_the_reference_is_on_the_axis():
    rows = [Range("a", 0.7, 0.6, 0.8), Range("b", 0.55, 0.52, 0.6, 2), Range("not measured", math.nan, None, None)]
    svg = range_chart(rows, "Scores", "score", 0.5)
    (ax, ay), (bx, by) = dots(svg)
    assert ax > bx and ay < by
    ranges = [line for line in ElementTree.fromstring(svg).iter(f"{NS}line") if line.get("stroke-width") == "3"]
    assert [float(r.get("x1")) < x < float(r.get("x2")) for r, x in zip(ranges, (ax, bx), strict=True)] == [True, True]
    (broken,) = [line for line in ElementTree.fromstring(svg).iter(f"{NS}line") if line.get("stroke-dasharray")]
    assert float(broken.get("x1")) < bx
    assert "none" in texts(svg) and "0.700" in texts(svg)
