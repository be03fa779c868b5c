"""Clients that leave, stop reading, or are cut off by a shutdown."""

import signal
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import httpx2
import msgspec
import pytest

from tests.conftest import QUICK
from tests.support import plain_http
from tests.support.service import HELLO, RunningService, ask, events, parse_sse, serve, text_of
from tests.support.upstream import Accept, Finish, Hold, Pause, Say, ScriptedUpstream, Silence


@contextmanager
def reading(service: RunningService) -> Iterator[Iterator[bytes]]:
    """Ask, and read as long as the block lasts."""
    with plain_http.stream("POST", f"{service.url}/ask", json=HELLO, timeout=30) as response:
        assert response.status_code == 200
        yield response.iter_raw()


def read_until(pieces: Iterator[bytes], wanted: bytes) -> bytes:
    seen = bytearray()
    for piece in pieces:
        seen += piece
        if wanted in seen[-len(piece) - len(wanted) :]:
            return bytes(seen)
    raise AssertionError(f"no {wanted!r} in {bytes(seen[-1000:])!r}")


def connections_to(port: int | None) -> int:
    """Count the established TCP connections whose local end is a port of this machine."""
    rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    return sum(row[1].endswith(f":{port:04X}") and row[3] == "01" for row in rows)


def test_deltas_are_seen_while_upstream_is_still_talking(
    service: RunningService, upstream: ScriptedUpstream
) -> None:
    gate = threading.Event()
    upstream.answer(Say("first"), Hold(gate), Say("second"), Finish())
    with reading(service) as pieces:
        assert b"second" not in read_until(pieces, b"first")
        gate.set()
        read_until(pieces, b'"type":"done"')


def test_an_answer_that_nobody_reads_is_cancelled_upstream_after_the_grace(
    service: RunningService, upstream: ScriptedUpstream
) -> None:
    upstream.answer(Say("first"), Silence())
    with reading(service) as pieces:
        read_until(pieces, b"first")
        left_at = time.monotonic()
    assert upstream.calls[0].wait_gone(5)
    assert time.monotonic() - left_at >= 0.4  # the grace is half a second
    service.wait_for_log("answer.abandoned")


def test_a_client_that_leaves_before_the_first_token_is_noticed_too(
    service: RunningService, upstream: ScriptedUpstream
) -> None:
    upstream.answer(Accept(), Silence())
    with reading(service) as pieces:
        read_until(pieces, b'"type":"start"')
    assert upstream.calls[0].wait_gone(3)  # before the first-token timeout of four seconds


def test_a_client_that_leaves_while_upstream_has_not_even_accepted_is_noticed_too(
    service: RunningService, upstream: ScriptedUpstream
) -> None:
    upstream.answer(Silence())
    address = urlsplit(service.url)
    body = msgspec.json.encode(HELLO)
    head = (
        b"POST /ask HTTP/1.1\r\nHost: localhost\r\n"
        b"Content-Type: application/json\r\nContent-Length: %d\r\n\r\n"
    )
    with socket.create_connection((address.hostname, address.port)) as connection:
        connection.sendall(head % len(body) + body)
        [call] = upstream.wait_for_calls(1)
    assert call.wait_gone(3.8)


def test_a_silent_upstream_is_bridged_by_heartbeats(
    service: RunningService, upstream: ScriptedUpstream
) -> None:
    upstream.answer(Say("a"), Pause(1), Say("b"), Finish())
    response = ask(service.url)
    assert response.content.count(b": hb\n") >= 2
    assert b"\n\n\n" not in response.content
    assert text_of(events(response)) == "ab"


