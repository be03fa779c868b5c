"""One client's connection: its response's head, body and end, each when they are due."""

import socket
import threading
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx2
import msgspec
import pytest

from tests.support.redis_server import RedisServer
from tests.support.service import HELLO, RunningService, ask, parse_sse, serve
from tests.support.upstream import Eof, Finish, Hold, Refuse, Reset, Say, ScriptedUpstream, Silence

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


def read_one(client: httpx2.Client, url: str) -> None:
    assert client.post(url, json=HELLO).status_code in (200, 500, 504)


def leave(client: httpx2.Client, url: str) -> None:
    """Vanish in the middle of an answer."""
    with client.stream("POST", url, json=HELLO) as response:
        next(response.iter_raw())


def leave_text(client: httpx2.Client, url: str) -> None:
    """Vanish from a format that cannot resume."""
    with client.stream("POST", url, json=HELLO, headers={"Accept": "text/plain"}) as response:
        next(response.iter_raw())


def stop(client: httpx2.Client, url: str) -> None:
    accepted = client.post(url, json=HELLO, headers={"Prefer": "respond-async"})
    assert client.delete(str(url).removesuffix("/ask") + accepted.headers["location"]).status_code == 204


def attach(client: httpx2.Client, url: str) -> None:
    """Read an answer twice."""
    response = client.post(url, json=HELLO)
    client.get(str(url).removesuffix("/ask") + response.headers["content-location"])


@pytest.mark.parametrize("store", ["memory", "redis"])
@pytest.mark.parametrize(
    ("steps", "way"),
    [
        pytest.param([Say("Hi"), Say(" there"), Finish()], read_one, id="whole"),
        pytest.param([Say("Hi"), Say(" there"), Finish()], attach, id="read twice"),
        pytest.param([Say("Hi"), Silence()], leave, id="left"),
        pytest.param([Say("Hi"), Silence()], leave_text, id="left for good"),
        pytest.param([Say("Hi"), Silence()], stop, id="stopped"),
        pytest.param([Say("Hi"), Eof()], read_one, id="broken off"),
        pytest.param([Say("Hi"), Reset()], read_one, id="reset"),
        pytest.param([Refuse(400)], read_one, id="refused"),
        pytest.param([Say("Hi"), Silence()], read_one, id="silent"),
        pytest.param([Silence()], read_one, id="never accepted"),
    ],
)
def test_no_answer_is_left_to_the_garbage_collector(
    steps: list[Any],
    way: Callable[[httpx2.Client, str], None],
    store: str,
    upstream: ScriptedUpstream,
    upstream_port: int,
    tmp_path: Path,
) -> None:
    questions = 80
    # The service's last act: what is not freed by then was waiting for the collector, which has not run.
    code = "import atexit, gc; gc.disable(); atexit.register(lambda: print('objects left:', gc.collect()))"
    (tmp_path / "sitecustomize.py").write_text(code)
    env = {
        "OPENAI_API_KEY": "sk-test",
        "OPENAI_BASE_URL": f"http://127.0.0.1:{upstream_port}/v1",
        "CHAT_SSE_DISCONNECT_GRACE": "0.05",
        "CHAT_SSE_ACCEPT_WAIT": "0.05",
        "CHAT_SSE_FIRST_TOKEN_TIMEOUT": "0.1",
        "CHAT_SSE_IDLE_TIMEOUT": "0.1",
        "PYTHONPATH": f"{tmp_path}:{Path.cwd()}",
    }
    upstream.answer(*steps)
    with ExitStack() as stack:
        if store == "redis":
            env["CHAT_SSE_REDIS_URL"] = stack.enter_context(RedisServer()).url
        service = stack.enter_context(serve(env))
        client = stack.enter_context(httpx2.Client(timeout=20))
        for _ in range(questions):
            way(client, f"{service.url}/ask")
        assert service.terminate() == 0
        left = int(service.wait_for_log(r"objects left: \d+").rpartition(" ")[2])
    assert left < questions
