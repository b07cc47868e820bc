"""Asking over real HTTP: what goes wrong there, what is kept, and what is paid."""

import json
import socket
import sys
import threading
import time
from email.utils import formatdate

import pytest

from fluxtionary.demo.stand_in import completion
from fluxtionary.interpretation import endpoint as endpoints
from fluxtionary.interpretation.asking import ask_all
from fluxtionary.interpretation.endpoint import USELESS, Client, Endpoint, EndpointError, NoAnswer, Usage
from fluxtionary.interpretation.pictures import Pictures
from fluxtionary.interpretation.questions import judge_question

from .trouble import Troubled, fails

N = 8


@pytest.fixture(scope="module")
def questions(drawn_atlas):
    """The same question about different pictures."""
    pictures = Pictures(drawn_atlas)
    examples = drawn_atlas.examples(0, "top")[:N]
    return [judge_question("red object: on the object", pictures.pair(0, e.picture)) for e in examples]


def endpoint(server, cache=None, **options):
    return Endpoint(getattr(server, "url", server), "any", cache=cache, **{"retries": 0, "timeout": 10, **options})


def ask(questions, endpoint):
    """Answers by number of the question, `NoAnswer` among them, and the usage."""
    with Client(endpoint) as client:
        numbered = ((i, lambda question=question: question) for i, question in enumerate(questions))
        return dict(ask_all(client, numbered, len(questions), "asking", progress=False)), client.usage


def good(answers):
    return {number for number, answer in answers.items() if not isinstance(answer, NoAnswer)}


def reasons(answers):
    return {str(answer) for answer in answers.values() if isinstance(answer, NoAnswer)}


def test_answers_come_over_few_connections_and_are_asked_for_once(questions, tmp_path):
    with Troubled() as server:
        asking = endpoint(server, tmp_path / "answers", concurrency=3)
        first, usage = ask(questions, asking)
        again, later = ask(questions, asking)
        assert len(good(first)) == N and first == again and all(answer > 0.5 for answer in first.values())
        assert (usage.asked, usage.kept, usage.missing) == (N, 0, 0) and usage.tokens_in > 100 * N
        assert (later.asked, later.kept, later.tokens_in, server.asked) == (0, N, 0, N)
        assert len(server.connections) <= 3


