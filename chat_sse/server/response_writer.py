"""One response's way to its client, between uvicorn's protocol and the connection's transport.

- The head waits for what comes in the same turn of the loop, so that both are one write.
- `push` is uvicorn's `send` for a piece of a chunked body, as a plain call: through `send`, a delta needs a
  task that awaits it, and that task another turn.
- Whether it may be pushed, and whether the client is there, is noted when that changes. To find it out at
  each delta would touch three objects more, and to wait for it takes a task.
"""

import asyncio
from collections.abc import Callable

from uvicorn.protocols.http.httptools_impl import RequestResponseCycle


class ResponseWriter:
    """What uvicorn takes for the response's transport, and a format for its `BodyWriter`."""

    __slots__ = ("_cycle", "_held", "_loop", "_transport", "is_gone", "is_ready", "on_leave", "pushed_at")

    def __init__(self, cycle: RequestResponseCycle, loop: asyncio.AbstractEventLoop) -> None:
        self._cycle: RequestResponseCycle | None = cycle  # until its end
        self._loop = loop
        self._transport = cycle.transport
        self._held: bytes | None = None
        self.is_ready = self.is_gone = False
        self.on_leave: Callable[[], object] | None = None
        self.pushed_at = 0.0

    # uvicorn's.

    def write(self, data: bytes) -> None:
        """Write some of the response; the first of it, the head, with what follows."""
        if self._held is None:
            self._held = data
            self._loop.call_soon(self._release)
        elif self._held:
            self._held += data
            self._release()
        else:
            self._transport.write(data)

    def close(self) -> None:
        """Close the connection once all is written."""
        self._release()
        self._transport.close()

    def is_closing(self) -> bool:
        """Whether it is closed, or about to be."""
        return self._transport.is_closing()

    # A format's.

    def push(self, data: bytes) -> None:
        """Write some of the body, as `BodyWriter.push` promises."""
        self.pushed_at = self._loop.time()
        self._transport.write(b"%x\r\n%s\r\n" % (len(data), data))

    def backlog(self) -> int:
        """Tell, as `BodyWriter.backlog` promises."""
        return self._transport.get_write_buffer_size()

    def review(self) -> None:
        """Take note of what has changed: with the head, the client's pace, its leaving, and the end."""
        cycle = self._cycle
        if cycle is None:
            return
        if cycle.disconnected or cycle.response_complete:
            self._end(cycle)
        else:
            self.is_ready = bool(cycle.chunked_encoding and not (self._held or cycle.flow.write_paused))

    def _end(self, cycle: RequestResponseCycle) -> None:
        # Each refers to the other; apart, what a response is made of is freed without the collector.
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
