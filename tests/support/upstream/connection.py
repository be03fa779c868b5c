"""One client's connection, framed by h11."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
from typing import TYPE_CHECKING

import h11

from tests.support.upstream.answer import Answer
from tests.support.upstream.bodies import error_body, model_list
from tests.support.upstream.calls import Call, Ledger
from tests.support.upstream.constants import IDLE_SECONDS, STOP_SECONDS
from tests.support.upstream.steps import Split
from tests.support.upstream.unread import has_unread

if TYPE_CHECKING:
    from tests.support.upstream.server import Gates


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

    async def cut(self) -> None:
        """Send a FIN, and wait for it, but not long for a client that does not take what is left."""
        self._closing = True
        self._transport.close()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(STOP_SECONDS / 2):
                await self._lost.wait()

    async def reset(self) -> None:
        """Send a RST. It destroys what the client has not read yet, which therefore is waited for."""
        own = self._transport.get_extra_info("socket")
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(STOP_SECONDS / 2):
                while has_unread(own):  # noqa: ASYNC110 - nobody tells
                    await asyncio.sleep(0.001)
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
            await self.cut()

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
