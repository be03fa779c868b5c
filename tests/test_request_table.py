"""The request table: what each way of asking, attaching, resuming and stopping gives, and what it costs."""

import json
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any
from urllib.parse import quote

import httpx2
import pytest

from chat_sse.formats.sse import HEARTBEAT
from tests.conftest import QUICK
from tests.support import plain_http
from tests.support.service import HELLO, RunningService, ask, events, parse_sse, serve, text_of
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
    Silence,
    Step,
)

OTHER = {"messages": [{"role": "user", "content": "Something else"}]}
UNKNOWN = "f" * 32
GRACE_SECONDS = 2.0
PATIENCE = 20.0  # for a thread that must come back

# Text that a careless reader would split, trim or lose.
PIECES = ("Grüße", "\n\n", " ", "data: x\n\n", "\u2028", "🙂", "\r\n", "id: 7", "end ")


@pytest.fixture(scope="module")
def service(upstream_port: int) -> Iterator[RunningService]:
    """A service whose upstream may be silent for long, and whose readers have a moment to come back."""
    env = {
        **QUICK,
        "OPENAI_BASE_URL": f"http://127.0.0.1:{upstream_port}/v1",
        "CHAT_SSE_ACCEPT_WAIT": "1",
        "CHAT_SSE_FIRST_TOKEN_TIMEOUT": "20",
        "CHAT_SSE_IDLE_TIMEOUT": "20",
        "CHAT_SSE_DISCONNECT_GRACE": str(GRACE_SECONDS),
    }
    with serve(env) as running:
        yield running


class Reader:
    """A reader in a thread of its own, as far from the others as another browser tab."""

    def __init__(self, pool: ThreadPoolExecutor, method: str, url: str, **options: Any) -> None:
        self.seen = b""
        self.status = 0
        self._grew = threading.Condition()
        self._leave = threading.Event()
        self._future: Future[None] = pool.submit(self._read, method, url, options)

    def wait_for(self, wanted: bytes) -> bytes:
        """Wait until so much has been seen."""
        with self._grew:
            assert self._grew.wait_for(lambda: wanted in self.seen, PATIENCE), self.seen
            return self.seen

    def wait_connected(self) -> int:
        """Wait for the response's head."""
        with self._grew:
            assert self._grew.wait_for(lambda: self.status, PATIENCE)
            return self.status

    def leave(self) -> None:
        """Close the connection at the next byte; heartbeats see to it that there is one soon."""
        self._leave.set()
        self._future.result(PATIENCE)

    def result(self) -> bytes:
        """Read to the end; what the service sent but for the heartbeats."""
        self._future.result(PATIENCE)
        return self.seen.replace(HEARTBEAT, b"")

    def stream_id(self) -> str:
        """Give the answer's id, from its start event."""
        start = self.wait_for(b'"type":"start"').partition(b'"id":"')[2]
        return start.partition(b'"')[0].decode()

    def _read(self, method: str, url: str, options: dict[str, Any]) -> None:
        with plain_http.stream(method, url, timeout=PATIENCE, **options) as response:
            with self._grew:
                self.status = response.status_code
                self._grew.notify_all()
            for piece in response.iter_raw():
                with self._grew:
                    self.seen += piece
                    self._grew.notify_all()
                if self._leave.is_set():
                    return


@pytest.fixture
def pool() -> Iterator[ThreadPoolExecutor]:
    """Threads for readers."""
    with ThreadPoolExecutor(max_workers=64) as threads:
        yield threads


def wire(response: httpx2.Response) -> bytes:
    """What was sent, but for the heartbeats, which come by the clock."""
    assert response.status_code == 200, response.text
    return response.content.replace(HEARTBEAT, b"")


def get(url: str, **options: Any) -> httpx2.Response:
    return plain_http.get(url, timeout=PATIENCE, **options)


def post(service: RunningService, key: str | None = None, body: Any = HELLO) -> httpx2.Response:
    return ask(service.url, body, headers={} if key is None else {"Idempotency-Key": key})


def blocks_of(whole: bytes) -> list[bytes]:
    """Cut a stream into its events' bytes."""
    return [block + b"\n\n" for block in whole.split(b"\n\n")[:-1]]


def error_of(response: httpx2.Response) -> str:
    """Check the error body, and give its code."""
    body = response.json()
    assert set(body) == {"role", "content", "error", "details", "request_id", "retryable"}
    assert body["content"]
    code: str = body["error"]
    return code


@contextmanager
def no_paid_call(upstream: ScriptedUpstream) -> Iterator[None]:
    before = len(upstream.calls)
    yield
    assert len(upstream.calls) == before


