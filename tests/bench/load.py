"""The clients of the benchmark: connections that ask, count the deltas and take the times, and parse no more.

An answer is right when its status is 200, it has as many deltas as were ordered, it ends as its server's
format ends an answer, and its body is complete. Everything else is an error, told by its kind.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections import Counter
from collections.abc import Mapping
from itertools import pairwise
from typing import Any, cast

import msgspec

from tests.bench.control import Command, obey
from tests.bench.mock import MARK

CONNECT_AT_ONCE = 50
IDLE_SECONDS = 2.0  # servers close idle connections, mostly after 5 s: a question sent just then is lost
_MARK = MARK.encode()
_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
# The golden ratio spreads any number of streams evenly over the time between two deltas.
_SPREAD = 0.6180339887


class Target(msgspec.Struct, frozen=True, kw_only=True):
    """Where and how a server is asked. `question` holds `PLAN` where the mock's orders go."""

    port: int
    path: str
    headers: dict[str, str]
    question: str
    ending: str
    """What the body of a complete answer holds after its last delta."""

    def request(self, plan: str) -> bytes:
        """Make the bytes of one question."""
        body = self.question.replace("PLAN", plan).encode()
        headers = {"Content-Type": "application/json", "Accept": "text/event-stream", **self.headers}
        lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        head = f"POST {self.path} HTTP/1.1\r\nHost: 127.0.0.1:{self.port}\r\n{lines}"
        return f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body


class Connection(asyncio.Protocol):
    """A kept-alive connection with one answer under way."""

    def __init__(self, ending: bytes) -> None:
        self._ending = ending
        self.transport: asyncio.Transport
        self.lost = False
        self.first = asyncio.get_running_loop().create_future()
        self.over = asyncio.get_running_loop().create_future()
        self._reset(0)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)  # uvloop's is no subclass

    def ask(self, request: bytes, deltas: int) -> None:
        """Send a question; `over` then resolves to None or the kind of the error, `first` to seconds."""
        loop = asyncio.get_running_loop()
        self.first, self.over = loop.create_future(), loop.create_future()
        self._reset(deltas)
        self._asked_at = time.perf_counter()
        self.transport.write(request)

    def _reset(self, deltas: int) -> None:
        self._ordered = deltas
        self._head = b""
        self._body_left: int | None = None  # None: a chunked body
        self._in_body = False
        self._status = ""
        self._tail = b""
        self._last = b""
        self.deltas = 0
        self.read_at: list[float] = []
        self.idle_since = 0.0

    def data_received(self, data: bytes) -> None:
        if not self._in_body:
            self._head += data
            head, blank, data = self._head.partition(b"\r\n\r\n")
            if not blank:
                return
            self._begin(head)
        if found := data.count(_MARK):
            now = time.perf_counter()
            self.deltas += found
            self.read_at.append(now)
            if not self.first.done():
                self.first.set_result(now - self._asked_at)
        if self.deltas >= self._ordered:
            self._last += data
        self._tail = (self._tail + data)[-5:]
        if self._body_left is not None:
            self._body_left -= len(data)
        if self._body_left == 0 or (self._body_left is None and self._tail == b"0\r\n\r\n"):
            self._finish(self._judge())

    def _begin(self, head: bytes) -> None:
        self._in_body = True
        self._status = head[9:12].decode()
        if length := _LENGTH.search(head):
            self._body_left = int(length[1])

    def _judge(self) -> str | None:
        if self._status != "200":
            return f"status {self._status}"
        if self.deltas != self._ordered:
            return "deltas lost" if self.deltas < self._ordered else "too many deltas"
        return None if self._ending in self._last else "no proper end"

    def _finish(self, error: str | None) -> None:
        self._in_body = False
        self._head = b""
        self.idle_since = time.perf_counter()
        if not self.over.done():
            self.over.set_result(error)
        if not self.first.done():
            self.first.cancel()

    def connection_lost(self, _: Exception | None) -> None:
        self.lost = True
        self._finish("connection lost")


