"""The composition root: the one place that turns settings into objects."""

import asyncio
import importlib.util
import os
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

from sse_starlette import EventSourceResponse
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware

from chat_sse.access.address import ClientAddresses
from chat_sse.access.headers import RESPONSE_HEADERS
from chat_sse.access.hosts import TrustedHost
from chat_sse.access.keys import Authentication, KeyRing
from chat_sse.access.links import Links
from chat_sse.access.origin import Origins
from chat_sse.api.cors import Cors
from chat_sse.api.error_responses import ErrorMiddleware, handle_chat_error, handle_http_exception
from chat_sse.api.openapi.document import document
from chat_sse.api.routes import Service, handle_unauthenticated, routes
from chat_sse.api.trailing_slash import TrailingSlash
from chat_sse.errors import ChatError, Unauthenticated
from chat_sse.formats import FORMATS
from chat_sse.formats.base import Delivery
from chat_sse.limits.admission import Limits
from chat_sse.limits.bodies import BodyMemory
from chat_sse.limits.budget import Budget
from chat_sse.limits.counts import Counts
from chat_sse.limits.memory import MemoryCounts
from chat_sse.limits.plan import Plan
from chat_sse.limits.rates import Rate
from chat_sse.messages import Policy
from chat_sse.observe.logging import RequestLog, quiet_content_loggers
from chat_sse.relay.deadlines import Timeouts
from chat_sse.relay.relay import CLEANUP_SECONDS, Relay
from chat_sse.settings import Settings, SettingsError, load_settings, variable
from chat_sse.stores.base import Store
from chat_sse.stores.memory import MemoryStore
from chat_sse.upstreams.base import Upstream
from chat_sse.upstreams.opening import allowed_models, open_upstream
from chat_sse.web import chat as page
from chat_sse.web.docs.pages import documentation