# CompletionClient.


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


# Resuming.


def resumes(service: RunningService, stream_id: str, event_id: str) -> list[tuple[str, str, dict[str, str]]]:
    """List every way to go on after an event: method, URL, headers."""
    header = {"Last-Event-ID": event_id}
    return [
        ("GET", f"{service.url}/ask", header),
        ("GET", f"{service.url}/ask?q=Hello!&id=whatever", header),
        ("GET", f"{service.url}/ask?q=Hello!&last_event_id={event_id}", {}),
        ("GET", f"{service.url}/ask?q=Hello!&lastEventId={event_id}", {}),
        ("GET", f"{service.url}/ask/{stream_id}", header),
        ("GET", f"{service.url}/ask/{stream_id}?last_event_id={event_id}", {}),
        ("GET", f"{service.url}/ask/{stream_id}?lastEventId={event_id}", {}),
        ("GET", f"{service.url}/ask/{stream_id}?last_event_id={stream_id}.0", header),
        ("POST", f"{service.url}/ask", header),
    ]


def test_resuming_a_finished_answer_after_any_event_gives_the_bytes_that_followed(
    service: RunningService, upstream: ScriptedUpstream
) -> None:
    upstream.answer(*map(Say, PIECES), Finish())
    whole = wire(ask(service.url))
    pairs, blocks = parse_sse(whole), blocks_of(whole)
    assert text_of([event for _, event in pairs]) == "".join(PIECES)
    stream_id = pairs[0][1]["id"]
    assert wire(get(f"{service.url}/ask/{stream_id}")) == whole
    assert wire(get(f"{service.url}/ask/{stream_id}?last_event_id=")) == whole
    with plain_http.Client(timeout=PATIENCE) as client:
        for seq, (event_id, _) in enumerate(pairs[:-1]):
            for method, url, headers in resumes(service, stream_id, event_id):
                rest = wire(client.request(method, url, headers=headers))
                assert b"".join(blocks[: seq + 1]) + rest == whole, (method, url, headers)
    assert upstream.paid_calls == 1


def test_resuming_a_running_answer_after_any_event_gives_the_bytes_that_followed(
    service: RunningService, upstream: ScriptedUpstream, pool: ThreadPoolExecutor
) -> None:
    gate = threading.Event()
    upstream.answer(*map(Say, PIECES[:3]), Hold(gate), *map(Say, PIECES[3:]), Finish())
    first = Reader(pool, "POST", f"{service.url}/ask", json=HELLO)
    stream_id = first.stream_id()
    first.wait_for(f"id: {stream_id}.3\n\n".encode())
    returned = [
        (seq, Reader(pool, method, url, headers=headers))
        for seq in range(4)
        for method, url, headers in resumes(service, stream_id, f"{stream_id}.{seq}")
    ]
    for _, reader in returned:
        assert reader.wait_connected() == 200
    gate.set()
    whole = first.result()
    assert text_of([event for _, event in parse_sse(whole)]) == "".join(PIECES)
    for seq, reader in returned:
        assert b"".join(blocks_of(whole)[: seq + 1]) + reader.result() == whole
    assert upstream.paid_calls == 1


def test_after_the_terminal_event_get_is_204_and_post_replays_it(
    service: RunningService, upstream: ScriptedUpstream
) -> None:
    whole = wire(ask(service.url))
    last_id, last = parse_sse(whole)[-1]
    stream_id = last_id.partition(".")[0]
    assert last["type"] == "done"
    with no_paid_call(upstream):
        for method, url, headers in resumes(service, stream_id, last_id):
            response = plain_http.request(method, url, headers=headers, timeout=PATIENCE)
            if method == "POST":
                assert wire(response) == blocks_of(whole)[-1]
            else:
                assert (response.status_code, response.content) == (204, b""), url


def test_an_error_in_the_stream_is_resumed_like_any_terminal_event(
    service: RunningService, upstream: ScriptedUpstream
) -> None:
    upstream.answer(Say("a"), Eof())
    whole = wire(ask(service.url))
    pairs = parse_sse(whole)
    assert [event["type"] for _, event in pairs] == ["start", "delta", "error"]
    rest = get(f"{service.url}/ask", headers={"Last-Event-ID": pairs[1][0]})
    assert wire(rest) == blocks_of(whole)[-1]
    assert get(f"{service.url}/ask", headers={"Last-Event-ID": pairs[2][0]}).status_code == 204
    assert upstream.paid_calls == 1


