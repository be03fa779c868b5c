"""Server-sent events: one event of the log, one event on the wire.

Source: WHATWG HTML, "9.2 Server-sent events". Events are unnamed, so that `onmessage` sees them all. The id
is an event's last line: fetch-event-source takes an event for seen as soon as it has read that line, and
after a cut before the data it would resume behind one that it never had.
"""

from collections.abc import Sequence
from contextlib import aclosing

import msgspec
from sse_starlette import EventSourceResponse
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from chat_sse.errors import ChatError
from chat_sse.events import failure, is_terminal
from chat_sse.formats.base import Delivery, Reading
from chat_sse.formats.client_stream import BodyWriter, ClientStream

# How long EventSource waits before it reconnects. It rides on the first event: on a block of its own it would
# make an empty event in some clients.
RETRY = b"retry: 2000\n"

# A comment line without the blank line after it: with one, several clients see an empty event.
HEARTBEAT = b": hb\n"

# An entry, the stream's part of its id, its number.
_BLOCK = b"data: %s%s%d\n\n"


class Encoder:
    """Encodes one reading batch by batch, in the log's order; subscribes to what is appended meanwhile."""

    __slots__ = ("writer",)

    writer: BodyWriter
    """Where that goes; to be set before."""

    def encode(self, entries: Sequence[bytes]) -> bytes:
        """Encode consecutive entries as one piece for one write."""
        raise NotImplementedError

    def encode_fault(self, event: bytes) -> bytes:
        """Encode the error with which this reading alone ends: the log goes on without it."""
        raise NotImplementedError

    def deliver(self, entries: Sequence[bytes]) -> bool:
        """Send entries as they come, without waking the request's task, while the client keeps up."""
        writer = self.writer
        if not writer.is_ready:
            return False
        writer.push(self.encode(entries))
        return True

    def deliver_entry(self, entry: bytes) -> bool:
        """Send one, as most come."""
        return self.deliver((entry,))


class SseEncoder(Encoder):
    """Encodes one reading's entries, from its first one on."""

    __slots__ = ("_id", "_next")

    def __init__(self, stream_id: str, first: int) -> None:
        self._id = f"\nid: {stream_id}.".encode()
        self._next = first

    def encode(self, entries: Sequence[bytes]) -> bytes:
        """Encode consecutive entries as one piece for one write."""
        first, head = self._next, self._id
        self._next = first + len(entries)
        blocks = b"".join([_BLOCK % (entry, head, seq) for seq, entry in enumerate(entries, first)])
        return RETRY + blocks if first == 0 else blocks

    def deliver_entry(self, entry: bytes) -> bool:
        """Send one, as most come: `deliver` in a single call."""
        writer, seq = self.writer, self._next
        if not writer.is_ready or seq == 0:  # the first one has more to tell
            return False
        self._next = seq + 1
        writer.push(_BLOCK % (entry, self._id, seq))
        return True

    def encode_fault(self, event: bytes) -> bytes:
        """Encode it without an id: the client's last event id stays the place from which it can resume."""
        return b"data: %s\n\n" % event


HEADERS = (
    # Without the charset that Starlette adds: it is always UTF-8, and some clients compare the whole.
    (b"content-type", b"text/event-stream"),
    (b"cache-control", b"no-cache, no-transform"),
    (b"x-accel-buffering", b"no"),
)


class EventStream(EventSourceResponse):
    """sse-starlette's response with this service's headers, and `ClientStream` instead of its four tasks.

    What it protects stays: the client's leaving is noticed, heartbeats are sent, a client that takes no bytes
    is cut after the send timeout, and HEAD is answered without a stream. A shutdown ends the log, and so the
    stream: see `Relay.drain`.
    """

    def __init__(
        self,
        reading: Reading,
        encoder: Encoder,
        delivery: Delivery,
        headers: Sequence[tuple[bytes, bytes]] = (),
    ) -> None:
        # Not the base's: what it prepares for its tasks, and for headers of any kind, cost as much as an
        # answer's way through the log.
        self.status_code = 200
        self.background = None
        told = [(name.lower().encode(), value.encode()) for name, value in reading.headers.items()]
        self.raw_headers = [*HEADERS, *headers, *told]
        self._reading = reading
        self._encoder = encoder
        self._delivery = delivery

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Respond."""
        head = {"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers}
        if scope["method"] == "HEAD":
            await send(head)
            await send({"type": "http.response.body"})
            return
        async with (
            ClientStream(
                scope,
                receive,
                send,
                stream_id=self._reading.stream_id,
                send_timeout_seconds=self._delivery.send_timeout_seconds,
                heartbeat_seconds=self._delivery.heartbeat_seconds,
                heartbeat=HEARTBEAT,
            ) as client,
            aclosing(self._reading.follow(self._encoder)) as batches,
        ):
            self._encoder.writer = client.writer
            await client.begin(head)
            try:
                async for entries in batches:
                    if is_terminal(entries[-1]):  # the body's end travels with it
                        await client.last(self._encoder.encode(entries))
                        break
                    await client.send(self._encoder.encode(entries))
            except ChatError as exc:
                event = msgspec.json.encode(failure(exc, self._reading.request_id))
                await client.last(self._encoder.encode_fault(event))


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
        return EventStream(reading, SseEncoder(reading.stream_id, reading.after + 1), self._delivery)
