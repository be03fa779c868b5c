"""Chat completions over our own connections: the SDK writes the head, the reply is read as it arrives."""

import asyncio
from collections.abc import Mapping
from typing import TypeAlias

import httpx2
import msgspec

from chat_sse.errors import UpstreamTimeout, UpstreamUnavailable
from chat_sse.trace_context import TRACEPARENT
from chat_sse.upstreams.base import Listener
from chat_sse.upstreams.http.connection import Body
from chat_sse.upstreams.http.pool import ConnectionPool
from chat_sse.upstreams.openai.refusal import (
    MAX_REFUSAL_BYTES,
    REFUSAL_SECONDS,
    RETRIES,
    Refused,
    backoff_seconds,
    retry_seconds,
)
from chat_sse.upstreams.openai.sdk import tls_context
from chat_sse.upstreams.openai.stream import CompletionStream

SUCCESS = range(200, 300)
REDIRECTS = range(300, 400)

UNREACHABLE = "upstream cannot be reached"
NO_CONNECTION = "upstream did not accept a connection in time"

# Written anew for each request, or the HTTP client's business.
_NOT_KEPT = (b"content-length", b"transfer-encoding")


class Answered(msgspec.Struct, frozen=True):
    """Upstream answered, and the listener has the whole answer."""


class UseSdk(msgspec.Struct, frozen=True):
    """Upstream wants something that only the SDK's client can do, such as a redirect; nothing is paid yet."""


Outcome: TypeAlias = Answered | Refused | UseSdk


class CompletionClient:
    """Asks one server, with one head for every question.

    `written` is a request as the SDK would send it. Its connections are closed by `close`.
    """

    def __init__(
        self,
        written: httpx2.Request,
        *,
        connect_seconds: float,
        idle_seconds: float,
        secrets: tuple[str, ...] = (),
    ) -> None:
        url = written.url
        self.retries = 0  # calls that were made again
        self._secrets = secrets
        lines = [b"POST %s HTTP/1.1\r\n" % url.raw_path]
        lines += [b"%s: %s\r\n" % pair for pair in written.headers.raw if pair[0].lower() not in _NOT_KEPT]
        self._head = b"".join(lines)
        tls = tls_context() if url.scheme == "https" else None
        port = url.port or (443 if tls else 80)
        self._pool = ConnectionPool(
            url.host, port, tls, connect_seconds=connect_seconds, idle_seconds=idle_seconds
        )

    async def ask(self, body: bytes, listener: Listener) -> Outcome:
        """Ask, and ask again after what is unpaid and may pass. The listener hears the answer.

        Returns Answered, Refused or UseSdk. Raises UpstreamUnavailable or UpstreamTimeout where there is no
        connection, UpstreamError for an answer that fails, and what the listener raises.
        """
        attempt = 0
        while True:
            outcome = await self._attempt(body, listener)
            if isinstance(outcome, UpstreamUnavailable | UpstreamTimeout):
                wait: float | None = backoff_seconds(attempt)
            elif isinstance(outcome, Refused):
                wait = retry_seconds(outcome, attempt)
            else:
                return outcome
            if wait is None or attempt == RETRIES:
                break
            attempt += 1
            self.retries += 1
            await asyncio.sleep(wait)
        if isinstance(outcome, Refused):
            return outcome
        raise outcome

    async def _attempt(
        self, body: bytes, listener: Listener
    ) -> Outcome | UpstreamUnavailable | UpstreamTimeout:
        """Ask once. An error that is returned, not raised, means that no connection was made."""
        try:
            connection = await self._pool.connection()
        except TimeoutError:
            return UpstreamTimeout(NO_CONNECTION)
        except OSError:
            return UpstreamUnavailable(UNREACHABLE)
        reply = ResponseHandler(listener, self._secrets)
        complete = False
        try:
            framing = b"%sContent-Length: %d\r\n\r\n" % (_trace_header(), len(body))
            connection.ask(b"%s%s%s" % (self._head, framing, body), reply)
            await reply.stream.finished
            complete = True
        finally:
            reply.close()
            connection.release(reply, complete=complete)
        return reply.outcome()

    def close(self) -> None:
        """Close all connections."""
        self._pool.close()


def _trace_header() -> bytes:
    """Return the line that puts upstream's work into the running task's trace, if there is one."""
    traceparent = TRACEPARENT.get()
    return f"traceparent: {traceparent}\r\n".encode() if traceparent else b""


class ResponseHandler:
    """Receives the reply to one question. An answer is heard, a refusal is kept."""

    __slots__ = ("_headers", "_refused", "_status", "_timer", "stream")

    def __init__(self, listener: Listener, secrets: tuple[str, ...]) -> None:
        self.stream = CompletionStream(listener, secrets)
        self._status = 0
        self._refused = b""
        self._timer: asyncio.TimerHandle | None = None

    def begin(self, status: int, headers: Mapping[str, str]) -> Body:
        """Begin an answer, or a refusal, whose body is waited for no longer than REFUSAL_SECONDS."""
        self._status, self._headers = status, headers
        if status not in SUCCESS:
            loop = asyncio.get_running_loop()
            self._timer = loop.call_later(REFUSAL_SECONDS, self.stream.settle, None)
            return self
        self.stream.accept(headers)
        return self.stream

    def data(self, data: bytes) -> None:
        """Keep a refusal's body, up to MAX_REFUSAL_BYTES; nothing is waited for beyond that."""
        self._refused += data[: MAX_REFUSAL_BYTES - len(self._refused)]
        if len(self._refused) >= MAX_REFUSAL_BYTES:
            self.stream.settle(None)

    def end(self, *, lost: bool) -> None:
        """End the answer or the refusal. A refusal that breaks off is one all the same."""
        if self._status in SUCCESS:
            self.stream.end(lost=lost)
        elif self._status == 0:
            details = "upstream closed the connection without an answer"
            self.stream.settle(UpstreamUnavailable(details, may_cost=True))
        else:
            self.stream.settle(None)

    def close(self) -> None:
        """Stop the timer."""
        if self._timer is not None:
            self._timer.cancel()

    def outcome(self) -> Outcome:
        """Return what it was, once `stream.finished` is done."""
        if self._status in SUCCESS:
            return Answered()
        if self._status in REDIRECTS:
            return UseSdk()
        return Refused(status=self._status, headers=self._headers, content=self._refused)
