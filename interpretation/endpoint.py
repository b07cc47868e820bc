"""One question to a vision-language model behind an endpoint that speaks the OpenAI protocol."""

from __future__ import annotations

import hashlib
import json
import os
import random
import threading
import time
from collections.abc import Mapping
from concurrent.futures import Future
from contextlib import ExitStack, suppress
from dataclasses import dataclass, replace
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from ..atlas.plain_text import plain, whole
from .cache import Reply, ReplyCache
from .questions import Question

if TYPE_CHECKING:
    from openai import APIError, OpenAI

DEMO = "demo"
"""The `url` that stands for the stand-in of the demo (`demo.stand_in`), which reads drawn scenes and nothing else."""
FAILURES = 5
"""Questions in a row that got no reply, each with all its tries, before an endpoint is given up (or as many as are
under way at once)."""
USELESS = 20
"""Replies in a row that were paid and could not be used, likewise."""
PAUSE, LONGEST_PAUSE, LONGEST_ASKED = 0.5, 8.0, 120.0
"""Seconds before the first time a question is sent again, doubled each time up to the second; and the longest that a
server may ask for: who says hours will not be there before."""
MOST_TOKENS = 10**9
"""Beyond this a count of tokens is none."""


class EndpointError(ValueError):
    """An endpoint that cannot be asked."""


@dataclass(frozen=True)
class Endpoint:
    """A vision-language model to ask."""

    url: str
    """Where it is served, such as https://api.openai.com/v1 or http://localhost:11434/v1 (Ollama); demo for the
    stand-in that reads the drawings of the demo Flux."""
    model: str = ""
    """Its name there."""
    key_variable: str = "OPENAI_API_KEY"
    """Environment variable with the key; servers of one's own need none."""
    concurrency: int = 4
    """Questions that are under way at once."""
    timeout: float = 60.0
    """Seconds to wait for an answer."""
    retries: int = 4
    """Times a question is asked again after a timeout, a lost connection, a rate limit or an error of the server;
    waiting longer each time, or as long as the server says."""
    cache: Path | None = None
    """File that keeps the answers, so that none is paid twice; by default beside the output, as NAME.answers.sqlite."""
    ask_again: bool = False
    """Ask again what the model refused, or answered with something that could not be read."""
    dollars_in: float | None = None
    """Price of a million tokens of questions, for showing the cost."""
    dollars_out: float | None = None
    """Price of a million tokens of answers."""

    def __post_init__(self) -> None:
        if not self.model and self.url != DEMO:
            raise EndpointError(f"{self.url}: name the model to ask with --endpoint.model")
        if self.concurrency < 1 or self.timeout <= 0 or self.retries < 0:
            raise EndpointError(
                "expected a concurrency of at least 1, a timeout above 0 and no fewer than 0 retries, found "
                f"{self.concurrency}, {self.timeout} and {self.retries}"
            )

    def kept_beside(self, folder: Path) -> Endpoint:
        """With the file it names for its answers, else one beside a folder: making that anew does not remove it."""
        path = folder.absolute()
        return self if self.cache else replace(self, cache=path.with_name(f"{path.name}.answers.sqlite"))

    def dollars(self, tokens_in: int, tokens_out: int) -> float | None:
        """What so many tokens cost; None where the prices are not known."""
        if self.dollars_in is None or self.dollars_out is None:
            return None
        return (tokens_in * self.dollars_in + tokens_out * self.dollars_out) / 1e6


