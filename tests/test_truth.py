"""Every way an answer can end is told by exactly one terminal event, or by an HTTP error before any."""

import threading
from typing import Any

import pytest

from chat_sse.formats.sse import HEARTBEAT
from tests.conftest import QUICK
from tests.support.service import RunningService, ask, events, parse_sse, serve, text_of
from tests.support.streams import asking
from tests.support.upstream import (
    Accept,
    Chunk,
    Cut,
    Eof,
    Finish,
    Hold,
    Raw,
    Refuse,
    Reset,
    Say,
    ScriptedUpstream,
    Silence,
    Split,
    Step,
)

SOON = {"retry-after-ms": "10"}  # for the SDK's own retries, which would take 1.5 seconds


def ending(found: list[dict[str, Any]]) -> dict[str, Any]:
    """Give the last event, having seen that it is the only terminal one."""
    assert [event["type"] for event in found].count("start") == 1
    assert [event for event in found if event["type"] in ("done", "error")] == found[-1:]
    return found[-1]


@pytest.mark.parametrize("reason", ["stop", "length", "content_filter"])
def test_the_finish_reason_is_passed_on(
    service: RunningService, upstream: ScriptedUpstream, reason: str
) -> None:
    upstream.answer(Say("Hi"), Finish(reason))
    assert ending(events(ask(service.url)))["finish_reason"] == reason


def test_done_without_usage_says_null(service: RunningService, upstream: ScriptedUpstream) -> None:
    upstream.answer(Say("Hi"), Finish("stop", usage=None))
    assert ending(events(ask(service.url))) == {"type": "done", "finish_reason": "stop", "usage": None}


@pytest.mark.parametrize(
    ("steps", "code"),
    [
        ((Say("Hi"), Cut()), "upstream_protocol_error"),
        ((Say("Hi"), Eof()), "upstream_protocol_error"),
        ((Say("Hi"), Reset()), "upstream_protocol_error"),
        ((Say("Hi"), Raw(b"data: {oops\n\n"), Finish()), "upstream_protocol_error"),
        ((Say("Hi"), Raw(b"data: [DONE]\n\n"), Eof()), "upstream_protocol_error"),
        ((Say("Hi"), Chunk({"error": {"type": "server_error"}}), Eof()), "service_unavailable_error"),
        ((Say("Hi"), Chunk({"error": {"code": "rate_limit_exceeded"}}), Eof()), "rate_limit_error"),
        ((Say("Hi"), Silence()), "timeout_error"),
    ],
)  # fmt: skip
def test_a_fault_in_the_middle_is_the_one_terminal_event(
    service: RunningService, upstream: ScriptedUpstream, steps: tuple[Step, ...], code: str
) -> None:
    upstream.answer(*steps)
    found = events(ask(service.url))
    last = ending(found)
    assert text_of(found) == "Hi"
    assert (last["type"], last["error"], last["role"]) == ("error", code, "assistant")
    assert last["retryable"] is True
    assert last["content"]
    assert last["details"]
    assert upstream.paid_calls == 1


@pytest.mark.parametrize("steps", [(Accept(), Eof()), (Accept(), Cut()), (Accept(), Raw(b""), Reset())])
def test_an_answer_of_nothing_is_no_answer(
    service: RunningService, upstream: ScriptedUpstream, steps: tuple[Step, ...]
) -> None:
    upstream.answer(*steps)
    assert ending(events(ask(service.url)))["error"] == "upstream_protocol_error"


def test_bytes_split_inside_characters_change_nothing(
    service: RunningService, upstream: ScriptedUpstream
) -> None:
    text = "Grüße, 世界! 🎉 \u2028 \x85 é"
    upstream.answer(Split(1, gap_seconds=0.0002), Say(text), Finish())
    found = events(ask(service.url))
    assert text_of(found) == text
    assert ending(found)["finish_reason"] == "stop"


def test_a_null_finish_reason_with_usage_and_done_is_told_as_null(
    service: RunningService, upstream: ScriptedUpstream
) -> None:
    upstream.answer(
        Say("Hi"),
        Raw(b'data: {"choices":[],"usage":{"prompt_tokens":1,"completion_tokens":1,"total_tokens":2}}\n\n'),
        Raw(b"data: [DONE]\n\n"),
        Eof(),
    )
    last = ending(events(ask(service.url)))
    assert (last["type"], last["finish_reason"]) == ("done", None)


def test_after_the_finish_reason_a_reader_does_not_wait_for_an_end_that_never_comes(
    service: RunningService, upstream: ScriptedUpstream
) -> None:
    gate = threading.Event()
    upstream.answer(Say("Hi"), Finish("stop", done=False, usage=None), Hold(gate))
    assert ending(events(ask(service.url)))["finish_reason"] == "stop"
    gate.set()


