"""A stand-in for a vision-language model, served over HTTP in the OpenAI protocol, that understands drawn scenes.

It knows nothing but the bytes of the request: it decodes the pictures, reads drawings with `demo.measure`, takes the
heat from the difference between a plain picture and the one with a heat map, and thinks in `demo.claims`. So it tests a
pipeline that asks a model; it is no evidence about vision-language models.
"""

from __future__ import annotations

import base64
import binascii
import io
import json
import threading
from collections.abc import Mapping, Sequence
from functools import lru_cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import numpy as np
from PIL import Image

from .claims import NOTHING, claims_of, common, fit, place, words_of
from .scenes import GRID, SIZE
from .sight import Drawing, Sight, look, see

LIMIT = 2**24
"""Largest request in bytes."""
_TOKENS_A_PICTURE = 85


class RequestError(ValueError):
    """A request that cannot be answered, and why."""


class StandIn:
    """The server on this machine alone, running within a `with`. Subclasses may `reply` as servers in trouble do.

    Attributes:
        url: what a client takes as its base URL.
    """

    def __init__(self, port: int = 0):
        stand_in = self

        class Handler(_Handler):
            owner = stand_in

        class Server(ThreadingHTTPServer):
            daemon_threads = True
            request_queue_size = 64

        self._server = Server(("127.0.0.1", port), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}/v1"

    def __enter__(self) -> StandIn:
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    def reply(self, handler: _Handler, body: bytes) -> None:
        """Answer one completion request."""
        try:
            handler.send(200, completion(json.loads(body)))
        except (RequestError, ValueError, RecursionError) as error:
            handler.send(400, {"error": {"message": str(error), "type": "invalid_request_error"}})


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"  # connections stay open
    wbufsize = -1  # a reply is one packet, headers and all
    disable_nagle_algorithm = True
    timeout = 60
    owner: StandIn

    def do_POST(self) -> None:
        length = self.headers.get("Content-Length", "")
        if not length.isdecimal() or int(length) > LIMIT:
            self.close_connection = True
            self.send(413, {"error": {"message": f"expected Content-Length up to {LIMIT}, found {length!r}"}})
            return
        body = self.rfile.read(int(length))
        if self.path.rstrip("/").endswith("/chat/completions"):
            self.owner.reply(self, body)
        else:
            self.send(404, {"error": {"message": f"{self.path}: there is /v1/chat/completions alone"}})

    def send(self, status: int, value: Any, headers: Mapping[str, str] | None = None) -> None:
        """A status with a value as JSON, or a text as it is."""
        text = (value if isinstance(value, str) else json.dumps(value)).encode()
        self.send_response(status)
        self.send_header("Content-Type", "text/html" if isinstance(value, str) else "application/json")
        self.send_header("Content-Length", str(len(text)))
        for name, content in (headers or {}).items():
            self.send_header(name, content)
        self.end_headers()
        self.wfile.write(text)

    def log_message(self, *_: object) -> None:
        """Nothing: a line for each of thousands of questions tells nobody anything."""


def completion(request: Any) -> dict[str, Any]:
    """A chat completion for a request. Raises `RequestError`."""
    told, words, pictures = _parts(request)
    answer = json.dumps(_answer(told, words, pictures))
    counts = {
        "prompt_tokens": (len(told) + sum(map(len, words))) // 4 + _TOKENS_A_PICTURE * len(pictures),
        "completion_tokens": len(answer) // 4,
    }
    message = {"role": "assistant", "content": answer, "refusal": None}
    return {
        "id": "chatcmpl-stand-in",
        "object": "chat.completion",
        "created": 0,
        "model": str(request.get("model")),
        "choices": [{"index": 0, "message": message, "finish_reason": "stop"}],
        "usage": {**counts, "total_tokens": sum(counts.values())},
    }


