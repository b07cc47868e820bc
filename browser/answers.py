"""The questions of the feature browser by name, and their answers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch

from ..atlas import AtlasError
from ..dictionaries import FeatureError
from ..residual.capture import CaptureError
from ..residual.reading import View as Part
from . import features
from .installed import PATIENCE, installed
from .pictures import Picture, map_picture
from .question import Question
from .refusal import BAD_REQUEST, NOT_FOUND, RefusedError
from .shelf import Shelf, refused
from .tokens import features_of_tokens
from .views import View, Views

STEPS = 10**6
PICTURES = 10**7

Answer = dict[str, Any] | Picture


class Browser:
    """Answers questions, many at a time. `shelf` has what is installed, `views` the runs that were shown."""

    def __init__(self, shelf: Shelf, views: Views):
        self.shelf, self.views = shelf, views

    def answer(self, name: str, words: Mapping[str, str]) -> Answer:
        """The answer to one of `QUESTIONS`. Raises `RefusedError`, and nothing else for whatever is asked."""
        question = Question(words)
        try:
            return QUESTIONS[name](self, question)
        except AtlasError as error:
            raise refused(error, question.text("atlas", "the atlas")) from error
        except (CaptureError, FeatureError) as error:
            raise RefusedError(NOT_FOUND, str(error.args[0])) from error


def _installed(browser: Browser, question: Question) -> Answer:
    return installed(browser.shelf)


def _features(browser: Browser, question: Question) -> Answer:
    return features.page(browser.shelf.atlas(question.text("atlas")), question)


def _feature(browser: Browser, question: Question) -> Answer:
    atlas = browser.shelf.atlas(question.text("atlas"))
    number = question.number("feature", 0, atlas.n_features - 1)
    name = browser.shelf.dictionary_of(atlas, PATIENCE)
    natural = None if name is None else browser.shelf.natural(name)
    return features.detail(atlas, number, None if natural is None else float(natural[number]))


def _picture(browser: Browser, question: Question) -> Answer:
    atlas = browser.shelf.atlas(question.text("atlas"))
    picture = atlas.picture(question.number("picture", 0, PICTURES - 1))
    return Picture(atlas.webp(picture.number), "image/webp")


def _map(browser: Browser, question: Question) -> Answer:
    atlas = browser.shelf.atlas(question.text("atlas"))
    feature = atlas.feature(question.number("feature", 0, atlas.n_features - 1))
    values = atlas.heat_map(feature.number, question.number("picture", 0, PICTURES - 1))
    return map_picture(torch.from_numpy(values), feature.peak)


def _view(browser: Browser, question: Question) -> Answer:
    view = browser.views.view(question.text("view"))
    return view.said(browser.shelf.atlas_of(view.dictionary, PATIENCE), browser.shelf.name_of(view.path))


def _view_image(browser: Browser, question: Question) -> Answer:
    view = browser.views.view(question.text("view"))
    return view.picture(question.number("picture", 0, view.pictures - 1, 0))


def _view_features(browser: Browser, question: Question) -> Answer:
    view = browser.views.view(question.text("view"))
    box = _box(question, view.grid)
    found = features_of_tokens(view, _part(question, view), box, question.number("count", 1, features.LIMIT, 20))
    known = _known(browser, view, [one["feature"] for one in found])
    nothing = {"label": None, "picture": None}
    return {"features": [one | known.get(one["feature"], nothing) for one in found]}


def _known(browser: Browser, view: View, numbers: list[int]) -> dict[int, dict[str, Any]]:
    """What the view's atlas, if there is one, says of features. A damaged atlas says nothing here."""
    name = browser.shelf.atlas_of(view.dictionary, PATIENCE)
    if name is None:
        return {}
    try:
        rows = features.rows(browser.shelf.atlas(name), numbers)
    except AtlasError:
        return {}
    return {row["feature"]: {"label": row["label"], "picture": row["picture"]} for row in rows}


def _view_map(browser: Browser, question: Question) -> Answer:
    view = browser.views.view(question.text("view"))
    part = _part(question, view)
    feature = question.number("feature", 0, view.dictionary.n_features - 1)
    assert part.picture is not None and part.last is not None
    return view.map(feature, part.picture, part.first, part.last)


def _part(question: Question, view: View) -> Part:
    picture = question.number("picture", 0, view.pictures - 1, 0)
    first, last = question.number("first", 0, STEPS, 0), question.number("last", 0, STEPS, STEPS)
    if first > last:
        raise RefusedError(
            BAD_REQUEST, f"first, last: expected steps in order, found {first} and {last}; exchange them"
        )
    return Part(picture, view.role, first, last)


def _box(question: Question, grid: tuple[int, int]) -> tuple[int, int, int, int]:
    """Top, left, bottom, right of a rectangle of tokens; all of the picture by default."""
    top, left = question.number("top", 0, grid[0] - 1, 0), question.number("left", 0, grid[1] - 1, 0)
    bottom = question.number("bottom", top + 1, grid[0], grid[0])
    return top, left, bottom, question.number("right", left + 1, grid[1], grid[1])


QUESTIONS: dict[str, Callable[[Browser, Question], Answer]] = {
    "installed": _installed,
    "features": _features,
    "feature": _feature,
    "picture": _picture,
    "map": _map,
    "view": _view,
    "view/image": _view_image,
    "view/features": _view_features,
    "view/map": _view_map,
}
