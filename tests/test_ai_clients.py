"""The Vercel AI SDK's own clients under Node, each in a process of its own, against the real service."""

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from tests.conftest import QUICK
from tests.support.node import Node, node, version
from tests.support.service import RunningService, serve
from tests.support.tables import FAULT, LENGTH, STOP, WHOLE, ClientTable
from tests.support.upstream import (
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

# The names under which package.json installs the versions.
every_version = pytest.mark.parametrize("package", ["ai", "ai6", "ai5"])


@contextmanager
def chat(service: RunningService, package: str, run: str, **order: Any) -> Iterator[Node]:
    """Run `useChat`'s state machine with nothing set but the URL."""
    api = f"{service.url}/ask?format=ai-sdk"
    with node("ai_chat.mjs", api=api, package=package, run=run, chatId="chat-1", **order) as process:
        yield process


def row(package: str) -> tuple[str, str]:
    code = 'useChat({ transport: new DefaultChatTransport({ api: "…/ask?format=ai-sdk" }) })'
    return f"AI SDK {version(package)}", code


@every_version
def test_usechat_shows_a_whole_answer_with_its_usage(
    service: RunningService, upstream: ScriptedUpstream, client_table: ClientTable, package: str
) -> None:
    upstream.answer(Reason("Hmm"), Say("Hel"), Say("lo "), Say("🙂"), Finish("stop"))
    with chat(service, package, "ask") as client:
        got = client.report()
    assert (got["status"], got["error"], got["text"]) == ("ready", None, "Hello 🙂")
    assert got["parts"] == [["step-start", None], ["reasoning", "done"], ["text", "done"]]
    assert got["metadata"] == {"usage": {"inputTokens": 10, "outputTokens": 8, "totalTokens": 18}}
    assert got["finishReason"] == "stop"
    assert upstream.paid_calls == 1
    client_table.enter(*row(package), WHOLE, f"finishReason {got['finishReason']}, usage in metadata")


@every_version
@pytest.mark.parametrize(
    ("reason", "told"),
    [
        ("length", "length"),
        ("content_filter", "content-filter"),
        ("tool_calls", "tool-calls"),
        ("odd", "other"),
    ],
)
def test_usechat_is_told_the_finish_reason_in_its_own_spelling(
    service: RunningService,
    upstream: ScriptedUpstream,
    client_table: ClientTable,
    package: str,
    reason: str,
    told: str,
) -> None:
    upstream.answer(Say("Hello"), Finish(reason))
    with chat(service, package, "ask") as client:
        got = client.report()
    assert (got["status"], got["text"], got["finishReason"]) == ("ready", "Hello", told)
    if reason == "length":
        client_table.enter(*row(package), LENGTH, f"finishReason {got['finishReason']}")


@every_version
def test_usechat_shows_an_error_in_the_middle_and_asks_on_after_it(
    service: RunningService, upstream: ScriptedUpstream, client_table: ClientTable, package: str
) -> None:
    upstream.answer_next(Say("Hel"), Reset())
    upstream.answer(Say("Yes"), Finish())
    with chat(service, package, "ask", then="again") as client:
        failed, answered = client.report(), client.report()
    assert (failed["status"], failed["text"]) == ("error", "Hel")
    assert failed["error"] == "The answer was cut off before it was complete. Please try again."
    assert failed["parts"][-1] == ["text", "streaming"]  # its text is not whole
    assert (answered["status"], answered["text"]) == ("ready", "Yes")
    assert [message["content"] for message in upstream.calls[1].body["messages"]] == [
        "Hello!",
        "Hel",
        "And then?",
    ]
    client_table.enter(*row(package), FAULT, f"status {failed['status']}, the text so far stays")


@every_version
def test_usechat_asks_on_after_an_error_before_the_first_word(
    service: RunningService, upstream: ScriptedUpstream, package: str
) -> None:
    upstream.answer_next(Reason("Hmm"), Cut())
    upstream.answer(Say("Yes"), Finish())
    with chat(service, package, "ask", then="again") as client:
        failed, answered = client.report(), client.report()
    assert (failed["status"], failed["text"]) == ("error", "")
    assert (answered["status"], answered["text"]) == ("ready", "Yes")
    assert [message["role"] for message in upstream.calls[1].body["messages"]] == ["user", "user"]


@every_version
def test_usechat_gets_an_error_before_the_stream_as_an_http_error(
    service: RunningService, upstream: ScriptedUpstream, package: str
) -> None:
    upstream.answer(Refuse(401))
    with chat(service, package, "ask") as client:
        got = client.report()
    assert got["status"] == "error"
    assert json.loads(got["error"])["error"] == "authentication_error"


@every_version
def test_stop_ends_the_upstream_call_when_the_grace_is_over(
    service: RunningService, upstream: ScriptedUpstream, client_table: ClientTable, package: str
) -> None:
    upstream.answer(Say("first"), Silence())
    with chat(service, package, "stop") as client:
        got = client.report()
        stopped_at = time.monotonic()
        assert upstream.calls[0].wait_gone(10)
        waited = time.monotonic() - stopped_at
    assert (got["status"], got["text"], got["aborted"]) == ("ready", "first", True)
    grace = float(QUICK["CHAT_SSE_DISCONNECT_GRACE"])
    assert waited >= grace - 0.25  # counted from the report, which is later than the stop
    assert "answer.abandoned" in service.wait_for_log("answer.abandoned")
    client_table.enter(*row(package), STOP, f"status {got['status']}; upstream is cancelled after the grace")


@every_version
def test_deleting_by_the_message_id_stops_at_once_and_is_no_error(
    service: RunningService, upstream: ScriptedUpstream, package: str
) -> None:
    upstream.answer(Say("first"), Silence())
    with chat(service, package, "delete") as client:
        got = client.report()
    assert upstream.calls[0].wait_gone(10)
    assert (got["status"], got["error"], got["text"]) == ("ready", None, "first")
    assert got["finishReason"] is None


@every_version
def test_a_reopened_page_resumes_the_running_answer_and_finds_none_after_it(
    upstream: ScriptedUpstream, upstream_port: int, package: str
) -> None:
    gate = threading.Event()
    upstream.answer(Say("first "), Hold(gate), Say("last"), Finish("stop"))
    env = {"OPENAI_BASE_URL": upstream.base_url, "CHAT_SSE_DISCONNECT_GRACE": "20"}
    with serve(QUICK | env) as service, chat(service, package, "resume") as client:
        closed = client.report()
        assert closed["text"] == "first "
        assert client.report() == {"resumed": True}
        gate.set()
        resumed = client.report()
        assert client.report() == {"none": None}
    assert (resumed["status"], resumed["text"], resumed["finishReason"]) == ("ready", "first last", "stop")
    assert resumed["id"] == closed["id"]
    assert upstream.paid_calls == 1


@every_version
def test_regenerate_asks_the_same_question_once_more(
    service: RunningService, upstream: ScriptedUpstream, package: str
) -> None:
    upstream.answer_next(Say("one"), Finish())
    upstream.answer_next(Say("two"), Finish())
    with chat(service, package, "ask", then="regenerate") as client:
        first, second = client.report(), client.report()
    assert (first["text"], second["text"]) == ("one", "two")
    assert first["id"] != second["id"]
    assert upstream.calls[0].body["messages"] == upstream.calls[1].body["messages"]
    assert upstream.paid_calls == 2


@every_version
def test_a_conversation_with_a_picture_reaches_upstream_as_content_parts(
    service: RunningService, upstream: ScriptedUpstream, package: str
) -> None:
    upstream.answer(Reason("Hmm"), Say("A pixel"), Finish())
    files = [{"type": "file", "mediaType": "image/png", "url": PIXEL}]
    with chat(service, package, "ask", files=files, then="again") as client:
        client.report()
        assert client.report()["status"] == "ready"
    picture = {"type": "image_url", "image_url": {"url": PIXEL}}
    assert upstream.calls[1].body["messages"] == [
        {"role": "user", "content": [picture, {"type": "text", "text": "Hello!"}]},
        {"role": "assistant", "content": "A pixel"},
        {"role": "user", "content": "And then?"},
    ]


@every_version
def test_the_transport_hands_over_exactly_the_protocols_chunks(
    service: RunningService, upstream: ScriptedUpstream, package: str
) -> None:
    upstream.answer(Reason("Hmm"), Say("a"), Pause(0.7), Say("b"), Finish("stop"))  # with heartbeats between
    with chat(service, package, "transport") as client:
        got = client.report()
    assert [chunk["type"] for chunk in got["chunks"]] == [
        "start",
        "start-step",
        "reasoning-start",
        "reasoning-delta",
        "reasoning-end",
        "text-start",
        "text-delta",
        "text-delta",
        "text-end",
        "finish-step",
        "finish",
    ]
    assert got["text"] == "ab"


# AI SDK 4, which reads bare text.


@pytest.fixture(scope="module")
def text_service(upstream_port: int) -> Iterator[RunningService]:
    """A service with the one setting that AI SDK 4 needs."""
    env = {"OPENAI_BASE_URL": f"http://127.0.0.1:{upstream_port}/v1", "CHAT_SSE_DEFAULT_FORMAT": "text"}
    with serve(QUICK | env) as running:
        yield running


@contextmanager
def text_chat(service: RunningService, run: str, **order: Any) -> Iterator[Node]:
    with node("ai_text.mjs", api=f"{service.url}/ask", chatId="chat-1", run=run, **order) as process:
        yield process


def text_row() -> tuple[str, str]:
    code = 'CHAT_SSE_DEFAULT_FORMAT=text · useChat({ api: "…/ask", streamProtocol: "text" })'
    return f"AI SDK {version('ai4')}", code


def test_ai_sdk_4_reads_bare_text_with_one_setting(
    text_service: RunningService, upstream: ScriptedUpstream, client_table: ClientTable
) -> None:
    upstream.answer(Reason("Hmm"), Say("Hel"), Say("lo "), Say("🙂"), Finish("stop"))
    with text_chat(text_service, "ask") as client:
        assert client.report() == {"status": 200, "type": "text/plain; charset=utf-8"}
        got = client.report()
    assert (got["text"], got["error"]) == ("Hello 🙂", None)
    assert upstream.calls[0].body["messages"] == [{"role": "user", "content": "Hello!"}]
    client_table.enter(*text_row(), WHOLE, "the text")


def test_ai_sdk_4_gets_an_answer_cut_by_the_limit_as_text(
    text_service: RunningService, upstream: ScriptedUpstream, client_table: ClientTable
) -> None:
    upstream.answer(Say("Hello"), Finish("length"))
    with text_chat(text_service, "ask") as client:
        client.report()
        got = client.report()
    assert (got["text"], got["error"], got["finish"]) == ("Hello", None, "unknown")
    client_table.enter(*text_row(), LENGTH, "the text; text cannot tell why it ended")


def test_ai_sdk_4_sees_an_error_in_the_middle(
    text_service: RunningService, upstream: ScriptedUpstream, client_table: ClientTable
) -> None:
    upstream.answer(Say("Hello"), Reset())
    with text_chat(text_service, "ask") as client:
        client.report()
        got = client.report()
    assert (got["text"], got["finish"]) == ("Hello", None)
    assert got["error"]["name"] == "TypeError"  # fetch's network error
    client_table.enter(*text_row(), FAULT, f"onError: {got['error']['message']}; the text so far stays")


def test_ai_sdk_4_gets_an_error_before_the_first_word_as_its_body(
    text_service: RunningService, upstream: ScriptedUpstream
) -> None:
    upstream.answer(Reason("Hmm"), Reset())
    with text_chat(text_service, "ask") as client:
        assert client.report()["status"] == 500
        got = client.report()
    assert json.loads(got["error"]["message"])["error"] == "upstream_protocol_error"


def test_ai_sdk_4_stops_the_upstream_call_without_a_grace(
    upstream: ScriptedUpstream, client_table: ClientTable
) -> None:
    upstream.answer(Say("first"), Silence())
    env = {"OPENAI_BASE_URL": upstream.base_url, "CHAT_SSE_DEFAULT_FORMAT": "text"}
    no_limits = {"CHAT_SSE_DISCONNECT_GRACE": "60", "CHAT_SSE_IDLE_TIMEOUT": "60"}
    with serve(QUICK | env | no_limits) as service, text_chat(service, "stop") as client:
        client.report()
        got = client.report()
        assert upstream.calls[0].wait_gone(10)
    assert (got["text"], got["error"]["name"]) == ("first", "AbortError")
    client_table.enter(*text_row(), STOP, "upstream is cancelled at once")


def test_ai_sdk_4_sends_its_attachments_as_pictures(
    text_service: RunningService, upstream: ScriptedUpstream
) -> None:
    files = [{"name": "pixel.png", "contentType": "image/png", "url": PIXEL}]
    with text_chat(text_service, "ask", files=files) as client:
        assert client.report()["status"] == 200
    picture = {"type": "image_url", "image_url": {"url": PIXEL}}
    text = {"type": "text", "text": "Hello!"}
    assert upstream.calls[0].body["messages"] == [{"role": "user", "content": [text, picture]}]
