import numpy as np
import pytest

from fluxtionary.interpretation.questions import Box, Place
from fluxtionary.interpretation.region import Region, iou, marked, region_score


def test_tokens_are_marked_where_half_of_them_lies_in_a_box():
    inside = marked(Place((Box(0, 0, 0.5, 0.26),), False), (4, 4))
    assert inside.sum() == 2 and inside[0, :2].all()
    assert marked(Place((Box(0.13, 0, 0.5, 0.25),), False), (4, 4)).sum() == 1
    assert marked(Place((Box(0.12, 0, 0.5, 0.25),), False), (4, 4)).sum() == 2
    two = Place((Box(0, 0, 0.25, 1), Box(0.75, 0, 1, 1)), False)
    assert marked(two, (2, 4)).tolist() == [[True, False, False, True]] * 2
    assert marked(two._replace(outside=True), (2, 4)).tolist() == [[False, True, True, False]] * 2
    assert not marked(Place((), False), (3, 5)).any() and marked(Place((), True), (3, 5)).all()


def test_iou_is_the_share_of_the_union():
    one, other = np.array([[True, True, False]]), np.array([[False, True, True]])
    assert iou(one, other) == pytest.approx(1 / 3) and iou(one, one) == 1 and iou(one, ~one) == 0
    assert iou(np.zeros((2, 2), bool), np.zeros((2, 2), bool)) == 0


def test_the_score_is_the_mean_over_pictures():
    scores = region_score([Region(1, 0, 0.5), Region(1, 2, 1.0), Region(4, 0, 0.0)])
    assert scores[1].value == 0.75 and scores[1].n == 2 and scores[4].value == 0
