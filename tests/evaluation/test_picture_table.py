"""Tables of pictures: each picture is where its row and column say, unchanged, and every label can be read."""

import numpy as np
import pytest

from fluxtionary.evaluation.picture_table import GROUND, Column, Row, picture_table

COLORS = [(200, 30, 30), (30, 200, 30), (30, 30, 200), (200, 200, 30), (30, 200, 200)]


def picture(color, height=40, width=40):
    return np.full((height, width, 3), color, np.uint8)


def boxes(table):
    """Where each color lies: top, left, height, width."""
    pixels, found = np.asarray(table), []
    for color in COLORS:
        rows, columns = np.nonzero((pixels == color).all(-1))
        if len(rows):
            found.append((rows.min(), columns.min(), np.ptp(rows) + 1, np.ptp(columns) + 1))
            assert len(rows) == found[-1][2] * found[-1][3], "a picture is covered, or shown twice"
    return found


def test_pictures_lie_in_their_rows_and_columns():
    columns = [Column("plain"), Column("0.2", "strength"), Column("0.8", "strength")]
    rows = [
        Row([picture(COLORS[0]), picture(COLORS[1]), picture(COLORS[2])], "0 to 0.5", "of sampling"),
        Row([None, picture(COLORS[3]), picture(COLORS[4])], "0 to 1", "of sampling"),
    ]
    table = picture_table(columns, rows, "a red circle", "feature 7")
    first, second, third, fourth, fifth = boxes(table)
    assert {box[2:] for box in (first, second, third, fourth, fifth)} == {(200, 200)}, "enlarged by a whole number"
    assert first[0] == second[0] == third[0] < fourth[0] == fifth[0]
    assert second[1] == fourth[1] and third[1] == fifth[1]
    assert second[1] - first[1] > third[1] - second[1], "the plain column stands apart"


@pytest.mark.parametrize(
    ("changed", "region"),
    [
        ({"title": "another title"}, "above"),
        ({"about": "another word"}, "above"),
        ({"column": "0.9"}, "above"),
        ({"heading": "window"}, "above"),
        ({"label": "seed 4"}, "left"),
        ({"detail": "of it"}, "left"),
    ],
)
def test_every_label_is_drawn_and_covers_no_picture(changed, region):
    def table(title="title", about="word", column="0.2", heading="sizes", label="seed 3", detail="of me"):
        rows = [Row([picture(COLORS[0], 300, 200), picture(COLORS[1], 300, 200)], label, detail)]
        return picture_table([Column("plain"), Column(column, heading)], rows, title, about)

    before, after = table(), table(**changed)
    (top, left, height, width), _ = boxes(before)
    assert (height, width) == (300, 200)
    crop = (0, 0, before.width, top) if region == "above" else (0, top, left, before.height)
    if before.size == after.size:
        assert before.crop(crop).tobytes() != after.crop(crop).tobytes()
    boxes(after)


def test_long_texts_stay_within_the_sheet():
    rows = [Row([picture(COLORS[0], 200, 200)])]
    table = picture_table([Column("plain")], rows, "supercalifragilistic" * 40 + " word" * 300, "x " * 900)
    edge = np.asarray(table)[:, -8:]
    assert (edge == GROUND).all() and table.width < 400
