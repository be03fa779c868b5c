"""What surrounds a request's body, over real sockets: trailers, chunk framing, transfer codings, hosts.

None of it changes what has been checked in the head, nor grows the process; what is ambiguous is refused.
"""

import time
from collections.abc import Iterator
from contextlib import suppress

import msgspec
import pytest

from chat_sse.server.request_head import MAX_HEAD_BYTES
from tests.conftest import QUICK
from tests.support.service import HELLO, RunningService, serve
from tests.support.upstream import Finish, Say, ScriptedUpstream
from tests.test_hostile import attack, connect, read_to_end, refusal, unharmed

RECEIVE_SECONDS = 1.0
MEBI = 1_048_576

BODY = msgspec.json.encode(HELLO)
POST = b"POST /ask HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
HEALTH = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n"
CHUNKED = b"Transfer-Encoding: chunked\r\n\r\n"
WHOLE = b"%x\r\n%s\r\n" % (len(BODY), BODY)


@pytest.fixture(scope="module")
def service(upstream_port: int) -> Iterator[RunningService]:
    """A service with a small rate for each client, behind a proxy that names them."""
    env = {
        **QUICK,
        "CHAT_SSE_RECEIVE_TIMEOUT": str(RECEIVE_SECONDS),
        "CHAT_SSE_TRUSTED_PROXIES": "127.0.0.1",
        "OPENAI_BASE_URL": f"http://127.0.0.1:{upstream_port}/v1",
    }
    with serve(env) as running:
        yield running
        assert not [line for line in running.log().splitlines() if "Traceback" in line or "ERROR" in line]


