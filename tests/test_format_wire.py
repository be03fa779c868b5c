"""The formats over HTTP: their heads, errors and ends, and what becomes of upstream when a reader leaves."""

import http.client
import json
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit

import httpx2
import msgspec
import pytest

from chat_sse.formats import formats_at
from tests.conftest import QUICK
from tests.support import plain_http
from tests.support.service import HELLO, RunningService, ask, serve
from tests.support.upstream import (
    Accept,
    Cut,
    Finish,
    Hold,
    Pause,
    Reason,
    Refuse,
    Reset,
    Say,
    ScriptedUpstream,
    Silence,
)

PIXEL = "data:image/png;base64,iVBORw0KGgo="
FORMATS = [kind.name for kind in formats_at()]
every_format = pytest.mark.parametrize("fmt", FORMATS)
without_resume = pytest.mark.parametrize("fmt", ["text", "json"])


def ask_as(service: RunningService, fmt: str, **options: Any) -> httpx2.Response:
    return ask(service.url, params={"format": fmt}, **options)


@contextmanager
def connected(service: RunningService, fmt: str, body: Any = HELLO) -> Iterator[http.client.HTTPResponse]:
    """Ask over a bare connection, and leave when the block ends. Its reads give what has come, unchecked."""
    connection = http.client.HTTPConnection(urlsplit(service.url).netloc, timeout=15)
    headers = {"Content-Type": "application/json"}
    try:
        connection.request("POST", f"/ask?format={fmt}", json.dumps(body), headers)
        yield connection.getresponse()
    finally:
        connection.close()


@contextmanager
def waiting(service: RunningService, fmt: str) -> Iterator[None]:
    """Ask, read nothing, and leave when the block ends."""
    address = urlsplit(service.url)
    body = msgspec.json.encode(HELLO)
    lines = f"POST /ask?format={fmt} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    head = f"{lines}Content-Length: {len(body)}\r\n\r\n".encode()
    with socket.create_connection((address.hostname, address.port)) as connection:
        connection.sendall(head + body)
        yield


@pytest.fixture(scope="module")
def patient(upstream_port: int) -> Iterator[RunningService]:
    """A service that ends no call in the time of a test, unless the reader's leaving does."""
    env = {
        "OPENAI_BASE_URL": f"http://127.0.0.1:{upstream_port}/v1",
        "CHAT_SSE_DISCONNECT_GRACE": "60",
        "CHAT_SSE_FIRST_TOKEN_TIMEOUT": "60",
        "CHAT_SSE_IDLE_TIMEOUT": "60",
    }
    with serve(QUICK | env) as running:
        yield running


# Heads.


@pytest.mark.parametrize(
    ("fmt", "content_type", "more"),
    [
        ("sse", "text/event-stream", {}),
        ("ai-sdk", "text/event-stream", {"x-vercel-ai-ui-message-stream": "v1"}),
        ("html", "text/event-stream", {}),
        ("ag-ui", "text/event-stream", {}),
        ("text", "text/plain; charset=utf-8", {"x-content-type-options": "nosniff"}),
        ("json", "application/json", {}),
    ],
)
def test_each_format_has_its_head(
    service: RunningService, upstream: ScriptedUpstream, fmt: str, content_type: str, more: dict[str, str]
) -> None:
    upstream.answer(Say("Hi"), Finish())
    headers = ask_as(service, fmt).headers
    common = {"cache-control": "no-cache, no-transform", "x-accel-buffering": "no", "vary": "Accept, Origin"}
    wanted = {"content-type": content_type, **common, **more}
    assert {name: headers.get(name) for name in wanted} == wanted
    assert headers["content-location"].startswith("/ask/")
    assert "x-request-id" in headers


@every_format
def test_head_is_answered_without_waiting_for_the_answer(
    patient: RunningService, upstream: ScriptedUpstream, fmt: str
) -> None:
    upstream.answer(Say("Hi"), Silence())
    with connected(patient, "sse") as response:
        location = response.headers["Content-Location"]
        head = plain_http.head(patient.url + location, params={"format": fmt}, timeout=10)
    assert (head.status_code, head.content) == (200, b"")
    plain_http.delete(patient.url + location)