def test_a_client_that_stops_reading_for_a_while_gets_every_event_once(
    service: RunningService, upstream: ScriptedUpstream
) -> None:
    gates = threading.Event(), threading.Event()
    flood = [Say(f"{number:03}" + "x" * 60_000) for number in range(150)]  # more than all buffers hold
    upstream.answer(
        Say("first"), Hold(gates[0]), *flood, Say("flooded"), Hold(gates[1]), Say("last"), Finish()
    )
    narrow = httpx2.HTTPTransport(socket_options=[(socket.SOL_SOCKET, socket.SO_RCVBUF, 65_536)])
    with (
        plain_http.Client(transport=narrow, timeout=30) as client,
        client.stream("POST", f"{service.url}/ask", json=HELLO) as paused,
    ):
        pieces = paused.iter_raw()
        seen = read_until(pieces, b"first")
        gates[0].set()
        with plain_http.stream("GET", service.url + paused.headers["content-location"], timeout=30) as other:
            wide = other.iter_raw()
            everything = read_until(wide, b"flooded")
            gates[1].set()
            everything += b"".join(wide)
        assert seen + b"".join(pieces) == everything
    assert len(parse_sse(everything)) == len(flood) + 5


def test_a_client_that_stops_reading_is_cut_by_the_send_timeout(
    upstream: ScriptedUpstream, upstream_port: int
) -> None:
    flood = [Say("x" * 60_000) for _ in range(150)]
    upstream.answer(*flood, Silence())
    env = {**QUICK, "OPENAI_BASE_URL": upstream.base_url, "CHAT_SSE_SEND_TIMEOUT": "0.5"}
    with serve(env) as service:
        address = urlsplit(service.url)
        body = msgspec.json.encode(HELLO)
        head = (
            b"POST /ask HTTP/1.1\r\nHost: localhost\r\n"
            b"Content-Type: application/json\r\nContent-Length: %d\r\n\r\n"
        )
        connection = socket.socket()
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.connect((address.hostname, address.port))
        with connection:
            connection.sendall(head % len(body) + body)
            assert upstream.wait_for_calls(1)[0].wait_gone(10)
            service.wait_for_log("answer.abandoned")
            deadline = time.monotonic() + 10
            while connections_to(address.port) and time.monotonic() < deadline:
                time.sleep(0.05)
            assert connections_to(address.port) == 0  # not even the socket is left
        assert "Traceback" not in service.log()


def test_at_sigterm_a_running_answer_finishes_and_the_process_ends_with_0(upstream: ScriptedUpstream) -> None:
    gate = threading.Event()
    upstream.answer(Say("first "), Hold(gate), Say("last"), Finish())
    with serve({**QUICK, "OPENAI_BASE_URL": upstream.base_url}) as service:
        with reading(service) as pieces:
            seen = read_until(pieces, b"first")
            service.process.send_signal(signal.SIGTERM)
            service.wait_for_log("relay.draining")
            ready = plain_http.get(f"{service.url}/readyz")
            assert (ready.status_code, ready.json()["error"]) == (503, "server_draining")
            assert ask(service.url).status_code == 503
            gate.set()
            seen += b"".join(pieces)
        assert b'"last"' in seen
        assert b'"finish_reason":"stop"' in seen
        assert service.process.wait(10) == 0
        assert "Traceback" not in service.log()
        assert "ERROR" not in service.log()


@pytest.mark.parametrize("sig", [signal.SIGTERM, signal.SIGINT])
def test_an_answer_longer_than_the_grace_ends_with_a_retryable_error(
    upstream: ScriptedUpstream, sig: signal.Signals
) -> None:
    upstream.answer(Say("first"), Silence())
    with serve({**QUICK, "OPENAI_BASE_URL": upstream.base_url, "CHAT_SSE_SHUTDOWN_GRACE": "0.5"}) as service:
        with reading(service) as pieces:
            seen = read_until(pieces, b"first")
            service.process.send_signal(sig)
            seen += b"".join(pieces)
        _, last = parse_sse(seen)[-1]
        assert (last["type"], last["error"], last["retryable"]) == ("error", "server_draining", True)
        assert service.process.wait(10) == 0
        assert upstream.calls[0].wait_gone()
        assert "Traceback" not in service.log()


def test_an_idle_service_ends_at_once(upstream: ScriptedUpstream) -> None:
    with serve({**QUICK, "OPENAI_BASE_URL": upstream.base_url}) as service:
        assert plain_http.get(f"{service.url}/healthz").json() == {"status": "ok"}
        started = time.monotonic()
        assert service.terminate() == 0
        assert time.monotonic() - started < 5