class Clients:
    """All connections to one server."""

    def __init__(self) -> None:
        self.idle: list[Connection] = []
        self.held: list[Connection] = []
        self.target: Target

    async def aim(self, order: Mapping[str, Any]) -> None:
        """Leave the last server, and take the next."""
        self.target = msgspec.convert(order["target"], Target)
        for connection in [*self.idle, *self.held]:
            connection.transport.abort()
        self.idle.clear()
        self.held.clear()

    async def run(self, order: Mapping[str, Any]) -> dict[str, Any]:
        """Ask `streams` questions, `at_once` of them at any time, and read the answers.

        `starts_apart`: seconds between two starts, for paced streams; one that takes another's place starts
        at its end. `wait`: seconds until the missing ones count as errors.
        """
        plan, streams, apart = order["plan"], order["streams"], order["starts_apart"]
        request, deltas = self.target.request(plan), int(plan.split()[2])
        step = int(plan.split()[3]) / 1_000_000
        counts: Counter[str] = Counter()
        firsts: list[float] = []
        gaps: list[float] = []
        todo = iter(range(streams))

        async def client() -> None:
            for turn, index in enumerate(todo):
                if apart and turn == 0:
                    await asyncio.sleep(index * apart + index * _SPREAD % 1 * step)
                connection, error = await self._whole(request, deltas)
                counts["answers"] += 1
                counts["deltas"] += connection.deltas if connection else 0
                if error or connection is None:
                    counts[f"error: {error}"] += 1
                    continue
                firsts.append(connection.first.result())
                at = connection.read_at
                gaps.extend(later - sooner for sooner, later in pairwise(at))

        tasks = [asyncio.create_task(client()) for _ in range(min(order["at_once"], streams))]
        _, late = await asyncio.wait(tasks, timeout=order["wait"])
        for task in late:
            task.cancel()
        for task in tasks:
            if not task.cancelled() and task not in late:
                task.result()
        if missing := streams - counts["answers"]:
            counts["error: timeout"] += missing
        return {"counts": counts, "firsts": firsts, "gaps": gaps}

    async def _whole(self, request: bytes, deltas: int) -> tuple[Connection | None, str | None]:
        try:
            connection = await self._connection()
        except OSError as exc:
            return None, f"connecting: {type(exc).__name__}"
        try:
            connection.ask(request, deltas)
            error: str | None = await connection.over
        except asyncio.CancelledError:
            connection.transport.abort()
            raise
        if not connection.lost:
            self.idle.append(connection)
        return connection, error

    async def _connection(self) -> Connection:
        while self.idle:
            connection = self.idle.pop()
            if not connection.lost and time.perf_counter() - connection.idle_since < IDLE_SECONDS:
                return connection
            connection.transport.abort()
        loop = asyncio.get_running_loop()
        ending = self.target.ending.encode()
        _, made = await loop.create_connection(lambda: Connection(ending), "127.0.0.1", self.target.port)
        return made

    async def hold(self, order: Mapping[str, Any]) -> dict[str, Any]:
        """Open held streams until there are `streams`, each with its first delta."""
        request = self.target.request("bench held 0 0")
        todo = iter(range(order["streams"] - len(self.held)))
        errors: Counter[str] = Counter()

        async def client() -> None:
            for _ in todo:
                try:
                    connection = await self._connection()
                    self.held.append(connection)
                    connection.ask(request, 2**62)
                    await connection.first
                except OSError as exc:
                    errors[f"error: connecting: {type(exc).__name__}"] += 1
                except asyncio.CancelledError:
                    if not (connection.over.done() and connection.over.result()):
                        raise
                    errors[f"error: {connection.over.result()}"] += 1

        tasks = [asyncio.create_task(client()) for _ in range(CONNECT_AT_ONCE)]
        _, late = await asyncio.wait(tasks, timeout=order["wait"])
        for task in late:
            task.cancel()
        if missing := order["streams"] - sum(connection.deltas > 0 for connection in self.held):
            errors["error: not opened"] = max(0, missing - errors.total())
        return {"counts": +errors}

    async def count(self, _: Mapping[str, Any]) -> dict[str, int]:
        """Tell how many deltas the held streams have had, and how many of them live."""
        return {
            "deltas": sum(connection.deltas for connection in self.held),
            "open": sum(connection.deltas > 0 and not connection.over.done() for connection in self.held),
        }


async def _commands() -> Mapping[str, Command]:
    clients = Clients()
    return {"aim": clients.aim, "run": clients.run, "hold": clients.hold, "count": clients.count}


if __name__ == "__main__":
    obey(_commands)
