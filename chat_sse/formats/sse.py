"""Server-sent events: one event of the log, one event on the wire.

Source: WHATWG HTML, "9.2 Server-sent events". Events are unnamed, so that `onmessage` sees them all.
"""

import logging
from collections.abc import AsyncIterator, Sequence
from contextlib import aclosing
from typing import cast

import anyio
from sse_starlette import EventSourceResponse
from sse_starlette.sse import SendTimeoutError
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from chat_sse.formats.base import Reading

log = logging.getLogger(__name__)

# How long EventSource waits before it reconnects. It rides on the first event: on a block of its own it would
# make an empty event in some clients.
RETRY = b"retry: 2000\n"

# A comment line without the blank line after it: with one, several clients see an empty event.
HEARTBEAT = b": hb\n"


def encode(stream_id: str, first: int, entries: Sequence[bytes]) -> bytes:
    """Encode consecutive entries, the first numbered `first`, as one piece for one write."""
    head = f"id: {stream_id}.".encode()
    blocks = [b"%s%d\ndata: %s\n\n" % (head, seq, entry) for seq, entry in enumerate(entries, first)]
    if first == 0:
        blocks.insert(0, RETRY)
    return b"".join(blocks)


class EventStream(EventSourceResponse):
    """sse-starlette's response with this service's headers and heartbeat.

    It watches for the client's leaving, sends heartbeats, cuts a client that stops reading after
    `send_timeout` seconds, answers HEAD without a stream, and lets a shutdown's grace pass before it cuts.
    """

    DEFAULT_SEPARATOR = "\n"

    def __init__(self, reading: Reading, fmt: "SseFormat") -> None:
        super().__init__(
            _body(reading),
            headers={
                **reading.headers,
                # Without the charset that Starlette adds: it is always UTF-8, and some clients compare the
                # whole value.
                "Content-Type": fmt.media_type,
                "Cache-Control": "no-cache, no-transform",
            },
            ping=cast("int", fmt.heartbeat_seconds),
            ping_message_factory=cast("type", lambda: HEARTBEAT),
            send_timeout=fmt.send_timeout_seconds,
            shutdown_event=fmt.shutdown,
            shutdown_grace_period=fmt.shutdown_grace_seconds,
        )
        del self.headers["connection"]  # hop-by-hop: it is the server's, and forbidden in HTTP/2
        self._stream_id = reading.stream_id

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Respond. A client that stops reading is cut: the body stays incomplete, so the server closes."""
        try:
            await super().__call__(scope, receive, send)
        except SendTimeoutError:
            log.info("client.stalled", extra={"fields": {"id": self._stream_id}})


async def _body(reading: Reading) -> AsyncIterator[bytes]:
    first = reading.after + 1
    async with aclosing(reading.batches) as batches:
        async for entries in batches:
            yield encode(reading.stream_id, first, entries)
            first += len(entries)


class SseFormat:
    """The default format, and the one that can do everything."""

    name = "sse"
    media_type = "text/event-stream"
    resumable = True

    def __init__(
        self,
        *,
        heartbeat_seconds: float,
        send_timeout_seconds: float,
        shutdown: anyio.Event,
        shutdown_grace_seconds: float,
    ) -> None:
        """`shutdown` is set by sse-starlette when the server begins to stop."""
        self.heartbeat_seconds = heartbeat_seconds
        self.send_timeout_seconds = send_timeout_seconds
        self.shutdown = shutdown
        self.shutdown_grace_seconds = shutdown_grace_seconds

    def respond(self, reading: Reading) -> Response:
        """Answer with the event stream."""
        return EventStream(reading, self)
