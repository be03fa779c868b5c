"""The OpenAI API, and everything that speaks its chat completions: the one place that knows the SDK.

The SDK keeps its auth, headers, retries and error classes. Its stream objects are left out: they cost some
150 µs of CPU a chunk (pydantic), tell no error from a clean end, and split on more than line ends.
`upstreams/chunks.py` reads the bytes instead.
"""

import asyncio
import logging
import re
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from email.utils import parsedate_to_datetime
from typing import Any, cast
from urllib.parse import urlsplit

import aiohttp
import httpx2
import msgspec
import openai

from chat_sse.errors import (
    UpstreamAuthentication,
    UpstreamError,
    UpstreamProtocol,
    UpstreamRateLimit,
    UpstreamRejected,
    UpstreamTimeout,
    UpstreamUnavailable,
)
from chat_sse.messages import Message, Question
from chat_sse.upstreams.base import UpstreamEvent
from chat_sse.upstreams.chunks import ChunkDecoder

log = logging.getLogger(__name__)

DEFAULT_BASE_URL = "https://api.openai.com/v1"

# After a finish_reason only usage and [DONE] are missing: some servers never send them, and a reader waits.
TAIL_SECONDS = 5.0
# After [DONE] the body's end is read, so that the connection can be used again.
EOF_SECONDS = 1.0
# uvicorn (vLLM, LiteLLM) closes an idle connection after 5 s. A question sent into that close is lost, and
# may not be sent twice; so connections are not reused after 4 s.
KEEPALIVE_SECONDS = 4.0
# The SDK would sleep up to 120 s for upstream's Retry-After with the client waiting; past this it is told.
MAX_RETRY_WAIT_SECONDS = 2.0

LOST = "the connection was lost after the request had been sent"

# Bytes are relayed as they come, so upstream must not compress them.
_HEADERS = {
    "Content-Type": "application/json",
    "Accept": "text/event-stream",
    "Accept-Encoding": "identity",
}

# Keys as OpenAI and compatible services print them, whole or masked, and bearer headers quoted in a text.
_SECRET = re.compile(r"(?i)\b(?:sk|pk|rk|gsk|xai|key)[-_][\w*.-]{6,}|bearer\s+\S+|[\w-]*\*{3,}[\w*-]*")


class OnePaidCall(openai.DefaultAioHttpClient):
    """The SDK's HTTP client, with retries only where upstream cannot have begun to answer.

    The SDK retries after every transport error, which is right while there is no connection. One that strikes
    after the request has left (a reset, a connection closed unanswered) may hide a call that is being paid
    for, so it is raised as an OpenAIError, which the SDK hands on as it is.
    """

    async def send(self, request: httpx2.Request, **options: Any) -> httpx2.Response:
        try:
            response = await super().send(request, **options)
        except (httpx2.TransportError, aiohttp.ClientError, OSError) as exc:
            if isinstance(exc.__cause__, aiohttp.ConnectionTimeoutError):
                raise
            if isinstance(exc.__cause__, aiohttp.ClientConnectorError):
                # Mapped to a timeout by the SDK's transport, which a refused connection is not.
                raise httpx2.ConnectError("cannot connect", request=request) from exc
            raise openai.APIConnectionError(message=LOST, request=request) from exc
        wait = retry_after(response.headers)
        if wait is not None and wait > MAX_RETRY_WAIT_SECONDS:
            response.headers["x-should-retry"] = "false"  # the SDK obeys this header of its own service
        return response


