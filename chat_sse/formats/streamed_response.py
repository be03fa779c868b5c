"""A response that takes its time and is no event stream, and ends when nobody takes it any more.

The text and the JSON format decide what their head says only when the answer has begun, or is whole. Until
then, and while they send, the client must be watched: when it leaves, the answer has one reader less.
"""

from starlette.responses import Response
from starlette.types import Message, Receive, Scope, Send

from chat_sse.formats.base import Delivery, Reading
from chat_sse.formats.client_stream import ClientStream

# `no-transform` and `X-Accel-Buffering` keep proxies from holding the answer back. `nosniff` does so with
# browsers, which otherwise wait for the first kilobyte of a plain text to guess what it is.
HEADERS = {
    "Cache-Control": "no-cache, no-transform",
    "X-Accel-Buffering": "no",
    "X-Content-Type-Options": "nosniff",
}


class StreamedResponse(Response):
    """Sends what `produce` makes of a reading, and stops when the client leaves or takes no more bytes.

    Raising ChatError before the first byte makes it the HTTP response. HEAD is answered without reading.
    """

    def __init__(self, reading: Reading, delivery: Delivery, media_type: str) -> None:
        self.status_code = 200
        self.media_type = media_type
        self.background = None
        self.reading = reading
        self._delivery = delivery
        self.init_headers({**reading.headers, **HEADERS})

    async def produce(self, client: ClientStream) -> None:
        """Send the head and the body. Returning without the body's end breaks the connection."""
        raise NotImplementedError

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Respond."""
        if scope["method"] == "HEAD":
            await send(self.head())
            await send({"type": "http.response.body"})
            return
        async with ClientStream(
            scope,
            receive,
            send,
            stream_id=self.reading.stream_id,
            send_timeout_seconds=self._delivery.send_timeout_seconds,
        ) as client:
            await self.produce(client)

    def head(self) -> Message:
        """Give the status and the headers."""
        return {"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers}
