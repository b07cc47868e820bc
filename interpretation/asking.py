"""Many questions at once: in bounded memory, with what it takes shown before and meanwhile."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Hashable, Iterable, Iterator
from concurrent.futures import Future
from contextlib import suppress
from itertools import chain, islice
from queue import Empty, SimpleQueue
from typing import Any, Generic, TypeVar

from tqdm import tqdm

from .endpoint import Client, NoAnswer
from .pictures import pixels_of
from .questions import Question

Key = TypeVar("Key", bound=Hashable)

KEPT = "what was answered is kept: the same command goes on"
"""What is said of an interruption."""

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
    Interrupted, it sends nothing more, not even what is to be tried again, yields what is under way, and then raises
    `KeyboardInterrupt`; interrupted once more, it does not wait for that.
    """
    waiting = iter(questions)
    first = next(waiting, None)
    if first is None:
        return
    if progress:
        _log.info("%s", estimate(first[1](), total, title, client))
    waiting = chain([first], waiting)
    askers: _Askers[Key] = _Askers(client)
    try:
        with tqdm(total=total, desc=title, unit=" questions", disable=not progress) as bar:
            while True:
                # twice as many as can be sent, so that no thread waits for this one
                for question in islice(waiting, 2 * client.endpoint.concurrency - askers.under_way):
                    askers.give(*question)
                if not askers.under_way:
                    return
                found = askers.next()
                bar.update()
                bar.set_postfix_str(_brief(client), refresh=False)
                yield found
    except KeyboardInterrupt:
        with suppress(KeyboardInterrupt):
            askers.end()
        yield from askers.rest()
        raise KeyboardInterrupt(KEPT if client.endpoint.cache else "") from None
    finally:
        askers.end()


class _Askers(Generic[Key]):
    """Threads that ask. The program ends without them, as it does not without those of an executor: they may be in the
    middle of a request that takes a minute.

    Attributes:
        under_way: questions that were given and whose answer was not taken.
    """

    def __init__(self, client: Client):
        self.client, self.under_way = client, 0
        self._given: SimpleQueue[tuple[Key, Callable[[], Question]] | None] = SimpleQueue()
        self._answers: SimpleQueue[tuple[Key, Future]] = SimpleQueue()
        count = client.endpoint.concurrency
        self._threads = [threading.Thread(target=self._work, name="ask", daemon=True) for _ in range(count)]
        for thread in self._threads:
            thread.start()

    def give(self, key: Key, make: Callable[[], Question]) -> None:
        """One more question."""
        self.under_way += 1
        self._given.put((key, make))

    def next(self) -> tuple[Key, Any | NoAnswer]:
        """Wait for an answer to any."""
        key, answer = self._answers.get()
        self.under_way -= 1
        return key, answer.result()

    def rest(self) -> Iterator[tuple[Key, Any | NoAnswer]]:
        """Answers that are there and were not taken."""
        with suppress(Empty):
            while True:
                key, answer = self._answers.get_nowait()
                yield key, answer.result()

    def end(self) -> None:
        """Send nothing more, and wait until what was sent is answered: once, for whoever does not want to wait."""
        threads, self._threads = self._threads, []
        if self.under_way:
            self.client.stop()
        with suppress(Empty):
            while True:
                self._given.get_nowait()
        for _ in threads:
            self._given.put(None)
        for thread in threads:
            thread.join()

    def _work(self) -> None:
        while (given := self._given.get()) is not None:
            key, make = given
            answer: Future = Future()
            try:
                answer.set_result(self.client.ask(make()))
            except NoAnswer as missing:
                answer.set_result(missing)
            except BaseException as error:  # for the thread that takes the answer
                answer.set_exception(error)
            self._answers.put((key, answer))


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
