"""The scripted upstream: a real server that speaks OpenAI's streaming chat completions, on cue.

It listens on 127.0.0.1 from a thread with an event loop of its own, so that synchronous tests,
asynchronous tests and servers in other processes can all talk to it. A test says what each call gets,
step by step, down to where the bytes are split and how the connection dies; the upstream counts what the
calls would have cost and tells when a client left.

    gate = threading.Event()
    with ScriptedUpstream() as upstream:
        upstream.answer(Say("Hel"), Hold(gate), Say("lo"), Finish("stop"))
        ...
        [call] = upstream.wait_for_calls(1)
        assert call.wait_gone(timeout=5)
        assert upstream.paid_calls == 1

The waits block. In an asynchronous test say `await asyncio.to_thread(call.wait_gone)`, because the loop
they would block is the one that the code under test runs on.

By hand: `python -m tests.support.upstream --port 9000 --delay 0.2`.

The wire is HTTP/1.1 (RFC 9112), framed by h11, one chunk of the chunked body for each event. The JSON is
that of https://platform.openai.com/docs/api-reference/chat-streaming.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import secrets
import socket
import ssl
import struct
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Any, Protocol, Self

import h11
import msgspec

DEFAULT_PATIENCE_SECONDS = 30.0  # half of the suite's limit for one test, so the fault tells its own name
IDLE_SECONDS = 120.0  # longer than the clients' pools keep a connection: the server never closes it first
STOP_SECONDS = 5.0
GATE_POLL_SECONDS = 0.005
BACKLOG = 4096  # tests open thousands of streams at once

EVENT_STREAM = "text/event-stream; charset=utf-8"
DEFAULT_USAGE: dict[str, Any] = {
    "prompt_tokens": 10,
    "completion_tokens": 8,
    "total_tokens": 18,
    "prompt_tokens_details": {"cached_tokens": 0, "audio_tokens": 0},
    "completion_tokens_details": {"reasoning_tokens": 0, "audio_tokens": 0},
}


# The steps of a script.


class Step(msgspec.Struct, frozen=True):
    """One thing that an answer does; a test may add its own."""

    async def play(self, answer: Answer) -> None:
        raise NotImplementedError

    @property
    def refuses(self) -> bool:
        """Whether this makes the call an HTTP error, which OpenAI does not charge for."""
        return False


class Ending(Step, frozen=True):
    """A step after which the body says no more; each script has one."""


class Accept(Step, frozen=True):
    """Send the response head now; without it the first step that sends a body does.

    Also how to lie in the head: `Accept(content_type="text/html")`.
    """

    status: int = 200
    content_type: str = EVENT_STREAM
    headers: Mapping[str, str] = msgspec.field(default_factory=dict)

    async def play(self, answer: Answer) -> None:
        await answer.head(self.status, self.content_type, self.headers)

    @property
    def refuses(self) -> bool:
        return self.status >= 400


class Say(Step, frozen=True):
    """One chunk with this much of the answer. The first is preceded by the chunk that tells the role."""

    text: str

    async def play(self, answer: Answer) -> None:
        await answer.delta({"content": self.text})


class Reason(Step, frozen=True):
    """One chunk of the model's thinking, as vLLM, DeepSeek and llama.cpp send it."""

    text: str
    field: str = "reasoning_content"

    async def play(self, answer: Answer) -> None:
        await answer.delta({self.field: self.text})


class Chunk(Step, frozen=True):
    """One event with this JSON as it is: a tool call, a filter result, `{"error": {…}}`, nonsense."""

    data: Any

    async def play(self, answer: Answer) -> None:
        await answer.event(self.data)


class Raw(Step, frozen=True):
    """These bytes of the body: a comment, half an event, no UTF-8."""

    data: bytes

    async def play(self, answer: Answer) -> None:
        await answer.body(self.data)


