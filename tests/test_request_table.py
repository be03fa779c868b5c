"""The request table: what each way of asking and attaching gives, and what it costs."""

import json
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from urllib.parse import quote

import pytest

from tests.support import plain_http
from tests.support.readers import (
    OTHER,
    PATIENCE,
    UNKNOWN,
    Reader,
    error_of,
    get,
    no_paid_call,
    patient,
    post,
    wire,
)
from tests.support.service import HELLO, RunningService, ask, events, text_of
from tests.support.upstream import (
    Accept,
    Cut,
    Eof,
    Finish,
    Hold,
    Raw,
    Refuse,
    Reset,
    Say,
    ScriptedUpstream,
    Step,
)


@pytest.fixture(scope="module")
def service(upstream_port: int) -> Iterator[RunningService]:
    with patient(upstream_port) as running:
        yield running


# Asking.


def test_a_question_in_the_url_reaches_upstream_as_a_user_message(
    service: RunningService, upstream: ScriptedUpstream
) -> None:
    assert text_of(events(get(f"{service.url}/ask?q={quote('What & why? Grüße')}"))) == "Hello there!"
    assert upstream.calls[0].body["messages"] == [{"role": "user", "content": "What & why? Grüße"}]


def test_a_conversation_in_the_url_reaches_upstream_whole(
    service: RunningService, upstream: ScriptedUpstream
) -> None:
    turns = [
        {"role": "user", "content": "1+1?"},
        {"role": "assistant", "content": "2"},
        {"role": "user", "content": "+1?"},
    ]
    assert (
        text_of(events(get(f"{service.url}/ask", params={"messages": json.dumps(turns)}))) == "Hello there!"
    )
    assert upstream.calls[0].body["messages"] == turns


@pytest.mark.parametrize(
    "query",
    ["", "q=", "messages=", "messages=%7B", "messages=[]", "messages=3", "messages=%FF", 'messages=["hi"]'],
)
def test_a_url_without_a_question_is_400_and_free(
    service: RunningService, upstream: ScriptedUpstream, query: str
) -> None:
    with no_paid_call(upstream):
        response = get(f"{service.url}/ask?{query}")
        assert (response.status_code, error_of(response)) == (400, "invalid_request")


def test_the_content_type_is_bare_because_some_clients_compare_the_whole_value(
    service: RunningService, upstream: ScriptedUpstream
) -> None:
    assert ask(service.url).headers["content-type"] == "text/event-stream"


def test_respond_async_is_202_with_a_location_that_gives_the_whole_answer(
    service: RunningService, upstream: ScriptedUpstream
) -> None:
    gate = threading.Event()
    upstream.answer(Say("a"), Hold(gate), Say("b"), Finish())
    response = ask(service.url, headers={"Prefer": "wait=5, Respond-Async"})
    assert (response.status_code, response.content) == (202, b"")
    assert response.headers["preference-applied"] == "respond-async"
    location = response.headers["location"]
    assert location.startswith("/ask/")
    gate.set()
    assert text_of(events(get(service.url + location))) == "ab"
    assert upstream.paid_calls == 1


def test_what_only_looks_like_respond_async_is_answered_at_once(
    service: RunningService, upstream: ScriptedUpstream
) -> None:
    response = ask(service.url, headers={"Prefer": "x-respond-async-not"})
    assert text_of(events(response)) == "Hello there!"
    assert "preference-applied" not in response.headers


@pytest.mark.parametrize("path", ["/ask?q=hi", "/ask?q=hi&id=head-1", "/ask?messages=[]", "/ask"])
def test_head_never_pays(service: RunningService, upstream: ScriptedUpstream, path: str) -> None:
    with no_paid_call(upstream):
        response = plain_http.head(service.url + path, headers={"Prefer": "respond-async"}, timeout=PATIENCE)
        assert response.status_code == (200 if "q=" in path else 400)
        assert response.content == b""


def test_head_of_an_answer_tells_its_headers_and_leaves_it_alone(
    service: RunningService, upstream: ScriptedUpstream
) -> None:
    place = ask(service.url).headers["content-location"]
    with no_paid_call(upstream):
        response = plain_http.head(service.url + place, timeout=PATIENCE)
        assert response.status_code == 200
        assert response.headers["content-type"].startswith("text/event-stream")
        assert plain_http.head(f"{service.url}/ask/{UNKNOWN}", timeout=PATIENCE).status_code == 404


# The same question again.


