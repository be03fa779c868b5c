"""A client that is being answered: watched for its leaving, kept warm by heartbeats, cut off when it stalls.

sse-starlette does the same with four tasks, a lock, and a cancel scope for each send. Here it is the
request's own task, and one timer that no send has to move. Only where the server does not tell of a client's
leaving by itself, a second task listens for it.
"""

import asyncio
import logging
from collections.abc import Callable
from types import TracebackType
from typing import Protocol

from starlette.types import Message, Receive, Scope, Send

log = logging.getLogger(__name__)


class BodyWriter(Protocol):
    """Writes to a body without a coroutine, and knows of its client. The server's, where it has one."""

    is_ready: bool
    """Whether the body has begun, has not ended, and its client takes it fast enough."""
    is_gone: bool
    """Whether the client has left."""
    on_leave: Callable[[], object] | None
    """Called when it does."""
    pushed_at: float
    """When `push` was last called, on the loop's clock; 0 for never."""

    def review(self) -> None:
        """See whether it is ready. To be called once, after the head: later changes it notices itself."""
        ...

    def push(self, data: bytes) -> None:
        """Write some of the body. Only where it `is_ready`, and while no send is awaited."""
        ...

    def backlog(self) -> int:
        """How many bytes that were written the client's connection has not taken yet."""
        ...


class _NoWriter:
    """A server that only knows ASGI: its `receive` tells that the client has left."""

    is_ready = is_gone = False
    on_leave: Callable[[], object] | None = None
    pushed_at = 0.0

    def review(self) -> None:
        pass

    def push(self, data: bytes) -> None:
        raise NotImplementedError

    def backlog(self) -> int:
        return 0


class ClientStream:
    """Sends to a client while it is there. An async context manager.

    When the client leaves, or takes no bytes for `send_timeout_seconds`, whatever runs inside is cancelled
    and the context ends quietly, with the response incomplete: the server then closes the connection.
    `heartbeat` is sent after `heartbeat_seconds` in which nothing else was, until `last`.
    """

    def __init__(
        self,
        scope: Scope,
        receive: Receive,
        send: Send,
        *,
        stream_id: str,
        send_timeout_seconds: float,
        heartbeat_seconds: float | None = None,
        heartbeat: bytes = b"",
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._receive, self._send = receive, send
        # Middleware looks at the head alone. Each layer of it would cost every delta a microsecond or two, so
        # the body goes straight to the server, where the outermost one has left its `send`.
        state = scope.get("state", {})
        self._send_body: Send = state.get("server_send", send)
        self.writer: BodyWriter = state.get("body_writer") or _NoWriter()
        self._listener: asyncio.Task[None] | None = None
        self._stream_id = stream_id
        self._send_timeout = send_timeout_seconds
        # Without heartbeats the timer still looks for a stalled send.
        self._quiet = heartbeat_seconds or send_timeout_seconds
        self._heartbeat = heartbeat
        self._beat: asyncio.Task[None] | None = None
        self._sending = False
        self._sent_at = self._loop.time()
        self._backlog = 0
        self._present = True
        self._scope = asyncio.timeout(None)

    async def __aenter__(self) -> "ClientStream":
        await self._scope.__aenter__()
        if isinstance(self.writer, _NoWriter):
            self._listener = self._loop.create_task(self._listen())
        elif self.writer.is_gone:
            self._leave()
        else:
            self.writer.on_leave = self._leave
        self._tick()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> bool:
        self._timer.cancel()
        self.writer.on_leave = None
        if self._listener is not None:
            self._listener.cancel()
        if self._beat is not None:
            self._beat.cancel()
        try:
            await self._scope.__aexit__(kind, exc, traceback)
        except TimeoutError:
            return True  # this scope's own: the client is gone
        finally:
            self._present = False
        return False

    async def begin(self, head: Message) -> None:
        """Send the response's head."""
        await self._take(self._send, head)
        self.writer.review()

    async def send(self, data: bytes) -> None:
        """Send some of the body, waiting until the client has taken enough of what was sent before."""
        await self._take(self._send_body, {"type": "http.response.body", "body": data, "more_body": True})

    async def last(self, data: bytes) -> None:
        """Send the rest of the body, and its end; no heartbeat may follow it."""
        self._heartbeat = b""
        await self._take(self._send_body, {"type": "http.response.body", "body": data, "more_body": False})

    async def _take(self, send: Send, message: Message) -> None:
        self._sent_at = self._loop.time()
        self._sending = True
        await send(message)
        self._sending = False
        self._backlog = self.writer.backlog()

    async def _listen(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass
        self._leave()

    def _tick(self) -> None:
        """See whether anything is due, and come back when something may be."""
        now = self._loop.time()
        self._sent_at = max(self._sent_at, self.writer.pushed_at)
        # A send returns when its bytes are waiting, however many: that it has does not mean they are taken.
        backlog = self.writer.backlog()
        if backlog < self._backlog:
            self._sent_at = now  # some were, if slowly
        self._backlog = backlog
        stuck = backlog > 0 or self._sending or (self._beat is not None and not self._beat.done())
        if stuck and now >= self._sent_at + self._send_timeout:
            log.info("client.stalled", extra={"fields": {"id": self._stream_id}})
            self._leave()
        elif not stuck and self._heartbeat and now >= self._sent_at + self._quiet:
            self._sent_at = now
            self._beat = self._loop.create_task(self._send_heartbeat())
        due = self._sent_at + (self._send_timeout if stuck else self._quiet)
        self._timer = self._loop.call_at(max(due, now + 0.05), self._tick)

    async def _send_heartbeat(self) -> None:
        # Each send before was of whole events, so a comment may stand here.
        await self._send_body({"type": "http.response.body", "body": self._heartbeat, "more_body": True})

    def _leave(self) -> None:
        if self._present:
            self._present = False
            self._scope.reschedule(self._loop.time())
