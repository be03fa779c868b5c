"""Sends a body to a client: notices when it leaves, sends heartbeats, and cuts it off when it stalls.

sse-starlette does the same with four tasks, a lock, and a cancel scope for each send. Here it is the
request's own task, and one timer that no send has to move. A second task waits for `http.disconnect` where
the server offers nothing better than ASGI.
"""

import asyncio
import logging
import math
import random
from collections.abc import Callable
from types import TracebackType
from typing import Protocol

from starlette.types import Message, Receive, Scope, Send

log = logging.getLogger(__name__)

# A timer may fire a moment early; without a least wait it would then be set again and again.
MIN_TICK_SECONDS = 0.05


class BodyWriter(Protocol):
    """Writes to a body without a coroutine, and knows whether its client is there. Offered by our server."""

    is_ready: bool
    """Whether the body has begun and not ended, and the client reads fast enough."""
    is_gone: bool
    """Whether the client has left."""
    on_leave: Callable[[], object] | None
    """Called when the client leaves."""
    pushed_at: float
    """When `push` was last called, on the loop's clock; 0 for never."""

    def review(self) -> None:
        """Update `is_ready`. To be called once, after the head; the writer notices later changes itself."""
        ...

    def push(self, data: bytes) -> None:
        """Write some of the body. Allowed only while it `is_ready` and no send is awaited."""
        ...

    def backlog(self) -> int:
        """Return how many written bytes the client's connection has not accepted yet."""
        ...


class _NoWriter:
    """A server that offers only ASGI: `receive`, or an OSError from `send`, says that the client has left."""

    is_ready = is_gone = False
    on_leave: Callable[[], object] | None = None
    pushed_at = 0.0

    def review(self) -> None:
        pass

    def push(self, data: bytes) -> None:
        raise NotImplementedError

    def backlog(self) -> int:
        return 0


NO_WRITER = _NoWriter()


class _ClientLeft(Exception):
    """The server refuses to send, because the client has left (ASGI 2.4, "Disconnected client")."""


class ClientStream:
    """Sends to a client while it is there. An async context manager.

    When the client leaves, or accepts no bytes for `send_timeout_seconds`, the code inside is cancelled and
    the context ends without an error and with the response incomplete: the server then closes the connection.
    `heartbeat` is sent when nothing else was sent for `heartbeat_seconds`, until `last`. After
    `max_age_seconds`, give or take a tenth so that not all come back at once, it is as if the client left.
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
        max_age_seconds: float | None = None,
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._receive, self._send = receive, send
        # Our middleware changes only the head, and each layer would cost a delta a microsecond or two. So the
        # body goes straight to the server, through the `send` that the outermost layer has left.
        state = scope.get("state", {})
        self._send_body: Send = state.get("server_send", send)
        self.writer: BodyWriter = state.get("body_writer") or NO_WRITER
        self._listener: asyncio.Task[None] | None = None
        self._stream_id = stream_id
        self._send_timeout = send_timeout_seconds
        # Without heartbeats the timer still looks for a stalled client.
        self._heartbeat_interval = heartbeat_seconds or send_timeout_seconds
        self._heartbeat = heartbeat if heartbeat_seconds else b""
        self._beat: asyncio.Task[None] | None = None
        self._sending = False
        self._sent_at = self._loop.time()  # when anything was last given to the server
        self._progressed_at = self._sent_at  # when the client was last seen to accept bytes
        self._backlog = 0
        self._ends_at = math.inf
        if max_age_seconds is not None:
            self._ends_at = self._sent_at + max_age_seconds * random.uniform(0.9, 1.1)  # noqa: S311 - no secret
        self._present = True
        self._scope = asyncio.timeout(None)

    async def __aenter__(self) -> "ClientStream":
        await self._scope.__aenter__()
        if self.writer is NO_WRITER:
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
        if self.writer is not NO_WRITER:
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
        return kind is _ClientLeft

    async def begin(self, head: Message) -> None:
        """Send the response's head."""
        await self._pass_on(self._send, head)
        self.writer.review()

    async def send(self, data: bytes) -> None:
        """Send some of the body, waiting until the client has taken enough of what was sent before."""
        await self._pass_on(self._send_body, {"type": "http.response.body", "body": data, "more_body": True})

    async def last(self, data: bytes) -> None:
        """Send the rest of the body, and its end; no heartbeat may follow it."""
        self._heartbeat = b""
        await self._pass_on(self._send_body, {"type": "http.response.body", "body": data, "more_body": False})
        self._present = False  # some servers report a finished response as `http.disconnect`

    async def _pass_on(self, send: Send, message: Message) -> None:
        self._sent_at = self._loop.time()
        self._sending = True
        try:
            await send(message)
        except OSError as exc:
            raise _ClientLeft from exc
        self._sending = False
        self._backlog = self.writer.backlog()

    async def _listen(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass
        self._leave()

    def _tick(self) -> None:
        """Cut off a stalled or an old client or send a heartbeat, if it is time, and set the timer again."""
        now = self._loop.time()
        if now >= self._ends_at:  # each write was of whole events, and what is not yet sent still is
            self._ends_at = math.inf
            log.info("client.moved", extra={"fields": {"id": self._stream_id}})
            self._leave()
        self._sent_at = max(self._sent_at, self.writer.pushed_at)
        # A send returns once its bytes are queued, however many. Only a shrinking backlog shows progress.
        backlog = self.writer.backlog()
        if backlog < self._backlog:
            self._progressed_at = now
        self._backlog = backlog
        is_waiting = backlog > 0 or self._sending or (self._beat is not None and not self._beat.done())
        last_activity_at = max(self._sent_at, self._progressed_at)
        if is_waiting:
            due = last_activity_at + self._send_timeout
            if now >= due:
                log.info("client.stalled", extra={"fields": {"id": self._stream_id}})
                self._leave()
        else:
            due = last_activity_at + self._heartbeat_interval
            if now >= due:
                due = now + self._heartbeat_interval
                if self._heartbeat:
                    self._sent_at = now
                    self._beat = self._loop.create_task(self._send_heartbeat())
        self._timer = self._loop.call_at(max(min(due, self._ends_at), now + MIN_TICK_SECONDS), self._tick)

    async def _send_heartbeat(self) -> None:
        # Each send before was of whole events, so a comment may stand here.
        try:
            await self._send_body({"type": "http.response.body", "body": self._heartbeat, "more_body": True})
        except OSError:
            self._leave()

    def _leave(self) -> None:
        if self._present:
            self._present = False
            self._scope.reschedule(self._loop.time())
