"""The upstream itself: its socket, its thread, and the gates that tests open."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
import threading
from collections.abc import Callable
from types import TracebackType
from typing import Any, Self

from tests.support.upstream.calls import Call, Ledger
from tests.support.upstream.connection import Connection
from tests.support.upstream.constants import (
    BACKLOG,
    DEFAULT_PATIENCE_SECONDS,
    GATE_POLL_SECONDS,
    STOP_SECONDS,
)
from tests.support.upstream.steps import Cut, Ending, Gate, Reset, Silence, Step


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

    def answer_to(self, question: str, *steps: Step) -> None:
        """Script every call whose last message is this one, whatever else is scripted."""
        with self._ledger.changed:
            self._ledger.scripts_by_question[question] = _with_an_end(steps)

    def paid_for(self, question: str) -> int:
        """How many of the calls with this last message began a generation."""
        return sum(call.paid and call.question == question for call in self.calls)

    def forget(self) -> None:
        """Forget all calls and questions, for a run of hours."""
        with self._ledger.changed:
            self._ledger.calls.clear()
            self._ledger.targets.clear()
            self._ledger.scripts_by_question.clear()

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