@pytest.mark.parametrize(
    ("refusal", "code", "retryable"),
    [
        (Refuse(401), "authentication_error", False),
        (Refuse(403), "authentication_error", False),
        (Refuse(404), "invalid_request_error", False),
        (Refuse(400), "invalid_request_error", False),
        (Refuse(429, headers=SOON), "rate_limit_error", True),
        (Refuse(500, headers=SOON), "service_unavailable_error", True),
        (Refuse(503, body=b"<html>busy</html>", headers=SOON), "service_unavailable_error", True),
    ],
)
def test_what_upstream_refuses_is_an_http_500_with_its_code(
    service: RunningService, upstream: ScriptedUpstream, refusal: Refuse, code: str, retryable: bool
) -> None:
    upstream.answer(refusal)
    response = ask(service.url)
    body = response.json()
    assert (response.status_code, body["error"], body["retryable"]) == (500, code, retryable)
    assert body["request_id"] == response.headers["x-request-id"]
    assert "sk-test-canary" not in response.text
    assert "sk-test-canary" not in service.log()
    assert "openai-organization" not in response.headers
    assert upstream.paid_calls == 0


def test_upstreams_retry_after_is_passed_on_at_once(
    service: RunningService, upstream: ScriptedUpstream
) -> None:
    upstream.answer(Refuse(429, headers={"retry-after": "37"}))
    response = ask(service.url)
    assert (response.status_code, response.headers["retry-after"]) == (500, "37")
    assert len(upstream.calls) == 1  # the SDK would have slept 37 seconds with the client waiting


def test_a_passing_refusal_is_retried_before_anybody_hears_of_it(
    service: RunningService, upstream: ScriptedUpstream
) -> None:
    upstream.answer_next(Refuse(500, headers=SOON))
    upstream.answer(Say("Hi"), Finish())
    assert text_of(events(ask(service.url))) == "Hi"
    assert (len(upstream.calls), upstream.paid_calls) == (2, 1)


@pytest.mark.parametrize("ending_step", [Reset(), Cut()])
def test_a_call_that_upstream_took_and_dropped_is_not_made_again(
    service: RunningService, upstream: ScriptedUpstream, ending_step: Step
) -> None:
    upstream.answer(ending_step)
    response = ask(service.url)
    assert (response.status_code, response.json()["error"]) == (500, "service_unavailable_error")
    assert len(upstream.calls) == 1


def test_nobody_listening_is_service_unavailable(service: RunningService) -> None:
    response = ask(service.url)
    assert (response.status_code, response.json()["error"]) == (500, "service_unavailable_error")


@pytest.mark.parametrize("kind", ["text/html", "application/json"])
def test_a_200_that_is_no_event_stream_is_a_protocol_error(
    service: RunningService, upstream: ScriptedUpstream, kind: str
) -> None:
    upstream.answer(Accept(content_type=kind), Raw(b"<html>login</html>"), Eof())
    response = ask(service.url)
    assert (response.status_code, response.json()["error"]) == (500, "upstream_protocol_error")


def test_a_slow_upstream_is_waited_for_in_the_stream_and_its_refusal_is_an_event(
    upstream: ScriptedUpstream,
) -> None:
    gate = threading.Event()
    upstream.answer(Hold(gate), Refuse(401))
    deadlines = {"CHAT_SSE_ACCEPT_WAIT": "0.1", "CHAT_SSE_FIRST_TOKEN_TIMEOUT": "60"}
    with (
        serve({**QUICK, **deadlines, "OPENAI_BASE_URL": upstream.base_url}) as service,
        asking(service) as stream,
    ):
        stream.wait_for(HEARTBEAT)
        gate.set()
        found = [event for _, event in parse_sse(stream.whole())]
    assert ending(found)["error"] == "authentication_error"


def test_the_connection_to_upstream_is_used_again(
    service: RunningService, upstream: ScriptedUpstream
) -> None:
    for _ in range(5):
        events(ask(service.url))
    assert (upstream.paid_calls, upstream.accepted_connections) == (5, 1)


def test_the_question_reaches_upstream_as_it_was_asked(
    service: RunningService, upstream: ScriptedUpstream
) -> None:
    messages = [
        {"role": "user", "content": "Hello, 世界"},
        {"role": "assistant", "content": "Hi"},
        {"role": "user", "content": "Again"},
    ]
    body = {"messages": messages, "temperature": 0.5, "max_output_tokens": 7, "logprobs": True, "id": "chat"}
    events(ask(service.url, body))
    [call] = upstream.calls
    assert call.body == {
        "model": "gpt-4o-mini",
        "messages": messages,
        "stream": True,
        "stream_options": {"include_usage": True},
        "max_tokens": 7,
        "temperature": 0.5,
    }
    assert call.headers["authorization"] == "Bearer sk-test-canary-0123456789"
    assert call.headers["accept-encoding"] == "identity"
