"""One client's connection: uvicorn's protocol on httptools, with limits that it does not have.

- Bytes of a request that are not its body, trailers and chunk sizes included: `MAX_HEAD_BYTES`, and for the
  head `receive_timeout` seconds.
- The rest of a body whose request has been answered: as many seconds.
- Requests: one at a time. What follows a running one is dropped, and the connection closes after its answer.
- Connections: `limit_concurrency`. For one more, one without a complete request is closed.

What cannot be parsed is answered with the one error body. Trailers are dropped, and an offer to upgrade is
ignored.
Sources: RFC 9112, 7.1.2 "Chunked Trailer Section", 9.3.2 "Pipelining" and 9.6 "Tear-down"; RFC 9110, 6.5.1
"Limitations on Use of Trailers" and 7.8 "Upgrade".
"""

import asyncio
import enum
import logging
import secrets
from collections.abc import Callable
from typing import Any, cast

import httptools
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol, RequestResponseCycle

from chat_sse.access.headers import RESPONSE_HEADERS
from chat_sse.api.error_responses import error_headers_and_body
from chat_sse.api.service import Service
from chat_sse.errors import ChatError, InvalidRequest, Overloaded, RequestTimeout
from chat_sse.server.request_head import MAX_HEAD_BYTES, check_head, head_too_large
from chat_sse.server.response_writer import ResponseWriter

log = logging.getLogger(__name__)

# How long a refused client may take to read the reason. Closing at once, with bytes from it unread, would
# reset the connection, and the reason would be lost.
LINGER_SECONDS = 1.0


class Receiving(enum.Enum):
    """What the client's bytes are part of. What is being sent is the state of uvicorn's cycle."""

    IDLE = enum.auto()
    """No request: none has begun, or the last one is complete."""
    HEAD = enum.auto()
    """A request line or a head's fields."""
    UPGRADE = enum.auto()
    """A complete head that offers an upgrade. It is parsed once more, without the offer."""
    BODY = enum.auto()
    """A body, its framing and its trailers."""
    REFUSED = enum.auto()
    """Nothing any more: what still comes is dropped unparsed."""


class _Pipelined(Exception):
    """Stops the parser at a request that follows a running one."""


