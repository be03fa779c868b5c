"""What a client can make the service hold: attaching takes a hash, arriving bodies have a bound."""

import hashlib
import json
import socket
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from chat_sse.errors import Overloaded, TooManyRequests
from chat_sse.limits.bodies import CLIENT_SHARE, FREE_BYTES, SITE_SHARE, TOTAL_BYTES, BodyMemory
from tests.conftest import QUICK
from tests.support import plain_http
from tests.support.redis_server import RedisServer
from tests.support.service import HELLO, RunningService, ask, events, serve
from tests.support.upstream import ScriptedUpstream

MIB = 1_048_576
LARGE = b'{"messages":[{"role":"user","content":"' + b"x" * (MIB - 100)


@pytest.fixture(scope="module", params=["memory", "redis"])
def guarded(request: pytest.FixtureRequest, upstream_port: int) -> Iterator[RunningService]:
    """A service with a rate that a test can use up, behind a proxy."""
    env = {
        **QUICK,
        "OPENAI_BASE_URL": f"http://127.0.0.1:{upstream_port}/v1",
        "CHAT_SSE_TRUSTED_PROXIES": "127.0.0.1",
        "CHAT_SSE_RATE_LIMIT": "20/hour",
        "CHAT_SSE_STREAM_TTL": "300",
    }
    with ExitStack() as stack:
        if request.param == "redis":
            env["CHAT_SSE_REDIS_URL"] = stack.enter_context(RedisServer()).url
        yield stack.enter_context(serve(env))


def resident_mib(service: RunningService) -> float:
    pages = int(Path(f"/proc/{service.process.pid}/statm").read_text().split()[1])
    return pages * 4096 / MIB


def send_without_end(
    service: RunningService, address: str, key: str | None, size: int = MIB
) -> socket.socket:
    """Send a POST and all of its body but the last bytes."""
    host, _, port = service.url.removeprefix("http://").partition(":")
    client = socket.create_connection((host, int(port)), timeout=20)
    named = f"Idempotency-Key: {key}\r\n" if key else ""
    head = (
        f"POST /ask HTTP/1.1\r\nHost: {host}:{port}\r\nContent-Type: application/json\r\n"
        f"X-Forwarded-For: {address}\r\n{named}Content-Length: {size}\r\n\r\n"
    )
    client.sendall(head.encode() + LARGE[: size - 100])
    return client


def test_bodies_that_attach_are_hashed_and_not_kept(
    guarded: RunningService, upstream: ScriptedUpstream
) -> None:
    me = {"X-Forwarded-For": "203.0.113.1", "Idempotency-Key": "mine"}
    first = ask(guarded.url, headers=me)
    before = resident_mib(guarded)
    with ExitStack() as stack:
        for _ in range(100):
            stack.enter_context(send_without_end(guarded, "203.0.113.1", "mine"))
        assert resident_mib(guarded) - before < 30  # all 100 were held before: 100 MiB
        assert ask(guarded.url, headers=me).content == first.content
    assert upstream.paid_calls == 1


def test_another_questions_key_counts_and_the_right_body_attaches_all_the_same(
    guarded: RunningService, upstream: ScriptedUpstream
) -> None:
    me = {"X-Forwarded-For": "203.0.113.2", "Idempotency-Key": "second"}
    first = ask(guarded.url, headers=me)

    def another(number: int) -> dict[str, Any]:
        return {"messages": [{"role": "user", "content": f"another {number}"}]}

    statuses = [ask(guarded.url, another(number), headers=me).status_code for number in range(25)]
    assert statuses == [422] * 19 + [429] * 6
    assert ask(guarded.url, headers=me).content == first.content
    assert upstream.paid_calls == 1


def test_by_url_a_known_id_attaches_and_another_question_counts(
    guarded: RunningService, upstream: ScriptedUpstream
) -> None:
    me = {"X-Forwarded-For": "203.0.113.3"}
    first = plain_http.get(f"{guarded.url}/ask?q=Hi&id=url", headers=me)
    assert events(first)[-1]["type"] == "done"
    statuses = [
        plain_http.get(f"{guarded.url}/ask?q=Other{number}&id=url", headers=me).status_code
        for number in range(22)
    ]
    assert statuses == [422] * 19 + [429] * 3
    assert plain_http.get(f"{guarded.url}/ask?q=Hi&id=url", headers=me).content == first.content
    assert upstream.paid_calls == 1


def test_large_bodies_of_one_client_have_a_bound_and_others_are_answered(
    guarded: RunningService, upstream: ScriptedUpstream
) -> None:
    before = resident_mib(guarded)
    with ExitStack() as stack:
        clients = [stack.enter_context(send_without_end(guarded, "203.0.113.4", None)) for _ in range(15)]
        refused = [client for client in clients if _answered(client)]
        assert len(refused) == 15 - TOTAL_BYTES // CLIENT_SHARE // MIB
        assert resident_mib(guarded) - before < 30
        assert ask(guarded.url, headers={"X-Forwarded-For": "203.0.113.5"}).status_code == 200
        large = {**HELLO, "padding": "x" * (MIB // 2)}
        assert ask(guarded.url, large, headers={"X-Forwarded-For": "203.0.113.6"}).status_code == 200


def _answered(client: socket.socket) -> bool:
    client.settimeout(0.5)
    try:
        return client.recv(4096).startswith(b"HTTP/1.1 429 ")
    except TimeoutError:
        return False


def test_all_bodies_together_have_a_bound_and_small_ones_are_always_taken() -> None:
    memory = BodyMemory(MIB)
    with ExitStack() as stack:
        with pytest.raises(Overloaded):  # noqa: PT012 - the bodies end with the stack
            for number in range(1_000):
                body = stack.enter_context(memory.body(f"203.0.{number}.1"))
                body.add(b"x" * MIB)
        assert TOTAL_BYTES - MIB < memory.held <= TOTAL_BYTES
        with memory.body("198.51.100.1") as small:
            small.add(b"x" * FREE_BYTES)
    assert memory.held == 0


def test_a_sites_bodies_have_a_bound_too() -> None:
    memory = BodyMemory(MIB)
    with ExitStack() as stack:
        with pytest.raises(TooManyRequests):  # noqa: PT012
            for number in range(1_000):
                stack.enter_context(memory.body(f"2001:db8:1:{number:x}::/64")).add(b"x" * MIB)
        assert memory.held <= TOTAL_BYTES // SITE_SHARE
    assert memory.held == 0


def test_a_body_is_whole_however_it_was_cut() -> None:
    memory, content = BodyMemory(MIB), json.dumps({"a": "b" * 100_000}).encode()
    with memory.body("a") as body:
        for start in range(0, len(content), 999):
            body.add(content[start : start + 999])
        assert hashlib.sha256(body.content).digest() == hashlib.sha256(content).digest()
        assert memory.held == len(content) - FREE_BYTES
    assert memory.held == 0