class Wire(Step, frozen=True):
    """These bytes on the connection itself: a head of one's own, chunks that are none.

    Before a head and a body of this kind no other step can send one; after them `Cut` or `Silence` ends.
    """

    data: bytes

    async def play(self, answer: Answer) -> None:
        await answer.connection.write(self.data)


class Finish(Ending, frozen=True):
    """End well: the finish reason, the usage, `[DONE]`, the end of the body; the connection stays open.

    As with OpenAI, usage is a chunk of its own with no choices, and comes only to a request that set
    `stream_options.include_usage`.
    """

    reason: str | None = "stop"
    usage: Mapping[str, Any] | None = msgspec.field(default_factory=lambda: DEFAULT_USAGE)
    done: bool = True

    async def play(self, answer: Answer) -> None:
        await answer.delta({}, finish_reason=self.reason)
        if self.usage is not None and answer.call.wants_usage:
            await answer.usage(self.usage)
        if self.done:
            await answer.body(b"data: [DONE]\n\n")
        await answer.end()


class Eof(Ending, frozen=True):
    """End the body as HTTP wants it, with nothing more said; the connection stays open."""

    async def play(self, answer: Answer) -> None:
        await answer.end()


class Refuse(Ending, frozen=True):
    """Send an HTTP error instead of an answer, with OpenAI's error JSON unless a body is given.

    The default 401 quotes the whole key, where OpenAI masks its middle, so that whoever passes the text on
    is found out.
    """

    status: int
    body: Any = None
    headers: Mapping[str, str] = msgspec.field(default_factory=dict)

    async def play(self, answer: Answer) -> None:
        body = error_body(self.status, answer.call) if self.body is None else self.body
        await answer.whole(self.status, body, self.headers)

    @property
    def refuses(self) -> bool:
        return self.status >= 400


class Cut(Ending, frozen=True):
    """Close the connection with a FIN and without the end of the body.

    First in a script: before the head. After `Finish`: the connection that the client has just pooled.
    """

    async def play(self, answer: Answer) -> None:
        answer.connection.cut()


class Reset(Ending, frozen=True):
    """Close the connection with a RST, before the head or anywhere after it."""

    async def play(self, answer: Answer) -> None:
        answer.connection.reset()


class Silence(Ending, frozen=True):
    """Say nothing more until the client leaves, or until the upstream loses patience and hangs up."""

    async def play(self, answer: Answer) -> None:
        await asyncio.sleep(answer.patience_seconds)
        answer.connection.cut()


class Pause(Step, frozen=True):
    """Wait this long."""

    seconds: float

    async def play(self, answer: Answer) -> None:  # noqa: ARG002
        await asyncio.sleep(self.seconds)


class Gate(Protocol):
    """Where a script waits for its test: an Event of threading, asyncio or multiprocessing is one."""

    def is_set(self) -> bool: ...


class Hold(Step, frozen=True):
    """Wait until the test sets the gate. Never set, it fails the test when the upstream stops."""

    gate: Gate

    async def play(self, answer: Answer) -> None:
        try:
            async with asyncio.timeout(answer.patience_seconds):
                await answer.connection.gates.opened(self.gate)
        except TimeoutError:
            raise TimeoutError(f"nobody set the gate of Hold in {answer.patience_seconds} s") from None


class Split(Step, frozen=True):
    """Write all that follows in pieces of so many bytes, each a TCP segment and a chunk of the body.

    A client that reads late may still find several in one read; its HTTP library sees the chunks apart. With
    a gap, an idle client reads each alone.
    """

    size: int
    gap_seconds: float = 0.0

    async def play(self, answer: Answer) -> None:
        answer.split = self


DEFAULT_ANSWER: tuple[Step, ...] = (Say("Hello"), Say(" there"), Say("!"), Finish())


# What a test reads.


