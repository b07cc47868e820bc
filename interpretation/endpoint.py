"""One question to a vision-language model behind an endpoint that speaks the OpenAI protocol."""

from __future__ import annotations

import hashlib
import json
import os
import threading
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from .cache import Reply, ReplyCache
from .questions import Question

if TYPE_CHECKING:
    from openai import OpenAI

DEMO = "demo"
"""The `url` that stands for the stand-in of the demo (`demo.stand_in`), which reads drawn scenes and nothing else."""
FAILURES = 5
"""Questions in a row that got no reply, each with all its tries, before an endpoint is given up (or as many as are
under way at once)."""
USELESS = 20
"""Replies in a row that were paid and could not be used, likewise."""


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
    """Answered from the cache."""
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
    are tried again by the SDK. Where all tries of several questions in a row fail, or the key or model is refused,
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
                max_retries=endpoint.retries,
            )
            stack.callback(self._openai.close)
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *exception: object) -> None:
        self._stack.close()

    def ask(self, question: Question) -> Any:
        """What the question's form reads in the answer. Raises `NoAnswer`."""
        key = self._key(question)
        reply = self._cache.get(key) if self._cache else None
        if reply is not None and not (self.endpoint.ask_again and reply.outcome != "answer"):
            return self._read(question, reply, kept=True)
        try:
            reply = self._send(question)
        except NoAnswer as missing:
            self._count(missing)
            raise
        if self._cache:
            self._cache.put(key, reply)
        return self._read(question, reply, kept=False)

    def _key(self, question: Question) -> str:
        request = [self.endpoint.url, question.request(self.endpoint.model or DEMO, "json_schema")]
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
                    self._given_up = f"the last {USELESS} replies were refusals, or could not be read"
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
                # `post` instead of `chat.completions.create`, which takes 3 ms to check and wrap what is plain JSON,
                # and stumbles over answers that are none.
                text = self._openai.post("/chat/completions", cast_to=str, body=request)
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

    def _failed(self, reason: str, final: bool = False) -> NoAnswer:
        """Note a question without a reply; too many in a row, and the endpoint is given up."""
        with self._lock:
            self._failures += 1
            if final or self._failures >= max(FAILURES, self.endpoint.concurrency):
                self._given_up = self._given_up or reason
        return NoAnswer("failed", reason)


def _reply(question: Question, text: str) -> Reply:
    """The model's own words out of the protocol's envelope, and whether they can be read as asked for.

    Raises `ValueError` for an envelope that is none: a server in trouble, which nobody pays for.
    """
    try:
        body = json.loads(text)
        choice = body["choices"][0]
        message = choice["message"]
        content, refusal = message.get("content") or "", message.get("refusal")
        if not isinstance(content, str):
            raise TypeError("its content is not text")
    except (ValueError, KeyError, IndexError, TypeError, AttributeError, RecursionError) as error:
        raise ValueError(f"expected a chat completion, found {_short(text) or 'nothing'}") from error
    counted = body.get("usage")
    usage = counted if isinstance(counted, dict) else {}
    tokens = [n if type(n := usage.get(name)) is int else 0 for name in ("prompt_tokens", "completion_tokens")]
    content = content.encode("utf-8", "replace").decode()  # JSON can say halves of letters that no file can hold
    if refusal or choice.get("finish_reason") == "content_filter":
        said = str(refusal or "stopped by a content filter").encode("utf-8", "replace").decode()
        return Reply("refused", said, tokens[0], tokens[1])
    try:
        question.read(content)
    except ValueError as error:
        return Reply("rubbish", f"{error}: {content}", tokens[0], tokens[1])
    return Reply("answer", content, tokens[0], tokens[1])


def _short(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= 200 else f"{line[:200]}..."
