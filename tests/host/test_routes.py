"""What a real server answers to the feature browser, and to those who ask for other things."""

import http.client
import io
import json
import random
import shutil
import time
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import urlencode

import numpy as np
import pytest
from PIL import Image

from fluxtionary.demo.files import ATLASES, DICTIONARY

from ..atlas.atlases import build
from ..atlas.test_hostile import endless
from ..browser.hostile import MARKUP, SECRET, hostile, question
from .flow import DEMO, Flow
from .test_reading import read, tap


@pytest.fixture(scope="module")
def atlases(comfy):
    """The folder that the server finds atlases in, with a good one, and others that somebody else made."""
    return hostile(comfy.base / "models" / "flux_atlases")


class Client:
    """One connection, kept open."""

    def __init__(self, comfy):
        self.connection = http.client.HTTPConnection("127.0.0.1", comfy.port, timeout=60)

    def get(self, path, headers=None):
        self.connection.request("GET", path, headers=headers or {})
        answer = self.connection.getresponse()
        return answer.status, answer.headers, answer.read()


@pytest.fixture
def ask(comfy, atlases):
    client = Client(comfy)

    def asked(name, headers=None, **words):
        status, fields, body = client.get(f"/fluxtionary/{name}?{urlencode(words)}", headers)
        kind = fields.get_content_type()
        return status, fields, json.loads(body) if kind == "application/json" else body

    return asked


def test_the_list_has_all_atlases_and_says_what_is_wrong(ask, comfy):
    status, fields, found = ask("installed")
    assert status == 200 and fields["Cache-Control"] == "no-store"
    problems = {each["id"]: each["problem"] for each in found["atlases"]}
    for name in ("shapes", "markup", "pictures", "links", MARKUP.replace("/", "")):
        assert problems[name] is None
    assert "expected pictures of at most" in problems["huge"] and problems["damaged"]
    dictionaries = {each["name"]: each for each in found["dictionaries"]}
    assert dictionaries[DEMO]["problem"] is None and "damaged" in dictionaries["broken.safetensors"]["problem"]
    assert str(comfy.base) not in json.dumps(found)


def test_the_demo_s_own_atlas_is_found(ask):
    for _ in range(100):
        found = ask("installed")[2]
        if not found["pending"]:
            break
        time.sleep(0.1)
    (shipped,) = [path.name for path in ATLASES.iterdir()]
    (own,) = [each for each in found["atlases"] if each["id"] == shipped]
    assert own["problem"] is None and own["dictionary"] == DICTIONARY.name
    (dictionary,) = [each for each in found["dictionaries"] if each["name"] == DICTIONARY.name]
    assert dictionary["atlas"] == shipped


def test_both_addresses_of_the_host_answer(comfy, atlases):
    client = Client(comfy)
    for prefix in ("", "/api"):
        status, fields, body = client.get(f"{prefix}/fluxtionary/features?atlas=shapes&text=blue&limit=1")
        assert status == 200 and fields["X-Content-Type-Options"] == "nosniff"
        assert [row["label"] for row in json.loads(body)["features"]] == ["blue things"]


def test_pictures_are_kept_by_the_browser(ask):
    status, fields, body = ask("picture", atlas="shapes", picture=4)
    assert status == 200 and fields["Content-Type"] == "image/webp" and "max-age" in fields["Cache-Control"]
    assert Image.open(io.BytesIO(body)).size == (48, 32)
    tag = fields["ETag"]
    for known in (tag, f'"other", W/{tag}'):
        assert ask("picture", {"If-None-Match": known}, atlas="shapes", picture=4)[::2] == (304, b"")
    assert ask("picture", {"If-None-Match": '"other"'}, atlas="shapes", picture=4)[0] == 200
    status, fields, body = ask("map", atlas="shapes", feature=20, picture=4)
    assert status == 200 and Image.open(io.BytesIO(body)).size == (3, 2)


def test_text_of_a_file_is_said_as_text(ask):
    status, fields, found = ask("feature", atlas="markup", feature=2)
    assert status == 200 and found["label"] == MARKUP and fields["Content-Type"] == "application/json"


@pytest.mark.parametrize("picture", range(4))
def test_pictures_that_are_none_are_not_served(ask, picture):
    status, _, found = ask("picture", atlas="pictures", picture=picture)
    assert status == 409 and "expected a plain WebP picture of 48x32" in found["error"]


@pytest.mark.parametrize("name", ["../../secret.txt", "/etc", "..", ".", "shapes/../shapes", "shapes\0", ""])
def test_names_lead_nowhere(ask, name):
    status, _, found = ask("features", atlas=name)
    assert status == 404 and "found none called" in found["error"]


