"""Keys, prompts and answers, driven through every way to fail, at DEBUG and in both formats of the log.

A reader gets the answer's own deltas. Nothing else that comes back, and no line of the log, holds any of it.
"""

import re
import signal
import socket
import threading
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

import httpx2
import msgspec
import pytest

from tests.conftest import QUICK
from tests.support import plain_http
from tests.support.service import RunningService, parse_sse, serve
from tests.support.upstream import (
    Accept,
    Chunk,
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

CLIENT_KEY = "reader-canary-0123456789"
PROMPT = "canary in the prompt"
QUOTED = f"the key sk-test-canary-0123456789 asked: {PROMPT}"
QUESTION = {"messages": [{"role": "user", "content": PROMPT}]}
BEARER = {"Authorization": f"Bearer {CLIENT_KEY}"}
SOON = {"retry-after-ms": "10"}

ERROR = {"error": {"message": QUOTED, "type": QUOTED, "param": QUOTED, "code": QUOTED}}
SPOKEN = Say("canary in the answer")


@pytest.fixture(scope="module", params=["text", "json"])
def service(request: pytest.FixtureRequest, upstream_port: int) -> Iterator[RunningService]:
    """A service that logs all that it ever logs, all of which is searched in the end."""
    env = {
        **QUICK,
        "OPENAI_BASE_URL": f"http://127.0.0.1:{upstream_port}/v1",
        "OPENAI_LOG": "debug",
        "CHAT_SSE_LOG_LEVEL": "debug",
        "CHAT_SSE_LOG_FORMAT": request.param,
        "CHAT_SSE_API_KEYS": f"reader:{CLIENT_KEY}",
        "CHAT_SSE_SECRET_KEY": "canary-of-the-signer",
        "CHAT_SSE_SYSTEM_PROMPT": "canary of the operator",
        "CHAT_SSE_MAX_BODY_BYTES": "20000",
        "CHAT_SSE_MAX_CHARS": "2000",
        "CHAT_SSE_SEND_TIMEOUT": "1",
    }
    with serve(env) as running:
        yield running
        running.terminate()
        log = running.log()
        assert "canary" not in log
        assert re.search(r"\brequest\b", log)  # it does log


def post(service: RunningService, body: Any = QUESTION, **headers: str) -> httpx2.Response:
    content = body if isinstance(body, bytes) else msgspec.json.encode(body)
    sent = {"Content-Type": "application/json", **BEARER, **headers}
    return plain_http.post(f"{service.url}/ask", content=content, headers=sent, timeout=30)


def check_silent(response: httpx2.Response) -> None:
    """See that neither head nor body tells a canary, but for the deltas of a stream."""
    assert "canary" not in str(response.headers.raw)
    if response.status_code != 200:
        assert "canary" not in response.text
        return
    told = [event for _, event in parse_sse(response.content) if event["type"] != "delta"]
    assert "canary" not in str(told)


FAILING_UPSTREAMS: dict[str, tuple[Step, ...]] = {
    **{
        f"an error {status}": (Refuse(status, body=ERROR, headers=SOON),)
        for status in (400, 401, 403, 404, 408, 409, 413, 422, 429, 500, 502, 503)
    },
    "an error of OpenAI's that quotes the key": (Refuse(401),),
    "an error in HTML": (Refuse(502, body=f"<html>{QUOTED}</html>"),),
    "a redirect": (Refuse(307, body=QUOTED, headers={"Location": f"/{PROMPT.replace(' ', '-')}"}),),
    "no head": (Cut(),),
    "a reset before the head": (Reset(),),
    "another content type": (Accept(content_type="text/html"), Raw(QUOTED.encode()), Eof()),
    "nothing": (Accept(), Eof()),
    "silence": (Accept(), Silence()),
    "silence midway": (SPOKEN, Silence()),
    "an end midway": (SPOKEN, Eof()),
    "a cut": (SPOKEN, Cut()),
    "a reset": (SPOKEN, Reset()),
    "no JSON": (SPOKEN, Raw(f"data: {{{QUOTED}\n\n".encode()), Eof()),
    "no UTF-8": (SPOKEN, Raw(b'data: {"canary": "\xff"}\n\n'), Eof()),
    "a chunk of another shape": (SPOKEN, Chunk({"choices": QUOTED}), Eof()),
    "an endless line": (SPOKEN, *[Raw(QUOTED.encode() * 2000)] * 20, Eof()),
    "an error midway": (SPOKEN, Chunk(ERROR), Eof()),
    "an error event": (SPOKEN, Raw(f"event: error\ndata: {QUOTED}\n\n".encode()), Eof()),
    "a tool call": (
        Chunk({"choices": [{"index": 0, "delta": {"tool_calls": [{"function": {"arguments": QUOTED}}]}}]}),
        Finish("tool_calls"),
    ),
    "a refusal": (Chunk({"choices": [{"index": 0, "delta": {"refusal": "no"}}]}), Finish()),
    "a whole answer": (SPOKEN, Finish()),
    "a reason that is none": (SPOKEN, Finish("length", usage=None)),
}


@pytest.mark.parametrize("fault", FAILING_UPSTREAMS)
def test_what_upstream_says_at_fault_is_repeated_nowhere(
    service: RunningService, upstream: ScriptedUpstream, fault: str
) -> None:
    upstream.answer(*FAILING_UPSTREAMS[fault])
    if FAILING_UPSTREAMS[fault][0].refuses:
        upstream.answer(*FAILING_UPSTREAMS[fault])  # what may be tried again is
        upstream.answer(*FAILING_UPSTREAMS[fault])
    check_silent(post(service))


def turns(count: int) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": PROMPT}] * count}


BAD_BODIES: dict[str, Any] = {
    "no JSON": f'{{"messages": [{{"role": "user", "content": "{PROMPT}'.encode(),
    "no UTF-8": b'{"messages": [{"role": "user", "content": "canary \xff"}]}',
    "a role that is none": {"messages": [{"role": PROMPT, "content": PROMPT}]},
    "content of another type": {"messages": [{"role": "user", "content": {PROMPT: PROMPT}}]},
    "a part of another type": {"messages": [{"role": "user", "content": [{"type": PROMPT, "text": PROMPT}]}]},
    "a picture from elsewhere": {
        "messages": [
            {"role": "user", "content": [{"type": "image_url", "image_url": {"url": f"ftp://{PROMPT}"}}]}
        ]
    },
    "too many turns": turns(500),
    "too many characters": turns(150),
    "too large": turns(2000),
    "a number that is none": {**QUESTION, "temperature": PROMPT},
    "nested too deeply": b'{"messages": ' + b'["canary",' * 3000,
}


@pytest.mark.parametrize("fault", BAD_BODIES)
def test_a_question_that_is_refused_is_repeated_nowhere(
    service: RunningService, upstream: ScriptedUpstream, fault: str
) -> None:
    response = post(service, BAD_BODIES[fault])
    assert response.status_code in (400, 413)
    check_silent(response)
    assert upstream.calls == []


BAD_HEADS: dict[str, dict[str, str]] = {
    "no key": {"Authorization": ""},
    "a wrong key": {"Authorization": f"Bearer {CLIENT_KEY}X"},
    "another scheme": {"Authorization": f"Basic {CLIENT_KEY}"},
    "a foreign page": {"Origin": "https://evil.example"},
    "another host": {"Host": "evil.example"},
    "another type": {"Content-Type": "text/plain"},
    "no format": {"Accept": "application/pdf"},
    "no event": {"Last-Event-ID": "7"},
    "an answer that is not there": {"Last-Event-ID": f"{'f' * 32}.1"},
}


@pytest.mark.parametrize("fault", BAD_HEADS)
def test_a_request_that_is_refused_by_its_head_is_repeated_nowhere(
    service: RunningService, upstream: ScriptedUpstream, fault: str
) -> None:
    response = post(service, **BAD_HEADS[fault])
    assert 400 <= response.status_code < 500
    check_silent(response)
    assert upstream.calls == []


def test_a_key_with_another_question_repeats_neither(
    service: RunningService, upstream: ScriptedUpstream
) -> None:
    key = {"Idempotency-Key": "canary-of-idempotency"}
    check_silent(post(service, **key))
    refused = post(service, turns(2), **key)
    assert refused.status_code == 422
    check_silent(refused)


def test_what_stands_in_a_url_is_not_logged(service: RunningService, upstream: ScriptedUpstream) -> None:
    for query in ({"q": PROMPT}, {"messages": PROMPT}, {"q": PROMPT, "id": PROMPT}, {PROMPT: PROMPT}):
        check_silent(plain_http.get(f"{service.url}/ask", params=query, headers=BEARER, timeout=30))
        check_silent(plain_http.get(f"{service.url}/ask", params=query, timeout=30))


def test_the_token_of_a_link_is_not_logged(service: RunningService, upstream: ScriptedUpstream) -> None:
    accepted = post(service, Prefer="respond-async")
    link = accepted.headers["location"]
    check_silent(plain_http.get(service.url + link, timeout=30))
    for broken in (link[:-1], f"{link}x"):
        assert plain_http.get(service.url + broken, timeout=30).status_code == 401
    assert link.partition("token=")[2].rpartition(".")[0] not in service.log()


@pytest.mark.parametrize("broken", [b"A: b\0c\r\n\r\n", b"Transfer-Encoding: chunked\r\n\r\nZZ\r\n"])
def test_a_request_that_is_no_http_is_repeated_nowhere(
    service: RunningService, upstream: ScriptedUpstream, broken: bytes
) -> None:
    address = urlsplit(service.url)
    head = f"POST /ask?q=canary HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {CLIENT_KEY}\r\n"
    with socket.create_connection((address.hostname, address.port), timeout=15) as connection:
        connection.sendall(head.encode() + broken)
        answer = connection.recv(65_536)
    assert b" 400 " in answer
    assert b"canary" not in answer
    assert upstream.calls == []


def test_a_reader_that_leaves_and_one_that_does_not_read_are_told_of_without_content(
    service: RunningService, upstream: ScriptedUpstream
) -> None:
    address = urlsplit(service.url)
    body = msgspec.json.encode(QUESTION)
    fields = f"Authorization: Bearer {CLIENT_KEY}\r\nContent-Type: application/json\r\nContent-Length: "
    head = f"POST /ask HTTP/1.1\r\nHost: localhost\r\n{fields}{len(body)}\r\n\r\n".encode()
    upstream.answer(*[Say("canary" * 10_000)] * 150, Silence())
    with socket.create_connection((address.hostname, address.port)) as connection:
        connection.sendall(head + body)
        service.wait_for_log("client.stalled")
    upstream.answer(SPOKEN, Silence())
    with socket.create_connection((address.hostname, address.port)) as connection:
        connection.sendall(head + body)
        assert connection.recv(65_536)
    service.wait_for_log("answer.abandoned")


def test_an_answer_that_is_stopped_and_one_that_a_shutdown_ends_are_told_of_without_content(
    upstream: ScriptedUpstream, service: RunningService
) -> None:
    upstream.answer(SPOKEN, Silence())
    link = post(service, Prefer="respond-async").headers["location"]
    check_silent(plain_http.delete(service.url + link, timeout=30))
    check_silent(plain_http.get(service.url + link, timeout=30))
    gate = threading.Event()
    upstream.answer(SPOKEN, Hold(gate), Finish())
    with plain_http.stream(
        "POST", f"{service.url}/ask", json=QUESTION, headers=BEARER, timeout=30
    ) as response:
        upstream.wait_for_calls(2)
        service.process.send_signal(signal.SIGTERM)
        body = b"".join(response.iter_raw())
    gate.set()
    last = parse_sse(body)[-1][1]
    assert last["error"] == "server_draining"
    assert "canary" not in str(last)
