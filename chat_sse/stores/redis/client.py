"""Commands to Redis: one round trip for any number of them, bounded in time, honest about an outage."""

import asyncio
import logging
from collections.abc import Sequence
from typing import Any

from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.connection import parse_url
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import NoScriptError, RedisError

from chat_sse.errors import StoreUnavailable
from chat_sse.stores.redis.scripts import SCRIPTS, Command

log = logging.getLogger(__name__)

CONNECTIONS = 16
# A round trip takes a millisecond; a question waits no longer than this to hear that it cannot be asked.
SOCKET_SECONDS = 2.0
ROUND_TRIP_SECONDS = 3.0
RETRY_SECONDS = 2.0


def open_pool(url: str) -> BlockingConnectionPool:
    """Prepare connections; nothing connects. Raises ValueError, not quoting the URL, when it is unusable."""
    ours: dict[str, Any] = {
        "max_connections": CONNECTIONS,
        "timeout": SOCKET_SECONDS,
        "socket_timeout": SOCKET_SECONDS,
        "socket_connect_timeout": SOCKET_SECONDS,
        # One, at once: the pooled connection may have been closed while it was idle.
        "retry": Retry(NoBackoff(), 1),
        "protocol": 2,
        "decode_responses": False,
    }
    try:
        pool = BlockingConnectionPool(**{**parse_url(url), **ours})
        pool.make_connection()  # type: ignore[no-untyped-call]  # where unknown options come to light
    except (TypeError, ValueError):
        raise ValueError("redis-py does not know one of its options") from None
    return pool


class Client:
    """Commands to Redis. Once one failed, all others fail at once until a probe gets through."""

    def __init__(self, url: str) -> None:
        """Prepare, as `open_pool` does."""
        self.pool = open_pool(url)
        self._client = Redis.from_pool(self.pool)
        self.up = asyncio.Event()
        self.changed_at = asyncio.get_running_loop().time()

    async def run(self, commands: Sequence[Command], *, probe: bool = False) -> list[Any]:
        """Send commands in one round trip and give their results. Raises StoreUnavailable.

        Nothing is known of what a failed call has done: every command must bear to be repeated.
        """
        if not self.up.is_set() and not probe:
            raise self.unavailable()
        try:
            async with asyncio.timeout(ROUND_TRIP_SECONDS):
                results = await self._send(commands)
                if any(isinstance(result, NoScriptError) for result in results):
                    await self._send([("SCRIPT", "LOAD", script) for script in SCRIPTS])
                    results = await self._send(commands)
                for result in results:
                    if isinstance(result, RedisError):
                        raise result
        except (RedisError, OSError, TimeoutError) as exc:
            self._turn(up=False, reason=type(exc).__name__)  # its text may quote the URL
            raise self.unavailable() from exc
        self._turn(up=True)
        return results

    def unavailable(self) -> StoreUnavailable:
        """Give the error that tells an outage."""
        return StoreUnavailable("Redis does not answer", retry_after=RETRY_SECONDS)

    def seconds(self) -> float:
        """Tell for how long it has been up, or down."""
        return asyncio.get_running_loop().time() - self.changed_at

    async def aclose(self) -> None:
        """Close all connections."""
        await self.pool.disconnect()

    async def _send(self, commands: Sequence[Command]) -> list[Any]:
        async with self._client.pipeline(transaction=False) as pipe:
            for command in commands:
                pipe.execute_command(*command)
            return await pipe.execute(raise_on_error=False)

    def _turn(self, *, up: bool, reason: str = "") -> None:
        if up == self.up.is_set():
            return
        self.changed_at = asyncio.get_running_loop().time()
        if up:
            self.up.set()
            log.info("redis.up")
        else:
            self.up.clear()
            log.warning("redis.down", extra={"fields": {"reason": reason}})
