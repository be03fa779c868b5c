"""How often may be asked: by one client, and by everybody together.

The package `limits` counts, with its sliding window counter: the window before counts with the part of it
that still lies within one window's length from now. It needs two numbers a client, whatever the rate, and
lets no burst through where two windows meet; a moving window would keep the time of every request.
"""

import time
from collections.abc import Callable
from functools import reduce

from limits import RateLimitItem, parse
from limits.aio.storage import Storage
from limits.aio.strategies import SlidingWindowCounterRateLimiter

from chat_sse.errors import TooManyRequests
from chat_sse.limits.headers import LimitStatus, limit_headers, tighter
from chat_sse.limits.memory_counters import MemoryCounters


def parse_rate(text: str) -> RateLimitItem | None:
    """Read `60/minute`; None for `off`."""
    return None if text == "off" else parse(text)


class Rates:
    """Counts the requests that ask."""

    def __init__(
        self,
        per_client: RateLimitItem | None,
        total: RateLimitItem | None,
        storage: Callable[[], Storage] = MemoryCounters,
    ) -> None:
        """`storage`: gives the counters of each rate; those of this process unless told otherwise."""
        self._client = _Limit(per_client, "per client", storage()) if per_client else None
        self._everybody = _Limit(total, "for everybody together", storage()) if total else None

    async def hit(self, client: str) -> LimitStatus | None:
        """Count a request for its client; returns what is left for it, None where nothing is limited.

        Raises TooManyRequests, and StoreUnavailable when the counts cannot be reached. A refused request does
        not count, so a client that is refused takes nothing from the others.
        """
        statuses = []
        if self._client:
            statuses.append(await self._client.test(f"client/{client}"))
        if self._everybody:
            statuses.append(await self._everybody.test("all"))
        if self._client:
            await self._client.hit(f"client/{client}")
        return reduce(tighter, statuses) if statuses else None

    async def hit_total(self) -> None:
        """Count a question for everybody together, once it is about to cost something. Raises as `hit` does.

        What costs nothing (a malformed body, a refusal) is counted for its sender alone, so that a few
        strangers cannot use up everybody's rate with it.
        """
        if self._everybody:
            await self._everybody.hit("all")

    async def hit_client(self, client: str) -> None:
        """Count a request for its client alone, one that was not let in. Raises as `hit` does."""
        if self._client:
            await self._client.hit(f"client/{client}")


class _Limit:
    """One rate, and the refusal beyond it."""

    def __init__(self, rate: RateLimitItem, whose: str, storage: Storage) -> None:
        self._rate = rate
        self._window = rate.get_expiry()
        self._whose = whose
        self._limiter = SlidingWindowCounterRateLimiter(storage)

    async def test(self, name: str) -> LimitStatus:
        """Return what is left for `name` after one more hit. Raises TooManyRequests when nothing is."""
        reset, left = await self._limiter.get_window_stats(self._rate, name)
        if left < 1:
            raise self._refusal(reset - time.time())
        seconds = reset - time.time()
        # Nothing has been counted yet: this hit begins a window.
        return LimitStatus(
            self._rate.amount, self._window, left - 1, seconds if seconds > 0 else self._window
        )

    async def hit(self, name: str) -> None:
        """Count. Raises TooManyRequests when there is no room, and has counted nothing then."""
        if not await self._limiter.hit(self._rate, name):
            reset, _ = await self._limiter.get_window_stats(self._rate, name)
            raise self._refusal(reset - time.time())

    def _refusal(self, wait_seconds: float) -> TooManyRequests:
        return TooManyRequests(
            f"limit: {self._rate.amount} requests per {self._rate.GRANULARITY.name} {self._whose}",
            retry_after=max(wait_seconds, 1),
            headers=limit_headers(LimitStatus(self._rate.amount, self._window, 0, wait_seconds), None),
        )
