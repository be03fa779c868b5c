"""HTTP/1.1 to one server: from a request's bytes to its reply's, with nothing in between but the parser.

It stands in for the SDK's HTTP client where a question is accepted, which is nearly always: there the client
(request objects, httpx2, aiohttp) would cost more than all the rest, per request and per delta. It knows no
proxies, no redirects and no retries, and gives up at the first fault; its caller then goes the SDK's way.

What arrives is handed on in the loop's own call: no task is woken for it.
"""

import asyncio
import socket
import ssl
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any, Protocol, cast

import aiohappyeyeballs
import httptools

# A head is a kilobyte or two; one that outgrows this is none, and must not fill the memory.
MAX_HEAD_BYTES = 65_536
# For how long a name's addresses are believed; aiohttp's figure.
ADDRESS_SECONDS = 10.0
# RFC 8305, 5: "Connection Attempt Delay".
HAPPY_EYEBALLS_SECONDS = 0.25
# When all has been said, the reply's end is still to come; then the connection can be used again.
EOF_SECONDS = 1.0
# Deltas are alike in their length.
REMEMBERED_SIZES = 1024


class Body(Protocol):
    """Takes a reply's body. Must not raise."""

    def data(self, data: bytes) -> None:
        """Take what has arrived of it, without its chunked coding."""
        ...


class Receiver(Protocol):
    """Takes one reply. Its methods must not raise; after `end` none is called."""

    def begin(self, status: int, headers: Mapping[str, str]) -> Body:
        """Take the head, and say who takes the body. Names are in lower case."""
        ...

    def end(self, *, lost: bool) -> None:
        """Take the end. `lost`: the connection broke, or spoke no HTTP, before the reply was complete."""
        ...


class _Nobody:
    """Takes what comes after all has been said."""

    def begin(self, status: int, headers: Mapping[str, str]) -> Body:  # noqa: ARG002 - the protocol's
        """Let it pass."""
        return self

    def data(self, data: bytes) -> None:
        """Let it pass."""

    def end(self, *, lost: bool) -> None:
        """Let it pass."""


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
        "_parser",
        "_parts",
        "_receiver",
        "_reusable",
        "_surplus",
        "_timer",
        "_transport",
        "_wire",
    )

    def __init__(self, wire: "Wire") -> None:
        self._wire = wire
        self._parser: Any = httptools.HttpResponseParser(self)
        self._parts: list[bytes] = []
        self._receiver: Receiver | None = None
        self._body: Body = NOBODY
        self._timer: asyncio.TimerHandle | None = None
        self._headers: dict[str, str] | None  # None once they are complete
        self._expect_head()

    def ask(self, request: bytes, receiver: Receiver) -> None:
        """Send a request, head and body, and have its reply received."""
        self._receiver = receiver
        self._transport.write(request)

    def leave(self, receiver: Receiver, *, said: bool) -> None:
        """Be done with a request. `said`: nothing is missing but the reply's end; else it is cut off."""
        if self._receiver is not receiver:  # the reply has ended, and the connection may carry another's
            return
        self._receiver = self._body = NOBODY
        if said:
            self._timer = self._wire.loop.call_later(EOF_SECONDS, self.close)
        else:
            self.close()

    def rest(self, seconds: float) -> None:
        """Wait for the next request, so long."""
        self._timer = self._wire.loop.call_later(seconds, self.close)

    def resume(self) -> bool:
        """End the rest. False when it has been closed meanwhile."""
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
        self._wire.forget(self)
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
            self._wire.keep(self)
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
    """Give the content of what is one chunk and no more, or b"". Source: RFC 9112, 7.1.

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
    """Give the line with which one chunk of so many bytes in all begins, or b"" where there is none."""
    for digits in range(1, 9):
        size = length - digits - 4
        if size > 0 and len(line := b"%x\r\n" % size) == digits + 2:
            return line
    return b""


class Wire:
    """All connections to one server. As many as there are requests; a few seconds' rest between two."""

    def __init__(
        self, host: str, port: int, tls: ssl.SSLContext | None, *, connect_seconds: float, rest_seconds: float
    ) -> None:
        self.loop = asyncio.get_running_loop()
        self._host, self._port, self._tls = host, port, tls
        self._connect_seconds, self._rest_seconds = connect_seconds, rest_seconds
        self._resting: list[Connection] = []
        self._all: set[Connection] = set()
        self._addresses: Sequence[Any] = ()
        self._addresses_until = 0.0

    async def connection(self) -> Connection:
        """Give a connection that nobody uses, the last used one first. Raises OSError, TimeoutError."""
        while self._resting:
            connection = self._resting.pop()
            if connection.resume():
                return connection
        async with asyncio.timeout(self._connect_seconds):
            return await self._connect()

    def keep(self, connection: Connection) -> None:
        """Take a connection back whose reply has ended."""
        self._resting.append(connection)
        connection.rest(self._rest_seconds)

    def forget(self, connection: Connection) -> None:
        """Let go of a closed connection."""
        self._all.discard(connection)
        if connection in self._resting:
            self._resting.remove(connection)

    def close(self) -> None:
        """Close all connections."""
        for connection in list(self._all):
            connection.close()

    async def _connect(self) -> Connection:
        if self.loop.time() >= self._addresses_until:
            self._addresses = await self.loop.getaddrinfo(self._host, self._port, type=socket.SOCK_STREAM)
            self._addresses_until = self.loop.time() + ADDRESS_SECONDS
        transport, connection = await self.loop.create_connection(
            lambda: Connection(self),
            **await self._place(),
            ssl=self._tls,
            server_hostname=self._host if self._tls else None,
        )
        connected: socket.socket = transport.get_extra_info("socket")
        connected.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)  # a silent upstream may be a dead one
        self._all.add(connection)
        return connection

    async def _place(self) -> dict[str, Any]:
        """Tell `create_connection` where to: the only address, or the socket that won the race of several."""
        address, port, *scope = self._addresses[0][4]
        if len(self._addresses) == 1 and not any(scope):  # for a scope it has no words
            return {"host": address, "port": port}  # connecting by itself, for two thirds of the price
        connected = await aiohappyeyeballs.start_connection(
            self._addresses, happy_eyeballs_delay=HAPPY_EYEBALLS_SECONDS, loop=self.loop
        )
        return {"sock": connected}
