"""Clients that mean no good, over real sockets: slow, endless, malformed, many.

Whatever they send, a reader beside them gets its whole answer in its usual time, nothing is paid for them,
the process does not grow, the log shows no fault of ours, and their connections are closed in bounded time.
"""

import socket
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from urllib.parse import urlsplit

import msgspec
import pytest

from chat_sse.server.request_head import MAX_HEAD_BYTES, MAX_HEADERS
from tests.conftest import QUICK
from tests.support.service import HELLO, RunningService, ask, events, serve, text_of
from tests.support.upstream import Finish, Pause, Say, ScriptedUpstream

RECEIVE_SECONDS = 1.0
KEEP_ALIVE_SECONDS = 5.0  # uvicorn's
SLACK_SECONDS = 3.0  # of a busy machine
MEBI = 1_048_576

WORDS = [f"{number} " for number in range(20)]
PAUSE_SECONDS = 0.05

BODY = msgspec.json.encode(HELLO)
POST = b"POST /ask HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
CLOSING = POST + b"Connection: close\r\n"
CHUNKS = b"Transfer-Encoding: chunked\r\n\r\n"
CHUNKED = POST + CHUNKS


def post(length: object, body: bytes = BODY) -> bytes:
    return POST + f"Content-Length: {length}\r\n\r\n".encode() + body


@pytest.fixture(scope="module")
def service(upstream_port: int) -> Iterator[RunningService]:
    """A service that soon loses its patience."""
    env = {**QUICK, "CHAT_SSE_RECEIVE_TIMEOUT": str(RECEIVE_SECONDS), "CHAT_SSE_KEEP_ALIVE": "5"}
    with serve({**env, "OPENAI_BASE_URL": f"http://127.0.0.1:{upstream_port}/v1"}) as running:
        yield running
        assert not [line for line in running.log().splitlines() if "Traceback" in line or "ERROR" in line]


def connect(service: RunningService) -> socket.socket:
    address = urlsplit(service.url)
    return socket.create_connection((address.hostname, address.port), timeout=15)


def read_to_end(connection: socket.socket) -> bytes:
    """Read until the server closes, which must be soon; a reset is an end as well."""
    began, answer = time.monotonic(), b""
    try:
        while piece := connection.recv(65_536):
            answer += piece
    except ConnectionError:
        pass
    assert time.monotonic() - began < RECEIVE_SECONDS + KEEP_ALIVE_SECONDS + SLACK_SECONDS
    return answer


def attack(service: RunningService, data: bytes) -> bytes:
    """Send as much as the server takes, and give what it says until it closes."""
    with connect(service) as connection:
        with suppress(ConnectionError):
            connection.sendall(data)
        return read_to_end(connection)


def dribble(service: RunningService, data: bytes, slow: bytes) -> bytes:
    """Send `data`, and then `slow` byte by byte until the server answers."""
    with connect(service) as connection:
        connection.sendall(data)
        connection.settimeout(0.1)
        for byte in slow:
            connection.sendall(bytes([byte]))
            try:
                answer = connection.recv(65_536)
            except TimeoutError:
                continue
            connection.settimeout(15)
            return answer + read_to_end(connection)
    raise AssertionError("the server was patient")


def refusal(answer: bytes) -> tuple[int, str]:
    """Read the one error body."""
    head, _, body = answer.partition(b"\r\n\r\n")
    assert b"content-type: application/json" in head, answer
    assert b"x-request-id: " in head
    return int(head.split()[1]), msgspec.json.decode(body)["error"]


def resident_bytes(service: RunningService) -> int:
    status = Path(f"/proc/{service.process.pid}/status").read_text()
    return int(status.partition("VmRSS:")[2].split()[0]) * 1024


def timed_answer(url: str) -> tuple[str, float]:
    began = time.monotonic()
    return text_of(events(ask(url))), time.monotonic() - began


@contextmanager
def unharmed(service: RunningService, upstream: ScriptedUpstream, growth: int = 16 * MEBI) -> Iterator[None]:
    """Read an answer beside what the block does, and check that neither reader nor server noticed."""
    before = resident_bytes(service)
    upstream.answer(*(step for word in WORDS for step in (Say(word), Pause(PAUSE_SECONDS))), Finish())
    with ThreadPoolExecutor(1) as pool:
        reader = pool.submit(timed_answer, service.url)
        upstream.wait_for_calls(1)
        yield
        text, seconds = reader.result(30)
    assert text == "".join(WORDS)
    assert seconds < len(WORDS) * PAUSE_SECONDS + SLACK_SECONDS
    assert resident_bytes(service) - before < growth
    assert len(upstream.calls) == 1


