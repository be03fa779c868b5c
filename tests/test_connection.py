"""One client's connection: its response's head, body and end, each when they are due."""

import socket
import threading
from contextlib import ExitStack
from pathlib import Path
from urllib.parse import urlsplit

import httpx2
import msgspec

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


def test_an_answer_leaves_nothing_to_the_garbage_collector(
    upstream: ScriptedUpstream, upstream_port: int, tmp_path: Path
) -> None:
    questions = 200
    code = "import atexit, gc; atexit.register(lambda: print('objects left:', gc.collect()))"
    (tmp_path / "sitecustomize.py").write_text(code)
    env = {
        "OPENAI_API_KEY": "sk-test",
        "OPENAI_BASE_URL": f"http://127.0.0.1:{upstream_port}/v1",
        "PYTHONPATH": f"{tmp_path}:{Path.cwd()}",
    }
    upstream.answer(Say("Hi"), Say(" there"), Finish())
    with serve(env) as service, httpx2.Client() as client:
        for _ in range(questions):
            assert client.post(f"{service.url}/ask", json=HELLO).status_code == 200
        assert service.terminate() == 0
        left = int(service.wait_for_log(r"objects left: \d+").rpartition(" ")[2])
    assert left < questions
