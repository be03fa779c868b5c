"""The scripted upstream does what its scripts say: every other test about the network leans on it."""

import asyncio
import http.client
import json
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from typing import Any

import httpx2
import openai
import pytest

from tests.support import plain_http
from tests.support.upstream import (
    DEFAULT_USAGE,
    Accept,
    Chunk,
    Cut,
    Eof,
    Finish,
    Hold,
    Pause,
    Raw,
    Reason,
    Refuse,
    Say,
    ScriptedUpstream,
    Silence,
    Split,
)

ASK: dict[str, Any] = {
    "model": "gpt-4o-mini",
    "messages": [{"role": "user", "content": "Hello!"}],
    "stream": True,
    "stream_options": {"include_usage": True},
}


@pytest.fixture
def upstream() -> Iterator[ScriptedUpstream]:
    with ScriptedUpstream() as upstream:
        yield upstream


def ask(upstream: ScriptedUpstream, body: dict[str, Any] = ASK) -> httpx2.Response:
    return plain_http.post(f"{upstream.base_url}/chat/completions", json=body, timeout=5)


def dial(upstream: ScriptedUpstream) -> socket.socket:
    """Ask over a bare socket, which is returned unread."""
    client = socket.create_connection(("127.0.0.1", upstream.port), timeout=5)
    body = json.dumps(ASK).encode()
    client.sendall(b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(body))
    client.sendall(body)
    return client


def read_to_end(client: socket.socket) -> bytes:
    return b"".join(iter(lambda: client.recv(65536), b""))


def read_until(client: socket.socket, mark: bytes) -> bytes:
    received = b""
    while mark not in received and (data := client.recv(65536)):
        received += data
    assert mark in received
    return received


def events(response: httpx2.Response) -> list[Any]:
    """The events' JSON; `[DONE]` stays a string."""
    data = [event.removeprefix("data: ") for event in response.text.split("\n\n")[:-1]]
    return [json.loads(item) if item != "[DONE]" else item for item in data]


def test_an_answer_has_the_chunks_of_openai(upstream: ScriptedUpstream) -> None:
    upstream.answer(Reason("Hm"), Say("Hel"), Say("lo"), Finish("length"))
    response = ask(upstream)
    role, thought, first, second, finish, usage, done = events(response)
    assert response.headers["content-type"] == "text/event-stream; charset=utf-8"
    assert role["choices"][0]["delta"] == {"role": "assistant", "content": "", "refusal": None}
    assert thought["choices"][0]["delta"] == {"reasoning_content": "Hm"}
    assert [chunk["choices"][0]["delta"]["content"] for chunk in (first, second)] == ["Hel", "lo"]
    assert finish["choices"] == [{"index": 0, "delta": {}, "logprobs": None, "finish_reason": "length"}]
    assert (usage["choices"], usage["usage"]) == ([], DEFAULT_USAGE)
    assert {chunk["id"] for chunk in (role, first, finish, usage)} == {upstream.calls[0].id}
    assert {chunk["model"] for chunk in (role, first, finish, usage)} == {"gpt-4o-mini"}
    assert (finish["usage"], done) == (None, "[DONE]")


async def test_the_openai_client_reads_it(upstream: ScriptedUpstream) -> None:
    async with openai.AsyncOpenAI(api_key="sk-test", base_url=upstream.base_url) as client:
        models = [model.id async for model in client.models.list()]
        stream = await client.chat.completions.create(**ASK)
        chunks = [chunk async for chunk in stream]
    assert models == ["gpt-4o-mini"]
    assert "".join(c.choices[0].delta.content or "" for c in chunks if c.choices) == "Hello there!"
    assert chunks[-1].usage.total_tokens == 18
    assert upstream.calls[0].headers["authorization"] == "Bearer sk-test"
    assert upstream.calls[0].body == ASK


def test_usage_comes_only_when_asked_for(upstream: ScriptedUpstream) -> None:
    chunks = events(ask(upstream, {**ASK, "stream_options": None}))
    assert all("usage" not in chunk for chunk in chunks[:-1])


