"""One client's connection, held to bounds that uvicorn's own protocol on httptools does not have.

- a request's head: 64 KiB and 100 fields, and `receive_timeout` seconds for it to arrive
- what is left of a body that nobody reads any more: as many seconds
- one request at a time: what comes behind a running one is dropped, and the connection closes after it
- as many connections as `limit_concurrency` says: for one more, one without a whole request is closed

What cannot be parsed is told in the one error body; an offer to upgrade is ignored.
Sources: RFC 9112, 9.3.2 "Pipelining" and 9.6 "Tear-down"; RFC 9110, 7.8 "Upgrade"; RFC 6585, 5 "431 Request
Header Fields Too Large".
"""

import asyncio
import logging
import math
import secrets
from typing import Any, cast

import httptools
import msgspec
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol, RequestResponseCycle

from chat_sse.api.routes import Service
from chat_sse.errors import (
    ChatError,
    HeadTooLarge,
    InvalidRequest,
    MethodNotAllowed,
    Overloaded,
    RequestTimeout,
)
from chat_sse.server.response_writer import ResponseWriter

log = logging.getLogger(__name__)

# As uvicorn's protocol on h11. A question in a URL must fit in, beside cookies and a proxy's own fields.
MAX_HEAD_BYTES = 65_536
# Browsers send some 20. Each costs more than its bytes, for as long as its answer is read.
MAX_HEADERS = 100
# How long a refused client may take to read why. Closing at once, with bytes of its unread, would reset the
# connection, and the answer with it.
LINGER_SECONDS = 1.0


class _Pipelined(Exception):
    """Stops the parser at a request behind a running one."""