MALFORMED = {
    "a method that is none": b"FROBNICATE / HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "an endless method": b"A" * 100_000,
    "NUL in the path": b"GET /a\0b HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "NUL in a header": b"GET / HTTP/1.1\r\nHost: localhost\r\nA: b\0c\r\n\r\n",
    "no ASCII in the path": b"GET /\xff\xfe HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "a folded header": b"GET / HTTP/1.1\r\nA: b\r\n c\r\n\r\n",
    "HTTP/2 without an offer": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "a version that is none": b"GET / HTTP/3.7\r\n\r\n",
    "TLS": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(500),
    "a negative length": post(-5),
    "a length beyond all integers": post(10**30),
    "a length in words": post("many"),
    "two lengths": POST + b"Content-Length: 5\r\nContent-Length: 45\r\n\r\n" + BODY,
    "a length and chunks": POST + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "a coding that is unknown": POST + b"Transfer-Encoding: gzip\r\n\r\n" + BODY,
    "a chunk without a size": CHUNKED + b"ZZ\r\n" + BODY,
    "a chunk beyond all integers": CHUNKED + b"F" * 18 + b"\r\n" + BODY,
    "a chunk without an end": CHUNKED + b"5\r\nhelloZZ\r\n",
}


@pytest.mark.parametrize("name", MALFORMED)
def test_what_is_no_http_is_400_in_the_one_error_body(
    service: RunningService, upstream: ScriptedUpstream, name: str
) -> None:
    assert refusal(attack(service, MALFORMED[name])) == (400, "invalid_request")
    assert upstream.calls == []


ENDLESS = {
    "a URL": b"GET /ask?q=" + b"a" * 20 * MEBI,
    "a header": b"GET / HTTP/1.1\r\nA: " + b"a" * 20 * MEBI,
    "many headers": b"GET / HTTP/1.1\r\n" + b"A: b\r\n" * 2 * MEBI,
    "a whole head that is too long": b"GET /ask?q=%s HTTP/1.1\r\n\r\n" % (b"a" * MAX_HEAD_BYTES),
    "a whole head with too many fields": b"GET / HTTP/1.1\r\n" + b"A: b\r\n" * (MAX_HEADERS + 1) + b"\r\n",
}


@pytest.mark.parametrize("name", ENDLESS)
def test_an_endless_head_is_431(service: RunningService, upstream: ScriptedUpstream, name: str) -> None:
    with unharmed(service, upstream):
        assert refusal(attack(service, ENDLESS[name])) == (431, "head_too_large")


def test_a_head_within_the_bounds_is_read(service: RunningService, upstream: ScriptedUpstream) -> None:
    question = "a" * (MAX_HEAD_BYTES - 2000)
    head = f"GET /ask?q={question} HTTP/1.1\r\nHost: localhost\r\n".encode() + b"A: b\r\n" * (MAX_HEADERS - 2)
    assert b'"type":"done"' in attack(service, head + b"Connection: close\r\n\r\n")


def test_slow_heads_and_bodies_are_408(service: RunningService, upstream: ScriptedUpstream) -> None:
    slow = {
        "URL": (b"", b"GET /" + b"a" * 60),
        "header": (b"GET / HTTP/1.1\r\nHost: localhost\r\n", b"A: " + b"b" * 60),
        "second request": (
            b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n",
            b"GET / HTTP/1.1\r\nA: " + b"b" * 60,
        ),
        "body": (CLOSING + b"Content-Length: 99\r\n\r\n", b" " * 99),
        "chunks": (CLOSING + CHUNKS, b"1\r\n{\r\n" * 20),
        "chunk size": (CLOSING + CHUNKS, b"0" * 60),
    }
    with unharmed(service, upstream), ThreadPoolExecutor(len(slow)) as pool:
        told = {name: pool.submit(dribble, service, *parts) for name, parts in slow.items()}
        answers = {name: future.result(30) for name, future in told.items()}
    second = answers.pop("second request")
    assert second.startswith(b"HTTP/1.1 200 ")
    assert {refusal(answer) for answer in answers.values()} == {(408, "request_timeout")}


def test_what_is_left_of_a_refused_body_is_not_read_for_ever(
    service: RunningService, upstream: ScriptedUpstream
) -> None:
    with unharmed(service, upstream):
        answer = attack(
            service,
            b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9999999999\r\n\r\n" + b"x" * MEBI,
        )
        assert answer.startswith(b"HTTP/1.1 200 ")
        told = attack(service, CHUNKED + b"7FFFFFFF\r\n" + b"x" * 4 * MEBI)
        assert refusal(told) == (413, "payload_too_large")


def test_line_ends_without_a_request_are_given_up(
    service: RunningService, upstream: ScriptedUpstream
) -> None:
    with unharmed(service, upstream):
        assert attack(service, b"\r\n" * 5 * MEBI) == b""


def test_lies_about_the_length_cost_nothing(service: RunningService, upstream: ScriptedUpstream) -> None:
    hidden = b"GET /ask?q=smuggled HTTP/1.1\r\nHost: localhost\r\n\r\n"
    assert refusal(attack(service, post(10))) == (400, "invalid_request")
    assert refusal(attack(service, post(10, BODY[:10] + hidden))) == (400, "invalid_request")
    too_long = CLOSING + b"Content-Length: %d\r\n\r\n" % (len(BODY) + 1) + BODY
    assert refusal(attack(service, too_long)) == (408, "request_timeout")
    assert upstream.calls == []


def test_a_client_that_vanishes_in_its_body_costs_nothing(
    service: RunningService, upstream: ScriptedUpstream
) -> None:
    with connect(service) as connection:
        connection.sendall(post(len(BODY), BODY[:-1]))
    service.wait_for_log("request.abandoned")
    assert upstream.calls == []