class Call:
    """A request for a completion that arrived whole, and what became of it."""

    def __init__(self, path: str, headers: dict[str, str], content: bytes, connection_number: int) -> None:
        self.path = path
        self.target = path  # with the query
        self.headers = headers  # names in lower case
        self.content = content
        self.connection_number = connection_number  # from 1, in the order of accepting
        self.received_at = time.monotonic()
        self.id = f"chatcmpl-{secrets.token_hex(12)}"
        self.paid = False
        try:
            self.body: Any = msgspec.json.decode(content)
        except msgspec.DecodeError:
            self.body = None
        self._gone = threading.Event()
        self._finished = threading.Event()

    @property
    def streams(self) -> bool:
        return isinstance(self.body, dict) and self.body.get("stream") is True

    @property
    def wants_usage(self) -> bool:
        return self.streams and (self.body.get("stream_options") or {}).get("include_usage") is True

    @property
    def gone(self) -> bool:
        """Whether the client closed or reset its connection before the script was played out."""
        return self._gone.is_set()

    @property
    def finished(self) -> bool:
        """Whether the script was played out, however it ended."""
        return self._finished.is_set()

    def wait_gone(self, timeout: float = 5.0) -> bool:
        """Block until the client left early. False: it did not within `timeout` seconds."""
        return self._gone.wait(timeout)

    def wait_finished(self, timeout: float = 5.0) -> bool:
        """Block until the script was played out. False: it was not within `timeout` seconds."""
        return self._finished.wait(timeout)

    def leave(self) -> None:
        if not self.finished:
            self._gone.set()

    def finish(self) -> None:
        self._finished.set()

    def __repr__(self) -> str:
        state = "gone" if self.gone else "finished" if self.finished else "open"
        return f"<Call {self.id} {state}{' paid' if self.paid else ''}>"


class Ledger:
    """What was scripted, what was called and what went wrong: all that the two threads share."""

    def __init__(self, models: tuple[str, ...], patience_seconds: float) -> None:
        self.models = models
        self.patience_seconds = patience_seconds
        self.faults: list[BaseException] = []
        self.changed = threading.Condition()
        self.script = DEFAULT_ANSWER
        self.next_scripts: deque[tuple[Step, ...]] = deque()
        self.calls: list[Call] = []
        self.accepted_connections = 0
        self.targets: list[str] = []

    def connect(self) -> int:
        """Count a connection; its number is returned."""
        with self.changed:
            self.accepted_connections += 1
            return self.accepted_connections

    def enter(self, call: Call) -> tuple[Step, ...]:
        """Enter a call and what it costs; the script that it gets is returned."""
        with self.changed:
            script = self._script_for(call)
            call.paid = not any(step.refuses for step in script)
            self.calls.append(call)
            self.changed.notify_all()
            return script

    def _script_for(self, call: Call) -> tuple[Step, ...]:
        if not call.streams:
            return (Refuse(400, {"error": {"message": "Only streaming requests are scripted."}}),)
        return self.next_scripts.popleft() if self.next_scripts else self.script