def test_accept_chooses_and_the_url_wins_over_it(service: RunningService, upstream: ScriptedUpstream) -> None:
    upstream.answer(Say("Hi"), Finish())
    assert ask(service.url, headers={"Accept": "text/plain"}).text == "Hi"
    both = ask(service.url, headers={"Accept": "text/plain"}, params={"format": "json"})
    assert both.json()["content"] == "Hi"
    assert plain_http.get(f"{service.url}/ask", params={"q": "Hello!", "format": "text"}).text == "Hi"


def test_a_format_that_nobody_speaks_is_406_with_the_list_and_costs_nothing(
    service: RunningService, upstream: ScriptedUpstream
) -> None:
    response = ask_as(service, "xml")
    assert (response.status_code, response.json()["error"]) == (406, "not_acceptable")
    assert all(f"?format={fmt} " in response.json()["details"] for fmt in FORMATS)
    assert upstream.calls == []


# JSON.


def test_a_json_answer_is_one_body(service: RunningService, upstream: ScriptedUpstream) -> None:
    upstream.answer(Reason("Hmm"), Say("Hel"), Say("lo"), Finish("length"))
    response = ask_as(service, "json")
    body = response.json()
    assert response.headers["content-location"] == f"/ask/{body.pop('id')}"
    assert int(response.headers["content-length"]) == len(response.content)
    assert body == {
        "role": "assistant",
        "content": "Hello",
        "reasoning": "Hmm",
        "finish_reason": "length",
        "usage": {"prompt_tokens": 10, "completion_tokens": 8, "total_tokens": 18},
        "model": "gpt-4o-mini",
    }


@without_resume
def test_a_fault_before_the_first_delta_is_an_http_error(
    service: RunningService, upstream: ScriptedUpstream, fmt: str
) -> None:
    upstream.answer(Accept(), Reason("Hmm"), Cut())
    response = ask_as(service, fmt)
    assert (response.status_code, response.json()["error"]) == (500, "upstream_protocol_error")
    assert response.headers["content-type"] == "application/json"
    assert response.headers["x-request-id"] == response.json()["request_id"]


@every_format
def test_a_refusal_by_upstream_is_an_http_error_in_every_format(
    service: RunningService, upstream: ScriptedUpstream, fmt: str
) -> None:
    upstream.answer(Refuse(429, headers={"Retry-After": "7"}))
    response = ask_as(service, fmt)
    assert (response.status_code, response.json()["error"]) == (500, "rate_limit_error")
    assert response.headers["retry-after"] == "7"


def test_a_fault_in_the_middle_is_an_http_error_in_json(
    service: RunningService, upstream: ScriptedUpstream
) -> None:
    upstream.answer(Say("Hello"), Reset())
    response = ask_as(service, "json")
    assert (response.status_code, response.json()["error"]) == (500, "upstream_protocol_error")
    assert "Hello" not in response.text


def test_a_stopped_answer_is_a_json_body_that_says_so(
    patient: RunningService, upstream: ScriptedUpstream
) -> None:
    upstream.answer(Say("Hello"), Silence())
    with connected(patient, "sse") as response:
        location = response.headers["Content-Location"]
        while b"Hello" not in response.readline():
            pass
        plain_http.delete(patient.url + location)
    body = plain_http.get(patient.url + location, params={"format": "json"}).json()
    assert (body["content"], body["finish_reason"]) == ("Hello", "cancelled")


# Text.


def test_text_is_the_deltas_and_nothing_else(service: RunningService, upstream: ScriptedUpstream) -> None:
    upstream.answer(Reason("Hmm"), Say("Hel"), Pause(0.7), Say("lo\n\n"), Say("🙂"), Finish())
    assert ask_as(service, "text").content == "Hello\n\n🙂".encode()  # no heartbeat among it


