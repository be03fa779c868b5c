"""How this service reaches Redis, for the log and for the limits alike: connections, scripts, outages.

Part of the extra `redis`. It stands below the rooms that use it, which may not import each other.
"""

import hashlib
from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import Any, TypeAlias

from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.connection import parse_url
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import NoScriptError, RedisError

from chat_sse.errors import StoreUnavailable

Command: TypeAlias = tuple[str | bytes | int, ...]

CONNECTIONS = 16
# A round trip takes a millisecond; a question waits no longer than this to hear that it cannot be asked.
SOCKET_SECONDS = 2.0
RETRY_SECONDS = 2.0
DEFAULT_PREFIX = "chat_sse"


def open_pool(url: str, *, retries: int) -> BlockingConnectionPool:
    """Prepare connections; nothing connects. Raises ValueError, not quoting the URL, when it is unusable.

    `retries`: at once, after a connection that broke. 0 where a command must not run twice.
    """
    ours: dict[str, Any] = {
        "max_connections": CONNECTIONS,
        "timeout": SOCKET_SECONDS,
        "socket_timeout": SOCKET_SECONDS,
        "socket_connect_timeout": SOCKET_SECONDS,
        "retry": Retry(NoBackoff(), retries),
        "protocol": 2,
        "decode_responses": False,
    }
    try:
        pool = BlockingConnectionPool(**{**parse_url(url), **ours})
        pool.make_connection()  # type: ignore[no-untyped-call]  # where unknown options come to light
    except (TypeError, ValueError):
        raise ValueError("redis-py does not know one of its options") from None
    return pool


def evaluate(script: str, keys: Sequence[str], *arguments: str | bytes | int) -> Command:
    """Return the command that runs a script, by its digest."""
    return ("EVALSHA", _digest(script), len(keys), *keys, *arguments)


async def send(client: "Redis", commands: Sequence[Command], scripts: Iterable[str]) -> list[Any]:
    """Send commands in one round trip and return their results. Raises the first RedisError among them.

    Where Redis does not know a script, all `scripts` are loaded and the commands are sent again: a command
    that stands beside a script's must be idempotent.
    """
    results = await _round_trip(client, commands)
    if any(isinstance(result, NoScriptError) for result in results):
        await _round_trip(client, [("SCRIPT", "LOAD", script) for script in scripts])
        results = await _round_trip(client, commands)
    for result in results:
        if isinstance(result, RedisError):
            raise result
    return results


def unavailable() -> StoreUnavailable:
    """Return the error for an outage."""
    return StoreUnavailable("Redis does not answer", retry_after=RETRY_SECONDS)


async def _round_trip(client: "Redis", commands: Sequence[Command]) -> list[Any]:
    async with client.pipeline(transaction=False) as pipe:
        for command in commands:
            pipe.execute_command(*command)
        return await pipe.execute(raise_on_error=False)


@lru_cache
def _digest(script: str) -> str:
    return hashlib.sha1(script.encode(), usedforsecurity=False).hexdigest()