def trailers(size: int) -> bytes:
    line = b"t%07d: v\r\n"
    return b"".join(line % number for number in range(size // len(line % 0)))


ENDLESS = {
    "trailers": WHOLE + b"0\r\n" + trailers(30 * MEBI),
    "one trailer line": WHOLE + b"0\r\nt: " + b"v" * 30 * MEBI,
    "one trailer name": WHOLE + b"0\r\n" + b"t" * 30 * MEBI,
    "a chunk extension": b"1;" + b"e" * 30 * MEBI,
    "chunks with extensions": b"1;e=%s\r\n \r\n" % (b"e" * 1000) * 30_000,
    "a chunk size": b"0" * 30 * MEBI,
    "chunks of one byte": b"1\r\n \r\n" * MEBI,
    "a whole trailer section": WHOLE + b"0\r\n" + trailers(2 * MAX_HEAD_BYTES) + b"\r\n",
}


@pytest.mark.parametrize("name", ENDLESS)
def test_endless_bytes_around_a_body_are_431(
    service: RunningService, upstream: ScriptedUpstream, name: str
) -> None:
    with unharmed(service, upstream):
        assert refusal(attack(service, POST + CHUNKED + ENDLESS[name])) == (431, "head_too_large")


@pytest.mark.parametrize("name", ENDLESS)
def test_endless_bytes_behind_an_answered_request_end_its_connection_without_a_second_answer(
    service: RunningService, upstream: ScriptedUpstream, name: str
) -> None:
    with unharmed(service, upstream), connect(service) as connection:
        connection.sendall(HEALTH + CHUNKED + b"1\r\nx\r\n")
        answer = connection.recv(65_536)
        with suppress(ConnectionError):
            connection.sendall(ENDLESS[name])
        answer += read_to_end(connection)
    assert answer.startswith(b"HTTP/1.1 200 ")
    assert answer.count(b"HTTP/1.1 ") == 1


def test_endless_bytes_with_a_request_that_needs_none_get_one_answer(
    service: RunningService, upstream: ScriptedUpstream
) -> None:
    flood = HEALTH + CHUNKED + b"1\r\nx\r\n0\r\n" + trailers(30 * MEBI)
    with unharmed(service, upstream):
        answer = attack(service, flood)
    # Whether they are seen before the request is answered is the network's choice.
    assert answer.startswith((b"HTTP/1.1 431 ", b"HTTP/1.1 200 "))
    assert answer.count(b"HTTP/1.1 ") == 1


def test_endless_trailers_leave_an_answer_that_has_begun_whole(
    service: RunningService, upstream: ScriptedUpstream
) -> None:
    upstream.answer(Say("whole"), Finish())
    with connect(service) as connection:
        connection.sendall(b"GET /ask?q=Hi HTTP/1.1\r\nHost: localhost\r\n" + CHUNKED + b"1\r\nx\r\n0\r\n")
        answer = connection.recv(65_536)
        with suppress(ConnectionError):
            connection.sendall(trailers(4 * MEBI))
        answer += read_to_end(connection)
    assert b'"whole"' in answer
    assert answer.count(b"HTTP/1.1 ") == 1


def test_line_ends_behind_a_question_are_bounded_and_its_answer_is_whole(
    service: RunningService, upstream: ScriptedUpstream
) -> None:
    upstream.answer(Say("whole"), Finish())
    answer = attack(service, POST + CHUNKED + WHOLE + b"0\r\n\r\n" + b"\r\n" * 4 * MEBI)
    assert answer.endswith(b"0\r\n\r\n")
    assert answer.count(b"HTTP/1.1 ") == 1


@pytest.mark.parametrize("rest", [b"0\r\n", b"0\r\nt: v", b"0;e", b"0\r\nt"])
def test_stalled_trailers_are_given_up(
    service: RunningService, upstream: ScriptedUpstream, rest: bytes
) -> None:
    assert refusal(attack(service, POST + CHUNKED + WHOLE + rest)) == (408, "request_timeout")
    began = time.monotonic()
    answer = attack(service, HEALTH + CHUNKED + b"1\r\nx\r\n" + rest)
    assert answer.count(b"HTTP/1.1 200 ") == 1
    assert time.monotonic() - began < 10
    assert upstream.calls == []


FIELDS = [
    b"X-Forwarded-For: 9.9.9.9",
    b"Origin: http://evil.example",
    b"Sec-Fetch-Site: cross-site",
    b"Authorization: Bearer x",
    b"Cookie: a=b",
    b"Host: evil.example",
    b"Last-Event-ID: x.1",
    b"Idempotency-Key: k",
    b"Accept: text/nothing",
    b"Expect: 100-continue",
    b"Connection: upgrade\r\nUpgrade: h2c",
]


@pytest.mark.parametrize("field", FIELDS)
def test_a_trailer_changes_neither_its_request_nor_the_next(
    service: RunningService, upstream: ScriptedUpstream, field: bytes
) -> None:
    upstream.answer(Say("Hi"), Finish())
    upstream.answer(Say("Hi"), Finish())
    with connect(service) as connection:
        for _ in range(2):  # the head first, so that its handler waits for the body
            connection.sendall(POST + CHUNKED)
            time.sleep(0.05)
            connection.sendall(WHOLE + b"0\r\n" + field + b"\r\n\r\n")
            answer = b""
            while not answer.endswith(b"0\r\n\r\n"):
                piece = connection.recv(65_536)
                assert piece, answer
                answer += piece
            assert answer.startswith(b"HTTP/1.1 200 ")
            assert b'"content":"Hi"' in answer
    assert len(upstream.calls) == 2


def test_a_trailer_gives_no_client_a_fresh_rate(upstream: ScriptedUpstream) -> None:
    upstream.answer(Say("Hi"), Finish())
    env = {
        **QUICK,
        "OPENAI_BASE_URL": upstream.base_url,
        "CHAT_SSE_RATE_LIMIT": "1/minute",
        "CHAT_SSE_TRUSTED_PROXIES": "127.0.0.1",
    }
    head = POST + b"X-Forwarded-For: 8.8.8.8\r\nConnection: close\r\n" + CHUNKED + WHOLE
    with serve(env) as service:
        statuses = [
            attack(service, head + b"0\r\nX-Forwarded-For: 9.9.9.%d\r\n\r\n" % number).split()[1]
            for number in range(3)
        ]
    assert statuses == [b"200", b"429", b"429"]


def test_a_body_in_small_chunks_with_extensions_and_trailers_is_read(
    service: RunningService, upstream: ScriptedUpstream
) -> None:
    upstream.answer(Say("Hi"), Finish())
    chunks = b"".join(b'1;name="value"\r\n%c\r\n' % byte for byte in BODY)
    request = POST + b"Connection: close\r\n" + CHUNKED + chunks + b"0\r\nDigest: x\r\n\r\n"
    assert b'"content":"Hi"' in attack(service, request)


CODINGS = [
    b"Transfer-Encoding: gzip, chunked",
    b"Transfer-Encoding: gzip\r\nTransfer-Encoding: chunked",
    b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked",
    b"Transfer-Encoding: chunked, chunked",
    b"Transfer-Encoding: chunked, identity",
    b"Transfer-Encoding: identity, chunked",
    b"Transfer-Encoding: identity",
    b"Transfer-Encoding: xchunked",
    b"Transfer-Encoding: chunked;q=1",
    b"Transfer-Encoding: , chunked",
    b"Transfer-Encoding:",
    b"Transfer-Encoding: chunked\r\nContent-Length: 45",
    b"Content-Length: 45\r\nTransfer-Encoding: chunked",
    b"Content-Length: 45\r\nContent-Length: 45",
    b"Content-Length: 45, 45",
]


@pytest.mark.parametrize("offer", [b"", b"Connection: Upgrade\r\nUpgrade: h2c\r\n"])
@pytest.mark.parametrize("fields", CODINGS)
def test_any_framing_but_one_length_or_chunked_is_400(
    service: RunningService, upstream: ScriptedUpstream, fields: bytes, offer: bytes
) -> None:
    request = POST + offer + fields + b"\r\n\r\n" + WHOLE + b"0\r\n\r\n"
    assert refusal(attack(service, request)) == (400, "invalid_request")
    assert upstream.calls == []


def test_http_1_0_has_no_chunks(service: RunningService, upstream: ScriptedUpstream) -> None:
    request = POST.replace(b"HTTP/1.1", b"HTTP/1.0") + CHUNKED + WHOLE + b"0\r\n\r\n"
    assert refusal(attack(service, request)) == (400, "invalid_request")


HOSTS_REFUSED = [
    b"",
    b"Host:\r\n",
    b"Host: 127.0.0.1:80@evil\r\n",
    b"Host: user@127.0.0.1\r\n",
    b"Host: user:password@127.0.0.1:80\r\n",
    b"Host: local host\r\n",
    b"Host: localhost evil.example\r\n",
    b"Host: localhost/path\r\n",
    b"Host: localhost?query\r\n",
    b"Host: localhost#fragment\r\n",
    b"Host: http://localhost\r\n",
    b"Host: localhost\\evil.example\r\n",
    b"Host: localhost, evil.example\r\n",
    b"Host: localhost:port\r\n",
    b"Host: localhost:80:80\r\n",
    b"Host: localhost:-1\r\n",
    b"Host: localhost%00\r\n",
    b"Host: ::1\r\n",
    b"Host: [::1\r\n",
    b"Host: [::1]evil\r\n",
    b"Host: [localhost]\r\n",
    b"Host: :80\r\n",
    b"Host: l\xc3\xb6calhost\r\n",
    b"Host: localhost\r\nHost: localhost\r\n",
    b"Host: localhost\r\nHost: evil.example\r\n",
    b"Host: localhost\r\nHost:\r\n",
]


@pytest.mark.parametrize("host", HOSTS_REFUSED)
@pytest.mark.parametrize("target", [b"GET /healthz", b"GET /ask?q=Hi", b"OPTIONS /ask"])
def test_a_host_that_is_no_host_and_port_is_400(
    service: RunningService, upstream: ScriptedUpstream, host: bytes, target: bytes
) -> None:
    answer = attack(service, target + b" HTTP/1.1\r\n" + host + b"\r\n")
    assert refusal(answer) == (400, "invalid_request")
    assert upstream.calls == []


@pytest.mark.parametrize(
    "host", [b"localhost", b"LOCALHOST:8000", b"127.0.0.1:80", b"localhost:", b"[::1]", b"[::1]:8000"]
)
def test_a_host_with_or_without_a_port_is_served(service: RunningService, host: bytes) -> None:
    request = b"GET /healthz HTTP/1.1\r\nHost: %s\r\nConnection: close\r\n\r\n" % host
    assert attack(service, request).startswith(b"HTTP/1.1 200 ")


@pytest.mark.parametrize("host", [b"my_service-1:8000", b"evil.example"])
def test_a_host_that_is_not_ours_is_still_421(service: RunningService, host: bytes) -> None:
    request = b"GET /healthz HTTP/1.1\r\nHost: %s\r\nConnection: close\r\n\r\n" % host
    assert refusal(attack(service, request)) == (421, "misdirected_request")


def test_http_1_0_needs_no_host(service: RunningService) -> None:
    assert attack(service, b"GET /healthz HTTP/1.0\r\n\r\n").startswith(b"HTTP/1.1 200 ")


def test_a_refusal_carries_the_headers_of_every_response(service: RunningService) -> None:
    answer = attack(service, b"GET /healthz HTTP/1.1\r\n\r\n")
    head = answer.partition(b"\r\n\r\n")[0].lower()
    assert b"x-content-type-options: nosniff" in head
    assert b"cache-control: no-store" in head