@dataclass
class Usage:
    """What asking took. Tokens are as the endpoint counts them, of this run's questions alone."""

    asked: int = 0
    kept: int = 0
    """Answered from the cache, or by the same question that was under way."""
    refused: int = 0
    rubbish: int = 0
    failed: int = 0
    """Without an answer: lost connections, timeouts, errors, and what was not asked any more after too many of them."""
    tokens_in: int = 0
    tokens_out: int = 0
    dollars: float | None = None
    """None where the endpoint's prices are not known."""

    @property
    def missing(self) -> int:
        return self.refused + self.rubbish + self.failed

    @property
    def answered(self) -> int:
        """Questions with an answer that can be used."""
        return self.asked + self.kept - self.refused - self.rubbish

    def __add__(self, other: Usage) -> Usage:
        counts = {name: getattr(self, name) + getattr(other, name) for name in vars(self) if name != "dollars"}
        known = self.dollars is not None and other.dollars is not None
        return Usage(**counts, dollars=(self.dollars or 0) + (other.dollars or 0) if known else None)

    def __str__(self) -> str:
        cost = "" if self.dollars is None else f", ${self.dollars:.4g}"
        return (
            f"{self.asked:,} questions asked, {self.kept:,} answered from disk, {self.missing:,} without an answer; "
            f"{self.tokens_in:,} tokens in, {self.tokens_out:,} out{cost}"
        )


class NoAnswer(Exception):  # noqa: N818 - what a question may well end with
    """A question that got no answer that can be used, and why."""

    def __init__(self, outcome: Literal["refused", "rubbish", "failed"], reason: str):
        super().__init__(reason)
        self.outcome = outcome


