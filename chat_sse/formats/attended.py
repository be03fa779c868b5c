"""A response that takes its time and is no event stream, and ends when nobody takes it any more.

The text and the JSON format decide what their head says only when the answer has begun, or is whole. Until
then, and while they send, the client must be watched: when it leaves, the answer has one reader less.
"""

import asyncio
import logging
from collections.abc import Coroutine
from typing import Any

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from chat_sse.formats.base import Delivery, Reading

log = logging.getLogger(__name__)

# `no-transform` and `X-Accel-Buffering` keep proxies from holding the answer back. `nosniff` does so with
# browsers, which otherwise wait for the first kilobyte of a plain text to guess what it is.
HEADERS = {
    "Cache-Control": "no-cache, no-transform",
    "X-Accel-Buffering": "no",
    "X-Content-Type-Options": "nosniff",
}


class Stalled(Exception):
    """The client has taken no bytes for the send timeout."""


class AttendedResponse(Response):
    """Sends what `produce` makes of a reading, and stops when the client leaves or takes no more bytes.

    Raising ChatError before the first byte makes it the HTTP response. HEAD is answered without reading.
    """

    def __init__(self, reading: Reading, delivery: Delivery, media_type: str) -> None:
        self.status_code = 200
        self.media_type = media_type
        self.background = None
        self.reading = reading
        self._send_timeout_seconds = delivery.send_timeout_seconds
        self.init_headers({**reading.headers, **HEADERS})

    async def produce(self, send: Send) -> None:
        """Send the head and the body. Returning without the body's end breaks the connection."""
        raise NotImplementedError

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Respond."""
        if scope["method"] == "HEAD":
            await self.send_head(send)
            await send({"type": "http.response.body"})
            return
        try:
            await _while_present(self.produce(send), receive)
        except Stalled:
            log.info("client.stalled", extra={"fields": {"id": self.reading.stream_id}})

    async def send_head(self, send: Send) -> None:
        """Send the status and the headers."""
        head = {"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers}
        await self._send(send, head)

    async def send_body(self, send: Send, body: bytes, *, more: bool) -> None:
        """Send a piece of the body. `more`: whether it goes on."""
        await self._send(send, {"type": "http.response.body", "body": body, "more_body": more})

    async def _send(self, send: Send, message: dict[str, Any]) -> None:
        try:
            async with asyncio.timeout(self._send_timeout_seconds):
                await send(message)
        except TimeoutError:
            raise Stalled from None


async def _while_present(work: Coroutine[Any, Any, None], receive: Receive) -> None:
    """Do the work until it is done or the client has left."""
    working = asyncio.create_task(work)
    leaving = asyncio.create_task(_disconnect(receive))
    try:
        await asyncio.wait((working, leaving), return_when=asyncio.FIRST_COMPLETED)
        if working.done():
            working.result()
    finally:
        working.cancel()
        leaving.cancel()
        await asyncio.wait((working, leaving))


async def _disconnect(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
