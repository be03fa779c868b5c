"""The SDK's HTTP client, with two things of our own: one paid call, and a say in its next attempt."""

import math
from collections.abc import Callable, Mapping
from contextvars import ContextVar
from email.utils import parsedate_to_datetime
from typing import Any

import aiohttp
import httpx2
import openai

# The SDK would sleep up to 120 s for upstream's Retry-After with the client waiting; past this it is told.
MAX_RETRY_WAIT_SECONDS = 2.0

# Nobody plans further ahead; some servers say years, or infinity.
MAX_RETRY_AFTER_SECONDS = 86_400.0

LOST = "the connection was lost after the request had been sent"

NextAttempt = Callable[[httpx2.Request], httpx2.Response]

next_attempt: ContextVar[NextAttempt | None] = ContextVar("next_attempt", default=None)
"""What this task's next attempt comes to, in the place of sending it: for one that was made by other means.
The SDK then judges it, retries it and words its error as if it were its own."""


class NoDoublePayClient(openai.DefaultAioHttpClient):
    """The SDK's HTTP client, with retries only where upstream cannot have begun to answer.

    The SDK retries after every transport error, which is right while there is no connection. One that strikes
    after the request has left (a reset, a connection closed unanswered) may hide a call that is being paid
    for, so it is raised as an OpenAIError, which the SDK hands on as it is.
    """

    async def send(self, request: httpx2.Request, **options: Any) -> httpx2.Response:
        attempt = next_attempt.get()
        if attempt is not None:
            next_attempt.set(None)
            response = attempt(request)
        else:
            response = await self._send(request, **options)
        wait = retry_after(response.headers)
        if wait is not None and wait > MAX_RETRY_WAIT_SECONDS:
            response.headers["x-should-retry"] = "false"  # the SDK obeys this header of its own service
        return response

    async def _send(self, request: httpx2.Request, **options: Any) -> httpx2.Response:
        try:
            return await super().send(request, **options)
        except (httpx2.TransportError, aiohttp.ClientError, OSError) as exc:
            if isinstance(exc.__cause__, aiohttp.ConnectionTimeoutError):
                raise
            if isinstance(exc.__cause__, aiohttp.ClientConnectorError):
                # Mapped to a timeout by the SDK's transport, which a refused connection is not.
                raise httpx2.ConnectError("cannot connect", request=request) from exc
            raise openai.APIConnectionError(message=LOST, request=request) from exc


class RequestCaptured(openai.OpenAIError):
    """Carries a request that the SDK has written out of it again, unsent."""

    def __init__(self, request: httpx2.Request) -> None:
        super().__init__("written, not sent")
        self.request = request


def do_not_send(request: httpx2.Request) -> httpx2.Response:
    """Be a next attempt that only shows what would have been sent."""
    raise RequestCaptured(request)


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Return the seconds to wait by Retry-After (seconds or a date) or OpenAI's `retry-after-ms`.

    Between 0 and MAX_RETRY_AFTER_SECONDS; None where neither can be read. Source: RFC 9110, 10.2.3.
    """
    ms, text = headers.get("retry-after-ms"), headers.get("retry-after")
    seconds = _number(ms)
    if seconds is not None:
        return _bounded(seconds / 1000)
    seconds = _number(text)
    if seconds is None and text:
        try:
            date = parsedate_to_datetime(text)
            seconds = (date - date.now(date.tzinfo)).total_seconds()
        except (ValueError, OverflowError):
            return None
    return None if seconds is None else _bounded(seconds)


def _number(text: str | None) -> float | None:
    try:
        number = float(text or "")
    except ValueError:
        return None
    return None if math.isnan(number) else number


def _bounded(seconds: float) -> float:
    return min(max(seconds, 0.0), MAX_RETRY_AFTER_SECONDS)