class Client:
    """Asks an endpoint, from any number of threads; a context manager.

    `ask` reads the cache first. Lost connections, timeouts, rate limits (with `Retry-After`) and errors of the server
    are tried again. Where all tries of several questions in a row fail, or the key or model is refused,
    nothing more is sent: what is not in the cache is missing, with that reason. Answers are asked for as structured
    output; an endpoint that refuses a JSON schema is asked for a JSON object, then for plain text.
    """

    def __init__(self, endpoint: Endpoint):
        self.endpoint = endpoint
        self.usage = Usage(dollars=endpoint.dollars(0, 0))
        self._lock = threading.Lock()
        self._stack = ExitStack()
        self._cache: ReplyCache | None = None
        self._openai: OpenAI
        self._formats = ["json_schema", "json_object", "text"]
        self._failures = self._useless = 0  # in a row
        self._given_up: str | None = None
        self._ended = threading.Event()  # with `_given_up`: what waits for its next try stops waiting
        self._under_way: dict[str, Future[Reply]] = {}

    def __enter__(self) -> Client:
        try:
            from openai import OpenAI
        except ImportError as error:
            raise EndpointError(
                "asking a model needs the openai package: pip install 'fluxtionary[interpret]'"
            ) from error
        endpoint = self.endpoint
        with ExitStack() as stack:
            url = endpoint.url
            if url == DEMO:
                from ..demo.stand_in import StandIn

                url = stack.enter_context(StandIn()).url
            if endpoint.cache is not None:
                self._cache = ReplyCache(endpoint.cache)
                stack.callback(self._cache.close)
            self._openai = OpenAI(
                base_url=url,
                api_key=os.environ.get(endpoint.key_variable) or "none",
                timeout=endpoint.timeout,
                max_retries=0,  # `_post` does: the SDK sleeps between tries, and nothing wakes it
            )
            stack.callback(self._openai.close)
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *exception: object) -> None:
        self.stop()
        self._stack.close()

    def stop(self) -> None:
        """Send nothing more: what is not in the cache, or sent already, has no answer."""
        with self._lock:
            self._give_up("interrupted")

    def ask(self, question: Question) -> Any:
        """What the question's form reads in the answer. Raises `NoAnswer`."""
        key = self._key(question)
        with self._lock:
            coming = self._under_way.get(key)
            mine = self._under_way.setdefault(key, Future())
        try:
            reply, kept = (coming.result(), True) if coming else self._fetch(key, question, mine)
        except NoAnswer as missing:
            self._count(missing)
            raise NoAnswer(missing.outcome, str(missing)) from missing  # which others may be raising, too
        return self._read(question, reply, kept)

    def _fetch(self, key: str, question: Question, coming: Future[Reply]) -> tuple[Reply, bool]:
        """The reply, which others may wait for, from the cache or the endpoint, and whether it was in the cache."""
        try:
            reply = self._cache.get(key) if self._cache else None
            kept = reply is not None and not (self.endpoint.ask_again and reply.outcome != "answer")
            if reply is None or not kept:
                reply = self._send(question)
                if self._cache:
                    self._cache.put(key, reply)
            coming.set_result(reply)
            return reply, kept
        except BaseException as error:
            coming.set_exception(error)
            raise
        finally:
            with self._lock:
                del self._under_way[key]

    def _key(self, question: Question) -> str:
        request = [self.endpoint.url.rstrip("/"), question.request(self.endpoint.model or DEMO, "json_schema")]
        return hashlib.sha256(json.dumps(request, sort_keys=True).encode()).hexdigest()

    def _read(self, question: Question, reply: Reply, kept: bool) -> Any:
        """Count a reply, and read it."""
        with self._lock:
            self.usage.kept += kept
            if not kept:
                self.usage.asked += 1
                self.usage.tokens_in += reply.tokens_in
                self.usage.tokens_out += reply.tokens_out
                self.usage.dollars = self.endpoint.dollars(self.usage.tokens_in, self.usage.tokens_out)
                self._useless = 0 if reply.outcome == "answer" else self._useless + 1
                if self._useless >= USELESS:
                    self._give_up(f"the last {USELESS} replies were refusals, or could not be read")
        if reply.outcome == "answer":
            return question.read(reply.text)
        missing = NoAnswer(reply.outcome, f"{reply.outcome}: {_short(reply.text)}")
        self._count(missing)
        raise missing

    def _count(self, missing: NoAnswer) -> None:
        with self._lock:
            setattr(self.usage, missing.outcome, getattr(self.usage, missing.outcome) + 1)

    def _send(self, question: Question) -> Reply:
        """Ask, in the first format that the endpoint takes. Raises `NoAnswer` for what got no reply of the model."""
        import openai

        for format in tuple(self._formats):
            if self._given_up:
                raise NoAnswer("failed", f"not asked: {self._given_up}")
            request = question.request(self.endpoint.model or DEMO, format)
            try:
                text = self._post(request)
            except (openai.BadRequestError, openai.UnprocessableEntityError) as error:
                told = f"refused by the server: {_short(str(error))}"
                continue
            except openai.OpenAIError as error:
                told, status = f"{type(error).__name__}: {_short(str(error))}", getattr(error, "status_code", None)
                if status == 401:
                    told += f"; the key is read from ${self.endpoint.key_variable}"
                raise self._failed(f"{self.endpoint.url}: {told}", final=status in (401, 402, 404)) from error
            try:
                reply = _reply(question, text)
            except ValueError as error:
                raise self._failed(f"{self.endpoint.url}: {error}") from error
            with self._lock:
                self._failures = 0
                if format in self._formats:  # what it takes is not known before: a 400 may be about the question
                    del self._formats[: self._formats.index(format)]
            return reply
        raise self._failed(f"{self.endpoint.url}: {told}")

    def _post(self, request: dict[str, Any]) -> str:
        """The body that comes back, after as many tries as it takes. Raises `openai.OpenAIError` of the last."""
        import openai

        tries = 0
        while True:
            try:
                # `post` instead of `chat.completions.create`, which takes 3 ms to check and wrap what is plain JSON,
                # and stumbles over answers that are none.
                return self._openai.post("/chat/completions", cast_to=str, body=request)
            except (openai.APIConnectionError, openai.APIStatusError) as error:
                pause = _pause(error, tries)
                tries += 1
                if pause is None or tries > self.endpoint.retries or self._ended.wait(pause):
                    raise

    def _failed(self, reason: str, final: bool = False) -> NoAnswer:
        """Note a question without a reply; too many in a row, and the endpoint is given up."""
        with self._lock:
            self._failures += 1
            if final or self._failures >= max(FAILURES, self.endpoint.concurrency):
                self._give_up(reason)
        return NoAnswer("failed", reason)

    def _give_up(self, reason: str) -> None:
        """Ask nothing more, for the first reason given; within the lock."""
        self._given_up = self._given_up or reason
        self._ended.set()


