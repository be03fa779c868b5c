"""The bare answer: what `useChat({streamProtocol: "text"})` of AI SDK 4, `curl` and `fetch` read.

Plain text cannot carry an error, so an answer that is not whole must not end like a whole one. An error
before the first delta is an HTTP error. After it, or when the answer is stopped, the connection is closed
without the end of the chunked body, which every client reports (RFC 9112, 8 "Handling Incomplete Messages").
"""

import logging
from collections.abc import Sequence
from contextlib import aclosing
from typing import ClassVar

from starlette.responses import Response

from chat_sse.errors import ChatError
from chat_sse.events import Delta, Done, Failure, Terminal, decode_event, error_of, failure
from chat_sse.formats.base import Format, Json, Reading
from chat_sse.formats.client_stream import ClientStream
from chat_sse.formats.streamed_response import StreamedResponse

log = logging.getLogger(__name__)


def encode(entries: Sequence[bytes]) -> tuple[bytes, Terminal | None]:
    """Return the text of the deltas among some entries, and the terminal event if it is one of them."""
    events = [decode_event(entry) for entry in entries]
    text = "".join(event.content for event in events if isinstance(event, Delta))
    last = events[-1] if events else None
    return text.encode(), last if isinstance(last, Terminal) else None


def is_whole(end: Terminal | None) -> bool:
    """Return whether an answer is complete, so that its body may end normally."""
    return isinstance(end, Done) and end.finish_reason != "cancelled"


class TextStream(StreamedResponse):
    """Sends its head with the first delta, and ends its body normally only when the answer is whole."""

    async def produce(self, client: ClientStream) -> None:
        """Send the deltas as they come. Raises ChatError when the answer fails before the first one."""
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


class TextFormat(Format):
    """The bare text, without an id or a finish reason."""

    name = "text"
    media_type = "text/plain"
    resumable = False
    has_ids = False
    summary = "The text alone"
    schema: ClassVar[Json] = {"type": "string"}

    def respond(self, reading: Reading) -> Response:
        """Return a response that sends the text as it comes."""
        return TextStream(reading, self._delivery, self.media_type)

    @staticmethod
    def example(entries: Sequence[bytes]) -> str:
        """Return the text of a whole answer."""
        return encode(entries)[0].decode()
