"""Server-sent events: one event of the log is one event on the wire.

Source: WHATWG HTML, "9.2 Server-sent events". Events are unnamed, so that `onmessage` sees them all. The id
is an event's last line: fetch-event-source counts an event as seen as soon as it has read that line, and
after a cut before the data it would resume behind an event that it never had.
"""

from collections.abc import AsyncGenerator, AsyncIterable, Mapping, Sequence
from contextlib import aclosing
from typing import ClassVar

import msgspec
from sse_starlette import EventSourceResponse
from starlette.background import BackgroundTask
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from chat_sse.errors import ChatError
from chat_sse.events import EVENT_ID, Start, as_ascii, failure, is_terminal
from chat_sse.formats.base import EVENT_STREAM, SCHEMA_REF, Delivery, Format, Json, Reading
from chat_sse.formats.client_stream import NO_WRITER, BodyWriter, ClientStream

# How long EventSource waits before it reconnects. It is part of the first event: in a block of its own it
# would make an empty event in some clients.
RETRY = b"retry: 2000\n"

# A comment line without the blank line after it: with one, several clients see an empty event.
HEARTBEAT = b": hb\n"

# An entry, the stream's part of its id, its number.
_BLOCK = b"data: %s%s%d\n\n"


class Encoder:
    """Encodes one reading batch by batch, in the log's order; subscribes to what is appended meanwhile."""

    __slots__ = ("ended", "writer")

    writer: BodyWriter
    """Where `deliver` writes; the response sets it."""
    ended: bool
    """Whether the last piece of the body has been encoded; the response sets it to False."""

    def encode(self, entries: Sequence[bytes]) -> bytes:
        """Return consecutive entries as one piece of the body."""
        raise NotImplementedError

    def encode_fault(self, event: bytes) -> bytes:
        """Return the error that ends this reading only: the log goes on without it."""
        raise NotImplementedError

    def deliver(self, entries: Sequence[bytes]) -> bool:
        """Write entries as they come, without waking the request's task, while the client keeps up."""
        writer = self.writer
        if not writer.is_ready:
            return False
        writer.push(self.encode(entries))
        return True

    def deliver_entry(self, entry: bytes) -> bool:
        """Write one entry, as `deliver` does."""
        return self.deliver((entry,))

    async def pieces(self, reading: Reading) -> AsyncGenerator[bytes, None]:
        """Yield what is read and was not delivered, encoded; sets `ended` with the last piece."""
        has_ended = False
        try:
            async with aclosing(reading.follow(self)) as batches:
                async for entries in batches:
                    self.ended = has_ended = is_terminal(entries[-1])
                    yield self.encode(entries)
            if not has_ended:  # it was read to its end before
                self.ended = True
                yield b""
        except ChatError as exc:
            self.ended = True
            yield self.encode_fault(as_ascii(msgspec.json.encode(failure(exc, reading.request_id))))


class NumberedEncoder(Encoder):
    """Encodes one reading's entries, from its first one on, each with its number as its id."""

    __slots__ = ("_id", "_next")

    def __init__(self, stream_id: str, first: int) -> None:
        self._id = f"\nid: {stream_id}.".encode()  # the number follows
        self._next = first


class SseEncoder(NumberedEncoder):
    """Encodes an entry as the data of one event."""

    __slots__ = ()

    def encode(self, entries: Sequence[bytes]) -> bytes:
        """Return consecutive entries as one piece of the body."""
        first, head = self._next, self._id
        self._next = first + len(entries)
        blocks = b"".join([_BLOCK % (entry, head, seq) for seq, entry in enumerate(entries, first)])
        return RETRY + blocks if first == 0 else blocks

    def deliver_entry(self, entry: bytes) -> bool:
        """Write one entry. Half the cost of `deliver`: no tuple, no list, no second call."""
        writer, seq = self.writer, self._next
        if not writer.is_ready or seq == 0:  # the first event carries `retry`
            return False
        self._next = seq + 1
        writer.push(_BLOCK % (entry, self._id, seq))
        return True

    def encode_fault(self, event: bytes) -> bytes:
        """Return the error without an id: the client's last event id stays the one to resume from."""
        return b"data: %s\n\n" % event


HEADERS = (
    # Without the charset that Starlette adds: some clients compare the whole value. See `as_ascii`.
    (b"content-type", EVENT_STREAM.encode()),
    (b"cache-control", b"no-cache, no-transform"),
    (b"x-accel-buffering", b"no"),
)


