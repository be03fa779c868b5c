"""Commands to Redis: one round trip for any number of them, bounded in time, honest about an outage."""

import asyncio
import logging
from collections.abc import Sequence
from typing import Any

from redis.asyncio import Redis
from redis.exceptions import RedisError

from chat_sse.redis_access import Command, open_pool, send, unavailable
from chat_sse.stores.redis.scripts import SCRIPTS

log = logging.getLogger(__name__)

ROUND_TRIP_SECONDS = 3.0


class Client:
    """Commands to Redis. Once one failed, all others fail at once until a probe gets through."""

    def __init__(self, url: str) -> None:
        """Prepare, as `open_pool` does."""
        # One retry: a pooled connection may have been closed while it was idle.
        self.pool = open_pool(url, retries=1)
        self._client = Redis.from_pool(self.pool)
        self.up = asyncio.Event()
        self.changed_at = asyncio.get_running_loop().time()

    async def run(self, commands: Sequence[Command], *, probe: bool = False) -> list[Any]:
        """Send commands in one round trip and return their results. Raises StoreUnavailable.

        Nothing is known of what a failed call has done: every command must be idempotent.
        """
        if not self.up.is_set() and not probe:
            raise unavailable()
        try:
            async with asyncio.timeout(ROUND_TRIP_SECONDS):
                results = await send(self._client, commands, SCRIPTS)
        except (RedisError, OSError, TimeoutError) as exc:
            self._turn(up=False, reason=type(exc).__name__)  # its text may quote the URL
            raise unavailable() from exc
        self._turn(up=True)
        return results

    def seconds(self) -> float:
        """Return for how long it has been up, or down."""
        return asyncio.get_running_loop().time() - self.changed_at

    async def aclose(self) -> None:
        """Close all connections."""
        await self.pool.disconnect()

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