def test_a_last_event_id_wins_over_a_question_in_the_body(
    service: RunningService, upstream: ScriptedUpstream
) -> None:
    whole = wire(ask(service.url))
    place = parse_sse(whole)[1][0]
    rest = ask(service.url, OTHER, headers={"Last-Event-ID": place, "Idempotency-Key": "new"})
    assert wire(rest) == b"".join(blocks_of(whole)[2:])
    assert upstream.paid_calls == 1


def test_an_empty_last_event_id_is_none(service: RunningService, upstream: ScriptedUpstream) -> None:
    assert text_of(events(ask(service.url, headers={"Last-Event-ID": ""}))) == "Hello there!"
    assert upstream.paid_calls == 1


@pytest.mark.parametrize(
    ("place", "status", "code"),
    [
        ("42", 400, "invalid_request"),
        ("nonsense", 400, "invalid_request"),
        (f"{UNKNOWN}.", 400, "invalid_request"),
        (f"{UNKNOWN}.-1", 400, "invalid_request"),
        (f"{UNKNOWN}.01", 400, "invalid_request"),
        (f"{UNKNOWN}.1.2", 400, "invalid_request"),
        (f"{UNKNOWN}.99999999999999999999", 400, "invalid_request"),
        ("../../etc/passwd.1", 400, "invalid_request"),
        ("a b.1", 400, "invalid_request"),
        ("x" * 20_000 + ".1", 400, "invalid_request"),
        ("Grüße.1", 400, "invalid_request"),
        (f"{UNKNOWN}.1", 404, "stream_not_found"),
        ("1f6d1b1e-6a8b-4d0c-9f2b-0c6a1e2d3f4a.0", 404, "stream_not_found"),
    ],
)
def test_a_last_event_id_that_is_none_of_ours_is_an_error_and_free(
    service: RunningService, upstream: ScriptedUpstream, place: str, status: int, code: str
) -> None:
    header = {b"Last-Event-ID": place.encode()}
    with no_paid_call(upstream):
        for response in (
            plain_http.post(f"{service.url}/ask", json=HELLO, headers=header, timeout=PATIENCE),
            get(f"{service.url}/ask?q=hi&id=with-a-bad-place", headers=header),
            get(f"{service.url}/ask", params={"q": "hi", "last_event_id": place}),
            get(f"{service.url}/ask/{UNKNOWN}", params={"last_event_id": place}),
        ):
            # What is no event id at all is told before the answer in the path is looked for.
            assert (response.status_code, error_of(response)) == (status, code)


def test_an_event_that_was_never_sent_is_400_and_free(
    service: RunningService, upstream: ScriptedUpstream
) -> None:
    last = parse_sse(wire(ask(service.url)))[-1][0]
    stream_id, _, seq = last.partition(".")
    with no_paid_call(upstream):
        response = get(f"{service.url}/ask", headers={"Last-Event-ID": f"{stream_id}.{int(seq) + 1}"})
        assert (response.status_code, error_of(response)) == (400, "invalid_request")


def test_an_event_of_another_answer_is_404_and_free(
    service: RunningService, upstream: ScriptedUpstream
) -> None:
    mine, other = (parse_sse(wire(ask(service.url)))[1][0] for _ in range(2))
    with no_paid_call(upstream):
        response = get(f"{service.url}/ask/{mine.partition('.')[0]}", headers={"Last-Event-ID": other})
        assert (response.status_code, error_of(response)) == (404, "stream_not_found")


@pytest.mark.parametrize("method", ["GET", "DELETE"])
@pytest.mark.parametrize("stream_id", [UNKNOWN, "x", "x" * 5000, "%00", "%2e%2e", "Gr%C3%BC%C3%9Fe", "a%20b"])
def test_an_unknown_answer_is_404_and_free(
    service: RunningService, upstream: ScriptedUpstream, method: str, stream_id: str
) -> None:
    with no_paid_call(upstream):
        response = plain_http.request(method, f"{service.url}/ask/{stream_id}", timeout=PATIENCE)
        assert response.status_code == 404
        assert error_of(response) in {"stream_not_found", "not_found"}


# Leaving.


def test_readers_that_leave_do_not_disturb_the_one_that_stays(
    service: RunningService, upstream: ScriptedUpstream, pool: ThreadPoolExecutor
) -> None:
    gate = threading.Event()
    upstream.answer(Say("a"), Hold(gate), Say("b"), Finish())
    first = Reader(pool, "POST", f"{service.url}/ask", json=HELLO)
    url = f"{service.url}/ask/{first.stream_id()}"
    staying, leaving = Reader(pool, "GET", url), Reader(pool, "GET", url)
    for reader in (staying, leaving):
        reader.wait_for(b'"a"')
    first.leave()
    leaving.leave()
    assert not upstream.calls[0].wait_gone(GRACE_SECONDS + 0.5)
    gate.set()
    assert text_of([event for _, event in parse_sse(staying.result())]) == "ab"
    assert upstream.paid_calls == 1


