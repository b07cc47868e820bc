"""Whatever is asked of whatever atlas: an answer, or a refusal that says why."""

import json
import random
from urllib.parse import parse_qsl, urlsplit

from fluxtionary.browser.answers import QUESTIONS, Browser
from fluxtionary.browser.refusal import RefusedError
from fluxtionary.browser.shelf import Shelf, folders
from fluxtionary.browser.views import Views

from .hostile import SECRET, hostile, question


def test_5000_questions_of_anybody_get_an_answer_or_a_refusal(tmp_path):
    root = hostile(tmp_path / "atlases")
    browser, chance = Browser(Shelf(lambda: folders([root]), dict), Views()), random.Random(0)
    seen: dict[int, int] = {}
    for _ in range(5000):
        address = urlsplit(question(chance))
        name = address.path.removeprefix("/fluxtionary/")
        if name not in QUESTIONS:
            continue
        try:
            words = dict(parse_qsl(address.query, keep_blank_values=True, errors="surrogateescape"))
            answer = browser.answer(name, words)
            status, said = 200, json.dumps(answer, allow_nan=False) if isinstance(answer, dict) else ""
        except RefusedError as refusal:
            status, said = refusal.status, json.dumps(refusal.text)
        assert said != '""' and SECRET not in said and str(tmp_path) not in said, address
        seen[status] = seen.get(status, 0) + 1
    assert seen.keys() == {200, 400, 404, 409} and min(seen.values()) > 50, seen