def test_an_empty_answer_is_an_empty_text(service: RunningService, upstream: ScriptedUpstream) -> None:
    upstream.answer(Accept(), Finish())
    response = ask_as(service, "text")
    assert (response.status_code, response.content) == (200, b"")


def broken_text(service: RunningService, after: Callable[[str], object]) -> bytes:
    """Read a text to its end, which must not be one. `after`: what to do once `Hello` is here."""
    with connected(service, "text") as response:
        assert response.status == 200
        assert response.read(5) == b"Hello"
        after(response.headers["Content-Location"])
        with pytest.raises(http.client.IncompleteRead) as caught:
            response.read()
        return caught.value.partial


def test_a_fault_in_the_middle_of_a_text_breaks_the_connection_and_is_one_line_in_the_log(
    upstream: ScriptedUpstream,
) -> None:
    gate = threading.Event()
    upstream.answer(Say("Hello"), Hold(gate), Reset())
    with serve(QUICK | {"OPENAI_BASE_URL": upstream.base_url}) as service:
        assert broken_text(service, lambda _: gate.set()) == b""
        service.wait_for_log("text.broken_off id=[0-9a-f]+ reason=upstream_protocol_error")
        assert ask_as(service, "sse").status_code == 200  # it goes on serving
        service.terminate()
        log = service.log()
    assert log.count("text.broken_off") == 1
    assert "Traceback" not in log
    assert "ERROR" not in log


def test_a_stopped_text_breaks_as_well_for_it_is_not_whole(
    patient: RunningService, upstream: ScriptedUpstream
) -> None:
    upstream.answer(Say("Hello"), Silence())
    broken_text(patient, lambda location: plain_http.delete(patient.url + location))
    patient.wait_for_log("text.broken_off id=[0-9a-f]+ reason=cancelled")


def test_a_text_that_a_shutdown_cuts_breaks_too(upstream: ScriptedUpstream) -> None:
    upstream.answer(Say("Hello"), Silence())
    env = {"OPENAI_BASE_URL": upstream.base_url, "CHAT_SSE_SHUTDOWN_GRACE": "0.5"}
    with serve(QUICK | env) as service:
        broken_text(service, lambda _: service.process.send_signal(signal.SIGTERM))
        assert service.process.wait(10) == 0
        service.wait_for_log("text.broken_off id=[0-9a-f]+ reason=server_draining")
        assert "Traceback" not in service.log()


@without_resume
def test_an_answer_that_ends_within_the_shutdowns_grace_is_whole(
    upstream: ScriptedUpstream, fmt: str
) -> None:
    gate = threading.Event()
    upstream.answer(Say("Hel"), Hold(gate), Say("lo"), Finish())
    env = {"OPENAI_BASE_URL": upstream.base_url, "CHAT_SSE_SHUTDOWN_GRACE": "8"}
    got: list[httpx2.Response] = []
    with serve(QUICK | env) as service:
        asking = threading.Thread(target=lambda: got.append(ask_as(service, fmt)))
        asking.start()
        upstream.wait_for_calls(1)
        service.process.send_signal(signal.SIGTERM)
        service.wait_for_log("relay.draining")
        gate.set()
        asking.join(15)
        assert service.process.wait(10) == 0
    assert (got[0].json()["content"] if fmt == "json" else got[0].text) == "Hello"


# Readers that leave.


@without_resume
@pytest.mark.parametrize(
    "begin", [[Say("Hello")], [Accept()], []], ids=["midway", "before a delta", "unaccepted"]
)
def test_a_client_that_cannot_come_back_takes_the_upstream_call_with_it(
    patient: RunningService, upstream: ScriptedUpstream, fmt: str, begin: list[Any]
) -> None:
    upstream.answer(*begin, Silence())
    with waiting(patient, fmt):
        [call] = upstream.wait_for_calls(1)
    assert call.wait_gone(10)  # the grace is a minute