def test_when_the_last_reader_has_left_the_grace_begins_and_then_upstream_is_cancelled(
    service: RunningService, upstream: ScriptedUpstream, pool: ThreadPoolExecutor
) -> None:
    upstream.answer(Say("a"), Silence())
    first = Reader(pool, "POST", f"{service.url}/ask", json=HELLO)
    stream_id = first.stream_id()
    second = Reader(pool, "GET", f"{service.url}/ask/{stream_id}")
    second.wait_for(b'"a"')
    first.leave()
    second.leave()
    left_at = time.monotonic()
    assert upstream.calls[0].wait_gone(PATIENCE)
    assert time.monotonic() - left_at >= GRACE_SECONDS - 0.1
    service.wait_for_log(f"answer.abandoned id={stream_id}")
    late = events(get(f"{service.url}/ask/{stream_id}"))
    assert (late[-1]["finish_reason"], text_of(late)) == ("cancelled", "a")
    assert upstream.paid_calls == 1


def test_a_reader_that_returns_within_the_grace_keeps_the_answer_alive(
    service: RunningService, upstream: ScriptedUpstream, pool: ThreadPoolExecutor
) -> None:
    gate = threading.Event()
    upstream.answer(Say("a"), Hold(gate), Say("b"), Finish())
    first = Reader(pool, "POST", f"{service.url}/ask", json=HELLO)
    stream_id = first.stream_id()
    seen = first.wait_for(b'"a"').replace(HEARTBEAT, b"")
    first.leave()
    back = Reader(pool, "GET", f"{service.url}/ask", headers={"Last-Event-ID": f"{stream_id}.1"})
    assert back.wait_connected() == 200
    assert not upstream.calls[0].wait_gone(GRACE_SECONDS + 0.5)
    gate.set()
    assert text_of([event for _, event in parse_sse(seen + back.result())]) == "ab"
    assert upstream.paid_calls == 1


# Stopping.


@pytest.mark.parametrize("steps", [(Say("a"), Silence()), (Accept(), Silence()), (Silence(),)])
def test_delete_ends_an_answer_for_every_reader_and_closes_upstream_within_a_second(
    service: RunningService, upstream: ScriptedUpstream, pool: ThreadPoolExecutor, steps: tuple[Step, ...]
) -> None:
    upstream.answer(*steps)
    first = Reader(pool, "POST", f"{service.url}/ask", json=HELLO)
    stream_id = first.stream_id()  # where upstream has not answered yet, after the accept wait
    readers = [first, *(Reader(pool, "GET", f"{service.url}/ask/{stream_id}") for _ in range(3))]
    for reader in readers:
        reader.wait_for(b'"a"' if isinstance(steps[0], Say) else b'"type":"start"')
    for _ in range(2):
        stopped = plain_http.delete(f"{service.url}/ask/{stream_id}", timeout=PATIENCE)
        assert (stopped.status_code, stopped.content) == (204, b"")
    assert upstream.calls[0].wait_gone(1)
    service.wait_for_log(f"answer.stopped id={stream_id}")
    wires = {reader.result() for reader in readers}
    assert len(wires) == 1
    found = [event for _, event in parse_sse(wires.pop())]
    assert found[-1] == {"type": "done", "finish_reason": "cancelled", "usage": None}
    assert sum(event["type"] in {"done", "error"} for event in found) == 1
    assert upstream.paid_calls == 1


def test_delete_after_the_end_changes_nothing(service: RunningService, upstream: ScriptedUpstream) -> None:
    answer = ask(service.url)
    url = service.url + answer.headers["content-location"]
    assert plain_http.delete(url, timeout=PATIENCE).status_code == 204
    assert wire(get(url)) == wire(answer)
    assert events(answer)[-1]["finish_reason"] == "stop"


def test_a_stopped_question_asked_again_with_its_key_is_not_paid_again(
    service: RunningService, upstream: ScriptedUpstream, pool: ThreadPoolExecutor
) -> None:
    upstream.answer(Say("a"), Silence())
    headers = {"Idempotency-Key": "stopped"}
    reader = Reader(pool, "POST", f"{service.url}/ask", json=HELLO, headers=headers)
    plain_http.delete(f"{service.url}/ask/{reader.stream_id()}", timeout=PATIENCE).raise_for_status()
    assert wire(post(service, "stopped")) == reader.result()
    assert upstream.paid_calls == 1