def test_the_same_key_attaches_to_the_same_answer_running_or_finished(
    service: RunningService, upstream: ScriptedUpstream, pool: ThreadPoolExecutor
) -> None:
    gate = threading.Event()
    upstream.answer(Say("a"), Hold(gate), Say("b"), Finish())
    options: dict[str, Any] = {"json": HELLO, "headers": {"Idempotency-Key": "again"}}
    first = Reader(pool, "POST", f"{service.url}/ask", **options)
    first.wait_for(b'"a"')
    second = Reader(pool, "POST", f"{service.url}/ask", **options)
    second.wait_for(b'"a"')
    gate.set()
    assert first.result() == second.result() == wire(post(service, "again"))
    assert upstream.paid_calls == 1


def test_the_same_id_in_the_url_attaches_to_the_same_answer(
    service: RunningService, upstream: ScriptedUpstream
) -> None:
    url = f"{service.url}/ask?q=hi&id=7c0e8a34-7c0e-4a34-9c0e-8a347c0e8a34"
    assert wire(get(url)) == wire(get(url))
    assert upstream.paid_calls == 1


def test_without_a_key_the_same_question_is_a_new_one(
    service: RunningService, upstream: ScriptedUpstream
) -> None:
    assert wire(post(service)) != wire(post(service))
    assert upstream.paid_calls == 2


def test_the_same_key_with_another_body_is_422_and_free(
    service: RunningService, upstream: ScriptedUpstream
) -> None:
    first = wire(post(service, "one body"))
    response = post(service, "one body", OTHER)
    assert (response.status_code, error_of(response)) == (422, "idempotency_key_reused")
    assert get(f"{service.url}/ask?q=Another&id=one%20body").status_code == 422
    assert wire(post(service, "one body")) == first
    assert upstream.paid_calls == 1


@pytest.mark.parametrize("readers", [2, 20])
@pytest.mark.parametrize("accepts_late", [False, True])
def test_simultaneous_requests_with_one_key_pay_once_and_read_the_same(
    service: RunningService,
    upstream: ScriptedUpstream,
    pool: ThreadPoolExecutor,
    readers: int,
    accepts_late: bool,
) -> None:
    gate = threading.Event()
    upstream.answer(*([Hold(gate)] if accepts_late else [Say("a"), Hold(gate)]), Say("b"), Finish())
    headers = {"Idempotency-Key": f"burst {readers} {accepts_late}"}
    together = threading.Barrier(readers)

    def one() -> bytes:
        together.wait(PATIENCE)
        return wire(ask(service.url, headers=headers))

    asking = [pool.submit(one) for _ in range(readers)]
    upstream.wait_for_calls(1)
    gate.set()
    assert len({future.result(PATIENCE) for future in asking}) == 1
    assert len(upstream.calls) == 1


def test_a_key_whose_question_upstream_refused_may_ask_again(
    service: RunningService, upstream: ScriptedUpstream
) -> None:
    upstream.answer_next(Refuse(401))
    assert error_of(post(service, "refused")) == "authentication_error"
    assert text_of(events(post(service, "refused"))) == "Hello there!"
    assert upstream.paid_calls == 1


@pytest.mark.parametrize(
    "steps", [(Reset(),), (Cut(),), (Accept(content_type="text/html"), Raw(b"<html>"), Eof())]
)
def test_a_key_whose_question_upstream_took_and_lost_is_not_paid_again(
    service: RunningService, upstream: ScriptedUpstream, steps: tuple[Step, ...]
) -> None:
    upstream.answer(*steps)
    key = f"lost {upstream.port} {steps}"
    code = error_of(post(service, key))
    again = events(post(service, key))
    assert [event["type"] for event in again] == ["start", "error"]
    assert again[-1]["error"] == code
    assert upstream.paid_calls == 1


@pytest.mark.parametrize("key", ["", "k" * 256])
def test_a_key_that_is_none_or_too_long_is_400_and_free(
    service: RunningService, upstream: ScriptedUpstream, key: str
) -> None:
    with no_paid_call(upstream):
        by_header, by_url = post(service, key), get(f"{service.url}/ask?q=hi&id={key}")
        for response in (by_header, by_url):
            assert (response.status_code, error_of(response)) == (400, "invalid_request")


def test_a_key_of_255_characters_is_one(service: RunningService, upstream: ScriptedUpstream) -> None:
    assert wire(post(service, "k" * 255)) == wire(post(service, "k" * 255))
    assert upstream.paid_calls == 1
