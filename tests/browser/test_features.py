"""What a browser is told of an atlas."""

import io
import json

import numpy as np
import pytest
from PIL import Image

from fluxtionary.atlas import Atlas, AtlasWriter
from fluxtionary.browser.answers import Browser
from fluxtionary.browser.refusal import RefusedError
from fluxtionary.browser.shelf import Shelf, folders
from fluxtionary.browser.views import Views

from ..atlas.atlases import SIZE, build

ROW = {
    *("feature", "label", "density", "mean", "peak", "spread", "coverage", "output_score"),
    *("pictures", "sigma", "score", "picture"),
}


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    root = tmp_path_factory.mktemp("atlases")
    build(root / "shapes")
    with AtlasWriter.annotate(root / "shapes") as writer:
        writer.set_label(2, "<img src=x onerror=alert(1)>", "'; DROP TABLE features; --")
    return root


@pytest.fixture
def ask(place):
    browser = Browser(Shelf(lambda: folders([place]), dict), Views())

    def asked(name, **words):
        answer = browser.answer(name, {key: str(word) for key, word in words.items()})
        return json.loads(json.dumps(answer, allow_nan=False)) if isinstance(answer, dict) else answer

    return asked


def numbers(answer):
    return [row["feature"] for row in answer["features"]]


def test_a_page_has_all_that_a_row_shows(ask):
    answer = ask("features", atlas="shapes")
    assert numbers(answer) == [0, 1, 2, 20] and answer["total"] == 4 and not answer["more"]
    assert all(row.keys() == ROW for row in answer["features"])
    first, second = answer["features"][:2]
    assert (first["density"], first["pictures"], first["sigma"], first["picture"]) == (0.25, 3, 0.5, 0)
    assert second["label"] == "blue things" and second["sigma"] is None and second["picture"] == 1
    assert second["score"] == {"name": "interp", "value": 0.5, "low": 0.25, "high": 0.75}


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ({"order": "peak"}, [20, 2, 0, 1]),
        ({"order": "density"}, [0, 2, 1, 20]),
        ({"order": "output_score"}, [2, 0, 1, 20]),
        ({"order": "interp"}, [1, 0, 2, 20]),
        ({"order": "sigma"}, [0, 1, 2, 20]),
        ({"order": "coactive", "like": 0}, [20]),
        ({"order": "coactive", "like": 0, "text": "nothing of this"}, []),
        ({"order": "coactive", "like": 0, "text": "any"}, [20]),
        ({"text": "blue"}, [1, 20]),
        ({"text": "blue", "order": "density"}, [1, 20]),
        ({"text": "blue", "limit": 1, "offset": 1}, [20]),
        ({"text": '"NEAR(" OR *', "limit": 1}, []),
        ({"offset": 3}, [20]),
        ({"offset": 1000}, []),
    ],
    ids=str,
)
def test_orders_and_searches(ask, words, expected):
    assert numbers(ask("features", atlas="shapes", **words)) == expected


def test_pages_say_whether_there_is_more(ask):
    answer = ask("features", atlas="shapes", limit=3)
    assert numbers(answer) == [0, 1, 2] and answer["more"] and answer["total"] == 4
    answer = ask("features", atlas="shapes", limit=3, offset=3)
    assert numbers(answer) == [20] and not answer["more"]


@pytest.mark.parametrize(
    ("status", "words"),
    [
        (400, {"order": "relevance"}),
        (400, {"order": "coactive"}),
        (400, {"limit": 0}),
        (400, {"limit": 201}),
        (400, {"text": " ".join(map(str, range(40)))}),
        (404, {"order": "number; DROP TABLE features"}),
        (404, {"order": "coactive", "like": 39}),
    ],
    ids=str,
)
def test_other_questions_are_refused(ask, status, words):
    with pytest.raises(RefusedError) as refusal:
        ask("features", atlas="shapes", **words)
    assert refusal.value.status == status and str(refusal.value.text)


def test_a_feature_has_its_page(ask, place):
    found = ask("feature", atlas="shapes", feature=0)
    assert found.keys() > ROW and found["explanation"] is None and found["natural"] is None
    assert found["sigma_profile"] == [[0.9, 0.25], [0.5, 0.5]]
    assert found["coactive"] == [
        {"feature": 20, "label": "any picture", "share": 0.75},
        {"feature": 3, "label": None, "share": 0.125},
    ]
    assert found["source"] == {"prompt": "a red circle", "seed": str(2**63 + 3), "sigma": 0.8, "row": 1, "column": 2}
    kinds = [(one["kind"], one["rank"], one["picture"]) for one in found["examples"]]
    assert kinds == [("top", 0, 0), ("top", 1, 2), ("spread", 0, 3)]
    assert found["examples"][0]["prompt"] == "a red circle on the left" and found["examples"][0]["seed"] == "1000"
    scored = ask("feature", atlas="shapes", feature=1)
    assert scored["scores"] == {"interp": {"value": 0.5, "low": 0.25, "high": 0.75, "n": 8}}


def test_the_histogram_counts_active_tokens(ask, place):
    found = ask("feature", atlas="shapes", feature=20)["histogram"]
    with Atlas.open(place / "shapes") as atlas:
        maps = np.concatenate([atlas.heat_map(20, one.picture).ravel() for one in atlas.examples(20, "top")])
    assert sum(count for *_, count in found) == (maps != 0).sum()
    assert found[0][0] == maps.min() and found[-1][1] == 0
    assert ask("feature", atlas="shapes", feature=1)["histogram"] is None  # it is active in none of its sample


def test_text_that_is_markup_stays_text(ask):
    found = ask("feature", atlas="shapes", feature=2)
    assert found["label"] == "<img src=x onerror=alert(1)>" and found["explanation"].startswith("'; DROP")


def test_pictures_and_maps(ask, place):
    picture = ask("picture", atlas="shapes", picture=4)
    assert picture.kind == "image/webp"
    assert Image.open(io.BytesIO(picture.data)).size == SIZE[::-1]
    drawn = Image.open(io.BytesIO(ask("map", atlas="shapes", feature=20, picture=4).data))
    assert drawn.size == (3, 2) and drawn.mode == "RGBA"
    cover = np.asarray(drawn)[..., 3]
    with Atlas.open(place / "shapes") as atlas:
        assert ((cover > 0) == (atlas.heat_map(20, 4) != 0)).all()
    assert cover.max() > 200


@pytest.mark.parametrize(
    ("status", "name", "words"),
    [
        (404, "picture", {"picture": 5_000}),
        (400, "picture", {"picture": 10**7}),
        (400, "picture", {"picture": "../../etc/passwd"}),
        (400, "picture", {}),
        (404, "map", {"feature": 20, "picture": 77}),
        (404, "map", {"feature": 39, "picture": 0}),
        (400, "map", {"feature": 40, "picture": 0}),
        (404, "feature", {"feature": 39}),
        (400, "feature", {"feature": -1}),
    ],
    ids=str,
)
def test_what_is_not_there_is_refused(ask, status, name, words):
    with pytest.raises(RefusedError) as refusal:
        ask(name, atlas="shapes", **words)
    assert refusal.value.status == status


@pytest.mark.parametrize(
    "name", ["", ".", "..", "../shapes", "/etc", "shapes/..", "shapes\0", "%2e%2e", "Shapes", "C:\\"]
)
def test_names_are_looked_up_and_lead_nowhere(ask, name):
    with pytest.raises(RefusedError) as refusal:
        ask("features", atlas=name)
    assert refusal.value.status == 404
