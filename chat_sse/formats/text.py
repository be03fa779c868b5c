"""The bare answer: what `useChat({streamProtocol: "text"})` of AI SDK 4, `curl` and `fetch` read.

Text has no word for a fault. So an answer that is not whole must not end as a whole one does: an error before
the first delta is an HTTP error, and after it (or when somebody stops the answer) the connection breaks
without the end of the chunked body, which every client reports (RFC 9112, 8 "Handling Incomplete Messages").
"""

import logging
from collections.abc import Sequence
from contextlib import aclosing

from starlette.responses import Response

from chat_sse.errors import ChatError
from chat_sse.events import Delta, Done, Failure, Terminal, decode_event, error_of, failure
from chat_sse.formats.base import Delivery, Reading
from chat_sse.formats.client_stream import ClientStream
from chat_sse.formats.streamed_response import StreamedResponse

log = logging.getLogger(__name__)


def encode(entries: Sequence[bytes]) -> tuple[bytes, Terminal | None]:
    """Encode entries as their deltas' text, and tell how they end, if they do."""
    events = [decode_event(entry) for entry in entries]
    text = "".join(event.content for event in events if isinstance(event, Delta))
    last = events[-1] if events else None
    return text.encode(), last if isinstance(last, Done | Failure) else None


def is_whole(end: Terminal | None) -> bool:
    """Whether an answer may end as if nothing had happened to it."""
    return isinstance(end, Done) and end.finish_reason != "cancelled"


class TextStream(StreamedResponse):
    """Holds its head back until the first delta, and its end back from an answer that is not whole."""

    async def produce(self, client: ClientStream) -> None:
        """Send the deltas as they come."""
        begun, end = False, None
        try:
            async with aclosing(self.reading.follow(None)) as batches:
                async for entries in batches:
                    text, end = encode(entries)
                    if not begun and not text and isinstance(end, Failure):
                        raise error_of(end)
                    if not begun and (text or end):
                        begun = True
                        await client.begin(self.head())
                    if text:
                        await client.send(text)
        except ChatError as exc:
            if not begun:
                raise
            end = failure(exc, self.reading.request_id)
        if is_whole(end):
            await client.last(b"")
        else:
            reason = end.error if isinstance(end, Failure) else "cancelled"
            log.warning("text.broken_off", extra={"fields": {"id": self.reading.stream_id, "reason": reason}})


class TextFormat:
    """The bare text, which tells neither an id nor a finish reason."""

    name = "text"
    media_type = "text/plain"
    resumable = False
    has_ids = False

    def __init__(self, delivery: Delivery) -> None:
        self._delivery = delivery

    def respond(self, reading: Reading) -> Response:
        """Answer with the text as it comes."""
        return TextStream(reading, self._delivery, self.media_type)
