"""What README's "The wire" promises, each as a check that knows nothing of the server but its URL."""

from __future__ import annotations

import secrets
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx2
import msgspec

from chat_sse.formats.sse import HEARTBEAT
from tests.support import plain_http
from tests.support.faults import FAULTS, WHOLE, WORDS, Fault
from tests.support.streams import streaming
from tests.support.upstream import Finish, Hold, Say, ScriptedUpstream

SECONDS = 30.0
Events = list[tuple[str | None, dict[str, Any]]]


class Server:
    """The server under test, and the upstream beside it."""

    def __init__(self, url: str, upstream: ScriptedUpstream) -> None:
        self.url, self.upstream = url.rstrip("/"), upstream

    def question(self, fault: Fault = WHOLE) -> str:
        """Return a new question, which upstream will answer so."""
        text = f"{fault.name} {secrets.token_hex(8)}"
        self.upstream.answer_to(text, *fault.steps)
        return text

    def ask(self, question: str, **headers: str) -> httpx2.Response:
        return plain_http.post(f"{self.url}/ask", json=body_of(question), headers=headers, timeout=SECONDS)

    def read(self, path: str, **headers: str) -> httpx2.Response:
        return plain_http.get(f"{self.url}{path}", headers=headers, timeout=SECONDS)


def body_of(question: str) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": question}]}


def events_of(response: httpx2.Response) -> Events:
    """Read a stream as (id, event) pairs."""
    assert response.status_code == 200, f"status {response.status_code}"
    assert response.headers["content-type"].startswith("text/event-stream")
    found: Events = []
    for block in response.content.replace(HEARTBEAT, b"").decode().split("\n\n")[:-1]:
        fields = dict(line.split(": ", 1) for line in block.split("\n"))
        found.append((fields.get("id"), msgspec.json.decode(fields["data"])))
    return found


def text_of(found: Events) -> str:
    return "".join(event["content"] for _, event in found if event["type"] == "delta")


def endings_of(found: Events) -> list[str]:
    return [event["type"] for _, event in found if event["type"] in ("done", "error")]


def check_error(body: dict[str, Any]) -> None:
    missing = {"role", "content", "error", "details", "request_id", "retryable"} - set(body)
    assert not missing, f"the error body lacks {sorted(missing)}"


def one_question_is_one_paid_call(server: Server) -> None:
    question, key = server.question(), secrets.token_hex(8)
    with ThreadPoolExecutor(5) as pool:
        answers = list(pool.map(lambda _: server.ask(question, **{"Idempotency-Key": key}), range(5)))
    answers.append(server.ask(question, **{"Idempotency-Key": key}))
    assert {text_of(events_of(answer)) for answer in answers} == {WHOLE.text}
    assert (paid := server.upstream.paid_for(question)) == 1, f"{paid} paid calls for six requests of one key"


def a_whole_answer_ends_with_one_done(server: Server) -> None:
    found = events_of(server.ask(server.question()))
    assert found[0][1]["type"] == "start"
    assert text_of(found) == WHOLE.text, "the text is not upstream's"
    assert endings_of(found) == ["done"]
    assert found[-1][1].get("finish_reason") == "stop", f"the last event is {found[-1][1]}"


def a_cut_answer_ends_with_one_error(server: Server) -> None:
    for fault in FAULTS:
        if fault.name not in ("resets", "ends early", "garbage", "error event"):
            continue
        found = events_of(server.ask(server.question(fault)))
        # A reset destroys what has not been read yet.
        expected = fault.text[: len(text_of(found))] if fault.name == "resets" else fault.text
        assert text_of(found) == expected, f"{fault.name}: the text is not upstream's"
        assert endings_of(found) == ["error"], f"{fault.name}: ends with {endings_of(found)}"
        check_error(found[-1][1])


def a_refusal_is_an_error_response_and_costs_nothing(server: Server) -> None:
    question = server.question(next(fault for fault in FAULTS if fault.name == "refuses"))
    response = server.ask(question)
    assert response.status_code == 500, f"status {response.status_code}"
    check_error(response.json())
    assert server.upstream.paid_for(question) == 0