def test_requests_behind_a_running_one_are_dropped_and_its_answer_is_whole(
    service: RunningService, upstream: ScriptedUpstream
) -> None:
    upstream.answer(Say("whole"), Pause(0.1), Finish())
    answer = attack(service, post(len(BODY)) * 50)
    assert answer.count(b"HTTP/1.1 ") == 1
    assert answer.endswith(b"0\r\n\r\n")
    assert len(upstream.calls) == 1


def test_a_flood_of_requests_on_one_connection_is_answered_once(
    service: RunningService, upstream: ScriptedUpstream
) -> None:
    with unharmed(service, upstream):
        assert (
            attack(service, b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n" * 100_000).count(b"HTTP/1.1 ")
            == 1
        )


def test_noise_behind_a_question_does_not_get_into_its_answer(
    service: RunningService, upstream: ScriptedUpstream
) -> None:
    upstream.answer(Say("whole"), Pause(0.1), Finish())
    answer = attack(service, post(len(BODY)) + b"\x00noise\r\n\r\n")
    assert b"400" not in answer.partition(b"\r\n")[0]
    assert answer.endswith(b"0\r\n\r\n")


@pytest.mark.parametrize("offer", [b"h2c", b"websocket"])
def test_an_offer_to_upgrade_is_ignored_and_the_body_read(
    service: RunningService, upstream: ScriptedUpstream, offer: bytes
) -> None:
    fields = b"Connection: Upgrade, HTTP2-Settings\r\nHTTP2-Settings: AAA\r\nUpgrade: " + offer + b"\r\n"
    head = POST + fields + b"Content-Length: %d\r\n\r\n" % len(BODY)
    with connect(service) as connection:
        connection.sendall(head)  # and the body in a packet of its own
        connection.sendall(BODY)
        answer = b""
        while b'"type":"done"' not in answer:
            piece = connection.recv(65_536)
            assert piece, answer
            answer += piece
    assert answer.startswith(b"HTTP/1.1 200 ")
    assert len(upstream.calls) == 1


@pytest.mark.parametrize(
    ("request_line", "status", "code"),
    [
        (b"CONNECT example.org:443 HTTP/1.1", 405, "method_not_allowed"),
        (b"TRACE / HTTP/1.1", 405, "method_not_allowed"),
        (b"OPTIONS * HTTP/1.1", 404, "not_found"),
        (b"PROPFIND /ask HTTP/1.0", 405, "method_not_allowed"),
        (b"GET /ask/%00%0a%ff HTTP/1.1", 404, "stream_not_found"),
        (b"GET //../..//etc/passwd HTTP/1.1", 404, "not_found"),
    ],
)
def test_odd_but_lawful_requests_get_the_one_error_body(
    service: RunningService, upstream: ScriptedUpstream, request_line: bytes, status: int, code: str
) -> None:
    assert refusal(attack(service, request_line + b"\r\nHost: localhost\r\nConnection: close\r\n\r\n")) == (
        status,
        code,
    )


def test_http_1_0_is_answered_and_closed(service: RunningService, upstream: ScriptedUpstream) -> None:
    answer = attack(service, post(len(BODY)).replace(b"HTTP/1.1", b"HTTP/1.0"))
    assert b'"type":"done"' in answer


def test_thousands_of_idle_connections_harm_nobody_and_are_closed(
    service: RunningService, upstream: ScriptedUpstream
) -> None:
    heads = [
        b"",
        b"GET / HTTP/1.1\r\nHost: localhost\r\nA: ",
        b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n",
    ]
    with ExitStack() as stack:
        with unharmed(service, upstream, growth=40 * MEBI):
            opened = [stack.enter_context(connect(service)) for _ in range(2000)]
            for index, connection in enumerate(opened):
                connection.sendall(heads[index % len(heads)])
        for connection in opened:
            read_to_end(connection)


def test_when_the_descriptors_run_out_the_idle_make_room(upstream: ScriptedUpstream) -> None:
    env = {**QUICK, "OPENAI_BASE_URL": upstream.base_url}
    with serve(env, open_files=128) as service, ExitStack() as stack:
        with unharmed(service, upstream):
            for _ in range(300):
                stack.enter_context(connect(service)).sendall(post(len(BODY), BODY[:-1]))
            assert b" 200 " in attack(
                service, b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
            )
        assert "Traceback" not in service.log()


def test_when_every_connection_is_in_use_one_more_is_503(upstream: ScriptedUpstream) -> None:
    long = [step for _ in range(40) for step in (Say("a"), Pause(0.1))]
    env = {**QUICK, "OPENAI_BASE_URL": upstream.base_url}
    with serve(env, open_files=60) as service, ExitStack() as stack:
        for number in range(10):
            upstream.answer(*long, Finish())
            stack.enter_context(connect(service)).sendall(post(len(BODY)))
            upstream.wait_for_calls(number + 1)
        answer = attack(service, b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert refusal(answer) == (503, "overloaded")
        assert b"retry-after: 1" in answer