class BoundedProtocol(HttpToolsProtocol):
    """uvicorn's protocol with the bounds above."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        service: Service = self.app_state["service"]
        self._receive_seconds = service.receive_timeout_seconds
        # uvicorn would refuse in plain text, and count requests whose connection has just made room.
        self._max_connections, self.limit_concurrency = self.limit_concurrency, None
        self._deadline: asyncio.TimerHandle | None = None
        self._in_head = False
        self._head_bytes = 0
        self._offers_upgrade = False
        self._fault: ChatError | None = None
        self._deaf = False
        self._writer: ResponseWriter | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin to wait for a request."""
        super().connection_made(transport)
        self._arm(self._receive_seconds)
        if self._max_connections is not None and len(self.connections) > self._max_connections:
            self._make_room()

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop waiting."""
        self._disarm()
        super().connection_lost(exc)
        self._review()

    def data_received(self, data: bytes) -> None:
        """Parse what has come."""
        if self._deaf:
            return
        self._unset_keepalive_if_required()
        was_in_head = self._in_head
        self._feed(data)
        if was_in_head and self._in_head:
            self._head_bytes += len(data)
            if self._head_bytes > MAX_HEAD_BYTES:
                self._refuse(_too_large())
        self._watch()

    def _feed(self, data: bytes) -> None:
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade as exc:
            self._ignore_upgrade(data[exc.args[0] :])
        except httptools.HttpParserError:
            self._refuse(self._fault or InvalidRequest("this is not HTTP/1.1"))

    def _ignore_upgrade(self, rest: bytes) -> None:
        """Parse the head once more, without the offer: with it httptools does not look at the body.

        Java's HttpClient offers h2c with every first request to a host, a POST with a body too.
        """
        fields = [field for field in self.headers if field[0] not in (b"connection", b"upgrade")]
        lines = [b"%s %s HTTP/1.1" % (self.parser.get_method(), self.url)]
        lines += [b"%s: %s" % field for field in fields]
        self.parser = httptools.HttpRequestParser(self)
        self._feed(b"\r\n".join([*lines, b"", rest]))

    # What the parser calls.

    def on_message_begin(self) -> None:
        """Begin a head, unless the request before it is still being answered."""
        if self._running() is not None:
            raise _Pipelined
        self._in_head, self._head_bytes = True, 0
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        """Check the head as a whole, and hand it to the application."""
        self._in_head = False
        size = len(self.url) + sum(len(name) + len(value) for name, value in self.headers)
        if size > MAX_HEAD_BYTES or len(self.headers) > MAX_HEADERS:
            self._fault = _too_large()
            raise self._fault
        self._offers_upgrade = self.parser.should_upgrade()
        if self.parser.get_method() == b"CONNECT":  # to the parser an upgrade, without a path to answer at
            self._fault = MethodNotAllowed("CONNECT")
            raise self._fault
        if not self._offers_upgrade:
            super().on_headers_complete()
            self._writer = ResponseWriter(self.cycle, self.loop)
            self.cycle.transport = cast("asyncio.Transport", self._writer)
            self.scope["state"]["body_writer"] = self._writer

    def on_message_complete(self) -> None:
        """End the request, unless it is to be parsed once more."""
        if not self._offers_upgrade:
            super().on_message_complete()

    # What a response's writer must know.

    def pause_writing(self) -> None:
        """Take note that the client does not keep up."""
        super().pause_writing()
        self._review()

    def resume_writing(self) -> None:
        """Take note that it does again."""
        super().resume_writing()
        self._review()

    def on_response_complete(self) -> None:
        """Take note of a body's end."""
        self._review()
        super().on_response_complete()

    def _review(self) -> None:
        if self._writer is not None:
            self._writer.review()

    # Time.

    @property
    def expendable(self) -> bool:
        """Whether nothing is lost with it but what its client has not finished saying."""
        cycle = self._running()
        return cycle is None or (cycle.more_body and not cycle.response_started)

    def _running(self) -> RequestResponseCycle | None:
        """Give the request that is being received or answered."""
        cycle = cast("RequestResponseCycle | None", self.cycle)  # None until the first one
        return None if cycle is None or cycle.response_complete else cycle

    def _watch(self) -> None:
        """See to it that there is a deadline while the client owes bytes that no handler waits for."""
        if self._deaf:
            return
        if self._running() is not None:
            self._disarm()
        elif self._deadline is None:
            self._arm(self._receive_seconds)

    def _arm(self, seconds: float) -> None:
        self._deadline = self.loop.call_later(seconds, self._give_up)

    def _disarm(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _give_up(self) -> None:
        """Close; silently where nobody has begun a request: browsers open connections in advance."""
        if self._in_head and not self._deaf:
            self._refuse(RequestTimeout(f"the head did not arrive within {self._receive_seconds:g} seconds"))
        else:
            self.transport.close()

    # Refusals.

    def _make_room(self) -> None:
        """Close one that has no whole request yet, so that those never keep out who has a question."""
        for other in self.connections:
            if isinstance(other, BoundedProtocol) and other is not self and other.expendable:
                self.connections.discard(other)  # at once: closing takes until the loop's next turn
                other.transport.close()
                return
        self._refuse(Overloaded("every connection of this server is in use", retry_after=1))

    def _refuse(self, error: ChatError) -> None:
        """Take no more from this client; tell it why, unless that would land inside an answer."""
        self._deaf = True
        self._disarm()
        cycle = self._running()
        if cycle is not None:
            if cycle.response_started or not cycle.more_body:
                cycle.keep_alive = False  # it closes the connection when it has been answered
                return
            # The fault is in its body. Its handler waits for that, and is told that the client has left.
            cycle.disconnected = True
            cycle.message_event.set()
        self._tell(error)
        self.transport.write_eof()
        self._arm(LINGER_SECONDS)

    def _tell(self, error: ChatError) -> None:
        request_id = secrets.token_hex(8)
        body = msgspec.json.encode(error.body(request_id))
        retry = {} if error.retry_after is None else {"retry-after": math.ceil(error.retry_after)}
        fields = {
            **retry,
            "content-type": "application/json",
            "content-length": len(body),
            "connection": "close",
            "x-request-id": request_id,
        }
        head = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
        self.transport.write(b"%s%s\r\n%s" % (STATUS_LINE[error.status], head.encode(), body))
        log.info("connection.refused", extra={"fields": {"status": error.status, "request_id": request_id}})


def _too_large() -> HeadTooLarge:
    return HeadTooLarge(f"a request's head may hold {MAX_HEAD_BYTES} bytes and {MAX_HEADERS} fields at most")