def bad_input_is_an_error_response_and_no_call(server: Server) -> None:
    calls = len(server.upstream.calls)
    wrong: tuple[Any, ...] = (
        {},
        {"messages": []},
        {"messages": [{"role": "user"}]},
        {"messages": "Hello"},
        [],
    )
    for body in wrong:
        response = plain_http.post(f"{server.url}/ask", json=body, timeout=SECONDS)
        assert response.status_code == 400, f"status {response.status_code} for {body}"
        check_error(response.json())
    assert len(server.upstream.calls) == calls, "upstream was asked"


def every_cursor_reads_exactly_what_follows(server: Server) -> None:
    response = server.ask(server.question())
    found = events_of(response)
    path = response.headers["content-location"]
    for number, (event_id, _) in enumerate(found[:-1]):
        assert event_id, "an event without an id"
        rest = events_of(server.read(path, **{"Last-Event-ID": event_id}))
        assert rest == found[number + 1 :], f"after {event_id}: {rest}"
    assert events_of(server.read(path)) == found


def after_the_end_event_source_gets_204(server: Server) -> None:
    question, own_id = server.question(), secrets.token_hex(8)
    path = f"/ask?q={question.replace(' ', '%20')}&id={own_id}"
    found = events_of(server.read(path))
    last = found[-1][0]
    assert last, "the last event has no id"
    status = server.read(path, **{"Last-Event-ID": last}).status_code
    assert status == 204, f"status {status}: EventSource would come back for ever"
    assert (paid := server.upstream.paid_for(question)) == 1, f"{paid} paid calls"


def a_stop_ends_it_for_every_reader_and_closes_the_call(server: Server) -> None:
    gate, question = threading.Event(), server.question()
    server.upstream.answer_to(question, *(Say(word) for word in WORDS[:3]), Hold(gate), Finish())
    try:
        with streaming("POST", f"{server.url}/ask", json=body_of(question)) as first:
            first.wait_for(WORDS[2].encode())
            path = first.response.headers["content-location"]
            with streaming("GET", f"{server.url}{path}") as second:
                second.wait_for(WORDS[2].encode())
                stopped = plain_http.delete(f"{server.url}{path}", timeout=SECONDS)
                assert stopped.status_code == 204, f"DELETE gave {stopped.status_code}"
                for reader in (first, second):
                    last = reader.last_event()
                    assert (last["type"], last.get("finish_reason")) == ("done", "cancelled"), last
        [call] = [call for call in server.upstream.calls if call.question == question]
        assert call.wait_gone(), "the call to upstream goes on"
    finally:
        gate.set()


def a_key_with_another_body_is_refused(server: Server) -> None:
    key = secrets.token_hex(8)
    server.ask(server.question(), **{"Idempotency-Key": key})
    other = server.question()
    response = server.ask(other, **{"Idempotency-Key": key})
    assert response.status_code == 422, f"status {response.status_code}"
    check_error(response.json())
    assert server.upstream.paid_for(other) == 0


def an_unknown_answer_is_404(server: Server) -> None:
    for response in (
        server.read("/ask/unknown"),
        plain_http.delete(f"{server.url}/ask/unknown", timeout=SECONDS),
    ):
        assert response.status_code == 404, f"status {response.status_code}"
        check_error(response.json())


PROMISES: tuple[Callable[[Server], None], ...] = (
    one_question_is_one_paid_call,
    a_whole_answer_ends_with_one_done,
    a_cut_answer_ends_with_one_error,
    a_refusal_is_an_error_response_and_costs_nothing,
    bad_input_is_an_error_response_and_no_call,
    every_cursor_reads_exactly_what_follows,
    after_the_end_event_source_gets_204,
    a_stop_ends_it_for_every_reader_and_closes_the_call,
    a_key_with_another_body_is_refused,
    an_unknown_answer_is_404,
)


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    """Whether a promise is kept, and if not, what was found instead."""

    promise: str
    error: str


def findings(server: Server) -> Iterator[Finding]:
    """Hold a server to each promise."""
    for promise in PROMISES:
        error = ""
        try:
            promise(server)
        except Exception as exc:  # noqa: BLE001 - a broken promise, however it shows
            error = str(exc).split("\n")[0] or type(exc).__name__
        yield Finding(promise=promise.__name__.replace("_", " "), error=error)
