"""Child processes that obey: one JSON line in, one JSON line out, over a socket that only the two share."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import resource
import socket
import subprocess
import sys
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import msgspec
import uvloop

STOP_SECONDS = 10.0
MAX_LINE_BYTES = 2**24
BACKLOG = 4096

Command = Callable[[Mapping[str, Any]], Awaitable[Any]]


class Child:
    """A helper process. Its faults are raised here."""

    def __init__(self, process: subprocess.Popen[bytes], line: socket.socket) -> None:
        self.process = process
        self._line = line
        self._file = line.makefile("rb")

    def call(self, op: str, seconds: float = 30.0, **arguments: Any) -> Any:
        """Order something and wait for its result. Raises TimeoutError after `seconds`, RuntimeError."""
        self._line.settimeout(seconds)
        self._line.sendall(msgspec.json.encode({"op": op, **arguments}) + b"\n")
        answer = self._file.readline()
        if not answer:
            raise RuntimeError(f"{self.process.args!r} is gone")
        found = msgspec.json.decode(answer)
        if "fault" in found:
            raise RuntimeError(f"{op}: {found['fault']}")
        return found["result"]


@contextmanager
def child(module: str) -> Iterator[Child]:
    """Run `python -m <module>` until the exit."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        process = subprocess.Popen(
            [sys.executable, "-m", module, str(theirs.fileno())], pass_fds=[theirs.fileno()]
        )
        theirs.close()
        try:
            yield Child(process, ours)
        finally:
            with contextlib.suppress(OSError):
                ours.shutdown(socket.SHUT_RDWR)  # the child ends when its line does
            try:
                process.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait(STOP_SECONDS)


def obey(commands: Callable[[], Awaitable[Mapping[str, Command]]]) -> None:
    """Be a child: serve the commands until the line closes."""
    raise_open_file_limit()
    gc.disable()  # a collector's pause would look like the server's
    uvloop.run(_serve(socket.socket(fileno=int(sys.argv[1])), commands))


async def _serve(line: socket.socket, prepare: Callable[[], Awaitable[Mapping[str, Command]]]) -> None:
    commands = await prepare()
    reader, writer = await asyncio.open_connection(sock=line, limit=MAX_LINE_BYTES)
    while order := await reader.readline():
        arguments = msgspec.json.decode(order)
        try:
            answer = {"result": await commands[arguments.pop("op")](arguments)}
        except Exception as exc:  # noqa: BLE001 - told to the one who ordered it
            answer = {"fault": f"{type(exc).__name__}: {exc}"}
        writer.write(msgspec.json.encode(answer) + b"\n")
        await writer.drain()
    writer.close()


def raise_open_file_limit() -> None:
    """Take as many file descriptors as the system grants; the servers inherit it."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
