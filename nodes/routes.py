"""What the feature browser asks the server: read-only addresses under /fluxtionary/, answered off the event loop."""

from __future__ import annotations

import asyncio
import hashlib
import json
import logging
import sys
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import folder_paths

if TYPE_CHECKING:
    from aiohttp import web

    from ..browser.answers import Browser

logger = logging.getLogger(__name__)

ATLASES = "flux_atlases"
"""Folder of `models/` that atlases lie in."""
PREFIX = "/fluxtionary/"
NAMES = (
    *("installed", "features", "feature", "picture", "map"),
    *("view", "view/image", "view/features", "view/map"),
)
"""The questions of `browser.answers`, which is not imported before the first of them is asked."""
MODULES = f"/extensions/{Path(__file__).parents[1].name}/"
"""Where the host serves `web/`: by the name of the folder that the pack lies in."""
THREADS = 4
_KEPT = "private, max-age=600"

Handler = Callable[["web.Request"], Awaitable["web.StreamResponse"]]


def register() -> None:
    """Have the running server answer. Without one, as when nodes are used from a program, nothing happens."""
    # not imported: where a server runs its module is there, and elsewhere it need not load
    server = getattr(getattr(sys.modules.get("server"), "PromptServer", None), "instance", None)
    if server is None or any(getattr(route, "path", None) == PREFIX + NAMES[0] for route in server.routes):
        return  # the pack may lie in two folders
    folder_paths.add_model_folder_path(ATLASES, str(Path(folder_paths.models_dir) / ATLASES))
    for name in NAMES:
        server.routes.get(PREFIX + name)(_handler(name))
    server.app.on_response_prepare.append(_fresh)


async def _fresh(request: web.Request, response: web.StreamResponse) -> None:
    """Have browsers ask whether our modules are new, as the host does for .js alone: old and new ones do not mix."""
    if MODULES in request.path and request.path.endswith(".mjs"):
        response.headers["Cache-Control"] = "no-cache"


@lru_cache(maxsize=1)
def browser() -> Browser:
    """What answers, with the atlases and dictionaries that ComfyUI knows of."""
    from ..browser.answers import Browser
    from ..browser.shelf import Shelf
    from ..browser.views import Views

    return Browser(Shelf(_atlases, _dictionaries), Views())


def _atlases() -> dict[str, Path]:
    from ..browser.shelf import folders
    from ..demo.files import ATLASES as SHIPPED

    return folders([*map(Path, folder_paths.get_folder_paths(ATLASES)), SHIPPED])


def _dictionaries() -> dict[str, Path]:
    from ..browser.shelf import plain
    from .load_dictionary import FOLDER

    found = {name: folder_paths.get_full_path(FOLDER, name) for name in folder_paths.get_filename_list(FOLDER)}
    return {plain(name): Path(path) for name, path in found.items() if path is not None}


@lru_cache(maxsize=1)
def _threads() -> ThreadPoolExecutor:
    """Threads of our own: a damaged atlas that takes long must not hold up what else the server does."""
    return ThreadPoolExecutor(THREADS, "fluxtionary")


def _handler(name: str) -> Handler:
    async def handle(request: web.Request) -> web.StreamResponse:
        work = partial(_answered, name, dict(request.query), request.headers.get("If-None-Match"))
        status, headers, body = await asyncio.get_running_loop().run_in_executor(_threads(), work)
        from aiohttp import web

        return web.Response(status=status, headers=headers, body=body)

    return handle


def _answered(name: str, words: dict[str, str], known: str | None) -> tuple[int, dict[str, str], bytes | None]:
    """Status, headers and body."""
    from ..browser.pictures import Picture
    from ..browser.refusal import RefusedError

    try:
        found = browser().answer(name, words)
    except RefusedError as refusal:
        return refusal.status, _headers("application/json", "no-store"), _json({"error": refusal.text})
    except Exception as error:  # a mistake of ours: said here, and in the log
        logger.exception("%s%s failed", PREFIX, name)
        text = {"error": f"Fluxtionary could not answer ({type(error).__name__}): the server's log says more"}
        return 500, _headers("application/json", "no-store"), _json(text)
    if not isinstance(found, Picture):
        return 200, _headers("application/json", "no-store"), _json(found)
    tag = f'"{hashlib.blake2b(found.data, digest_size=12).hexdigest()}"'
    headers = _headers(found.kind, _KEPT) | {"ETag": tag}
    if known is not None and tag in (each.strip().removeprefix("W/") for each in known.split(",")):
        return 304, headers, None
    return 200, headers, found.data


def _headers(kind: str, cache: str) -> dict[str, str]:
    return {"Content-Type": kind, "Cache-Control": cache, "X-Content-Type-Options": "nosniff"}


def _json(value: Any) -> bytes:
    return json.dumps(value, allow_nan=False, separators=(",", ":")).encode()