class OpenAIUpstream:
    """An Upstream over an OpenAI-compatible HTTP API."""

    def __init__(
        self,
        *,
        api_key: str,
        base_url: str | None = None,
        organization: str | None = None,
        project: str | None = None,
        system_prompt: str | None = None,
        connect_seconds: float = 5.0,
        max_connections: int = 0,
        models: tuple[str, ...] = (),
        headers: Mapping[str, str] | None = None,
    ) -> None:
        """Prepare the client; nothing is sent. `max_connections` 0 means no limit; the SDK's is 1,000."""
        base_url = base_url or DEFAULT_BASE_URL
        host = urlsplit(base_url).hostname or ""
        self.name = public_url(base_url)
        # OpenAI's reasoning models refuse max_tokens; many compatible servers know nothing else.
        own = host.endswith((".openai.com", ".openai.azure.com"))
        self._cap_field = "max_completion_tokens" if own else "max_tokens"
        self.models = models
        self._api_key = api_key
        self._system = [{"role": "system", "content": system_prompt}] if system_prompt else []
        # Only connecting is timed here; silence is the relay's: one timer a stream, not one a read.
        timeout = httpx2.Timeout(None, connect=connect_seconds)
        self._client = openai.AsyncOpenAI(
            api_key=api_key,
            base_url=base_url,
            organization=organization,
            project=project,
            timeout=timeout,
            default_headers=headers,
            http_client=OnePaidCall(
                timeout=timeout,
                limits=httpx2.Limits(
                    max_connections=max_connections,
                    max_keepalive_connections=None,
                    keepalive_expiry=KEEPALIVE_SECONDS,
                ),
            ),
        )

    @asynccontextmanager
    async def open(self, question: Question) -> AsyncIterator[AsyncIterator[list[UpstreamEvent]]]:
        """Ask, as `Upstream.open` promises."""
        try:
            sent = await self._client.post(
                "/chat/completions",
                cast_to=httpx2.Response,
                content=self._body(question),
                options={"headers": _HEADERS},
                stream=True,
                stream_cls=openai.AsyncStream[Any],
            )
        except openai.OpenAIError as exc:
            raise self._translate(exc) from exc
        response = cast("httpx2.Response", sent)  # `cast_to` decides it; the SDK's types do not say so
        try:
            _check_head(response)
            yield _events(response)
        finally:
            await response.aclose()

    async def aclose(self) -> None:
        """Close all connections."""
        await self._client.close()

    def _body(self, question: Question) -> bytes:
        messages: list[Message | dict[str, str]] = [*self._system, *question.messages]
        body: dict[str, Any] = {
            "model": question.model,
            "messages": messages,
            "stream": True,
            "stream_options": {"include_usage": True},
            self._cap_field: question.max_output_tokens,
        }
        if question.temperature is not None:
            body["temperature"] = question.temperature
        return msgspec.json.encode(body)

    def _translate(self, exc: openai.OpenAIError) -> UpstreamError:
        """Tell an SDK error in our own tree; this is the only place that knows both."""
        if isinstance(exc, openai.APIStatusError):
            return self._translate_status(exc)
        if isinstance(exc, openai.APITimeoutError):
            return UpstreamTimeout("upstream did not accept a connection in time")
        if isinstance(exc, openai.APIConnectionError):
            if exc.message == LOST:
                return UpstreamUnavailable("upstream closed the connection without an answer", may_cost=True)
            return UpstreamUnavailable("upstream cannot be reached")
        log.error("openai.unexpected_error", extra={"fields": {"type": type(exc).__name__}})
        return UpstreamUnavailable("the OpenAI client failed")

    def _translate_status(self, exc: openai.APIStatusError) -> UpstreamError:
        status, wait = exc.status_code, retry_after(exc.response.headers)
        details = f"upstream answered {status}: {self._scrub(_message(exc))}"
        if status in (401, 403):
            return UpstreamAuthentication(details)
        if status == 429:  # noqa: PLR2004 - HTTP's own number
            # No money left is told with the same status as too many requests, but asking again cannot help.
            return UpstreamRateLimit(details, retryable=exc.code != "insufficient_quota", retry_after=wait)
        if status in (408, 504):
            return UpstreamTimeout(details, retry_after=wait)
        if status >= 500:  # noqa: PLR2004
            return UpstreamUnavailable(details, retry_after=wait)
        return UpstreamRejected(details)

    def _scrub(self, text: str) -> str:
        """Take secrets out of upstream's words: it quotes the key that it refuses."""
        return _SECRET.sub("[secret]", text.replace(self._api_key, "[secret]"))[:500]


def _message(exc: openai.APIStatusError) -> str:
    message = exc.body.get("message") if isinstance(exc.body, dict) else None
    return message if isinstance(message, str) else "no message"


def public_url(base_url: str | None) -> str:
    """Give an upstream's URL without what might be secret in it: user, password, query."""
    parts = urlsplit(base_url or DEFAULT_BASE_URL)
    return parts._replace(netloc=parts.netloc.rpartition("@")[2], query="", fragment="").geturl()


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Read Retry-After (RFC 9110, 10.2.3: seconds or a date) or OpenAI's `retry-after-ms`, in seconds."""
    try:
        if ms := headers.get("retry-after-ms"):
            return max(0.0, float(ms) / 1000)
        text = headers.get("retry-after")
        if not text:
            return None
        if text.isdecimal():
            return float(text)
        date = parsedate_to_datetime(text)
        return max(0.0, (date - date.now(date.tzinfo)).total_seconds())
    except ValueError:
        return None


def _check_head(response: httpx2.Response) -> None:
    """Refuse a 200 that is no readable event stream. The SDK takes it for an answer of no chunks."""
    if not response.headers.get("content-type", "").startswith("text/event-stream"):
        raise UpstreamProtocol("upstream answered with something that is no event stream")
    if response.headers.get("content-encoding", "identity") != "identity":
        raise UpstreamProtocol("upstream compressed its answer unasked")


async def _events(response: httpx2.Response) -> AsyncIterator[list[UpstreamEvent]]:
    """Decode a response's body as it arrives."""
    decoder = ChunkDecoder()
    body = response.aiter_raw()
    lost = False
    while not (decoder.finished or decoder.fault):
        try:
            data = await _next(body, TAIL_SECONDS if decoder.finish_reason else None)
        except (httpx2.TransportError, aiohttp.ClientError, OSError):
            data, lost = b"", True
        if events := decoder.feed(data) if data else decoder.end():
            yield events
    if decoder.fault is not None:
        if lost:
            raise UpstreamProtocol("the connection to upstream broke before the answer was complete")
        raise decoder.fault
    if not lost:
        await _read_to_eof(body)


async def _next(body: AsyncIterator[bytes], seconds: float | None) -> bytes:
    """Read on; b"" at the end. Past `seconds`, TimeoutError (an OSError)."""
    if seconds is None:
        return await anext(body, b"")
    async with asyncio.timeout(seconds):
        return await anext(body, b"")


async def _read_to_eof(body: AsyncIterator[bytes]) -> None:
    try:
        async with asyncio.timeout(EOF_SECONDS):
            async for _ in body:
                pass
    except (httpx2.TransportError, aiohttp.ClientError, OSError):
        return  # the answer is whole; only the connection is lost, and closing the response drops it
