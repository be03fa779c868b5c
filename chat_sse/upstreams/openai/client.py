"""Chat completions over our own connections: the SDK writes the head, the reply is read as it arrives."""

from collections.abc import Mapping

import httpx2

from chat_sse.errors import UpstreamUnavailable
from chat_sse.upstreams.base import Listener
from chat_sse.upstreams.http.connection import Body
from chat_sse.upstreams.http.pool import ConnectionPool
from chat_sse.upstreams.openai.sdk import NextAttempt
from chat_sse.upstreams.openai.stream import CompletionStream

SUCCESSES = range(200, 300)
REDIRECTS = range(300, 400)
# An error is a sentence or two.
MAX_REFUSAL_BYTES = 65_536

# RequestCaptured anew for each request, or the HTTP client's business.
_NOT_KEPT = (b"content-length", b"transfer-encoding")
# Of its body as it was sent, which is kept as it was read.
_NOT_OF_THE_REFUSAL = ("content-encoding", "content-length", "transfer-encoding")


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
        self._secrets = secrets
        lines = [b"POST %s HTTP/1.1\r\n" % url.raw_path]
        lines += [b"%s: %s\r\n" % pair for pair in written.headers.raw if pair[0].lower() not in _NOT_KEPT]
        self._head = b"".join(lines)
        tls = httpx2.create_ssl_context() if url.scheme == "https" else None
        port = url.port or (443 if tls else 80)
        self._pool = ConnectionPool(
            url.host, port, tls, connect_seconds=connect_seconds, idle_seconds=idle_seconds
        )

    async def ask(self, body: bytes, listener: Listener) -> tuple[bool, NextAttempt | None]:
        """Ask, and have the listener hear the answer.

        Gives (True, None); or False and what the attempt came to, None where another way must be tried first.
        Raises UpstreamError for an answer that fails, and what the listener raises.
        """
        try:
            connection = await self._pool.connection()
        except TimeoutError as exc:
            return False, _failing(httpx2.ConnectTimeout("no connection in time"), exc)
        except OSError as exc:
            return False, _failing(httpx2.ConnectError("cannot connect"), exc)
        reply = ResponseHandler(listener, self._secrets)
        complete = False
        try:
            connection.ask(b"%sContent-Length: %d\r\n\r\n%s" % (self._head, len(body), body), reply)
            await reply.stream.finished
            complete = True
        finally:
            connection.release(reply, complete=complete)
        return reply.outcome()

    def close(self) -> None:
        """Close all connections."""
        self._pool.close()


def _failing(error: httpx2.TransportError, cause: Exception) -> NextAttempt:
    def fail(request: httpx2.Request) -> httpx2.Response:
        error.request = request
        raise error from cause

    return fail


class ResponseHandler:
    """The reply to one question: an answer, which is heard, or a refusal, which is kept."""

    __slots__ = ("_headers", "_refused", "_status", "stream")

    def __init__(self, listener: Listener, secrets: tuple[str, ...]) -> None:
        self.stream = CompletionStream(listener, secrets)
        self._status = 0
        self._refused = b""

    def begin(self, status: int, headers: Mapping[str, str]) -> Body:
        self._status, self._headers = status, headers
        if status not in SUCCESSES:
            return self
        self.stream.accept(headers)
        return self.stream

    def data(self, data: bytes) -> None:
        if len(self._refused) < MAX_REFUSAL_BYTES:
            self._refused += data

    def end(self, *, lost: bool) -> None:
        if self._status in SUCCESSES:
            self.stream.end(lost=lost)
        elif self._status == 0:
            details = "upstream closed the connection without an answer"
            self.stream.settle(UpstreamUnavailable(details, may_cost=True))
        else:
            self.stream.settle(None)  # a refusal that breaks off is one all the same

    def outcome(self) -> tuple[bool, NextAttempt | None]:
        """Tell what it was; a refusal as the SDK's HTTP client would have received it."""
        if self._status in SUCCESSES:
            return True, None
        if self._status in REDIRECTS:
            return False, None
        status, content = self._status, self._refused
        if self._headers.get("content-encoding", "identity") != "identity":
            content = b""  # unasked for; 800 bytes of it can unpack to 800 MB
        headers = [
            (name.encode("latin-1"), value.encode("latin-1"))
            for name, value in self._headers.items()
            if name not in _NOT_OF_THE_REFUSAL
        ]

        def refuse(request: httpx2.Request) -> httpx2.Response:
            return httpx2.Response(status, headers=headers, content=content, request=request)

        return False, refuse
