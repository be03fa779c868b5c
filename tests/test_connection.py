"""One client's connection: its response's head, body and end, each when they are due."""

import socket
import threading
from contextlib import ExitStack
from urllib.parse import urlsplit

import msgspec
import pytest

from tests.support.service import HELLO, RunningService, ask, parse_sse, serve
from tests.support.upstream import Finish, Hold, Say, ScriptedUpstream

BODY = msgspec.json.encode(HELLO)
POST = (
    b"POST /ask HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: %d\r\n"
    % len(BODY)
)
WAIT_SECONDS = 10.0


def connect(service: RunningService, stack: ExitStack) -> socket.socket:
    address = urlsplit(service.url)
    return stack.enter_context(
        socket.create_connection((address.hostname, address.port), timeout=WAIT_SECONDS)
    )


def read_until(connection: socket.socket, wanted: bytes) -> bytes:
    """Read what comes up to and including some bytes; the wait for it is bounded."""
    seen = b""
    while wanted not in seen:
        piece = connection.recv(65_536)
        assert piece, seen
        seen += piece
    return seen


def test_a_client_that_waits_to_be_asked_for_its_body_is_asked(
    service: RunningService, upstream: ScriptedUpstream
) -> None:
    upstream.answer(Say("Hi"), Finish())
    with ExitStack() as stack:
        connection = connect(service, stack)
        connection.sendall(POST + b"Expect: 100-continue\r\n\r\n")
        assert read_until(connection, b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
        connection.sendall(BODY)
        answer = read_until(connection, b"0\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 200 OK\r\n")
    assert answer.count(b"HTTP/1.1 ") == 1
    assert b'"content":"Hi"' in answer


def test_responses_without_a_body_come_whole_and_leave_room_for_the_next(
    service: RunningService, upstream: ScriptedUpstream
) -> None:
    upstream.answer(Say("Hi"), Finish())
    with ExitStack() as stack:
        connection = connect(service, stack)
        for _ in range(3):
            connection.sendall(b"HEAD /ask?q=Hi HTTP/1.1\r\nHost: localhost\r\n\r\n")
            head = read_until(connection, b"\r\n\r\n")
            assert head.startswith(b"HTTP/1.1 200 OK\r\n")
            assert head.endswith(b"\r\n\r\n")
        connection.sendall(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert read_until(connection, b'{"status":"ok"}').startswith(b"HTTP/1.1 200 OK\r\n")
        connection.sendall(POST + b"\r\n" + BODY)
        assert b'"content":"Hi"' in read_until(connection, b"0\r\n\r\n")
        connection.sendall(b"HEAD / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        read_until(connection, b"\r\n\r\n")
        assert connection.recv(1) == b""


def test_a_reader_that_has_seen_all_there_is_gets_its_head_at_once_and_then_what_comes(
    service: RunningService, upstream: ScriptedUpstream
) -> None:
    said, gate = threading.Event(), threading.Event()
    upstream.answer(Say("one"), Hold(said), Say(" two"), Say(" three"), Hold(gate), Say(" four"), Finish())
    with ExitStack() as stack:
        first, second = connect(service, stack), connect(service, stack)
        first.sendall(POST + b"\r\n" + BODY)
        place = read_until(first, b".1\n\n").rpartition(b"id: ")[2].strip()
        resume = b"GET /ask/%s?last_event_id=%s HTTP/1.1\r\nHost: localhost\r\n\r\n"
        second.sendall(resume % (place.partition(b".")[0], place))
        assert read_until(second, b"\r\n\r\n").startswith(b"HTTP/1.1 200 OK\r\n")
        said.set()
        assert b'"one"' not in read_until(second, b'" three"}')
        gate.set()
        for connection in (first, second):
            read_until(connection, b"0\r\n\r\n")


def test_every_piece_of_a_body_is_a_chunk_that_any_parser_reads(
    service: RunningService, upstream: ScriptedUpstream
) -> None:
    words = [f"{number} " for number in range(200)]
    upstream.answer(*map(Say, words), Finish())
    found = parse_sse(ask(service.url).content)
    assert [event["content"] for _, event in found if event["type"] == "delta"] == words
    assert [int(place.rpartition(".")[2]) for place, _ in found] == list(range(len(found)))


@pytest.mark.parametrize(("keep_alive", "idle_seconds", "is_open"), [(None, 6.5, True), ("0.5", 1.5, False)])
def test_an_idle_connection_is_kept_as_long_as_the_setting_says(
    keep_alive: str | None, idle_seconds: float, is_open: bool, upstream: ScriptedUpstream
) -> None:
    env = {"OPENAI_API_KEY": "sk-test", "OPENAI_BASE_URL": upstream.base_url}
    if keep_alive:
        env["CHAT_SSE_KEEP_ALIVE"] = keep_alive
    with serve(env) as service, ExitStack() as stack:
        connection = connect(service, stack)
        connection.sendall(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
        read_until(connection, b'{"status":"ok"}')
        connection.settimeout(idle_seconds)
        try:
            is_closed = connection.recv(1) == b""
        except TimeoutError:
            is_closed = False
        assert is_closed is not is_open