class ScriptedUpstream:
    """The server and its script; a context manager, which entered again listens on the same port.

    Leaving it closes every connection, calls in flight or not, and raises an ExceptionGroup of what went
    wrong in the scripts (a gate nobody set, a step after the end), unless the test already failed.

    `patience_seconds` bounds each wait for a gate, for a client to leave a Silence, and for one to read.
    """

    def __init__(
        self,
        *,
        port: int = 0,
        models: tuple[str, ...] = ("gpt-4o-mini",),
        patience_seconds: float = DEFAULT_PATIENCE_SECONDS,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self.port = port
        self._tls = tls
        self._ledger = Ledger(models, patience_seconds)
        self._started: threading.Event
        self._loop: asyncio.AbstractEventLoop
        self._stopped: asyncio.Event
        self._thread: threading.Thread

    @property
    def base_url(self) -> str:
        """What OPENAI_BASE_URL is set to."""
        origin = f"https://localhost:{self.port}" if self._tls else f"http://127.0.0.1:{self.port}"
        return f"{origin}/v1"

    def answer(self, *steps: Step) -> None:
        """Script every call from now on that `answer_next` has not scripted."""
        with self._ledger.changed:
            self._ledger.script = _with_an_end(steps)

    def answer_next(self, *steps: Step) -> None:
        """Script one call: the next one, or the one after those already queued."""
        with self._ledger.changed:
            self._ledger.next_scripts.append(_with_an_end(steps))

    @property
    def calls(self) -> list[Call]:
        """Requests for completions that arrived whole, oldest first."""
        with self._ledger.changed:
            return list(self._ledger.calls)

    @property
    def targets(self) -> list[str]:
        """Paths with their queries of all requests, those to unknown paths too, oldest first."""
        with self._ledger.changed:
            return list(self._ledger.targets)

    @property
    def paid_calls(self) -> int:
        """How many of the calls began a generation: all but those whose script is an HTTP error."""
        return sum(call.paid for call in self.calls)

    @property
    def accepted_connections(self) -> int:
        """How many TCP connections were accepted: fewer than calls when the client reuses them."""
        with self._ledger.changed:
            return self._ledger.accepted_connections

    def wait_for_calls(self, count: int, timeout: float = 5.0) -> list[Call]:
        """Block until there are `count` calls and return all there are. Raises TimeoutError."""
        with self._ledger.changed:
            calls = self._ledger.calls
            if not self._ledger.changed.wait_for(lambda: len(calls) >= count, timeout):
                raise TimeoutError(f"{len(calls)} calls instead of {count} in {timeout} s")
            return list(calls)

    def __enter__(self) -> Self:
        listener = socket.create_server(("127.0.0.1", self.port), backlog=BACKLOG)
        self.port = listener.getsockname()[1]
        self._started = threading.Event()
        self._thread = threading.Thread(
            target=lambda: asyncio.run(self._serve(listener)), name="scripted-upstream", daemon=True
        )
        self._thread.start()
        if not self._started.wait(STOP_SECONDS):
            raise RuntimeError("the scripted upstream did not start")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._loop.call_soon_threadsafe(self._stopped.set)
        self._thread.join(2 * STOP_SECONDS)
        if self._thread.is_alive():
            raise RuntimeError("the scripted upstream did not stop")
        if self._ledger.faults and error is None:
            raise BaseExceptionGroup("the scripted upstream could not play its script", self._ledger.faults)

    async def _serve(self, listener: socket.socket) -> None:
        self._loop = asyncio.get_running_loop()
        self._stopped = asyncio.Event()
        gates, tasks = Gates(), set[asyncio.Task[None]]()
        listener.setblocking(False)
        async with Door(listener, lambda: Connection(self._ledger, gates, tasks), self._tls):
            self._started.set()
            await self._stopped.wait()
        await gates.close()
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks, timeout=STOP_SECONDS)


def _with_an_end(steps: tuple[Step, ...]) -> tuple[Step, ...]:
    if not any(isinstance(step, Ending) for step in steps):
        raise ValueError("a script says how it ends: Finish, Eof, Refuse, Cut, Reset or Silence")
    if any(isinstance(step, Cut | Reset | Silence) for step in steps[:-1]):
        raise ValueError("nothing follows Cut, Reset or Silence")
    return steps


# The server's side.


class Door:
    """Accepts connections while it is open; after that each has been handed over, and none is lost.

    asyncio's own Server drops the sockets it is just accepting when it is closed (Python 3.11).
    """

    def __init__(
        self, listener: socket.socket, connect: Callable[[], Connection], tls: ssl.SSLContext | None
    ) -> None:
        self._listener = listener
        self._connect = connect
        self._tls = tls
        self._accepting: set[asyncio.Task[Any]] = set()

    async def __aenter__(self) -> None:
        asyncio.get_running_loop().add_reader(self._listener, self._accept)

    async def __aexit__(self, *exc_info: object) -> None:
        asyncio.get_running_loop().remove_reader(self._listener)
        self._listener.close()
        await asyncio.gather(*self._accepting)

    def _accept(self) -> None:
        with contextlib.suppress(BlockingIOError, ConnectionAbortedError):  # gone before it was accepted
            client, _ = self._listener.accept()
            client.setblocking(False)
            loop = asyncio.get_running_loop()
            task = loop.create_task(self._let_in(client))
            self._accepting.add(task)
            task.add_done_callback(self._accepting.discard)

    async def _let_in(self, client: socket.socket) -> None:
        # A client that does not trust the certificate, or speaks no TLS, has never come in.
        with contextlib.suppress(ssl.SSLError, ConnectionError):
            await asyncio.get_running_loop().connect_accepted_socket(self._connect, client, ssl=self._tls)


