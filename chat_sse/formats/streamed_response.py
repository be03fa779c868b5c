"""A response that is no event stream and whose head waits for the answer: text and JSON.

They know their status only when the answer has begun, or is whole. Until then, and while they send, the
client is watched: when it leaves, the answer has one reader less.
"""

from starlette.responses import Response
from starlette.types import Message, Receive, Scope, Send

from chat_sse.formats.base import Delivery, Reading
from chat_sse.formats.client_stream import ClientStream

# `no-transform` and `X-Accel-Buffering` keep proxies from buffering the answer, `nosniff` keeps browsers from
# it: they wait for the first kilobyte of a plain text to guess its type.
HEADERS = {
    "Cache-Control": "no-cache, no-transform",
    "X-Accel-Buffering": "no",
    "X-Content-Type-Options": "nosniff",
}


class StreamedResponse(Response):
    """Sends what `produce` makes of a reading, and stops when the client leaves or accepts no more bytes.

    A ChatError raised before the first byte becomes the HTTP response. HEAD is answered without reading.
    """

    def __init__(self, reading: Reading, delivery: Delivery, media_type: str) -> None:
        self.status_code = 200
        self.media_type = media_type
        self.background = None
        self.reading = reading
        self._delivery = delivery
        self.init_headers({**reading.headers, **HEADERS})

    async def produce(self, client: ClientStream) -> None:
        """Send the head and the body. The connection is closed when it returns before the body's end."""
        raise NotImplementedError

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the response, then run the background task."""
        if scope["method"] == "HEAD":
            await send(self.head())
            await send({"type": "http.response.body"})
        else:
            async with ClientStream(
                scope,
                receive,
                send,
                stream_id=self.reading.stream_id,
                send_timeout_seconds=self._delivery.send_timeout_seconds,
            ) as client:
                await self.produce(client)
        if self.background is not None:
            await self.background()

    def head(self) -> Message:
        """Return the message with the status and the headers."""
        return {"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers}
