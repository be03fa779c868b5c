"""The ways to upstream: through a proxy, after a redirect, over TLS, and over a wire of poor HTTP.

Whatever is on the way, a question costs one paid call, ends with one truthful event, and takes its key
nowhere else.
"""

import asyncio
import re
import signal
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import httpx2
import pytest
import trustme

from tests.conftest import QUICK
from tests.support import plain_http
from tests.support.service import HELLO, RunningService, ask, events, serve, text_of
from tests.support.upstream import (
    Accept,
    Cut,
    Eof,
    Finish,
    Hold,
    Pause,
    Raw,
    Refuse,
    Say,
    ScriptedUpstream,
    Silence,
    Step,
    Wire,
)

STREAM = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n"
CHUNKED = STREAM + b"Transfer-Encoding: chunked\r\n\r\n"
HI = b'data: {"choices":[{"index":0,"delta":{"content":"Hi"}}]}\n\n'
STOP = b'data: {"choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}\n\ndata: [DONE]\n\n'


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%s\r\n" % (len(data), data)


DELTAS = (
    *(Wire(CHUNKED + chunk(HI)), Pause(0.02)),
    *(Wire(chunk(HI)), Pause(0.02)),
    *(Wire(chunk(HI)), Pause(0.02)),
)


def outcome(response: httpx2.Response) -> tuple[str, str]:
    """Tell the text, and how it ended: the finish reason, or the error's code."""
    if response.status_code != 200:
        return "", response.json()["error"]
    found = events(response)
    assert [event["type"] for event in found].count("start") == 1
    assert [event for event in found if event["type"] in ("done", "error")] == found[-1:]
    return text_of(found), found[-1].get("finish_reason") or found[-1]["error"]


# The wire