def _parts(request: Any) -> tuple[str, list[str], list[bytes]]:
    """What it is told, the texts it is asked with, and the pictures, as files."""
    try:
        told = "\n".join(m["content"] for m in request["messages"] if m["role"] == "system")
        parts = [part for m in request["messages"] if m["role"] == "user" for part in m["content"]]
        words = [part["text"] for part in parts if part["type"] == "text"]
        urls = [part["image_url"]["url"] for part in parts if part["type"] == "image_url"]
        return told, words, [base64.b64decode(url.partition(";base64,")[2], validate=True) for url in urls]
    except (KeyError, TypeError, AttributeError, binascii.Error) as error:
        raise RequestError(
            f"expected messages with texts and pictures as base64 data URLs ({type(error).__name__}: {error})"
        ) from error


def _answer(told: str, words: Sequence[str], pictures: Sequence[bytes]) -> dict[str, Any]:
    """What it is asked for is told by the names of the fields it is to fill in."""
    if '"boxes"' in told:
        return _located(_label(words), [_drawing(file) for file in pictures])
    if len(pictures) % 2:
        raise RequestError(f"expected pictures in pairs, plain and with a heat map, found {len(pictures)}")
    sights = [see(_drawing(plain), _pixels(shown)) for plain, shown in zip(pictures[::2], pictures[1::2], strict=True)]
    if not sights:
        raise RequestError("expected pictures, found none")
    if '"score"' in told:
        return {"score": round(fit(claims_of(_label(words)), sights[0]), 3)}
    return _explained(sights)


def _explained(sights: Sequence[Sight]) -> dict[str, Any]:
    claims = common(sights)
    label = words_of(claims)
    shares = [fit(claims, sight) > 0.5 for sight in sights]
    explanation = (
        f"What the pictures share beyond chance is: {label}. It holds in {sum(shares)} of {len(sights)}."
        if label != NOTHING
        else "Nothing that can be seen in all of them is more frequent than by chance."
    )
    return {"descriptions": [_described(sight.drawing) for sight in sights], "explanation": explanation, "label": label}


def _described(drawing: Drawing) -> str:
    seen = {factor: value for factor, value in drawing.reading.factors.items() if value is not None}
    return ", ".join(f"{factor}: {value}" for factor, value in seen.items()) or "nothing that can be read"


def _located(label: str, drawings: Sequence[Drawing]) -> dict[str, Any]:
    """Boxes around the tokens a label speaks of: a row of neighbours each."""
    if len(drawings) != 1:
        raise RequestError(f"expected one picture, found {len(drawings)}")
    tokens = place(claims_of(label), drawings[0])
    cell = 100 / GRID
    boxes = []
    for row in range(GRID):
        edges = np.flatnonzero(np.diff(tokens[row].astype(int), prepend=0, append=0))
        for left, right in zip(edges[::2], edges[1::2], strict=True):
            sides = (left * cell, row * cell, right * cell, (row + 1) * cell)
            boxes.append(dict(zip(("left", "top", "right", "bottom"), map(float, sides), strict=True)))
    return {"boxes": boxes, "outside": False}


def _label(words: Sequence[str]) -> str:
    """The label that is asked about: a JSON string after "Label:"."""
    for text in words:
        _, found, after = text.partition("Label:")
        if found:
            try:
                return str(json.loads(after))
            except ValueError as error:
                raise RequestError(f"expected a JSON string after 'Label:', found {after[:80]!r}") from error
    raise RequestError("expected a label, found none")


@lru_cache(1024)
def _drawing(file: bytes) -> Drawing:
    """A plain picture, read once: reading takes ten times as long as all else."""
    return look(_pixels(file))


def _pixels(file: bytes) -> np.ndarray:
    """A picture's pixels, uint8 `[SIZE, SIZE, 3]`."""
    try:
        with Image.open(io.BytesIO(file), formats=("PNG", "JPEG", "WEBP")) as picture:
            if picture.size != (SIZE, SIZE):
                raise RequestError(f"expected drawings of {SIZE}x{SIZE} pixels, found {picture.size}")
            return np.asarray(picture.convert("RGB"))
    except (OSError, SyntaxError, Image.DecompressionBombError) as error:
        raise RequestError(f"expected a picture, found {len(file)} bytes that are none: {error}") from error
