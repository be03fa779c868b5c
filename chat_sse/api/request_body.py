"""The question that a request carries: its body, within bounds of size and time, or its URL."""

import asyncio
from collections.abc import Callable
from typing import Any

import msgspec
from starlette.requests import ClientDisconnect, Request

from chat_sse.access.headers import header
from chat_sse.errors import InvalidRequest, RequestTimeout, UnsupportedMediaType
from chat_sse.messages import check_size


def check_media_type(request: Request) -> None:
    """Raise UnsupportedMediaType for a body that is not declared as JSON."""
    if (header(request.scope, b"content-type") or "").split(";")[0].strip().lower() != "application/json":
        raise UnsupportedMediaType("Content-Type must be application/json")


async def receive_body(
    request: Request, max_bytes: int, seconds: float, on_part: Callable[[bytes], object]
) -> None:
    """Pass the body on as it arrives. A body whose `Content-Length` is too large is refused unread.

    Raises PayloadTooLarge, RequestTimeout, ClientDisconnect and what `on_part` raises.
    """
    content_length = header(request.scope, b"content-length") or ""
    if content_length.isdecimal():
        check_size(int(content_length), max_bytes)
    size = 0
    try:
        async with asyncio.timeout(seconds):
            has_more = True
            while has_more:
                message = await request.receive()
                if message["type"] == "http.disconnect":
                    raise ClientDisconnect
                part = message.get("body", b"")
                size += len(part)
                check_size(size, max_bytes)
                on_part(part)
                has_more = message.get("more_body", False)
    except TimeoutError:
        raise RequestTimeout(f"the body did not arrive within {seconds:g} seconds") from None


def question_in_url(request: Request, max_bytes: int) -> bytes:
    """Return the body that `?q=` or `?messages=` stands for. Raises InvalidRequest and PayloadTooLarge."""
    query = request.query_params
    check_size(len(request.scope["query_string"]), max_bytes)
    if text := query.get("q"):
        messages: Any = [{"role": "user", "content": text}]
    elif text := query.get("messages"):
        try:
            messages = msgspec.json.decode(text)
        except (msgspec.DecodeError, UnicodeError, RecursionError) as exc:
            raise InvalidRequest(f"{exc} - at `?messages`") from exc
    else:
        raise InvalidRequest("ask with ?q=<text> or ?messages=<JSON>")
    return msgspec.json.encode({"messages": messages})