def test_a_finished_answer_keeps_its_connection(upstream: ScriptedUpstream) -> None:
    upstream.answer_next(Refuse(500))
    upstream.answer_next(Say("no finish reason"), Eof())
    with plain_http.Client(timeout=5) as client:
        for _ in range(4):
            client.post(f"{upstream.base_url}/chat/completions", json=ASK)
    assert upstream.accepted_connections == 1
    assert [call.connection_number for call in upstream.calls] == [1, 1, 1, 1]


def test_a_pooled_connection_can_be_cut_on_cue(upstream: ScriptedUpstream) -> None:
    gate = threading.Event()
    upstream.answer(Say("Hi"), Finish(), Hold(gate), Cut())
    with dial(upstream) as client:
        assert read_until(client, b"0\r\n\r\n")
        gate.set()
        assert client.recv(1) == b""


def test_refused_calls_are_not_paid(upstream: ScriptedUpstream) -> None:
    upstream.answer_next(Refuse(429, headers={"Retry-After": "7"}))
    upstream.answer_next(Pause(0.001), Refuse(502, b"<h1>Bad Gateway</h1>"))
    refused, gateway, answered = (ask(upstream) for _ in range(3))
    assert (refused.status_code, refused.headers["retry-after"]) == (429, "7")
    assert refused.json()["error"]["code"] == "rate_limit_exceeded"
    assert (gateway.headers["content-type"], gateway.text) == ("text/html", "<h1>Bad Gateway</h1>")
    assert answered.status_code == 200
    assert [call.paid for call in upstream.calls] == [False, False, True]
    assert upstream.paid_calls == 1


def test_a_call_that_is_not_a_stream_is_refused_and_takes_no_script(upstream: ScriptedUpstream) -> None:
    upstream.answer_next(Say("queued"), Finish())
    assert ask(upstream, {**ASK, "stream": False}).status_code == 400
    assert "queued" in ask(upstream).text
    assert upstream.paid_calls == 1


def test_a_call_never_answered_is_paid(upstream: ScriptedUpstream) -> None:
    upstream.answer(Silence())
    with dial(upstream):
        [call] = upstream.wait_for_calls(1)
        assert (call.paid, call.gone, call.finished) == (True, False, False)
    assert call.wait_gone()
    assert not call.finished


def test_a_cut_is_a_fin_in_the_middle_of_the_body(upstream: ScriptedUpstream) -> None:
    upstream.answer(Say("Hel"), Cut())
    with dial(upstream) as client:
        received = read_to_end(client)
    assert b'"Hel"' in received
    assert not received.endswith(b"0\r\n\r\n")
    with pytest.raises(httpx2.RemoteProtocolError):
        ask(upstream)


def test_a_call_is_accepted_before_anything_is_said(upstream: ScriptedUpstream) -> None:
    gate = threading.Event()
    upstream.answer(Accept(headers={"x-more": "1"}), Hold(gate), Say("late"), Finish())
    client = http.client.HTTPConnection("127.0.0.1", upstream.port, timeout=5)
    client.request("POST", "/v1/chat/completions", json.dumps(ASK))
    response = client.getresponse()
    assert (response.status, response.getheader("x-more")) == (200, "1")
    assert not upstream.calls[0].finished
    gate.set()
    assert b"late" in response.read()
    assert upstream.calls[0].wait_finished()
    assert not upstream.calls[0].gone
    client.close()


def test_the_head_can_lie(upstream: ScriptedUpstream) -> None:
    upstream.answer(Accept(content_type="text/html"), Raw(b"<html>"), Eof())
    response = ask(upstream)
    assert (response.status_code, response.headers["content-type"]) == (200, "text/html")
    assert response.content == b"<html>"


def test_raw_bytes_and_chunks_go_out_as_they_are(upstream: ScriptedUpstream) -> None:
    upstream.answer(Raw(b": \xff\n\n"), Chunk({"error": {"message": "no"}}), Eof())
    assert ask(upstream).content == b': \xff\n\ndata: {"error":{"message":"no"}}\n\n'


def test_split_bytes_arrive_in_pieces(upstream: ScriptedUpstream) -> None:
    upstream.answer(Accept(), Split(2), Raw("Grüße".encode()), Eof())
    with plain_http.stream("POST", f"{upstream.base_url}/chat/completions", json=ASK, timeout=5) as response:
        pieces = list(response.iter_raw())
    assert pieces == [b"Gr", b"\xc3\xbc", b"\xc3\x9f", b"e"]


