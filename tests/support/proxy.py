"""A bad network: a TCP proxy before the service that cuts or resets a client's connection on cue.

It runs in a thread with an event loop of its own, as the scripted upstream does, and copies bytes as
they are. A test says after how many or after which bytes of the service's answer each next connection dies:

    with BadNetwork(service.url) as network:
        network.cut_next(after=700)
        ...                        # the client talks to network.url, reconnects, and is left alone then
        network.wait_for_cuts(1)
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
import threading
from collections import deque
from types import TracebackType
from typing import Self
from urllib.parse import urlsplit

import msgspec

START_SECONDS = 5.0
STOP_SECONDS = 5.0
PIECE_BYTES = 65_536


class Cue(msgspec.Struct, frozen=True, kw_only=True):
    """When and how one connection ends."""

    after: int | bytes
    """How many bytes of the service's answer, its head included, still arrive, or the last that do."""
    reset: bool
    """A RST, which also destroys what the client has not read yet; or else a FIN."""

    def end_in(self, answer: bytes | bytearray) -> int | None:
        """Find how much of an answer still arrives; None while that is more than came so far."""
        if isinstance(self.after, int):
            return self.after if len(answer) >= self.after else None
        start = answer.find(self.after)
        return start + len(self.after) if start >= 0 else None


class BadNetwork:
    """A proxy on a free loopback port; a context manager that ends with all its connections closed."""

    def __init__(self, target_url: str) -> None:
        self._target = urlsplit(target_url)
        self._changed = threading.Condition()
        self._cues: deque[Cue] = deque()
        self._cuts = 0
        self._connections = 0
        self._requests: list[str] = []
        self._open: set[socket.socket] = set()
        self._answered = bytearray()
        self._started = threading.Event()
        self._loop: asyncio.AbstractEventLoop
        self._stopped: asyncio.Event

    def cut_next(self, *, after: int | bytes, reset: bool = True) -> None:
        """Let the next connection that has no cue yet die after so many bytes, or after these."""
        with self._changed:
            self._cues.append(Cue(after=after, reset=reset))

    def lead_to(self, target_url: str) -> None:
        """Lead to another server from the next connection on."""
        self._target = urlsplit(target_url)

    def cut_all(self) -> None:
        """Close every open connection now, such as a browser's, which it uses again and again."""
        self._loop.call_soon_threadsafe(self._cut_open)

    @property
    def connections(self) -> int:
        """How many connections were accepted."""
        with self._changed:
            return self._connections

    @property
    def request_lines(self) -> list[str]:
        """The first line of each connection, which tells how the client came back."""
        with self._changed:
            return list(self._requests)

    @property
    def answered(self) -> bytes:
        """What the service sent, over all connections, cut off or not."""
        with self._changed:
            return bytes(self._answered)

    def wait_for_cuts(self, count: int, timeout: float = 20.0) -> None:
        """Block until so many connections have died on cue. Raises TimeoutError."""
        with self._changed:
            if not self._changed.wait_for(lambda: self._cuts >= count, timeout):
                raise TimeoutError(f"{self._cuts} cuts instead of {count} in {timeout} s")

    def wait_for_connections(self, count: int, timeout: float = 20.0) -> None:
        """Block until so many connections have sent a request. Raises TimeoutError."""
        with self._changed:
            if not self._changed.wait_for(lambda: len(self._requests) >= count, timeout):
                raise TimeoutError(f"{self._requests} instead of {count} requests in {timeout} s")

    def __enter__(self) -> Self:
        listener = socket.create_server(("127.0.0.1", 0), backlog=128)
        self.port: int = listener.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve(listener)), daemon=True)
        self._thread.start()
        if not self._started.wait(START_SECONDS):
            raise RuntimeError("the proxy did not start")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._loop.call_soon_threadsafe(self._stopped.set)
        self._thread.join(STOP_SECONDS)
        if self._thread.is_alive():
            raise RuntimeError("the proxy did not stop")

    async def _serve(self, listener: socket.socket) -> None:
        self._loop = asyncio.get_running_loop()
        self._stopped = asyncio.Event()
        listener.setblocking(False)
        async with asyncio.TaskGroup() as connections:
            self._loop.add_reader(listener, self._accept, listener, connections)
            self._started.set()
            await self._stopped.wait()
            self._loop.remove_reader(listener)
            for task in asyncio.all_tasks() - {asyncio.current_task()}:
                task.cancel()
        listener.close()

    def _accept(self, listener: socket.socket, connections: asyncio.TaskGroup) -> None:
        with contextlib.suppress(BlockingIOError, ConnectionAbortedError):  # gone before it was accepted
            client, _ = listener.accept()
            with self._changed:
                self._connections += 1
                cue = self._cues.popleft() if self._cues else None
            carrying = connections.create_task(self._carry(client, cue))
            carrying.add_done_callback(lambda _: client.close())  # also before its first step

    async def _carry(self, client: socket.socket, cue: Cue | None) -> None:
        """Copy both ways until one side closes, or the cue comes."""
        client.setblocking(False)
        service = socket.socket()
        service.setblocking(False)
        with client, service, contextlib.suppress(OSError):
            await self._loop.sock_connect(service, (self._target.hostname, self._target.port))
            there = asyncio.create_task(self._there(client, service))
            back = asyncio.create_task(self._back(service, client, cue))
            self._open.add(client)
            try:
                await asyncio.wait([there, back], return_when=asyncio.FIRST_COMPLETED)
            finally:
                self._open.discard(client)
                for copying in (there, back):
                    copying.cancel()
                await asyncio.gather(there, back, return_exceptions=True)

    async def _there(self, client: socket.socket, service: socket.socket) -> None:
        first = True
        while data := await self._loop.sock_recv(client, PIECE_BYTES):
            if first:
                with self._changed:
                    self._requests.append(data.partition(b"\r\n")[0].decode("latin-1"))
                    self._changed.notify_all()
                first = False
            await self._loop.sock_sendall(service, data)

    async def _back(self, service: socket.socket, client: socket.socket, cue: Cue | None) -> None:
        answer = bytearray()
        while data := await self._loop.sock_recv(service, PIECE_BYTES):
            with self._changed:
                self._answered += data
            passed = len(answer)
            answer += data
            end = cue.end_in(answer) if cue is not None else None
            await self._loop.sock_sendall(client, answer[passed:end])
            if cue is not None and end is not None:
                self._cut(client, cue)
                return

    def _cut_open(self) -> None:
        for client in list(self._open):
            client.shutdown(socket.SHUT_RDWR)  # wakes the copying, which then closes both sides

    def _cut(self, client: socket.socket, cue: Cue) -> None:
        if cue.reset:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        client.close()  # a FIN, or with no linger a RST
        with self._changed:
            self._cuts += 1
            self._changed.notify_all()
