"""HTTP/1.1 over one connection: from a request's bytes to its reply's, with nothing between but the parser.

What arrives is handed on in the loop's own call: no task is woken for it.
"""

import asyncio
from collections.abc import Mapping
from functools import lru_cache
from typing import Any, Protocol, cast

import httptools

# A head is a kilobyte or two; one that outgrows this is none, and must not fill the memory.
MAX_HEAD_BYTES = 65_536
# How long a complete answer's end is waited for, so that the connection can be used again.
EOF_SECONDS = 1.0
# Deltas are alike in their length.
REMEMBERED_SIZES = 1024


class Body(Protocol):
    """Receives a reply's body. Must not raise."""

    def data(self, data: bytes) -> None:
        """Called with what has arrived, without its chunked coding."""
        ...


class Receiver(Protocol):
    """Receives one reply. Its methods must not raise; after `end` none is called."""

    def begin(self, status: int, headers: Mapping[str, str]) -> Body:
        """Called with the head; returns the receiver of the body. Header names are in lower case."""
        ...

    def end(self, *, lost: bool) -> None:
        """Called at the end. `lost`: the connection broke, or sent no HTTP, before the reply was complete."""
        ...


class Owner(Protocol):
    """Owns connections, and is told when they become idle or close."""

    loop: asyncio.AbstractEventLoop

    def release(self, connection: "Connection") -> None:
        """Called with a connection whose reply has ended, and which can be used again."""
        ...

    def discard(self, connection: "Connection") -> None:
        """Called with a connection that is closed."""
        ...


class _Nobody:
    """Receives what nobody waits for any more, and drops it."""

    def begin(self, status: int, headers: Mapping[str, str]) -> Body:  # noqa: ARG002 - the protocol's
        """Drop it."""
        return self

    def data(self, data: bytes) -> None:
        """Drop it."""

    def end(self, *, lost: bool) -> None:
        """Drop it."""


NOBODY = _Nobody()


class Connection(asyncio.Protocol):
    """One connection, which carries one request at a time."""

    __slots__ = (
        "_between_chunks",
        "_body",
        "_complete",
        "_delimited",
        "_head_bytes",
        "_headers",
        "_owner",
        "_parser",
        "_parts",
        "_receiver",
        "_reusable",
        "_surplus",
        "_timer",
        "_transport",
    )

    def __init__(self, owner: Owner) -> None:
        self._owner = owner
        self._parser: Any = httptools.HttpResponseParser(self)
        self._parts: list[bytes] = []
        self._receiver: Receiver | None = None
        self._body: Body = NOBODY
        self._timer: asyncio.TimerHandle | None = None
        self._headers: dict[str, str] | None  # None once they are complete
        self._between_chunks: bool
        self._expect_head()

    def ask(self, request: bytes, receiver: Receiver) -> None:
        """Send a request, head and body. `receiver` gets its reply."""
        self._receiver = receiver
        self._transport.write(request)

    def release(self, receiver: Receiver, *, complete: bool) -> None:
        """End a request early. `complete`: only the end is missing, and is waited for; else close."""
        if self._receiver is not receiver:  # the reply has ended, and the connection may carry another's
            return
        self._receiver = self._body = NOBODY
        if complete:
            self._timer = self._owner.loop.call_later(EOF_SECONDS, self.close)
        else:
            self.close()

    def set_idle(self, seconds: float) -> None:
        """Wait this long for the next request, then close."""
        self._timer = self._owner.loop.call_later(seconds, self.close)

    def resume(self) -> bool:
        """End the waiting. Returns False when the connection has been closed meanwhile."""
        self._stop_timer()
        return not self._transport.is_closing()

    def close(self) -> None:
        """Close it at once."""
        self._transport.abort()

    # Called by the loop

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's is no subclass

    def data_received(self, data: bytes) -> None:
        if self._between_chunks and (chunk := whole_chunk(data)):
            self._body.data(chunk)
            return
        if self._receiver is None:  # nobody has asked
            self.close()
            return
        if self._headers is not None:
            self._head_bytes += len(data)
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade):
            self._break_off()
            return
        if not data.endswith(b"\n"):  # perhaps within the next chunk's size
            self._between_chunks = False
        if self._parts:
            self._deliver()
        if self._complete:
            self._finish()
        elif self._headers is not None and self._head_bytes > MAX_HEAD_BYTES:
            self._break_off()

    def connection_lost(self, _: Exception | None) -> None:
        # A body that neither tells its length nor is chunked ends with its connection (RFC 9112, 6.3).
        self._end(lost=self._headers is not None or self._delimited)
        self._stop_timer()
        self._owner.discard(self)
        self._parser = None  # it refers to this object, and this object to it

    # Called by the parser

    def on_message_begin(self) -> None:
        self._surplus = self._complete  # a reply that nobody has asked for, on the heels of another

    def on_header(self, name: bytes, value: bytes) -> None:
        if self._headers is not None:  # else it is a trailer
            self._headers[name.decode("latin-1").lower()] = value.decode("latin-1")

    def on_headers_complete(self) -> None:
        status, headers = self._parser.get_status_code(), self._headers
        if status < 200 or headers is None:  # noqa: PLR2004 - informational: the reply is yet to come
            return
        self._headers = None
        self._delimited = "content-length" in headers or "transfer-encoding" in headers
        if self._receiver is not None:
            self._body = self._receiver.begin(status, headers)

    def on_chunk_header(self) -> None:
        self._between_chunks = False

    def on_chunk_complete(self) -> None:
        self._between_chunks = True

    def on_body(self, data: bytes) -> None:
        self._parts.append(data)

    def on_message_complete(self) -> None:
        if self._headers is None:
            self._complete, self._reusable = True, self._parser.should_keep_alive()
        else:
            self._expect_head()

    # Called by these

    def _expect_head(self) -> None:
        self._headers = {}
        self._head_bytes = 0
        self._delimited = self._complete = self._reusable = self._surplus = self._between_chunks = False

    def _deliver(self) -> None:
        data = self._parts[0] if len(self._parts) == 1 else b"".join(self._parts)
        self._parts.clear()
        self._body.data(data)

    def _finish(self) -> None:
        reusable = self._reusable and not self._surplus
        self._stop_timer()
        self._expect_head()
        self._end(lost=False)
        if reusable:
            self._owner.release(self)
        else:
            self.close()

    def _break_off(self) -> None:
        if self._parts:
            self._deliver()
        self._end(lost=True)
        self.close()

    def _end(self, *, lost: bool) -> None:
        receiver, self._receiver, self._body = self._receiver, None, NOBODY
        if receiver is not None:
            receiver.end(lost=lost)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


def whole_chunk(data: bytes) -> bytes:
    """Return the content where the data is exactly one chunk, else b"". Source: RFC 9112, 7.1.

    Upstreams send a delta as one chunk in one piece. The parser would need half a dozen calls for it.
    """
    line = _size_line(len(data))
    if not line or not data.endswith(b"\r\n"):
        return b""
    if not data.startswith(line) and data[: len(line)].lower() != line:
        return b""
    return data[len(line) : -2]


@lru_cache(REMEMBERED_SIZES)
def _size_line(length: int) -> bytes:
    """Return the size line of a chunk that is `length` bytes in all, or b"" where there is none."""
    for digits in range(1, 9):
        size = length - digits - 4
        if size > 0 and len(line := b"%x\r\n" % size) == digits + 2:
            return line
    return b""
