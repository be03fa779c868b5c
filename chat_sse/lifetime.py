"""When the service runs: from its start, or from the first request where nobody starts it, to its close."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack

from starlette.types import ASGIApp, Receive, Scope, Send

from chat_sse.api.service import Service
from chat_sse.errors import Draining, InternalError

log = logging.getLogger(__name__)

ELSEWHERE = (
    "chat_sse was started in another event loop: enter it with `async with` in the loop that serves requests"
)
CLOSED = "chat_sse was closed: enter it again with `async with`, or close it only when no request can come"
FAILED = "chat_sse could not be started: the log tells why"


class Lifetime:
    """Starts the service once, whoever asks for it first, and closes it once."""

    def __init__(self, open_parts: Callable[[AsyncExitStack], Awaitable[Service]]) -> None:
        """`open_parts`: opens them on a stack, which closes them."""
        self._open_parts = open_parts
        self._stack = AsyncExitStack()
        self._starting: asyncio.Task[Service] | None = None
        self._service: Service | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._closed = False

    def running(self) -> Service | None:
        """Return the service if it runs. Raises InternalError in another loop than its own."""
        if self._service is not None and self._loop is not asyncio.get_running_loop():
            raise InternalError(ELSEWHERE)
        return self._service

    async def start(self) -> Service:
        """Start, or wait for the start that is under way. Raises what opening the parts raises."""
        if (service := self.running()) is not None:
            return service
        loop = asyncio.get_running_loop()
        if self._starting is None or self._loop is not loop:
            self._loop = loop
            # A task of its own: the request that has caused it may be given up.
            self._starting = asyncio.create_task(self._start(), name="chat_sse start")
        return await asyncio.shield(self._starting)

    async def start_on_demand(self) -> Service:
        """Start for a request. Raises Draining once it was closed."""
        if self._closed:
            raise Draining(CLOSED)
        return await self.start()

    async def aclose(self) -> None:
        """Close what was opened. A later `start` opens it anew; a request no longer does."""
        self._closed = True
        if self._starting is not None:
            await asyncio.wait([self._starting])
        self._service = self._starting = None
        await self._stack.aclose()

    async def _start(self) -> Service:
        stack = AsyncExitStack()
        try:
            service = await self._open_parts(stack)
        except BaseException:
            self._starting = None  # the next may try again
            await stack.aclose()
            raise
        self._stack, self._service, self._closed = stack, service, False
        return service


class StartOnDemand:
    """Hands the running service to the handlers: pure ASGI. Starts it where nobody has."""

    def __init__(self, app: ASGIApp, *, lifetime: Lifetime) -> None:
        self.app = app
        self._lifetime = lifetime

    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        """Handle a connection, without a coroutine of its own once the service runs."""
        if scope["type"] == "http":
            service = self._lifetime.running()
            if service is None:
                return self._handle_first(scope, receive, send)
            scope["state"]["service"] = service
        return self.app(scope, receive, send)

    async def _handle_first(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            scope["state"]["service"] = await self._lifetime.start_on_demand()
        except (asyncio.CancelledError, Draining):
            raise
        except Exception:
            log.exception("service.start_failed")
            raise InternalError(FAILED) from None
        await self.app(scope, receive, send)