def test_a_split_head_is_whole_in_the_end(upstream: ScriptedUpstream) -> None:
    upstream.answer(Split(1), Say("Hi"), Finish())
    response = ask(upstream)
    assert response.headers["content-type"] == "text/event-stream; charset=utf-8"
    assert events(response)[-1] == "[DONE]"


def test_a_client_that_leaves_is_seen_at_once(upstream: ScriptedUpstream) -> None:
    upstream.answer(Say("Hel"), Silence())
    with dial(upstream) as client:
        read_until(client, b'"Hel"')
    assert upstream.calls[0].wait_gone()


async def test_many_answers_hold_at_one_gate(upstream: ScriptedUpstream) -> None:
    gate = threading.Event()
    upstream.answer(Accept(), Hold(gate), Say("go"), Finish())
    limits = httpx2.Limits(max_connections=None)
    async with plain_http.AsyncClient(timeout=20, limits=limits) as client, asyncio.TaskGroup() as group:
        asks = [
            group.create_task(client.post(f"{upstream.base_url}/chat/completions", json=ASK))
            for _ in range(100)
        ]
        await asyncio.to_thread(upstream.wait_for_calls, 100, 20)
        gate.set()
    assert all("[DONE]" in task.result().text for task in asks)
    assert upstream.accepted_connections == upstream.paid_calls == 100


def test_it_stops_with_calls_in_flight() -> None:
    with ScriptedUpstream() as upstream:
        upstream.answer_next(Silence())
        upstream.answer_next(Say("Hel"), Hold(threading.Event()), Finish())
        upstream.answer_next(*[Raw(b"x" * 2**20)] * 64, Eof())  # more than a client takes that does not read
        clients = [dial(upstream) for _ in range(3)]
        calls = upstream.wait_for_calls(3)
    assert not any(call.gone for call in calls)
    assert not any(thread.name == "scripted-upstream" for thread in threading.enumerate())
    for client in clients:
        client.close()


def test_it_stops_while_connections_arrive() -> None:
    for _ in range(10):
        with ScriptedUpstream() as upstream:
            clients = [socket.create_connection(("127.0.0.1", upstream.port), timeout=5) for _ in range(20)]
        for client in clients:
            client.close()


def test_it_listens_again_on_the_same_port(upstream: ScriptedUpstream) -> None:
    with ScriptedUpstream() as once:
        port = once.port
        ask(once)
    with pytest.raises(httpx2.ConnectError):
        ask(once)
    with once:
        assert ask(once).is_success
    assert (once.port, once.paid_calls) == (port, 2)


def test_a_gate_nobody_sets_fails_the_test() -> None:
    with (
        pytest.RaisesGroup(pytest.RaisesExc(TimeoutError, match="nobody set the gate")),
        ScriptedUpstream(patience_seconds=0.01) as upstream,
    ):
        upstream.answer(Hold(threading.Event()), Finish())
        with dial(upstream) as client:
            assert read_to_end(client) == b""


def test_a_script_without_an_end_is_a_mistake(upstream: ScriptedUpstream) -> None:
    with pytest.raises(ValueError, match="how it ends"):
        upstream.answer(Say("Hel"))
    with pytest.raises(ValueError, match="nothing follows"):
        upstream.answer(Cut(), Say("Hel"))


def test_a_wait_for_calls_that_never_come_is_bounded(upstream: ScriptedUpstream) -> None:
    with pytest.raises(TimeoutError, match="0 calls instead of 1"):
        upstream.wait_for_calls(1, timeout=0.01)


def test_it_runs_by_hand() -> None:
    command = [sys.executable, "-m", "tests.support.upstream", "--text", "Hi you"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            base_url = process.stdout.readline().strip()
            response = plain_http.post(f"{base_url}/chat/completions", json=ASK, timeout=5)
        finally:
            process.terminate()
    assert [event["choices"][0]["delta"].get("content") for event in events(response)[1:3]] == ["Hi", " you"]