def test_an_endpoint_that_is_down_is_given_up_and_asked_later(questions, tmp_path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    asking = endpoint(f"http://127.0.0.1:{port}/v1", tmp_path / "answers", concurrency=2)
    answers, usage = ask(questions, asking)
    assert not good(answers) and usage.failed == N and usage.asked == 0
    assert any("not asked" in reason for reason in reasons(answers))
    assert all("APIConnectionError" in reason for reason in reasons(answers))
    with Troubled(port=port) as server:
        answers, usage = ask(questions, asking)
        assert len(good(answers)) == N == len(server.paid)


def test_what_was_answered_before_it_broke_is_not_paid_twice(questions, tmp_path):
    broken = fails(500)
    with Troubled(lambda number, *rest: number > 2 and broken(number, *rest)) as server:
        asking = endpoint(server, tmp_path / "answers", concurrency=1)
        answers, usage = ask(questions, asking)
        assert len(good(answers)) == 2 == usage.asked and usage.failed == N - 2
        assert server.asked < N  # given up before all of them failed
        server.trouble = lambda *_: False
        answers, usage = ask(questions, asking)
        assert len(good(answers)) == N and usage.kept == 2 and usage.asked == N - 2
        assert len(server.paid) == N == len(set(server.paid))


def test_a_slow_answer_is_asked_for_again(questions):
    asleep = threading.Event()

    def slow(number, handler, request):
        if number == 2:
            asleep.wait(20)
        return False

    with Troubled(slow) as server:
        answers, _ = ask(questions, endpoint(server, timeout=2, retries=1))
        asleep.set()
        assert len(good(answers)) == N and server.asked == N + 1


def test_an_endpoint_that_is_too_slow_leaves_questions_without_answers(questions):
    asleep = threading.Event()
    with Troubled(lambda *_: bool(asleep.wait(60))) as server:
        started = time.monotonic()
        answers, _ = ask(questions, endpoint(server, timeout=0.5))
        asleep.set()
        assert not good(answers) and any("APITimeoutError" in reason for reason in reasons(answers))
        assert time.monotonic() - started < 30  # not as long as they sleep


def test_a_rate_limit_is_waited_for_as_long_as_it_says(questions):
    times = []

    def limited(number, handler, request):
        times.append(time.monotonic())
        return number == 3 and fails(429, {"Retry-After": "0.7"})(number, handler, request)

    with Troubled(limited) as server:
        answers, _ = ask(questions, endpoint(server, retries=2, concurrency=1))
        assert len(good(answers)) == N and server.asked == N + 1
        assert times[3] - times[2] >= 0.7


@pytest.mark.parametrize(
    ("status", "headers", "tries"),
    [
        (500, {"Retry-After-Ms": "1"}, 3),
        (429, {"Retry-After": formatdate(usegmt=True)}, 3),
        (400, {"X-Should-Retry": "true", "Retry-After": "0.01"}, 3 * 3),  # in each format
        (500, {"X-Should-Retry": "false"}, 1),
        (429, {"Retry-After": "3600"}, 1),
        (403, {}, 1),
    ],
)
def test_what_may_pass_is_tried_again_and_nothing_else(questions, monkeypatch, status, headers, tries):
    monkeypatch.setattr(endpoints, "PAUSE", 0.01)
    with Troubled(fails(status, headers)) as server:
        assert ask(questions[:1], endpoint(server, retries=2))[1].failed == 1
        assert server.asked == tries


@pytest.mark.parametrize(
    ("content", "refusal", "finish", "outcome"),
    [
        ("I cannot help with that.", None, "stop", "rubbish"),
        ("", None, "stop", "rubbish"),
        (None, None, "length", "rubbish"),
        ('{"score": "high"}', None, "stop", "rubbish"),
        ('{"score": 7}', None, "stop", "rubbish"),
        ('{"score": NaN}', None, "stop", "rubbish"),
        ('{"score": true}', None, "stop", "rubbish"),
        ("[" * 100_000, None, "stop", "rubbish"),
        ('{"a":' * 5_000, None, "stop", "rubbish"),
        ("half a letter \ud800", None, "stop", "rubbish"),
        (None, "I must refuse \udfff", "stop", "refused"),
        ('{"score": 1}', None, "content_filter", "refused"),
    ],
)
def test_refusals_and_rubbish_are_missing_and_asked_again_only_by_choice(
    questions, tmp_path, content, refusal, finish, outcome
):
    with Troubled() as server:
        saying = server.says(content, refusal, finish)
        server.trouble = lambda number, *rest: number in (2, 5) and saying(number, *rest)
        asking = endpoint(server, tmp_path / "answers", concurrency=1)
        answers, usage = ask(questions, asking)
        assert len(good(answers)) == N - 2 and getattr(usage, outcome) == 2 and usage.asked == N
        assert {answer.outcome for answer in answers.values() if isinstance(answer, NoAnswer)} == {outcome}
        server.trouble = lambda *_: False
        answers, usage = ask(questions, asking)
        assert len(good(answers)) == N - 2 and usage.asked == 0 and getattr(usage, outcome) == 2
        answers, usage = ask(questions, endpoint(server, tmp_path / "answers", ask_again=True))
        assert len(good(answers)) == N and usage.asked == 2
        answers, usage = ask(questions, asking)
        assert len(good(answers)) == N and usage.asked == 0


def test_a_model_that_says_nothing_useful_is_not_paid_for_long(questions):
    with Troubled() as server:
        server.trouble = server.says("Nice pictures!")
        answers, usage = ask(questions * 5, endpoint(server, concurrency=1))
        assert usage.rubbish == len(server.paid) == USELESS and usage.failed == 5 * N - USELESS
        assert any("could not be read" in reason for reason in reasons(answers))


@pytest.mark.parametrize(
    "body", ["<html>502 Bad Gateway</html>", "{}", '{"choices": []}', '{"choices": [{"message": 1}]}', "[[", ""]
)
def test_what_is_no_completion_is_a_fault_of_the_server_and_not_kept(questions, tmp_path, body):
    def broken(number, handler, request):
        if number > 2:
            return False
        handler.send(200, body)
        return True

    with Troubled(broken) as server:
        asking = endpoint(server, tmp_path / "answers")
        answers, usage = ask(questions, asking)
        assert len(good(answers)) == N - 2 and usage.failed == 2
        assert all("expected a chat completion" in reason for reason in reasons(answers))
        answers, usage = ask(questions, asking)
        assert len(good(answers)) == N and usage.asked == 2


def test_no_choices_that_were_paid_for_are_not_paid_for_again(questions, tmp_path):
    def empty(number, handler, request):
        handler.send(200, {"choices": [], "usage": {"prompt_tokens": 70, "completion_tokens": 0}})
        return True

    with Troubled(empty) as server:
        asking = endpoint(server, tmp_path / "answers")
        for asked in (1, 0):
            answers, usage = ask(questions[:1], asking)
            assert (usage.asked, usage.tokens_in, usage.rubbish) == (asked, 70 * asked, 1)
            assert "found no choices" in str(answers[0])
        server.trouble = lambda *_: False
        assert good(ask(questions[:1], endpoint(server, tmp_path / "answers", ask_again=True))[0]) == {0}


@pytest.mark.parametrize(
    ("counted", "tokens"),
    [("70", 70), (70.0, 70), (-70, 0), (10**20, 0), ("many", 0), (True, 0), (None, 0), ([], 0), (10**400, 0)],
    ids=lambda value: str(value)[:20],
)
def test_tokens_count_however_they_are_written(questions, tmp_path, counted, tokens):
    def counting(number, handler, request):
        answer = completion(request)
        answer["usage"]["prompt_tokens"] = counted
        handler.send(200, answer)
        return True

    with Troubled(counting) as server:
        answers, usage = ask(questions[:1], endpoint(server, tmp_path / "answers"))
        assert good(answers) == {0} and usage.tokens_in == tokens


def test_an_answer_may_come_in_parts(questions):
    with Troubled() as server:
        parts = [
            {"type": "thinking", "thinking": "hm"},
            *({"type": "text", "text": t} for t in ('{"score":', " 0.25}")),
        ]
        server.trouble = server.says(parts)
        assert ask(questions[:1], endpoint(server))[0] == {0: 0.25}


def test_the_same_question_under_way_is_asked_once(questions, tmp_path):
    def slow(number, handler, request):
        time.sleep(0.5)

    with Troubled(slow) as server:
        answers, usage = ask(questions[:1] * 4, endpoint(server, concurrency=4))
        assert len(good(answers)) == 4 and len(set(answers.values())) == 1
        assert (server.asked, usage.asked, usage.kept) == (1, 1, 3)


def test_a_slash_at_the_end_of_the_url_is_no_other_endpoint(questions, tmp_path):
    with Troubled() as server:
        ask(questions[:1], endpoint(server, tmp_path / "answers"))
        ask(questions[:1], endpoint(f"{server.url}/", tmp_path / "answers"))
        assert server.asked == 1


@pytest.mark.parametrize("status", [401, 402, 404])
def test_a_key_or_model_that_is_refused_ends_the_asking_at_once(questions, status):
    with Troubled(fails(status)) as server:
        answers, usage = ask(questions, endpoint(server, concurrency=1, key_variable="NO_SUCH_KEY"))
        assert server.asked == 1 and usage.failed == N
        assert status != 401 or any("$NO_SUCH_KEY" in reason for reason in reasons(answers))


@pytest.mark.parametrize("takes", ["json_object", None])
def test_an_endpoint_without_structured_output_is_asked_for_what_it_can(questions, takes):
    seen = []

    def picky(number, handler, request):
        format = request.get("response_format", {}).get("type")
        seen.append(format)
        return format != takes and fails(400)(number, handler, request)

    with Troubled(picky) as server:
        answers, usage = ask(questions, endpoint(server, concurrency=1))
        assert len(good(answers)) == N and usage.missing == 0
        tried = ["json_schema", "json_object", None]
        assert seen == tried[: tried.index(takes) + 1] + [takes] * (N - 1)  # what is refused once is not tried again


def test_a_question_that_is_refused_as_such_does_not_change_how_others_are_asked(questions):
    seen = []

    def picky(number, handler, request):
        seen.append(request.get("response_format", {}).get("type"))
        return 2 <= number <= 4 and fails(400)(number, handler, request)

    with Troubled(picky) as server:
        answers, usage = ask(questions, endpoint(server, concurrency=1))
        assert len(good(answers)) == N - 1 and usage.failed == 1
        assert seen == ["json_schema", "json_schema", "json_object", None] + ["json_schema"] * (N - 2)


def test_who_stops_listening_stops_the_asking(questions, tmp_path):
    with Troubled() as server, Client(endpoint(server, tmp_path / "answers", concurrency=1)) as client:
        numbered = ((i, lambda question=question: question) for i, question in enumerate(questions))
        answers = ask_all(client, numbered, N, "asking", progress=False)
        next(answers)
        answers.close()
        assert server.asked <= 3
        assert len(set(server.paid)) == client.usage.asked  # and what was under way is kept
        rest, _ = ask(questions, endpoint(server, tmp_path / "answers"))
        assert len(good(rest)) == N and len(server.paid) == N


def test_answers_of_another_model_or_server_are_not_mixed_up(questions, tmp_path):
    with Troubled() as server, Troubled() as other:
        ask(questions[:2], endpoint(server, tmp_path / "answers"))
        ask(questions[:2], endpoint(other, tmp_path / "answers"))
        ask(questions[:2], Endpoint(server.url, "another", cache=tmp_path / "answers"))
        assert (server.asked, other.asked) == (4, 2)


def test_cost_is_what_was_paid(questions, tmp_path):
    with Troubled() as server:
        priced = endpoint(server, tmp_path / "answers", dollars_in=2.0, dollars_out=10.0)
        _, usage = ask(questions, priced)
        assert usage.dollars == pytest.approx((2 * usage.tokens_in + 10 * usage.tokens_out) / 1e6) and usage.dollars > 0
        assert ask(questions, priced)[1].dollars == 0
    assert ask(questions[:1], Endpoint("demo"))[1].dollars is None


def test_progress_says_before_and_meanwhile_what_it_takes(questions, capsys, caplog):
    with caplog.at_level("INFO"), Client(Endpoint("demo", dollars_in=1000, dollars_out=1000)) as client:
        numbered = ((i, lambda question=question: question) for i, question in enumerate(questions))
        list(ask_all(client, numbered, N, "judging", progress=True))
    (said,) = [r.message for r in caplog.records if r.message.startswith("judging")]
    assert "judging: 8 questions to demo, roughly" in said and "tokens in" in said and "$" in said
    assert "tokens, $" in capsys.readouterr().err


def test_usage_adds_up():
    total = Usage(asked=1, refused=2, dollars=1.0) + Usage(asked=3, failed=1, dollars=0.5)
    assert (total.asked, total.refused, total.missing, total.dollars) == (4, 2, 3, 1.5)
    assert (total + Usage()).dollars is None


def test_an_endpoint_needs_a_model_and_sensible_numbers():
    with pytest.raises(EndpointError, match="name the model"):
        Endpoint("http://localhost/v1")
    with pytest.raises(EndpointError, match="concurrency of at least 1"):
        Endpoint("demo", concurrency=0)


def test_without_the_openai_package_it_is_said_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "openai", None)
    with pytest.raises(EndpointError, match="interpret"), Client(Endpoint("demo")):
        pass


def test_requests_hold_a_strict_schema_and_pictures_only(questions):
    seen = []
    with Troubled(lambda number, handler, request: seen.append(request)) as server:
        ask(questions[:1], endpoint(server))
    (request,) = seen
    schema = request["response_format"]["json_schema"]
    assert schema["strict"] and schema["schema"]["additionalProperties"] is False
    assert schema["schema"]["required"] == list(schema["schema"]["properties"]) == ["score"]
    assert [part["type"] for part in request["messages"][1]["content"]] == ["text", "image_url", "image_url"]
    assert json.dumps(request).count("data:image/png;base64,") == 2