@pytest.mark.parametrize("fmt", ["sse", "ai-sdk", "html"])
def test_a_client_that_can_come_back_is_waited_for(
    patient: RunningService, upstream: ScriptedUpstream, fmt: str
) -> None:
    gate = threading.Event()
    upstream.answer(Say("Hello"), Hold(gate), Finish())
    with connected(patient, fmt) as response:
        location = response.headers["Content-Location"]
        while b"Hello" not in response.readline():
            pass
    [call] = upstream.calls
    assert not call.wait_gone(1)
    gate.set()
    body = plain_http.get(patient.url + location, params={"format": "json"}, timeout=10).json()
    assert (body["content"], body["finish_reason"]) == ("Hello", "stop")


def test_a_text_readers_leaving_ends_nothing_for_those_who_read_on_or_may_come_back(
    patient: RunningService, upstream: ScriptedUpstream
) -> None:
    gate = threading.Event()
    upstream.answer(Say("Hello"), Hold(gate), Finish())
    with connected(patient, "sse") as first:
        location = first.headers["Content-Location"]
        with plain_http.stream("GET", patient.url + location, params={"format": "text"}) as second:
            assert next(second.iter_raw()) == b"Hello"
        [call] = upstream.calls
        assert not call.wait_gone(0.5)  # the first reads on
        with plain_http.stream("GET", patient.url + location, params={"format": "text"}) as third:
            assert next(third.iter_raw()) == b"Hello"
            first.close()
            assert not call.wait_gone(0.5)
    assert not call.wait_gone(0.5)  # and now could come back
    gate.set()
    assert call.wait_finished(10)


@without_resume
def test_a_finished_answer_is_no_abandoned_one(upstream: ScriptedUpstream, fmt: str) -> None:
    with serve(QUICK | {"OPENAI_BASE_URL": upstream.base_url}) as service:
        for _ in range(3):
            assert ask_as(service, fmt).status_code == 200
        service.wait_for_log("(?s)(answer.ended.*){3}")
        assert "answer.abandoned" not in service.log()
    assert upstream.accepted_connections == 1  # its connection was read to the end and used again


# Resuming.


@pytest.mark.parametrize("fmt", ["text", "json", "ai-sdk"])
def test_a_format_without_ids_is_read_from_its_start_whatever_was_seen(
    service: RunningService, upstream: ScriptedUpstream, fmt: str
) -> None:
    upstream.answer(Say("Hel"), Say("lo"), Finish())
    first = ask_as(service, fmt)
    location = first.headers["content-location"]
    last = f"{location.removeprefix('/ask/')}.3"
    again = plain_http.get(service.url + location, params={"format": fmt}, headers={"Last-Event-ID": last})
    assert again.content.replace(b": hb\n", b"") == first.content.replace(b": hb\n", b"")
    assert upstream.paid_calls == 1


# Chats.


def chat(chat_id: Any) -> dict[str, Any]:
    return {**HELLO, "id": chat_id, "trigger": "submit-message"}


def test_a_chats_id_finds_its_running_answer_and_204_after_it(
    patient: RunningService, upstream: ScriptedUpstream
) -> None:
    gate = threading.Event()
    upstream.answer(Say("Hello"), Hold(gate), Finish())
    url = f"{patient.url}/ask/a%2Fb%20c/stream"
    with connected(patient, "ai-sdk", chat("a/b c")) as response:
        response.readline()
        with plain_http.stream("GET", url, timeout=10) as again:
            assert again.headers["x-vercel-ai-ui-message-stream"] == "v1"
            gate.set()
            body = again.read()
    assert body.startswith(b'data: {"type":"start","messageId":"')
    assert body.endswith(b"data: [DONE]\n\n")
    assert plain_http.get(url).status_code == 204
    assert plain_http.get(f"{patient.url}/ask/unknown/stream").status_code == 204
    assert upstream.paid_calls == 1