def test_links_lead_nowhere(ask):
    status, _, found = ask("picture", atlas="links", picture=0)
    assert status == 409 and "found a link, or none" in found["error"]


def test_an_atlas_without_an_end_does_not_hold_up_the_others(comfy, atlases):
    build(atlases / "endless")
    endless(atlases / "endless")
    client = Client(comfy)
    client.get("/fluxtionary/installed")
    with ThreadPoolExecutor(1) as thread:
        slow = thread.submit(Client(comfy).get, "/fluxtionary/features?atlas=endless&text=red")
        start = time.perf_counter()
        assert client.get("/fluxtionary/features?atlas=shapes")[0] == 200 and client.get("/queue")[0] == 200
        assert time.perf_counter() - start < 1
        assert slow.result()[0] in (200, 409)
    shutil.rmtree(atlases / "endless")


def test_5000_questions_of_anybody_get_an_answer_or_a_refusal(comfy, atlases):
    def asked(seed):
        chance, client = random.Random(seed), Client(comfy)
        seen = dict.fromkeys((200, 400, 404, 409), 0)
        for _ in range(1250):
            path = question(chance)
            status, fields, body = client.get(path)
            assert status < 500, (path, body)
            assert SECRET.encode() not in body and b"root:" not in body and "Set-Cookie" not in fields, path
            if fields.get_content_type() == "application/json":
                found = json.loads(body, parse_constant=pytest.fail)
                assert status == 200 or found["error"], path
                assert str(comfy.base) not in body.decode(), path
            seen[status] = seen.get(status, 0) + 1
        return seen

    before = len(comfy.log())  # other tests make nodes fail
    with ThreadPoolExecutor(4) as threads:
        found = list(threads.map(asked, range(4)))
    total = {status: sum(each.get(status, 0) for each in found) for status in found[0]}
    assert min(total.values()) > 50, total
    assert "Traceback" not in comfy.log()[before:]


def test_a_run_can_be_looked_into(comfy, atlases, ask):
    flow = Flow()
    model, capture = tap(flow)
    latent = flow.sample(model, seed=5)
    image = flow.add("VAEDecode", samples=latent, vae=flow.vae)
    shown, plain = read(flow, latent, capture, image=image), read(flow, latent, capture, count=5)
    outputs = comfy.run(flow)
    (view,), (rough,) = (outputs[node[0]]["fluxtionary_view"] for node in (shown, plain))
    assert (view["steps"], view["pictures"], view["grid"]) == (4, 1, [8, 8])
    assert view["image"] and not rough["image"] and view["id"] != rough["id"]
    status, _, said = ask("view", view=view["id"])
    assert status == 200 and said["dictionary"] == {"kind": "sae", "n_features": 1536, "name": DEMO}
    given, made = (Image.open(io.BytesIO(ask("view/image", view=each["id"])[2])) for each in (view, rough))
    assert given.size == (128, 128) and made.size == (16, 16)
    whole = ask("view/features", view=view["id"], count=200)[2]["features"]
    listed = {one["feature"]: one for one in outputs[shown[0]]["features"][0]["features"]}
    assert whole and all(listed[one["feature"]]["activation"] == pytest.approx(one["activation"]) for one in whole)
    box = {"top": 2, "left": 2, "bottom": 6, "right": 6}
    found = ask("view/features", view=view["id"], count=5, **box)[2]["features"]
    status, _, body = ask("view/map", view=view["id"], feature=found[0]["feature"])
    cover = np.asarray(Image.open(io.BytesIO(body)))[..., 3].astype(float)
    assert status == 200 and cover.shape == (8, 8) and cover[2:6, 2:6].mean() > cover.mean()


def test_a_picture_that_is_there_can_be_looked_into(comfy, ask):
    flow = Flow()
    latent = flow.sample(flow.model, seed=6)
    image = flow.add("VAEDecode", samples=latent, vae=flow.vae)
    inspect = flow.add(
        "FluxtionaryInspectPicture",
        model=flow.model,
        dictionary=flow.add("FluxtionaryLoadDictionary", dictionary=DEMO),
        latent=latent,
        conditioning=flow.text(""),
        noise_percent=0.3,
        seed=0,
        image=image,
    )
    read(flow, [inspect[0], 0], [inspect[0], 1], count=3)
    (view,) = comfy.run(flow)[inspect[0]]["fluxtionary_view"]
    assert view["steps"] == 1 and view["image"]
    assert ask("view/features", view=view["id"])[2]["features"]
    comfy.forget()
    for _ in range(50):
        status, _, found = ask("view", view=view["id"])
        if status == 404:
            break
        time.sleep(0.1)
    assert status == 404 and found["error"] == "this run is no longer in memory: run the graph again"
