"""Server-sent events: one event of the log, one event on the wire.

Source: WHATWG HTML, "9.2 Server-sent events". Events are unnamed, so that `onmessage` sees them all.
"""

from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing

import msgspec
from sse_starlette import EventSourceResponse
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from chat_sse.errors import ChatError
from chat_sse.events import failure
from chat_sse.formats.base import Delivery, Reading
from chat_sse.formats.presence import Presence

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
    """sse-starlette's response with this service's headers, and `Presence` in the place of its four tasks.

    What it protects stays: the client's leaving is noticed, heartbeats are sent, a client that takes no bytes
    is cut after the send timeout, and HEAD is answered without a stream. A shutdown ends the log, and so the
    stream: see `Relay.drain`.
    """

    DEFAULT_SEPARATOR = "\n"

    def __init__(
        self,
        reading: Reading,
        body: AsyncGenerator[bytes, None],
        delivery: Delivery,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        fixed = {
            # Without the charset that Starlette adds: it is always UTF-8, and some clients compare the whole.
            "Content-Type": "text/event-stream",
            "Cache-Control": "no-cache, no-transform",
        }
        super().__init__(
            body,
            headers={**reading.headers, **(headers or {}), **fixed},
            send_timeout=delivery.send_timeout_seconds,
        )
        del self.headers["connection"]  # hop-by-hop: it is the server's, and forbidden in HTTP/2
        self._body = body
        self._stream_id = reading.stream_id
        self._delivery = delivery

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Respond."""
        if scope["method"] == "HEAD":
            await super().__call__(scope, receive, send)
            return
        async with (
            aclosing(self._body) as body,
            Presence(
                receive,
                send,
                stream_id=self._stream_id,
                send_timeout_seconds=self._delivery.send_timeout_seconds,
                heartbeat_seconds=self._delivery.heartbeat_seconds,
                heartbeat=HEARTBEAT,
            ) as client,
        ):
            await client.send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
            async for data in body:
                await client.send({"type": "http.response.body", "body": data, "more_body": True})
            await client.last({"type": "http.response.body", "body": b"", "more_body": False})


async def _body(reading: Reading) -> AsyncGenerator[bytes, None]:
    first = reading.after + 1
    async with aclosing(reading.batches) as batches:
        try:
            async for entries in batches:
                yield encode(reading.stream_id, first, entries)
                first += len(entries)
        except ChatError as exc:
            # Without an id: the client's last event id stays the place from which it can resume.
            yield b"data: %s\n\n" % msgspec.json.encode(failure(exc, reading.request_id))


class SseFormat:
    """The default format, and the one that can do everything."""

    name = "sse"
    media_type = "text/event-stream"
    resumable = True
    has_ids = True

    def __init__(self, delivery: Delivery) -> None:
        self._delivery = delivery

    def respond(self, reading: Reading) -> Response:
        """Answer with the event stream."""
        return EventStream(reading, _body(reading), self._delivery)
