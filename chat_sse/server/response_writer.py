"""Writes one response: stands between uvicorn's cycle and the connection's transport.

- The head is held until the next write of the same turn of the loop, so that both are one system call.
- `push` does what uvicorn's `send` does with a piece of a chunked body, as a plain call: `send` needs a task
  that awaits it, and that task another turn of the loop for each delta.
- `is_ready` and `is_gone` are updated when they change. Reading them from uvicorn at each delta would touch
  three more objects, and waiting for them takes a task.
"""

import asyncio
from collections.abc import Callable

from uvicorn.protocols.http.httptools_impl import RequestResponseCycle


class ResponseWriter:
    """The transport that uvicorn writes to, and the `BodyWriter` that a format writes to."""

    __slots__ = ("_cycle", "_held", "_loop", "_transport", "is_gone", "is_ready", "on_leave", "pushed_at")

    def __init__(self, cycle: RequestResponseCycle, loop: asyncio.AbstractEventLoop) -> None:
        self._cycle: RequestResponseCycle | None = cycle  # None once the response has ended
        self._loop = loop
        self._transport = cycle.transport
        self._held: bytes | None = None
        self.is_ready = self.is_gone = False
        self.on_leave: Callable[[], object] | None = None
        self.pushed_at = 0.0

    # The transport, for uvicorn.

    def write(self, data: bytes) -> None:
        """Write a part of the response. The first part, the head, is held for the next one."""
        if self._held is None:
            self._held = data
            self._loop.call_soon(self._release)
        elif self._held:
            self._held += data
            self._release()
        else:
            self._transport.write(data)

    def close(self) -> None:
        """Close the connection after everything has been written."""
        self._release()
        self._transport.close()

    def is_closing(self) -> bool:
        """Return whether the connection is closed or closing."""
        return self._transport.is_closing()

    # The `BodyWriter`, for a format.

    def push(self, data: bytes) -> None:
        """Write a piece of the body. See `BodyWriter.push`."""
        self.pushed_at = self._loop.time()
        self._transport.write(b"%x\r\n%s\r\n" % (len(data), data))

    def backlog(self) -> int:
        """Return the number of bytes that are not sent yet. See `BodyWriter.backlog`."""
        return self._transport.get_write_buffer_size()

    def review(self) -> None:
        """Update `is_ready` and `is_gone`. To be called when the connection or the response has changed."""
        cycle = self._cycle
        if cycle is None:
            return
        if cycle.disconnected or cycle.response_complete:
            self._end(cycle)
        else:
            self.is_ready = bool(cycle.chunked_encoding and not (self._held or cycle.flow.write_paused))

    def _end(self, cycle: RequestResponseCycle) -> None:
        # The cycle and this object refer to each other. Separated, both are freed without the collector.
        self._cycle, cycle.transport = None, self._transport
        self.is_ready = False
        self._release()
        if cycle.disconnected:
            self.is_gone = True
            if self.on_leave is not None:
                self.on_leave()

    def _release(self) -> None:
        if self._held:
            held, self._held = self._held, b""
            self._transport.write(held)
            self.review()
