"""The composition root: the one place that turns settings into a running service."""

import asyncio
import os
from collections.abc import AsyncIterator, Awaitable
from contextlib import AsyncExitStack, asynccontextmanager
from types import TracebackType
from typing import Self

from sse_starlette import EventSourceResponse
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.types import Receive, Scope, Send

from chat_sse.access.address import ClientAddresses
from chat_sse.access.authentication import Authentication
from chat_sse.access.headers import RESPONSE_HEADERS
from chat_sse.access.hosts import TrustedHost
from chat_sse.access.links import Links
from chat_sse.access.opening import open_ways
from chat_sse.access.origin import Origins
from chat_sse.access.paths import RootPath, TrailingSlash
from chat_sse.access.principal import Authenticate, BeforeAsk
from chat_sse.api.cors import Cors
from chat_sse.api.error_responses import ErrorMiddleware, handle_chat_error, handle_http_exception
from chat_sse.api.service import Service, handle_unauthenticated
from chat_sse.errors import ChatError, Unauthenticated
from chat_sse.lifetime import Lifetime, StartOnDemand
from chat_sse.observe.logging import RequestLog, quiet_content_loggers
from chat_sse.observe.opening import make_metrics, make_tracing, measure, traced_requests
from chat_sse.opening import (
    all_routes,
    check_settings,
    make_service,
    open_limits,
    open_redis,
    open_store,
    timeouts,
)
from chat_sse.records import AfterAnswer
from chat_sse.relay.relay import Relay
from chat_sse.relay.reports import Reports
from chat_sse.settings import Settings, load_settings
from chat_sse.stores.base import Store
from chat_sse.upstreams.base import Upstream
from chat_sse.upstreams.opening import open_upstream, trace_upstream


class ChatService:
    """The service as one object: an ASGI application, and an async context manager that starts and closes it.

    Another application mounts it, and enters it where it starts itself. Where nobody enters it, the first
    request starts it, and it ends with its process.
    """

    def __init__(
        self,
        settings: Settings | None = None,
        *,
        upstream: Upstream | None = None,
        store: Store | None = None,
        authenticate: Authenticate | None = None,
        before_ask: BeforeAsk | None = None,
        after_answer: AfterAnswer | None = None,
    ) -> None:
        """Build it. Nothing is opened or connected yet.

        `settings`: read from the environment and `.env` when left out. `upstream` and `store` replace what
        the settings say; the caller closes them. For the other three see their types. Raises SettingsError
        when a setting is wrong.
        """
        self.settings = settings or load_settings(os.environ)
        check_settings(self.settings, has_store=store is not None)
        self._ways = open_ways(self.settings, asks_application=authenticate is not None)
        self._metrics, self._tracing = make_metrics(self.settings), make_tracing(self.settings)
        quiet_content_loggers()
        self._upstream, self._store = upstream, store
        self._before_ask, self._after_answer = before_ask, after_answer
        # A link is good for as long as its answer can be read.
        life_seconds = self.settings.total_timeout + self.settings.stream_ttl
        self._links = Links(self.settings.secret_key, life_seconds=life_seconds)
        self._origins = Origins(self.settings.allowed_origin)
        self._lifetime = Lifetime(self._open)
        self.app = self._build(authenticate)
        """The application itself, without what only a mounted one needs."""

    async def __aenter__(self) -> Self:
        """Start. Raises what opening the parts raises, such as StoreUnavailable."""
        await self._lifetime.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Close: end what still runs, and release everything that was opened."""
        await self._lifetime.aclose()

    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        """Handle a connection, without writing into the outer application's scope and state."""
        return self.app({**scope, "state": {**scope.get("state", {})}}, receive, send)

    def _build(self, authenticate: Authenticate | None) -> Starlette:
        settings = self.settings

        @asynccontextmanager
        async def lifespan(_: Starlette) -> AsyncIterator[dict[str, Service]]:
            async with self:
                yield {"service": await self._lifetime.start()}  # our server looks there for it

        app = Starlette(
            routes=all_routes(),
            lifespan=lifespan,
            middleware=[
                *([Middleware(RootPath, root_path=settings.root_path)] if settings.root_path else ()),
                Middleware(TrailingSlash),
                Middleware(
                    RequestLog,
                    headers=RESPONSE_HEADERS,
                    observe=self._metrics.request_ended if self._metrics else None,
                ),
                *traced_requests(self._tracing),
                Middleware(Cors, origins=self._origins, allow_credentials=settings.cors_credentials),
                Middleware(ErrorMiddleware),
                Middleware(
                    TrustedHost,
                    bound_to=settings.host,
                    allowed=settings.allowed_hosts,
                    authenticated=not self._ways.anonymous,
                ),
                Middleware(StartOnDemand, lifetime=self._lifetime),
                Middleware(
                    Authentication,
                    ways=self._ways,
                    links=self._links,
                    addresses=ClientAddresses(settings.trusted_proxies),
                    authenticate=authenticate,
                ),
            ],
            exception_handlers={
                ChatError: handle_chat_error,
                Unauthenticated: handle_unauthenticated,
                HTTPException: handle_http_exception,
            },
        )
        app.router.redirect_slashes = False  # see `TrailingSlash`
        return app

    async def _open(self, stack: AsyncExitStack) -> Service:
        settings = self.settings
        if self._ways.tokens is not None:
            stack.push_async_callback(self._ways.tokens.aclose)
        upstream = self._upstream or await open_upstream(settings, stack)
        store = self._store or await open_store(settings, stack)
        redis = open_redis(settings, store, stack)
        limits = open_limits(settings, redis, stack)
        metrics, asked = self._metrics, upstream
        if self._tracing:
            await stack.enter_async_context(self._tracing.running())
            asked = trace_upstream(upstream, self._tracing.tracer)
        reports = Reports([metrics.answer_ended] if metrics else (), self._after_answer)
        relay = Relay(asked, store, timeouts(settings), reports)
        if metrics:
            parts = relay, upstream, store, redis
            await stack.enter_async_context(measure(settings, metrics, parts))
        stack.push_async_callback(relay.aclose)
        drain = asyncio.create_task(_drain_at_exit(relay, settings.shutdown_grace))
        stack.push_async_callback(_cancel, drain)
        return make_service(
            settings,
            upstream,
            relay,
            limits,
            links=self._links,
            origins=self._origins,
            before_ask=self._before_ask,
        )


def create_app(
    settings: Settings | None = None, *, upstream: Upstream | None = None, store: Store | None = None
) -> Starlette:
    """Return the service as a Starlette application, for a server to run. Arguments: see `ChatService`."""
    return ChatService(settings, upstream=upstream, store=store).app


async def _drain_at_exit(relay: Relay, grace_seconds: float) -> None:
    """Drain when uvicorn is told to exit by itself; under `chat-sse` the server has drained by then.

    sse-starlette finds out for each response; one that does it for all of them is enough.
    """
    await EventSourceResponse._listen_for_exit_signal()  # noqa: SLF001 - its public way in is a response
    await relay.drain(grace_seconds)


async def _cancel(task: asyncio.Task[None]) -> None:
    task.cancel()
    await asyncio.wait([task])
