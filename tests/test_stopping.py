"""The request table: readers that leave, and answers that are stopped."""

import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from chat_sse.formats.sse import HEARTBEAT
from tests.support import plain_http
from tests.support.readers import GRACE_SECONDS, PATIENCE, Reader, get, patient, post, wire
from tests.support.service import HELLO, RunningService, ask, events, parse_sse, text_of
from tests.support.upstream import (
    Accept,
    Finish,
    Hold,
    Say,
    ScriptedUpstream,
    Silence,
    Step,
)


@pytest.fixture(scope="module")
def service(upstream_port: int) -> Iterator[RunningService]:
    with patient(upstream_port) as running:
        yield running


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
