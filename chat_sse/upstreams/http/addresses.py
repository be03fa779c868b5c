"""The addresses of a host's name. A name server that hangs holds up only the questions for that name.

A loop's own `getaddrinfo` runs in a few threads that all names share: uvloop's in two, asyncio's in five or
more. A lookup cannot be cancelled and may take half a minute, so a few questions for one such name would make
all others wait, and the process's exit as well.
"""

import asyncio
import socket
from collections.abc import Callable, Sequence
from concurrent.futures import Executor, Future
from threading import Thread
from typing import Any

# For how long a name's addresses are believed; aiohttp's figure.
ADDRESS_SECONDS = 10.0


class ThreadEach(Executor):
    """Gives each call a thread of its own, which does not keep the process from exiting."""

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> "Future[Any]":
        future = Future[Any]()
        future.set_running_or_notify_cancel()  # nobody who gives it up can keep it from its result

        def run() -> None:
            try:
                result = fn(*args, **kwargs)
            except BaseException as exc:  # noqa: BLE001 - the caller's
                future.set_exception(exc)
            else:
                future.set_result(result)

        Thread(target=run, name="lookup", daemon=True).start()
        return future


_THREADS = ThreadEach()


class Addresses:
    """One host's. All questions that wait share one lookup, which outlives them: there is never a second."""

    def __init__(self, host: str, port: int) -> None:
        self._host, self._port = host, port
        self._loop = asyncio.get_running_loop()
        self._found: Sequence[Any] = ()
        self._believed_until = 0.0
        self._lookup: asyncio.Future[Sequence[Any]] | None = None

    async def get(self) -> Sequence[Any]:
        """Return them as `socket.getaddrinfo` does. Raises OSError."""
        if self._loop.time() >= self._believed_until:
            if self._lookup is None:
                self._lookup = self._loop.run_in_executor(_THREADS, look_up, self._host, self._port)
                self._lookup.add_done_callback(self._end)
            return await asyncio.shield(self._lookup)
        return self._found

    def close(self) -> None:
        """Wait for no lookup any more."""
        if self._lookup is not None:
            self._lookup.cancel()

    def _end(self, lookup: "asyncio.Future[Sequence[Any]]") -> None:
        self._lookup = None
        if not lookup.cancelled() and lookup.exception() is None:
            self._found = lookup.result()
            self._believed_until = self._loop.time() + ADDRESS_SECONDS


def look_up(host: str, port: int) -> Sequence[Any]:
    """Ask the system's resolver, and wait. Raises OSError."""
    try:
        return socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except UnicodeError as exc:
        raise OSError("no name of a host") from exc
