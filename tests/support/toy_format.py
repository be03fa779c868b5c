"""A wire format of a test's own, and the service with it: what a new format takes is all in this file."""

from collections.abc import Sequence

from starlette.responses import Response

from chat_sse import formats
from chat_sse.events import Delta, decode_event
from chat_sse.formats.base import Format, Reading
from chat_sse.formats.client_stream import ClientStream
from chat_sse.formats.streamed_response import StreamedResponse


def shout(entries: Sequence[bytes]) -> str:
    """Return the deltas' text in capitals."""
    events = map(decode_event, entries)
    return "".join(event.content.upper() for event in events if isinstance(event, Delta))


class ShoutStream(StreamedResponse):
    """Sends the text in capitals, as it comes."""

    async def produce(self, client: ClientStream) -> None:
        """Send the head, and then each piece."""
        await client.begin(self.head())
        async for entries in self.reading.follow(None):
            await client.send(shout(entries).encode())
        await client.last(b"")


class ShoutFormat(Format):
    """The text in capitals."""

    name = "shout"
    media_type = "text/x-shout"
    resumable = False
    has_ids = False
    summary = "Loud"
    schema = {"type": "string"}  # noqa: RUF012 - a constant

    def respond(self, reading: Reading) -> Response:
        """Return a response that shouts."""
        return ShoutStream(reading, self._delivery, self.media_type)

    @staticmethod
    def example(entries: Sequence[bytes]) -> str:
        """Return the text in capitals."""
        return shout(entries)


formats.FORMATS += (ShoutFormat,)  # the line that a format of our own has in FORMATS

from chat_sse.app import create_app  # noqa: E402 - a format of our own is registered before anything runs

__all__ = ["create_app"]