class BoundedProtocol(HttpToolsProtocol):
    """uvicorn's protocol with the limits above."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        service: Service = self.app_state["service"]
        self._receive_seconds = service.receive_timeout_seconds
        # uvicorn would refuse in plain text, and count requests whose connection has just made room.
        self._max_connections, self.limit_concurrency = self.limit_concurrency, None
        self._deadline: asyncio.TimerHandle | None = None
        self._receiving = Receiving.IDLE
        # Bytes of this request that are not its body; and those of the current read that are not yet counted.
        self._overhead = self._uncounted = 0
        self._writer: ResponseWriter | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Start the deadline for the first request, and close another connection if there are too many."""
        super().connection_made(transport)
        self._set_deadline(self._receive_seconds, self._time_out)
        if self._max_connections is not None and len(self.connections) > self._max_connections:
            self._make_room()

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop the deadline, and tell the response's writer."""
        self._clear_deadline()
        super().connection_lost(exc)
        self._review_writer()

    def data_received(self, data: bytes) -> None:
        """Parse a read, and check afterwards what it has added to the request's overhead.

        The limit may be passed by one read, whose size the event loop bounds.
        """
        if self._receiving is Receiving.REFUSED:
            return
        self._unset_keepalive_if_required()
        self._uncounted = len(data)
        self._feed(data)
        self._overhead += self._uncounted
        if self._overhead > MAX_HEAD_BYTES:
            self._give_up(head_too_large())
        self._update_deadline()

    def _feed(self, data: bytes) -> None:
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade as exc:
            self._ignore_upgrade(data[exc.args[0] :])
        except httptools.HttpParserError as exc:
            # httptools puts there what a callback has raised.
            raised = exc.__context__
            self._refuse(raised if isinstance(raised, ChatError) else InvalidRequest("this is not HTTP/1.1"))

    def _ignore_upgrade(self, rest: bytes) -> None:
        """Parse the head once more, without the offer: with it httptools does not look at the body.

        Java's HttpClient offers h2c with every first request to a host, a POST with a body too.
        """
        fields = [field for field in self.headers if field[0] not in (b"connection", b"upgrade")]
        version = self.parser.get_http_version().encode()
        lines = [b"%s %s HTTP/%s" % (self.parser.get_method(), self.url, version)]
        lines += [b"%s: %s" % field for field in fields]
        self.parser = httptools.HttpRequestParser(self)
        self._feed(b"\r\n".join([*lines, b"", rest]))

    # Callbacks of the parser.

    def on_message_begin(self) -> None:
        """Begin a head. Raises to stop the parser while another request is being answered."""
        if self._running() is not None:
            raise _Pipelined
        self._receiving = Receiving.HEAD
        super().on_message_begin()

    def on_header(self, name: bytes, value: bytes) -> None:
        """Keep a field of the head; drop a trailer. Raises HeadTooLarge when there are too many of those.

        Merged into the head, a trailer could replace what is checked there: an address, an origin, a key.
        """
        if self._receiving is Receiving.HEAD:
            super().on_header(name, value)
            return
        self._overhead += len(name) + len(value)
        self._uncounted -= len(name) + len(value)
        if self._overhead > MAX_HEAD_BYTES:
            raise head_too_large()

    def on_headers_complete(self) -> None:
        """Check the head, and start the application unless it is to be parsed once more. Raises ChatError."""
        check_head(self.parser.get_http_version(), self.parser.get_method(), self.url, self.headers)
        if self.parser.should_upgrade():
            self._receiving = Receiving.UPGRADE
            return
        self._receiving = Receiving.BODY
        super().on_headers_complete()
        self._writer = ResponseWriter(self.cycle, self.loop)
        self.cycle.transport = cast("asyncio.Transport", self._writer)
        self.scope["state"]["body_writer"] = self._writer

    def on_body(self, body: bytes) -> None:
        """Hand a piece of the body to the application, which has a limit of its own."""
        self._uncounted -= len(body)
        super().on_body(body)

    def on_message_complete(self) -> None:
        """End the request, unless it is to be parsed once more."""
        if self._receiving is Receiving.BODY:
            self._receiving = Receiving.IDLE
            self._overhead = self._uncounted = 0
            super().on_message_complete()

    # Events that the response's writer must know of.

    def pause_writing(self) -> None:
        """Note that the client does not keep up."""
        super().pause_writing()
        self._review_writer()

    def resume_writing(self) -> None:
        """Note that the client keeps up again."""
        super().resume_writing()
        self._review_writer()

    def on_response_complete(self) -> None:
        """Note that a response has been written. What the client still owes of its request has a deadline."""
        self._review_writer()
        super().on_response_complete()
        if self._receiving is Receiving.BODY:
            self._update_deadline()

    def _review_writer(self) -> None:
        if self._writer is not None:
            self._writer.review()

    # Deadlines.

    @property
    def expendable(self) -> bool:
        """Whether closing it loses nothing but an incomplete request."""
        cycle = self._running()
        return cycle is None or (cycle.more_body and not cycle.response_started)

    def _running(self) -> RequestResponseCycle | None:
        """Return the request that is being received or answered."""
        cycle = cast("RequestResponseCycle | None", self.cycle)  # None until the first one
        return None if cycle is None or cycle.response_complete else cycle

    def _update_deadline(self) -> None:
        """Keep a deadline while the client owes bytes that no handler waits for."""
        if self._receiving is Receiving.REFUSED:
            return
        if self._running() is not None:
            self._clear_deadline()
        elif self._deadline is None:
            self._set_deadline(self._receive_seconds, self._time_out)

    def _set_deadline(self, seconds: float, action: Callable[[], object]) -> None:
        self._deadline = self.loop.call_later(seconds, action)

    def _clear_deadline(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _time_out(self) -> None:
        self._give_up(RequestTimeout(f"the head did not arrive within {self._receive_seconds:g} seconds"))

    # Refusals.

    def _give_up(self, error: ChatError) -> None:
        """Refuse what has begun, or close without a word: browsers open connections in advance."""
        if self._receiving is Receiving.IDLE and self._running() is None:
            self.transport.close()
        elif self._receiving is not Receiving.REFUSED:
            self._refuse(error)

    def _make_room(self) -> None:
        """Close a connection without a complete request: those must not keep out a client with a question."""
        for other in self.connections:
            if isinstance(other, BoundedProtocol) and other is not self and other.expendable:
                self.connections.discard(other)  # at once: closing takes until the loop's next turn
                other.transport.close()
                return
        self._refuse(Overloaded("every connection of this server is in use", retry_after=1))

    def _refuse(self, error: ChatError) -> None:
        """Read nothing more from this client, and close. Send the reason unless an answer has begun."""
        is_answered = self._receiving is Receiving.BODY and self._running() is None
        self._receiving = Receiving.REFUSED
        self._clear_deadline()
        cycle = self._running()
        if cycle is not None:
            if cycle.response_started or not cycle.more_body:
                cycle.keep_alive = False  # uvicorn closes the connection after the answer
                return
            # The fault is in the body. Its handler waits for that, and sees that the client has left.
            cycle.disconnected = True
            cycle.message_event.set()
        if not is_answered:
            self._send_error(error)
        self.transport.write_eof()
        self._set_deadline(LINGER_SECONDS, self.transport.close)

    def _send_error(self, error: ChatError) -> None:
        request_id = secrets.token_hex(8)
        headers, body = error_headers_and_body(error, request_id)
        headers |= {name.decode(): value.decode() for name, value in RESPONSE_HEADERS}
        headers |= {"content-length": str(len(body)), "connection": "close", "x-request-id": request_id}
        head = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        self.transport.write(b"%s%s\r\n%s" % (STATUS_LINE[error.status], head.encode(), body))
        log.info("connection.refused", extra={"fields": {"status": error.status, "request_id": request_id}})
