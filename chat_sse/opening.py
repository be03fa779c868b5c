"""From the settings to the parts of the service. Only `app.py` and what starts it call this."""

from collections.abc import Iterator
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING

from starlette.routing import Route

from chat_sse.access.links import Links
from chat_sse.access.origin import Origins
from chat_sse.access.principal import BeforeAsk
from chat_sse.api.openapi.document import document
from chat_sse.api.routes import routes
from chat_sse.api.service import Service
from chat_sse.formats import FORMATS, formats_at
from chat_sse.formats.base import Delivery
from chat_sse.limits.admission import Limits
from chat_sse.limits.bodies import BodyMemory
from chat_sse.limits.budget import Budget
from chat_sse.limits.counts import Counts
from chat_sse.limits.memory import MemoryCounts
from chat_sse.limits.plan import Plan
from chat_sse.limits.rates import Rate
from chat_sse.observe.opening import watching_faults
from chat_sse.policy import Policy
from chat_sse.relay.deadlines import Timeouts
from chat_sse.relay.relay import CLEANUP_SECONDS, Relay
from chat_sse.settings import Settings, SettingsError, variable
from chat_sse.settings.extras import extra_faults
from chat_sse.stores.base import Store
from chat_sse.stores.memory import MemoryStore
from chat_sse.upstreams.base import Upstream
from chat_sse.upstreams.opening import allowed_models
from chat_sse.web import chat as page
from chat_sse.web.docs.pages import documentation

if TYPE_CHECKING:
    from chat_sse.redis_access import Runner


def all_routes() -> list[Route]:
    """Return the routes of the service, its pages and its documentation."""
    serving = [*routes(), *page.routes()]
    return [*serving, *documentation(serving, document)]


def check_settings(settings: Settings, *, has_store: bool = False) -> None:
    """Raises SettingsError with all that would keep the parts from being opened. Nothing connects.

    `has_store`: the store is another than the settings say. The ways in are checked by `open_ways`.
    """
    faults = [
        *_format_faults(settings),
        *_root_path_faults(settings),
        *(() if has_store else _store_faults(settings)),
        *watching_faults(settings),
    ]
    if faults:
        raise SettingsError(faults)


def _format_faults(settings: Settings) -> Iterator[str]:
    names = [kind.name for kind in formats_at()]
    if settings.default_format.lower() not in names:
        yield f"{variable('default_format')} must be one of {', '.join(names)}"


def _root_path_faults(settings: Settings) -> Iterator[str]:
    """Yield that a root path could be taken for a path of the service's own."""
    first = (settings.root_path or "").split("/")[:2]
    if any(route.path.split("/")[:2] == first for route in all_routes()):
        yield f"{variable('root_path')} must not begin as a path of the service itself does"


def _store_faults(settings: Settings) -> Iterator[str]:
    """Yield why the store could not be opened."""
    if settings.redis_url is None and settings.workers == 1:
        return
    cause = variable("workers" if settings.redis_url is None else "redis_url")
    if missing := extra_faults(cause, "redis", "redis"):
        yield from missing
        return
    if settings.redis_url is None:
        return
    from chat_sse.redis_access import connector  # noqa: PLC0415  (part of an extra)

    try:
        connector(settings.redis_url)
    except ValueError as exc:
        yield f"CHAT_SSE_REDIS_URL cannot be used: {exc}"


async def open_store(settings: Settings, stack: AsyncExitStack) -> Store:
    """Open the store: in Redis where there is one, else in this process's memory."""
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


def open_redis(settings: Settings, store: Store, stack: AsyncExitStack) -> "Runner | None":
    """Return what runs commands on Redis, where there is one: the log's, or one beside another store."""
    if settings.redis_url is None:
        return None
    from chat_sse.redis_access import RoundTrips, connector  # noqa: PLC0415  (part of an extra)
    from chat_sse.stores.redis.store import RedisStore  # noqa: PLC0415

    if isinstance(store, RedisStore):
        return store.redis
    alone = RoundTrips(connector(settings.redis_url))
    stack.push_async_callback(alone.aclose)
    return alone


def open_limits(settings: Settings, redis: "Runner | None", stack: AsyncExitStack) -> Limits:
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
    if redis is not None:
        from chat_sse.limits.redis import SharedCounts  # noqa: PLC0415 - needs an extra

        counts = SharedCounts(redis, plan, settings.redis_prefix)
        stack.push_async_callback(counts.aclose)
    return Limits(counts=counts, system_prompt=settings.system_prompt)


def make_service(
    settings: Settings,
    upstream: Upstream,
    relay: Relay,
    limits: Limits,
    *,
    links: Links,
    origins: Origins,
    before_ask: BeforeAsk | None,
) -> Service:
    """Return what the handlers work with."""
    delivery = Delivery(
        heartbeat_seconds=settings.heartbeat,
        send_timeout_seconds=settings.send_timeout,
        max_age_seconds=settings.max_connection_age,
    )
    return Service(
        relay=relay,
        formats={kind.root: tuple(fmt(delivery) for fmt in formats_at(kind.root)) for kind in FORMATS},
        default_format=settings.default_format.lower(),
        policy=Policy(
            models=allowed_models(settings, upstream.models),
            max_messages=settings.max_messages,
            max_chars=settings.max_chars,
            max_output_tokens=settings.max_output_tokens,
            allows_system=settings.system_messages == "allow",
            keeps_newest=settings.long_conversations == "newest",
            data_images_only=settings.image_urls == "data",
        ),
        limits=limits,
        bodies=BodyMemory(settings.max_body_bytes),
        origins=origins,
        links=links,
        before_ask=before_ask,
        accepts=settings.callers.proving,
        login_url=settings.login_url,
        max_body_bytes=settings.max_body_bytes,
        receive_timeout_seconds=settings.receive_timeout,
        shutdown_grace_seconds=settings.shutdown_grace,
        shutdown_delay_seconds=settings.shutdown_delay,
    )


def timeouts(settings: Settings) -> Timeouts:
    """Return the relay's deadlines."""
    return Timeouts(
        accept_wait=settings.accept_wait,
        first_token_timeout=settings.first_token_timeout,
        idle_timeout=settings.idle_timeout,
        total_timeout=settings.total_timeout,
        disconnect_grace=settings.disconnect_grace,
    )
