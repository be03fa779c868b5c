"""Commands to Redis: one round trip for any number of them, bounded in time, honest about an outage."""

import asyncio
import logging
from collections.abc import Sequence
from typing import Any

from chat_sse.redis_access import Command, RoundTrips, open_pool, unavailable
from chat_sse.stores.redis.scripts import SCRIPTS

log = logging.getLogger(__name__)

ROUND_TRIP_SECONDS = 3.0


class Client:
    """Commands to Redis. Once a round trip failed, all fail at once until a probe gets through."""

    def __init__(self, url: str) -> None:
        """Prepare, as `open_pool` does."""
        # One retry: a pooled connection may have been closed while it was idle.
        self.pool = open_pool(url, retries=1)
        self._trips = RoundTrips(self.pool, SCRIPTS, seconds=ROUND_TRIP_SECONDS, on_outcome=self._turn)
        self.up = asyncio.Event()
        self.changed_at = asyncio.get_running_loop().time()

    async def run(self, commands: Sequence[Command], *, probe: bool = False) -> list[Any]:
        """Send commands with everybody's in one round trip, return their results. Raises StoreUnavailable.

        Nothing is known of what a failed call has done: every command must be idempotent.
        """
        if not self.up.is_set() and not probe:
            raise unavailable()
        return await self._trips.run(commands)

    def seconds(self) -> float:
        """Return for how long it has been up, or down."""
        return asyncio.get_running_loop().time() - self.changed_at

    async def aclose(self) -> None:
        """Close all connections."""
        await self._trips.aclose()
        await self.pool.disconnect()

    def _turn(self, reason: str | None) -> None:
        up = reason is None
        if up == self.up.is_set():
            return
        self.changed_at = asyncio.get_running_loop().time()
        if up:
            self.up.set()
            log.info("redis.up")
        else:
            self.up.clear()
            log.warning("redis.down", extra={"fields": {"reason": reason}})