def _reply(question: Question, text: str) -> Reply:
    """The model's own words out of the protocol's envelope, and whether they can be read as asked for.

    Raises `ValueError` for an envelope that is none: a server in trouble, which nobody pays for.
    """
    try:
        body = json.loads(text)
        tokens = _usage(body)
        if body["choices"] == [] and any(tokens):
            # Paid for all the same: kept as an answer that says nothing, and asked again only by choice, as these are.
            return Reply("rubbish", "expected an answer, found no choices", *tokens)
        choice = body["choices"][0]
        message = choice["message"]
        content, refusal = _words(message.get("content")), message.get("refusal")
    except (ValueError, KeyError, IndexError, TypeError, AttributeError, RecursionError) as error:
        raise ValueError(f"expected a chat completion, found {_short(text) or 'nothing'}") from error
    content = whole(content)  # JSON can say halves of letters that no file can hold
    if refusal or choice.get("finish_reason") == "content_filter":
        said = whole(str(refusal or "stopped by a content filter"))
        return Reply("refused", said, tokens[0], tokens[1])
    try:
        question.read(content)
    except ValueError as error:
        return Reply("rubbish", f"{error}: {content}", tokens[0], tokens[1])
    return Reply("answer", content, tokens[0], tokens[1])


def _words(content: Any) -> str:
    """The text of a message: as it is, or in parts."""
    if isinstance(content, list):
        return "".join(part["text"] for part in content if part.get("type") == "text")
    if not isinstance(content, str | None):
        raise TypeError("its content is not text")
    return content or ""


def _usage(body: Mapping[str, Any]) -> tuple[int, int]:
    """Tokens in and out that a completion says it took."""
    counted = body.get("usage")
    usage = counted if isinstance(counted, dict) else {}
    return _tokens(usage.get("prompt_tokens")), _tokens(usage.get("completion_tokens"))


def _tokens(count: Any) -> int:
    """A count of tokens, whatever a server writes it as; 0 where it cannot be one."""
    try:
        number = float(count)
    except (TypeError, ValueError, OverflowError):
        return 0
    return int(number) if 0 <= number <= MOST_TOKENS and not isinstance(count, bool) else 0


def _pause(error: APIError, tries: int) -> float | None:
    """Seconds until a question that failed so is sent again, after so many times; None where that is no use."""
    response = getattr(error, "response", None)
    longer = min(PAUSE * 2 ** min(tries, 10), LONGEST_PAUSE) * random.uniform(0.75, 1)  # not all at the same moment
    if response is None:  # no connection, or none in time
        return longer
    asked, again = _seconds(response.headers), response.headers.get("x-should-retry")
    passing = response.status_code in (408, 409, 429) or response.status_code >= 500
    if again == "false" or not (passing or again == "true") or asked > LONGEST_ASKED:
        return None
    return asked or longer


def _seconds(headers: Mapping[str, str]) -> float:
    """Seconds that a server asks to be left alone, 0 where it does not say."""
    for name, unit in (("retry-after-ms", 1000), ("retry-after", 1)):
        with suppress(KeyError, ValueError):
            return max(0.0, float(headers[name]) / unit)
    with suppress(KeyError, TypeError, ValueError, OverflowError):
        return max(0.0, parsedate_to_datetime(headers["retry-after"]).timestamp() - time.time())
    return 0.0


def _short(text: str) -> str:
    line = " ".join(plain(text).split())
    return line if len(line) <= 200 else f"{line[:200]}..."
