"""Runs that were shown: what is told of them, and that they are held for as long as the graph holds them."""

import gc
import io
import json
import weakref

import numpy as np
import pytest
import torch
from PIL import Image

from fluxtionary.browser.answers import Browser
from fluxtionary.browser.refusal import RefusedError
from fluxtionary.browser.shelf import Shelf
from fluxtionary.browser.views import GONE, VIEWS, Views
from fluxtionary.residual import Site
from fluxtionary.residual.reading import View as Part
from fluxtionary.residual.reading import heat_maps, statistics

from ..residual.test_reading import GRID, SIGMAS, SITE, N, batch_run, recording_of


class Shown:
    """A run in a graph, its latent and picture, and a browser that looks at it."""

    def __init__(self, image=True):
        self.browser = Browser(Shelf(dict, dict), Views())
        self.recording, self.latent = batch_run(), torch.zeros(2, 16, 8, 12)
        self.image = torch.rand(2, 64, 96, 3) if image else None
        view = self.browser.views.show(self.recording, SITE, "cond", self.latent, self.image)
        self.view = view

    def ask(self, name, **words):
        answer = self.browser.answer(name, {"view": self.view.id, **{k: str(v) for k, v in words.items()}})
        return json.loads(json.dumps(answer, allow_nan=False)) if isinstance(answer, dict) else answer


@pytest.fixture
def shown():
    return Shown()


def test_what_is_said_of_a_run(shown):
    found = shown.ask("view")
    assert found.pop("id") == shown.view.id
    assert found == {
        **{"site": str(SITE), "rows": "cond", "steps": 4, "sigmas": list(SIGMAS), "pictures": 2, "grid": list(GRID)},
        **{"dictionary": {"kind": "sae", "n_features": N, "name": None}, "atlas": None, "image": True},
    }


def test_the_same_run_is_one_view(shown):
    views = shown.browser.views
    assert views.show(shown.recording, SITE, "cond", shown.latent, shown.image) is shown.view
    assert views.show(shown.recording, SITE, "uncond", shown.latent, shown.image) is not shown.view
    assert views.show(shown.recording, SITE, "cond", shown.latent) is not shown.view


def test_text_has_no_place_in_the_picture():
    site = Site.parse("double.1.txt")
    recording = recording_of(site=site)
    assert Views().show(recording, site, "cond", torch.zeros(1, 16, 8, 12)) is None


def test_nothing_is_kept_that_the_graph_lets_go_of(shown):
    kept = [weakref.ref(thing) for thing in (shown.recording, shown.latent, shown.image)]
    shown.ask("view/features")
    shown.recording = shown.latent = shown.image = None
    gc.collect()
    assert [ref() for ref in kept] == [None] * 3
    for name in ("view", "view/image", "view/features", "view/map"):
        with pytest.raises(RefusedError, match=GONE) as refusal:
            shown.ask(name, feature=0)
        assert refusal.value.status == 404


def test_a_picture_that_was_shown_stays_while_the_run_does(shown):
    first = shown.ask("view/image", picture=1)
    shown.image = None
    gc.collect()
    assert shown.ask("view/image", picture=1) is first
    with pytest.raises(RefusedError, match=GONE):
        shown.ask("view/image", picture=0)


def test_the_runs_shown_last_are_known():
    views, latent = Views(), torch.zeros(1, 16, 8, 12)
    runs = [batch_run() for _ in range(VIEWS + 1)]
    ids = [views.show(run, SITE, "cond", latent).id for run in runs]
    assert len(set(ids)) == VIEWS + 1 and views.view(ids[-1]).recording is runs[-1]
    with pytest.raises(RefusedError, match=GONE):
        views.view(ids[0])


def test_the_picture_is_the_one_that_was_given(shown):
    found = shown.ask("view/image", picture=1)
    pixels = np.asarray(Image.open(io.BytesIO(found.data)).convert("RGB")).astype(float) / 255
    assert found.kind == "image/webp" and pixels.shape == (64, 96, 3)
    assert abs(pixels - shown.image[1].numpy()).mean() < abs(pixels - shown.image[0].numpy()).mean()


def test_without_one_it_is_made_of_the_latent():
    shown = Shown(image=False)
    with pytest.raises(RefusedError, match="connect `image`"):
        shown.ask("view/image")
    shown.view.preview = lambda latent: torch.full((*latent.shape[1:], 3), 0.5)
    assert Image.open(io.BytesIO(shown.ask("view/image").data)).size == (12, 8)


def test_large_pictures_are_made_smaller():
    shown = Shown()
    shown.image = torch.zeros(1, 2048, 1536, 3)
    shown.view = shown.browser.views.show(shown.recording, SITE, "cond", shown.latent, shown.image)
    assert Image.open(io.BytesIO(shown.ask("view/image", picture=1).data)).size == (768, 1024)


def test_features_of_tokens_are_those_that_are_active_there(shown):
    box = {"top": 1, "left": 2, "bottom": 3, "right": 5}
    answer = shown.ask("view/features", picture=1, first=1, last=2, count=N, **box)["features"]
    mask = torch.zeros(GRID)
    mask[1:3, 2:5] = 1
    expected = statistics(shown.recording, SITE, Part(1, "cond", 1, 2), mask)
    assert {one["feature"] for one in answer} == set(expected.area.nonzero().flatten().tolist())
    for one in answer:
        for name in ("activation", "peak", "area"):
            assert one[name] == pytest.approx(float(getattr(expected, name)[one["feature"]]))
        assert one["label"] is None and one["picture"] is None and one["strength"] is not None
    order = [one["specific"] for one in answer]
    assert order == sorted(order, reverse=True)
    assert len(shown.ask("view/features", count=3)["features"]) == 3


def test_a_map_is_the_mean_over_steps(shown):
    drawn = Image.open(io.BytesIO(shown.ask("view/map", feature=3, picture=1, first=1, last=2).data))
    maps = heat_maps(shown.recording, SITE, 3, Part(1, "cond", 1, 2)).maps.mean(0)
    assert drawn.size == GRID[::-1] and drawn.mode == "RGBA"
    assert ((np.asarray(drawn)[..., 3] > 0) == (maps != 0).numpy()).all()


@pytest.mark.parametrize(
    ("status", "name", "words"),
    [
        (400, "view/features", {"top": 4}),
        (400, "view/features", {"top": 2, "bottom": 2}),
        (400, "view/features", {"right": 7}),
        (400, "view/features", {"picture": 2}),
        (400, "view/features", {"first": 3, "last": 2}),
        (404, "view/features", {"first": 4}),
        (400, "view/map", {"feature": N}),
        (400, "view/map", {}),
        (404, "view/map", {"feature": 0, "first": 9}),
        (400, "view/image", {"picture": -1}),
    ],
    ids=str,
)
def test_other_questions_are_refused(shown, status, name, words):
    with pytest.raises(RefusedError) as refusal:
        shown.ask(name, **words)
    assert refusal.value.status == status and refusal.value.text


def test_names_of_views_tell_nothing(shown):
    with pytest.raises(RefusedError, match=GONE):
        shown.browser.answer("view", {"view": "../" + shown.view.id})
    assert len(shown.view.id) >= 12
