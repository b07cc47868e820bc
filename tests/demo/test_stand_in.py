"""The stand-in as a server: what it says to good and bad requests. It is asked with the plain standard library."""

import ast
import base64
import http.client
import io
import json
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np
import pytest
from PIL import Image

import fluxtionary.demo
from fluxtionary.demo.scenes import Scene, draw
from fluxtionary.demo.stand_in import LIMIT, StandIn

SCENES = [
    Scene("red", shape, size, place, background)
    for shape, size, place, background in [
        ("circle", "large", "left", "white"),
        ("square", "small", "top", "black"),
        ("ring", "large", "center", "tan"),
        ("cross", "small", "bottom right", "gray"),
        ("triangle", "large", "right", "navy"),
    ]
]
EXPLAIN = 'Answer with "descriptions", "explanation" and "label".'
JUDGE = 'Answer with "score".'
LOCATE = 'Answer with "boxes".'


@pytest.fixture(scope="module")
def server():
    with StandIn() as server:
        yield server


def post(server, body, path="/chat/completions", headers=None):
    url = urlsplit(server.url)
    connection = http.client.HTTPConnection(url.hostname, url.port, timeout=10)
    try:
        connection.request("POST", url.path + path, body, headers or {})
        response = connection.getresponse()
        return response.status, json.loads(response.read())
    finally:
        connection.close()


def image(pixels):
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return {
        "type": "image_url",
        "image_url": {"url": "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()},
    }


def hot(scene):
    """A scene with blue on its object."""
    pixels = draw(scene).astype(float)
    on = np.linalg.norm(pixels - pixels[2, 2], axis=-1) > 60
    tokens = np.kron(on.reshape(8, 16, 8, 16).mean((1, 3)) > 0.5, np.ones((16, 16)))[..., None] * 0.7
    return (pixels * (1 - tokens) + np.array([0, 0, 255]) * tokens).round().astype(np.uint8)


def ask(server, told, *parts):
    user = {"role": "user", "content": list(parts)}
    status, answer = post(server, json.dumps({"model": "m", "messages": [{"role": "system", "content": told}, user]}))
    assert status == 200, answer
    assert answer["usage"]["total_tokens"] == answer["usage"]["prompt_tokens"] + answer["usage"]["completion_tokens"]
    return json.loads(answer["choices"][0]["message"]["content"])


def label(words):
    return {"type": "text", "text": f"Label: {json.dumps(words)}"}


def test_it_explains_judges_and_locates(server):
    pairs = [part for scene in SCENES for part in (image(draw(scene)), image(hot(scene)))]
    found = ask(server, EXPLAIN, *pairs)
    assert found["label"] == "red object: on the object" and len(found["descriptions"]) == 5
    assert "circle" in found["descriptions"][0]

    def score(words, *parts):
        return ask(server, JUDGE, label(words), *parts)["score"]

    plain, heated = image(draw(SCENES[0])), image(hot(SCENES[0]))
    assert score(found["label"], plain, heated) > 0.7 and score("blue object", plain, heated) < 0.4
    assert score("white background", plain, heated) < 0.5  # the heat is not there
    assert score("things", plain, heated) == 0.5

    boxes = ask(server, LOCATE, label("red object"), plain)
    assert not boxes["outside"] and boxes["boxes"]
    assert all(0 <= box["left"] < 45 and box["left"] < box["right"] < 55 for box in boxes["boxes"])  # on the left


def test_equal_requests_have_equal_answers(server):
    parts = [image(draw(SCENES[1])), image(hot(SCENES[1]))]
    first = ask(server, JUDGE, label("red object"), *parts)
    assert all(ask(server, JUDGE, label("red object"), *parts) == first for _ in range(3))


def test_it_knows_no_more_than_the_request():
    # neither scenes, dictionaries nor atlases: only names of factors and what reads pixels
    names = {"scenes": {"BACKGROUNDS", "COLORS", "FACTORS", "GRID", "POSITIONS", "RADII", "SHAPES", "SIZE"}}
    for module in ("stand_in", "claims", "sight"):
        tree = ast.parse((Path(fluxtionary.demo.__file__).parent / f"{module}.py").read_text())
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom) and node.level:
                assert node.level == 1 and node.module in ("claims", "sight", "scenes", "measure")
                assert {alias.name for alias in node.names} <= names.get(node.module, {a.name for a in node.names})


GOOD = [image(draw(SCENES[0])), image(hot(SCENES[0]))]


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ("{", "Expecting"),
        ("[]", "expected messages"),
        ("{}", "expected messages"),
        ('{"messages": 3}', "expected messages"),
        ("[" * 100_000, ""),
        (json.dumps({"messages": []}), "expected pictures, found none"),
        (json.dumps({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}), "KeyError"),
        (json.dumps({"messages": [{"role": "user", "content": GOOD[:1]}]}), "in pairs"),
        (
            json.dumps({"messages": [{"role": "system", "content": JUDGE}, {"role": "user", "content": GOOD}]}),
            "expected a label",
        ),
        (
            json.dumps({"messages": [{"role": "user", "content": [image(np.zeros((64, 64, 3), np.uint8))] * 2}]}),
            "128x128",
        ),
        (
            json.dumps(
                {
                    "messages": [
                        {
                            "role": "user",
                            "content": [{"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}] * 2,
                        }
                    ]
                }
            ),
            "expected a picture",
        ),
    ],
)
def test_bad_requests_are_refused_and_the_server_goes_on(server, body, said):
    status, answer = post(server, body)
    assert status == 400 and said in answer["error"]["message"]
    assert ask(server, JUDGE, label("red object"), *GOOD)["score"] > 0.5


def test_other_addresses_and_endless_requests_are_refused(server):
    assert post(server, "{}", "/embeddings")[0] == 404
    assert post(server, None, headers={"Content-Length": str(LIMIT + 1)})[0] == 413
    assert post(server, None, headers={"Content-Length": "many"})[0] == 413