def test_a_chats_id_is_the_same_at_every_turn_and_never_an_idempotency_key(
    service: RunningService, upstream: ScriptedUpstream
) -> None:
    upstream.answer_next(Say("one"), Finish())
    upstream.answer_next(Say("two"), Finish())
    bodies = [ask_as(service, "text", body=chat("c")).text for _ in range(2)]
    assert bodies == ["one", "two"]
    assert upstream.paid_calls == 2


def test_a_chats_id_finds_the_newest_of_its_answers(
    patient: RunningService, upstream: ScriptedUpstream
) -> None:
    gate = threading.Event()
    upstream.answer_next(Say("old"), Finish())
    upstream.answer_next(Say("new"), Hold(gate), Finish())
    assert ask_as(patient, "text", body=chat("c2")).text == "old"
    url = f"{patient.url}/ask/c2/stream?format=text"
    with connected(patient, "sse", chat("c2")) as response:
        response.readline()
        with plain_http.stream("GET", url, timeout=10) as newest:
            gate.set()
            assert newest.read() == b"new"


# Content parts.


@pytest.mark.parametrize("url", [PIXEL, "https://example.org/cat.jpg?size=1"])
def test_content_parts_reach_upstream_unchanged(
    service: RunningService, upstream: ScriptedUpstream, url: str
) -> None:
    content = [
        {"type": "text", "text": "What is it?"},
        {"type": "image_url", "image_url": {"url": url, "detail": "low"}},
        {"type": "image_url", "image_url": {"url": url}},
    ]
    messages = [{"role": "user", "content": content}]
    assert ask(service.url, {"messages": messages}).status_code == 200
    assert upstream.calls[0].body["messages"] == messages


def test_a_picture_larger_than_a_body_may_be_is_413(
    service: RunningService, upstream: ScriptedUpstream
) -> None:
    url = "data:image/png;base64," + "A" * 1_100_000
    parts = [{"type": "file", "mediaType": "image/png", "url": url}]
    response = ask(service.url, {"messages": [{"role": "user", "parts": parts}]})
    assert (response.status_code, response.json()["error"]) == (413, "payload_too_large")
    assert upstream.calls == []


def test_a_picture_within_the_limit_is_passed_on_whole(
    service: RunningService, upstream: ScriptedUpstream
) -> None:
    url = "data:image/png;base64," + "A" * 900_000
    parts = [{"type": "file", "mediaType": "image/png", "url": url}]
    assert ask(service.url, {"messages": [{"role": "user", "parts": parts}]}).status_code == 200
    assert upstream.calls[0].body["messages"][0]["content"] == [
        {"type": "image_url", "image_url": {"url": url}}
    ]


# The default.


def test_the_default_format_is_what_a_request_gets_that_names_none(upstream: ScriptedUpstream) -> None:
    env = {"OPENAI_BASE_URL": upstream.base_url, "CHAT_SSE_DEFAULT_FORMAT": "JSON"}
    with serve(QUICK | env) as service:
        assert ask(service.url).json()["content"] == "Hello there!"
        stream = ask(service.url, headers={"Accept": "text/event-stream"})
        assert stream.content.startswith(b"retry: ")


@pytest.mark.parametrize("name", ["sse", "ai-sdk"])
def test_no_line_ends_inside_an_event_whoever_splits_it(
    name: str, service: RunningService, upstream: ScriptedUpstream
) -> None:
    words = ["a\u2028b", "c\u2029", "\x85d", "plain", "é\u2028", "\U0001f642"]
    upstream.answer(*map(Say, words), Finish())
    body = ask(service.url + "", params={"format": name}).content.decode()
    assert body.splitlines() == body.split("\n")[:-1]
    datas = [line.removeprefix("data: ") for line in body.split("\n") if line.startswith("data: {")]
    found = [msgspec.json.decode(data) for data in datas]
    key = "delta" if name == "ai-sdk" else "content"
    assert "".join(event[key] for event in found if key in event and event["type"] != "error") == "".join(
        words
    )
