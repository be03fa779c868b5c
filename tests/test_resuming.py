"""The request table: what each way of resuming gives; none costs anything."""

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.support import plain_http
from tests.support.readers import (
    OTHER,
    PATIENCE,
    PIECES,
    UNKNOWN,
    Reader,
    blocks_of,
    error_of,
    get,
    no_paid_call,
    patient,
    wire,
)
from tests.support.service import HELLO, RunningService, ask, events, parse_sse, text_of
from tests.support.upstream import (
    Eof,
    Finish,
    Hold,
    Say,
    ScriptedUpstream,
)


@pytest.fixture(scope="module")
def service(upstream_port: int) -> Iterator[RunningService]:
    with patient(upstream_port) as running:
        yield running


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
