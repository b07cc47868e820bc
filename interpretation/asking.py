"""Many questions at once: in bounded memory, with what it takes shown before and meanwhile."""

from __future__ import annotations

import logging
from collections.abc import Callable, Hashable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from itertools import chain, islice
from typing import Any, TypeVar

from tqdm import tqdm

from .endpoint import Client, NoAnswer
from .pictures import pixels_of
from .questions import Question

Key = TypeVar("Key", bound=Hashable)

_log = logging.getLogger(__name__)


def ask_all(
    client: Client,
    questions: Iterable[tuple[Key, Callable[[], Question]]],
    total: int,
    title: str,
    progress: bool = True,
) -> Iterator[tuple[Key, Any | NoAnswer]]:
    """Ask `total` questions, `endpoint.concurrency` at a time: yields its key with the answer, or why it has none.

    Answers come in whatever order they arrive. Questions are made when their turn comes, so that pictures of a few are
    held at a time. When the caller stops, so does the asking; what is under way is finished and kept by the cache.
    """
    waiting = iter(questions)
    first = next(waiting, None)
    if first is None:
        return
    if progress:
        _log.info("%s", estimate(first[1](), total, title, client))
    waiting = chain([first], waiting)
    pool = ThreadPoolExecutor(client.endpoint.concurrency, thread_name_prefix="ask")
    try:
        under_way: dict[Future, Key] = {}
        with tqdm(total=total, desc=title, unit=" questions", disable=not progress) as bar:
            while True:
                # twice as many as can be sent, so that no thread waits for this one
                for key, make in islice(waiting, 2 * client.endpoint.concurrency - len(under_way)):
                    under_way[pool.submit(_ask, client, make)] = key
                if not under_way:
                    return
                for future in wait(under_way, return_when=FIRST_COMPLETED).done:
                    bar.update()
                    bar.set_postfix_str(_brief(client), refresh=False)
                    yield under_way.pop(future), future.result()
    finally:
        pool.shutdown(cancel_futures=True)


def _ask(client: Client, make: Callable[[], Question]) -> Any | NoAnswer:
    try:
        return client.ask(make())
    except NoAnswer as missing:
        return missing


def estimate(question: Question, total: int, title: str, client: Client) -> str:
    """What asking `total` questions like this one may take, roughly: a token is 4 letters or 750 pixels."""
    texts = [part["text"] for part in question.shown if part["type"] == "text"]
    pixels = sum(pixels_of(part) for part in question.shown if part["type"] == "image_url")
    tokens_in = total * ((len(question.told) + sum(map(len, texts))) // 4 + pixels // 750)
    tokens_out = total * question.form.tokens
    endpoint = client.endpoint
    dollars = endpoint.dollars(tokens_in, tokens_out)
    cost = "" if dollars is None else f", ${dollars:.3g}"
    return (
        f"{title}: {total:,} questions to {endpoint.model or endpoint.url}, roughly {tokens_in:,} tokens in and "
        f"{tokens_out:,} out{cost}; what is on disk already costs nothing"
    )


def _brief(client: Client) -> str:
    usage = client.usage
    cost = "" if usage.dollars is None else f", ${usage.dollars:.4g}"
    missing = f", {usage.missing} missing" if usage.missing else ""
    return f"{usage.tokens_in + usage.tokens_out:,} tokens{cost}{missing}"