class Gates:
    """Waits for what is set in other threads, with one poll a gate however many answers it holds."""

    def __init__(self) -> None:
        self._polls: dict[Gate, asyncio.Task[None]] = {}

    async def opened(self, gate: Gate) -> None:
        if gate not in self._polls:
            self._polls[gate] = asyncio.create_task(self._poll(gate))
        await asyncio.shield(self._polls[gate])  # one answer that stops waiting leaves the others at it

    async def _poll(self, gate: Gate) -> None:
        try:
            while not gate.is_set():  # noqa: ASYNC110 - it is set by a thread that knows nothing of this loop
                await asyncio.sleep(GATE_POLL_SECONDS)
        finally:
            del self._polls[gate]  # a gate may be cleared and held at again

    async def close(self) -> None:
        polls = list(self._polls.values())
        for poll in polls:
            poll.cancel()
        await asyncio.gather(*polls, return_exceptions=True)


class Connection(asyncio.Protocol):
    """One client's connection: requests in, answers out, and when the client left."""

    def __init__(self, ledger: Ledger, gates: Gates, tasks: set[asyncio.Task[None]]) -> None:
        self.gates = gates
        self.http = h11.Connection(h11.SERVER)
        self._ledger, self._tasks = ledger, tasks
        self._call: Call | None = None
        self._closing = False
        self._arrived, self._writable, self._lost = asyncio.Event(), asyncio.Event(), asyncio.Event()
        self._writable.set()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        if transport.get_extra_info("sslcontext") is None:  # asyncio's TLS would stay paused at this limit
            transport.set_write_buffer_limits(0)  # a drained write is one that the kernel has
        self._number = self._ledger.connect()
        self._task = asyncio.create_task(self._serve())
        self._tasks.add(self._task)
        self._task.add_done_callback(self._served)

    def data_received(self, data: bytes) -> None:
        self.http.receive_data(data)
        self._arrived.set()

    def pause_writing(self) -> None:
        self._writable.clear()

    def resume_writing(self) -> None:
        self._writable.set()

    def eof_received(self) -> None:
        self._client_left()  # TCP does not tell a half-close from a close, and OpenAI's clients do only one

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002
        self._client_left()
        self._lost.set()

    def _client_left(self) -> None:
        if self._closing:
            return  # it was this side that left
        self._closing = True
        if self._call is not None:
            self._call.leave()
        self._task.cancel()

    def cut(self) -> None:
        self._closing = True
        self._transport.close()

    def reset(self) -> None:
        self._closing = True
        linger_none = struct.pack("ii", 1, 0)
        self._transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger_none)
        self._transport.abort()

    async def send(self, event: h11.Event, split: Split | None = None) -> None:
        """Write one HTTP event; the head is split here, the body already came as pieces."""
        wire = self.http.send(event) or b""
        size = split.size if split is not None and isinstance(event, h11.Response) else len(wire) or 1
        for start in range(0, len(wire), size):
            if split is not None:
                await asyncio.sleep(split.gap_seconds)  # before, so that the last byte ends the script
            await self.write(wire[start : start + size])

    async def write(self, data: bytes) -> None:
        """Write bytes as they are."""
        self._transport.write(data)
        await self._drained()

    async def _drained(self) -> None:
        if not self._writable.is_set():
            async with asyncio.timeout(self._ledger.patience_seconds):
                await self._writable.wait()

    async def _serve(self) -> None:
        try:
            while not self._closing and (received := await self._request()):
                await self._respond(*received)
                if self.http.our_state is h11.MUST_CLOSE:
                    break  # the client asked for that
                if not self._closing:
                    self.http.start_next_cycle()
        except asyncio.CancelledError:
            self._transport.abort()
            raise
        except h11.RemoteProtocolError:
            pass  # the client does not speak HTTP, and there is nothing to count
        finally:
            self.cut()
            await self._flushed()

    async def _flushed(self) -> None:
        """Wait for the close, but not long for a client that does not take what is left."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(STOP_SECONDS / 2):
                await self._lost.wait()

    def _served(self, task: asyncio.Task[None]) -> None:
        self._closing = True
        self._transport.abort()  # also for the task cancelled before its first step
        self._tasks.discard(task)
        if not task.cancelled() and (fault := task.exception()) is not None:
            self._ledger.faults.append(fault)

    async def _request(self) -> tuple[h11.Request, bytes] | None:
        """Read one request; None when none came in time."""
        request, content = None, bytearray()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(IDLE_SECONDS):
                while not isinstance(event := self.http.next_event(), h11.EndOfMessage):
                    if isinstance(event, h11.Request):
                        request = event
                    elif isinstance(event, h11.Data):
                        content += event.data
                    else:
                        await self._more()
                assert request is not None
                return request, bytes(content)
        return None

    async def _more(self) -> None:
        if self.http.they_are_waiting_for_100_continue:  # curl asks, above a megabyte
            await self.send(h11.InformationalResponse(status_code=100, headers=[]))
        await self._arrived.wait()
        self._arrived.clear()

    async def _respond(self, request: h11.Request, content: bytes) -> None:
        target = request.target.decode("ascii")
        target = target if target.startswith("/") else "/" + target.split("/", 3)[-1]  # to a proxy
        path = target.partition("?")[0]
        headers: dict[str, str] = {}
        for name, value in request.headers:
            key, text = name.decode("latin-1"), value.decode("latin-1")
            headers[key] = f"{headers[key]}, {text}" if key in headers else text
        call = Call(path, headers, content, self._number)
        self._ledger.targets.append(target)
        call.target = target
        answer = Answer(self, call, self._ledger.patience_seconds)
        match request.method, path:
            case b"POST", "/v1/chat/completions":
                await self._play(call, answer)
            case b"GET", "/v1/models":
                await answer.whole(200, model_list(self._ledger.models), {})
            case _:
                await answer.whole(404, error_body(404, call), {})

    async def _play(self, call: Call, answer: Answer) -> None:
        self._call = call
        for step in self._ledger.enter(call):
            await asyncio.sleep(0)  # other connections' turn, between steps and not within one
            await step.play(answer)
        call.finish()
        self._call = None


class Answer:
    """One call's answer on its way out: what the steps are played on."""

    def __init__(self, connection: Connection, call: Call, patience_seconds: float) -> None:
        self.connection = connection
        self.call = call
        self.patience_seconds = patience_seconds
        self.split: Split | None = None
        self._created = int(time.time())
        self._role_told = False

    async def head(self, status: int, content_type: str, headers: Mapping[str, str]) -> None:
        """Send the status and these headers, with what OpenAI adds and no client of ours may see."""
        own = {
            "content-type": content_type,
            "x-request-id": f"req_{self.call.id}",
            "openai-organization": "org-scripted",
        }
        fields = {**own, **{name.lower(): value for name, value in headers.items()}}
        await self.connection.send(h11.Response(status_code=status, headers=list(fields.items())), self.split)

    async def body(self, data: bytes) -> None:
        """Send bytes of the body, after the head."""
        await self._headed()
        size = self.split.size if self.split is not None else len(data) or 1
        for start in range(0, len(data), size):
            await self.connection.send(h11.Data(data=data[start : start + size]), self.split)

    async def event(self, data: Any) -> None:
        """Send one event with this JSON."""
        await self.body(b"data: " + msgspec.json.encode(data) + b"\n\n")

    async def delta(self, delta: dict[str, Any], finish_reason: str | None = None) -> None:
        """Send one chunk of the answer, after the one that tells the role."""
        if not self._role_told:
            self._role_told = True
            await self.event(self._chunk({"role": "assistant", "content": "", "refusal": None}, None))
        await self.event(self._chunk(delta, finish_reason))

    async def usage(self, usage: Mapping[str, Any]) -> None:
        """Send the chunk that carries the usage and no choices."""
        await self.event({**self._envelope(), "choices": [], "usage": usage})

    async def end(self) -> None:
        """End the body."""
        await self._headed()
        await self.connection.send(h11.EndOfMessage(), self.split)

    async def whole(self, status: int, body: Any, headers: Mapping[str, str]) -> None:
        """Send a response of known length: bytes as HTML, as a gateway in between does, all else as JSON."""
        plain = isinstance(body, bytes)
        content = body if plain else msgspec.json.encode(body)
        content_type = "text/html" if plain else "application/json"
        await self.head(status, content_type, {"content-length": str(len(content)), **headers})
        await self.body(content)
        await self.end()

    async def _headed(self) -> None:
        if self.connection.http.our_state is h11.SEND_RESPONSE:
            await self.head(200, EVENT_STREAM, {})

    def _envelope(self) -> dict[str, Any]:
        return {
            "id": self.call.id,
            "object": "chat.completion.chunk",
            "created": self._created,
            "model": self.call.body.get("model"),
            "service_tier": "default",
            "system_fingerprint": "fp_scripted",
        }

    def _chunk(self, delta: dict[str, Any], finish_reason: str | None) -> dict[str, Any]:
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish_reason}
        chunk = {**self._envelope(), "choices": [choice]}
        return {**chunk, "usage": None} if self.call.wants_usage else chunk