class EventStream(EventSourceResponse):
    """sse-starlette's response with this service's headers, and `ClientStream` instead of its four tasks.

    It does what its base does: a client that leaves is noticed on any ASGI server, heartbeats are sent, a
    client that accepts no bytes is cut off after `send_timeout`, HEAD is answered without a stream, and
    `background` runs at the end. It has no hooks of its own for a shutdown: that ends the log, and so the
    stream (see `Relay.drain`).

    The base's initialiser is not called. What it prepares for its tasks, and for headers of any kind, costs
    as much as an answer's way through the log. Its attributes are set here, or on the class.
    """

    status_code = 200
    media_type = EVENT_STREAM
    background: BackgroundTask | None = None
    sep = "\n"
    ping_message_factory = staticmethod(lambda: HEARTBEAT)  # type: ignore[assignment]  # the base encodes it
    data_sender_callable = None
    client_close_handler_callable = None
    active = True

    def __init__(
        self,
        reading: Reading,
        encoder: Encoder,
        delivery: Delivery,
        headers: Sequence[tuple[bytes, bytes]] = (),
        max_age_seconds: float | None = None,
    ) -> None:
        encoded = [(name.lower().encode(), value.encode()) for name, value in reading.headers.items()]
        self.raw_headers = [*HEADERS, *headers, *encoded]
        self.send_timeout: float = delivery.send_timeout_seconds
        self._max_age = max_age_seconds
        self._ping_interval = delivery.heartbeat_seconds
        self._reading = reading
        self._encoder = encoder
        encoder.writer, encoder.ended = NO_WRITER, False
        self.body_iterator: AsyncIterable[bytes] = encoder.pieces(reading)
        self._pieces = self.body_iterator

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the stream, then run the background task."""
        head = {"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers}
        if scope["method"] == "HEAD":
            await send(head)
            await send({"type": "http.response.body"})
        else:
            async with (
                ClientStream(
                    scope,
                    receive,
                    send,
                    stream_id=self._reading.stream_id,
                    send_timeout_seconds=self.send_timeout,
                    heartbeat_seconds=self.ping_interval,
                    heartbeat=HEARTBEAT,
                    max_age_seconds=self._max_age,
                ) as client,
                aclosing(self._pieces),
            ):
                await client.begin(head)
                await self._send_body(client)
            self.active = False
        if self.background is not None:
            await self.background()

    async def _send_body(self, client: ClientStream) -> None:
        encoder = self._encoder
        if self.body_iterator is self._pieces:  # else somebody wants to see every piece
            encoder.writer = client.writer
        async for piece in self.body_iterator:
            if encoder.ended:  # the body's end travels with its last piece
                await client.last(piece)
                return
            await client.send(piece)


SERVER_SENT_EVENT: Json = {
    "title": "ServerSentEvent",
    "description": "One event, as an `EventSource` reads it. Events have no name, so `onmessage` sees all. "
    "The stream is ASCII: its JSON escapes everything else.",
    "type": "object",
    "required": ["id", "data"],
    "properties": {
        "id": {
            "type": "string",
            "pattern": f"^{EVENT_ID}$",
            "description": "The answer's id and the event's number. Send the last one as `Last-Event-ID`.",
        },
        "retry": {"type": "integer", "description": "Milliseconds before a reconnect; on the first event."},
        "data": {
            "type": "string",
            "contentMediaType": "application/json",
            "contentSchema": {"$ref": SCHEMA_REF.format(name="Event")},
        },
    },
}


def stream_id_of(entries: Sequence[bytes]) -> str:
    """Return the id of the answer that begins with these entries."""
    return msgspec.json.decode(entries[0], type=Start).id


class NumberedEvents(Format):
    """A format whose events carry their numbers, so that a reader can come back after any of them."""

    media_type = EVENT_STREAM
    resumable = True
    has_ids = True
    is_sequential = True
    encoder: ClassVar[type[NumberedEncoder]]

    def respond(self, reading: Reading) -> Response:
        """Return the event stream."""
        encoder = self.encoder(reading.stream_id, reading.after + 1)
        return EventStream(reading, encoder, self._delivery, max_age_seconds=self._delivery.max_age_seconds)

    @classmethod
    def example(cls, entries: Sequence[bytes]) -> str:
        """Return the stream of a whole answer."""
        return cls.encoder(stream_id_of(entries), 0).encode(entries).decode()


class SseFormat(NumberedEvents):
    """The default format, and the one that can do everything."""

    name = "sse"
    summary = "The default"
    schema: ClassVar[Json] = {"$ref": SCHEMA_REF.format(name="ServerSentEvent")}
    components: ClassVar[Mapping[str, Json]] = {"ServerSentEvent": SERVER_SENT_EVENT}
    encoder = SseEncoder