WIRES: dict[str, tuple[tuple[Step, ...], tuple[str, str]]] = {
    "chunks in one piece": (
        (Wire(CHUNKED + chunk(HI) + chunk(STOP) + b"0\r\n\r\n"), Cut()),
        ("Hi", "stop"),
    ),
    "chunks with extensions and trailers": (
        (Wire(CHUNKED + b"%x;a=b\r\n%s\r\n0\r\nT: 1\r\n\r\n" % (len(HI + STOP), HI + STOP)), Cut()),
        ("Hi", "stop"),
    ),
    "a told length": (
        (Wire(STREAM + b"Content-Length: %d\r\n\r\n" % len(HI + STOP) + HI + STOP), Cut()),
        ("Hi", "stop"),
    ),
    "a length that is not reached": (
        (Wire(STREAM + b"Content-Length: 9999\r\n\r\n" + HI), Cut()),
        ("Hi", "upstream_protocol_error"),
    ),
    "a body until the connection's end": (
        (Wire(STREAM + b"Connection: close\r\n\r\n" + HI + STOP), Cut()),
        ("Hi", "stop"),
    ),
    "a body until the connection's end, cut short": (
        (Wire(STREAM + b"Connection: close\r\n\r\n" + HI), Cut()),
        ("Hi", "upstream_protocol_error"),
    ),
    "early hints before the head": (
        (
            Wire(b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n"),
            Wire(b"HTTP/1.1 100 Continue\r\n\r\n"),
            Say("Hi"),
            Finish(),
        ),
        ("Hi", "stop"),
    ),
    "chunks without a size": (
        (Wire(CHUNKED + chunk(HI) + b"zz\r\n" + STOP), Silence()),
        ("Hi", "upstream_protocol_error"),
    ),
    "a chunk longer than it says": (
        (Wire(CHUNKED + chunk(HI) + b"3\r\n" + STOP), Silence()),
        ("Hi", "upstream_protocol_error"),
    ),
    "a chunk for each delta": (
        (*DELTAS, Wire(chunk(STOP)), Wire(b"0\r\n\r\n"), Cut()),
        ("HiHiHi", "stop"),
    ),
    "a chunk for each delta, and nonsense behind": (
        (*DELTAS, Wire(b"zz\r\n" + HI + b"\r\n"), Silence()),
        ("HiHiHi", "upstream_protocol_error"),
    ),
    "a chunk for each delta, cut within one": (
        (*DELTAS, Wire(chunk(HI)[:-20]), Cut()),
        ("HiHiHi", "upstream_protocol_error"),
    ),
    "a chunk for each delta, one in two pieces": (
        (
            *DELTAS,
            Wire(chunk(HI)[:20]),
            Pause(0.02),
            Wire(chunk(HI)[20:] + chunk(STOP)),
            Cut(),
        ),
        ("HiHiHiHi", "stop"),
    ),
    "no HTTP": (
        (Wire(b"220 mail.example ESMTP\r\n"), Silence()),
        ("", "service_unavailable_error"),
    ),
    "an endless head": (
        (Wire(b"HTTP/1.1 200 OK\r\nA: " + b"a" * 200_000), Silence()),
        ("", "service_unavailable_error"),
    ),
    "endless heads": (
        (Wire(b"HTTP/1.1 200 OK\r\n" + b"A: b\r\n" * 50_000), Silence()),
        ("", "service_unavailable_error"),
    ),
    "a head without an end": ((Wire(b"HTTP/1.1 200 OK\r\nA: "), Silence()), ("", "timeout_error")),
    "a compressed answer": (
        (Accept(headers={"Content-Encoding": "gzip"}), Raw(b"\x1f\x8b\x08\x00"), Eof()),
        ("", "upstream_protocol_error"),
    ),
}


@pytest.mark.parametrize("fault", WIRES)
def test_a_wire_is_read_as_http_says_and_a_broken_one_ends_in_one_event(
    service: RunningService, upstream: ScriptedUpstream, fault: str
) -> None:
    steps, told = WIRES[fault]
    upstream.answer_next(*steps)
    assert outcome(ask(service.url)) == told
    assert (len(upstream.calls), upstream.paid_calls) == (1, 1)
    if Cut() in steps:  # a question that crosses it is lost, and may be paid
        assert upstream.calls[0].wait_finished()
    assert outcome(ask(service.url)) == ("Hello there!", "stop")  # whatever is left of it harms nobody


def test_a_head_that_dribbles_in_is_read(service: RunningService, upstream: ScriptedUpstream) -> None:
    whole = CHUNKED + chunk(HI) + chunk(STOP) + b"0\r\n\r\n"
    steps = [step for byte in whole for step in (Wire(bytes([byte])), Pause(0.001))]
    upstream.answer(*steps, Cut())
    assert outcome(ask(service.url)) == ("Hi", "stop")


def test_what_comes_behind_an_answer_is_no_part_of_the_next(
    service: RunningService, upstream: ScriptedUpstream
) -> None:
    late = CHUNKED + chunk(HI.replace(b"Hi", b"Stolen")) + chunk(STOP) + b"0\r\n\r\n"
    upstream.answer_next(Wire(CHUNKED + chunk(HI) + chunk(STOP) + b"0\r\n\r\n" + late), Silence())
    assert outcome(ask(service.url)) == ("Hi", "stop")
    assert outcome(ask(service.url)) == ("Hello there!", "stop")
    assert upstream.paid_calls == 2


REFUSALS: dict[str, tuple[Refuse, str]] = {
    "no body": (Refuse(404, body=b""), "invalid_request_error"),
    "JSON of another kind": (Refuse(400, body=["no"]), "invalid_request_error"),
    "an error that is a word": (Refuse(403, body={"error": "no"}), "authentication_error"),
    "a page": (Refuse(403, body=b"<html>blocked</html>"), "authentication_error"),
    "a large page": (Refuse(422, body=b"<html>" + b"x" * 2_000_000), "invalid_request_error"),
    "too many": (Refuse(429, headers={"retry-after": "60"}), "rate_limit_error"),
}


@pytest.mark.parametrize("refusal", REFUSALS)
def test_refusals_of_every_shape_are_told_and_cost_nothing(
    service: RunningService, upstream: ScriptedUpstream, refusal: str
) -> None:
    step, code = REFUSALS[refusal]
    upstream.answer_next(step)
    response = ask(service.url)
    assert (response.status_code, response.json()["error"]) == (500, code)
    assert (len(upstream.calls), upstream.paid_calls) == (1, 0)
    assert outcome(ask(service.url)) == ("Hello there!", "stop")


# Connections


def test_one_connection_serves_fifty_questions_in_turn(
    service: RunningService, upstream: ScriptedUpstream
) -> None:
    for _ in range(50):
        assert outcome(ask(service.url)) == ("Hello there!", "stop")
    assert (upstream.paid_calls, upstream.accepted_connections) == (50, 1)


async def ask_together(url: str, count: int) -> list[tuple[str, str]]:
    limits = httpx2.Limits(max_connections=None)
    async with plain_http.AsyncClient(timeout=50, limits=limits) as client:
        asking = [client.post(f"{url}/ask", json=HELLO) for _ in range(count)]
        return [outcome(response) for response in await asyncio.gather(*asking)]


def test_twenty_questions_at_once_use_twenty_connections_and_use_them_again(
    service: RunningService, upstream: ScriptedUpstream
) -> None:
    upstream.answer(Say("Hi"), Pause(0.5), Finish())
    for _ in range(2):
        assert asyncio.run(ask_together(service.url, 20)) == [("Hi", "stop")] * 20
    assert (upstream.paid_calls, upstream.accepted_connections) == (40, 20)


def test_a_stopped_answers_connection_is_closed_and_not_used_again(
    service: RunningService, upstream: ScriptedUpstream
) -> None:
    upstream.answer_next(Say("Hi"), Silence())
    place = plain_http.post(f"{service.url}/ask", json=HELLO, headers={"Prefer": "respond-async"}, timeout=30)
    [call] = upstream.wait_for_calls(1)
    assert plain_http.delete(service.url + place.headers["location"]).status_code == 204
    assert call.wait_gone()
    assert outcome(ask(service.url)) == ("Hello there!", "stop")
    assert [call.connection_number for call in upstream.calls] == [1, 2]


def test_a_connection_that_upstream_closed_while_it_rested_costs_no_question(
    service: RunningService, upstream: ScriptedUpstream
) -> None:
    upstream.answer(Say("Hi"), Finish(), Cut())
    for _ in range(5):
        assert outcome(ask(service.url)) == ("Hi", "stop")
        time.sleep(0.1)  # so that the end of the connection has arrived
    assert (len(upstream.calls), upstream.accepted_connections) == (5, 5)


def test_more_than_a_thousand_answers_run_at_once(upstream: ScriptedUpstream) -> None:
    streams, gate = 1050, threading.Event()
    upstream.answer(Say("Hi"), Hold(gate), Finish())

    async def flood() -> list[tuple[str, str]]:
        asking = asyncio.create_task(ask_together(service.url, streams))
        running = await asyncio.to_thread(upstream.wait_for_calls, streams, 40)
        assert not any(call.finished for call in running)
        gate.set()
        return await asking

    patient = {"CHAT_SSE_FIRST_TOKEN_TIMEOUT": "60", "CHAT_SSE_IDLE_TIMEOUT": "60"}
    with serve({**QUICK, **patient, "OPENAI_BASE_URL": upstream.base_url}) as service:
        assert asyncio.run(flood()) == [("Hi", "stop")] * streams
    assert (upstream.paid_calls, upstream.accepted_connections) == (streams, streams)


# TLS


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def secure_upstream(authority: trustme.CA) -> Iterator[ScriptedUpstream]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost").configure_cert(context)
    with ScriptedUpstream(tls=context) as upstream:
        yield upstream


@pytest.fixture
def trust(authority: trustme.CA, tmp_path: Path) -> Mapping[str, str]:
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    return {"SSL_CERT_FILE": str(tmp_path / "ca.pem")}


def test_over_tls_answers_come_and_connections_are_used_again(
    secure_upstream: ScriptedUpstream, trust: Mapping[str, str]
) -> None:
    with serve({**QUICK, **trust, "OPENAI_BASE_URL": secure_upstream.base_url}) as service:
        for _ in range(5):
            assert outcome(ask(service.url)) == ("Hello there!", "stop")
        secure_upstream.answer(Say("Hi"), Cut())
        assert outcome(ask(service.url)) == ("Hi", "upstream_protocol_error")
    assert (secure_upstream.paid_calls, secure_upstream.accepted_connections) == (6, 1)


def test_a_certificate_that_nobody_vouches_for_gets_no_question(secure_upstream: ScriptedUpstream) -> None:
    with serve({**QUICK, "OPENAI_BASE_URL": secure_upstream.base_url}) as service:
        response = ask(service.url)
        assert (response.status_code, response.json()["error"]) == (500, "service_unavailable_error")
    assert secure_upstream.calls == []


# Proxies and redirects


class Proxy:
    """A forward proxy as companies have them, and what it has seen."""

    def __init__(self, url: str, log: Path) -> None:
        self.url = url
        self._log = log

    def seen(self, pattern: str) -> int:
        """Count the lines of its log that match; they come when a connection is over."""
        return len(re.findall(pattern, self._log.read_text()))


@contextmanager
def proxy(folder: Path) -> Iterator[Proxy]:
    port_file, log = folder / "port", folder / "log"
    command = ["-m", "proxy", "--hostname", "127.0.0.1", "--port", "0", "--port-file", str(port_file)]
    logged = ["--log-file", str(log), "--num-workers", "1", "--num-acceptors", "1", "--data-dir", str(folder)]
    with subprocess.Popen([sys.executable, *command, *logged]) as process:
        try:
            deadline = time.monotonic() + 20
            while not (port_file.exists() and port_file.read_text().strip()):
                assert process.poll() is None
                assert time.monotonic() < deadline
                time.sleep(0.02)
            yield Proxy(f"http://127.0.0.1:{port_file.read_text().strip()}", log)
        finally:
            process.send_signal(signal.SIGINT)
            process.wait(10)


def test_a_plain_proxy_is_asked_and_the_answer_streams_through_it(
    upstream: ScriptedUpstream, tmp_path: Path
) -> None:
    with proxy(tmp_path) as between:
        env = {**QUICK, "OPENAI_BASE_URL": upstream.base_url, "HTTP_PROXY": between.url}
        with serve(env) as service:
            assert outcome(ask(service.url)) == ("Hello there!", "stop")
            upstream.answer(Say("Hi"), Cut())
            assert outcome(ask(service.url)) == ("Hi", "upstream_protocol_error")
            upstream.answer(Refuse(401))
            assert outcome(ask(service.url)) == ("", "authentication_error")
            # The body's end in one piece with the answer's: what waits for it is over before it is told so.
            upstream.answer(Wire(CHUNKED + chunk(HI) + chunk(STOP) + b"0\r\n\r\n"), Cut())
            assert outcome(ask(service.url)) == ("Hi", "stop")
            assert " ERROR " not in service.log()
    assert between.seen("POST 127.0.0.1") + between.seen("POST .*chat/completions") >= 1
    assert (len(upstream.calls), upstream.paid_calls) == (4, 3)


def test_a_proxy_tunnels_tls_and_never_sees_the_key(
    secure_upstream: ScriptedUpstream, trust: Mapping[str, str], tmp_path: Path
) -> None:
    with proxy(tmp_path) as between:
        env = {**QUICK, **trust, "OPENAI_BASE_URL": secure_upstream.base_url, "HTTPS_PROXY": between.url}
        with serve(env) as service:
            assert outcome(ask(service.url)) == ("Hello there!", "stop")
    assert between.seen("CONNECT localhost") == 1
    assert between.seen("canary") == 0
    assert secure_upstream.paid_calls == 1


def test_no_proxy_is_asked_for_a_host_that_is_excepted(upstream: ScriptedUpstream) -> None:
    nobody = {"HTTP_PROXY": "http://127.0.0.1:9", "NO_PROXY": "127.0.0.1"}
    with serve({**QUICK, **nobody, "OPENAI_BASE_URL": upstream.base_url}) as service:
        assert outcome(ask(service.url)) == ("Hello there!", "stop")


def test_a_proxy_that_is_not_there_is_told_and_costs_nothing(upstream: ScriptedUpstream) -> None:
    with serve(
        {**QUICK, "HTTP_PROXY": "http://127.0.0.1:9", "OPENAI_BASE_URL": upstream.base_url}
    ) as service:
        assert outcome(ask(service.url)) == ("", "service_unavailable_error")
    assert upstream.calls == []


def test_a_redirect_is_followed_without_the_key_to_another_host(
    service: RunningService, upstream: ScriptedUpstream
) -> None:
    with ScriptedUpstream() as elsewhere:
        for base_url in (upstream.base_url, elsewhere.base_url):
            for _ in range(2):  # our own wire knows no redirects, and the OpenAI client asks once more
                upstream.answer_next(Refuse(307, headers={"Location": f"{base_url}/chat/completions"}))
            assert outcome(ask(service.url)) == ("Hello there!", "stop")
        [call] = elsewhere.calls
    assert "authorization" not in call.headers
    assert "canary" not in str(call.headers)
    assert upstream.calls[2].headers["authorization"] == "Bearer sk-test-canary-0123456789"
    assert elsewhere.paid_calls == 1