ERRORS: dict[int, tuple[str, str | None, str]] = {
    400: ("invalid_request_error", None, "The request is not valid."),
    401: ("invalid_request_error", "invalid_api_key", "Incorrect API key provided: {key}."),
    404: ("invalid_request_error", "model_not_found", "The model or the URL does not exist."),
    429: ("requests", "rate_limit_exceeded", "Rate limit reached in organization org-scripted."),
}


def error_body(status: int, call: Call) -> dict[str, Any]:
    """OpenAI's error JSON for a status, https://platform.openai.com/docs/guides/error-codes."""
    kind, code, message = ERRORS.get(status, ("server_error", None, "The server had an error."))
    key = call.headers.get("authorization", "").removeprefix("Bearer ")
    return {"error": {"message": message.format(key=key), "type": kind, "param": None, "code": code}}


def model_list(models: tuple[str, ...]) -> dict[str, Any]:
    """OpenAI's list of models."""
    data = [{"id": model, "object": "model", "created": 0, "owned_by": "scripted"} for model in models]
    return {"object": "list", "data": data}


def main() -> None:
    """Answer by hand-made requests until Ctrl-C."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.support.upstream", description="The scripted upstream."
    )
    parser.add_argument("--port", type=int, default=0, help="0 takes a free one")
    parser.add_argument("--delay", type=float, default=0.0, help="seconds before each word")
    parser.add_argument("--text", default="Hello from the scripted upstream.", help="what it answers")
    options = parser.parse_args()
    words = [Say(word) for word in options.text.split(" ")]
    words[1:] = [Say(f" {word.text}") for word in words[1:]]
    with ScriptedUpstream(port=options.port) as upstream:
        upstream.answer(
            Accept(), *(step for word in words for step in (Pause(options.delay), word)), Finish()
        )
        sys.stdout.write(f"{upstream.base_url}\n")
        sys.stdout.flush()
        with contextlib.suppress(KeyboardInterrupt):
            threading.Event().wait()


if __name__ == "__main__":
    main()