def create_app(
    settings: Settings | None = None, *, upstream: Upstream | None = None, store: Store | None = None
) -> Starlette:
    """Build the service.

    `settings`: read from the environment and `.env` when left out. `upstream` and `store` replace what the
    settings say; the caller closes them. Raises SettingsError when a setting is wrong.
    """
    settings = settings or load_settings(os.environ)
    check_default_format(settings)
    if store is None:
        check_store(settings)
    quiet_content_loggers()
    serving = [*routes(), *page.routes()]
    origins = Origins(settings.allowed_origin)
    # A link is good for as long as its answer can be read.
    links = Links(settings.secret_key, life_seconds=settings.total_timeout + settings.stream_ttl)

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[dict[str, Any]]:
        async with AsyncExitStack() as stack:
            answering = upstream or await open_upstream(settings, stack)
            keeping = store or await _open_store(settings, stack)
            limits = await _open_limits(settings, stack)
            relay = Relay(answering, keeping, _timeouts(settings))
            stack.push_async_callback(relay.aclose)
            drain = asyncio.create_task(_drain_at_exit(relay, settings.shutdown_grace))
            stack.push_async_callback(_cancel, drain)
            service = _service(settings, answering, relay, limits, links=links, origins=origins)
            yield {"service": service}

    app = Starlette(
        routes=[*serving, *documentation(serving, document)],
        lifespan=lifespan,
        middleware=[
            Middleware(TrailingSlash),
            Middleware(RequestLog, headers=RESPONSE_HEADERS),
            Middleware(Cors, origins=origins, allow_credentials=settings.cors_credentials),
            Middleware(ErrorMiddleware),
            Middleware(
                TrustedHost,
                bound_to=settings.host,
                allowed=settings.allowed_hosts,
                authenticated=bool(settings.api_keys),
            ),
            Middleware(
                Authentication,
                keys=KeyRing(settings.api_keys),
                links=links,
                addresses=ClientAddresses(settings.trusted_proxies),
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


def check_default_format(settings: Settings) -> None:
    """Raises SettingsError when there is no format with the default's name."""
    names = [kind.name for kind in FORMATS]
    if settings.default_format.lower() not in names:
        raise SettingsError([f"{variable('default_format')} must be one of {', '.join(names)}"])


def check_store(settings: Settings) -> None:
    """Check that the store could be opened, without connecting. Raises SettingsError."""
    if settings.redis_url is None and settings.workers == 1:
        return
    if importlib.util.find_spec("redis") is None:
        cause = variable("workers" if settings.redis_url is None else "redis_url")
        raise SettingsError([f"{cause} needs the extra `redis`: pip install 'chat-sse[redis]'"])
    if settings.redis_url is None:
        return
    from chat_sse.redis_access import connector  # noqa: PLC0415  (part of an extra)

    try:
        connector(settings.redis_url)
    except ValueError as exc:
        raise SettingsError([f"CHAT_SSE_REDIS_URL cannot be used: {exc}"]) from None


async def _open_store(settings: Settings, stack: AsyncExitStack) -> Store:
    if settings.redis_url is not None:
        return await _open_redis_store(settings, settings.redis_url, stack)
    store = MemoryStore(
        ttl_seconds=settings.stream_ttl,
        max_kept=settings.max_kept_streams,
        max_kept_bytes=settings.max_kept_bytes,
    )
    stack.push_async_callback(store.aclose)
    return store


async def _open_redis_store(settings: Settings, url: str, stack: AsyncExitStack) -> Store:
    from chat_sse.stores.redis.store import RedisStore  # noqa: PLC0415  (part of an extra)

    store = RedisStore(
        url,
        prefix=settings.redis_prefix,
        ttl_seconds=settings.stream_ttl,
        running_seconds=settings.total_timeout + settings.stream_ttl + CLEANUP_SECONDS,
    )
    stack.push_async_callback(store.aclose)
    await store.start()
    return store


async def _open_limits(settings: Settings, stack: AsyncExitStack) -> Limits:
    """Set up the limits. They must be opened before the relay, so that they are closed after it."""
    plan = Plan(
        rate=Rate.parse(settings.rate_limit),
        rate_total=Rate.parse(settings.rate_limit_total),
        streams_per_client=settings.max_streams_per_client,
        streams=settings.max_streams,
        budget=Budget.parse(settings.token_budget),
        budget_total=Budget.parse(settings.token_budget_total),
        share_percent=settings.max_share,
        least_share_tokens=4 * settings.max_output_tokens,  # room for some of the longest answers
    )
    counts: Counts = MemoryCounts(plan)
    if settings.redis_url is not None:
        from chat_sse.limits.redis import SharedCounts  # noqa: PLC0415 - needs an extra

        counts = SharedCounts(settings.redis_url, plan, settings.redis_prefix)
        stack.push_async_callback(counts.aclose)
    return Limits(counts=counts, system_prompt=settings.system_prompt)


def _service(
    settings: Settings, upstream: Upstream, relay: Relay, limits: Limits, *, links: Links, origins: Origins
) -> Service:
    delivery = Delivery(
        heartbeat_seconds=settings.heartbeat,
        send_timeout_seconds=settings.send_timeout,
    )
    return Service(
        relay=relay,
        formats=tuple(kind(delivery) for kind in FORMATS),
        default_format=settings.default_format.lower(),
        policy=Policy(
            models=allowed_models(settings, upstream.models),
            max_messages=settings.max_messages,
            max_chars=settings.max_chars,
            max_output_tokens=settings.max_output_tokens,
            keeps_newest=settings.long_conversations == "newest",
            data_images_only=settings.image_urls == "data",
        ),
        limits=limits,
        bodies=BodyMemory(settings.max_body_bytes),
        origins=origins,
        links=links,
        max_body_bytes=settings.max_body_bytes,
        receive_timeout_seconds=settings.receive_timeout,
        shutdown_grace_seconds=settings.shutdown_grace,
    )


def _timeouts(settings: Settings) -> Timeouts:
    return Timeouts(
        accept_wait=settings.accept_wait,
        first_token_timeout=settings.first_token_timeout,
        idle_timeout=settings.idle_timeout,
        total_timeout=settings.total_timeout,
        disconnect_grace=settings.disconnect_grace,
    )


async def _drain_at_exit(relay: Relay, grace_seconds: float) -> None:
    """Drain when uvicorn is told to exit by itself; under `chat-sse` the server has drained by then.

    sse-starlette finds out for each response; one that does it for all of them is enough.
    """
    await EventSourceResponse._listen_for_exit_signal()  # noqa: SLF001 - its public way in is a response
    await relay.drain(grace_seconds)


async def _cancel(task: asyncio.Task[None]) -> None:
    task.cancel()
    await asyncio.wait([task])
