"""How often may be asked: by one client, and by everybody together.

The package `limits` counts, with its sliding window counter: the window before counts with the part of it
that still lies within one window's length from now. It needs two numbers a client, whatever the rate, and
lets no burst through where two windows meet; a moving window would keep the time of every request.
"""

import asyncio
import time
from collections.abc import Callable
from functools import reduce
from typing import TypeAlias

from limits import RateLimitItem, parse
from limits.aio.storage import Storage
from limits.aio.strategies import SlidingWindowCounterRateLimiter

from chat_sse.errors import TooManyRequests
from chat_sse.limits.headers import LimitStatus, limit_headers, tighter
from chat_sse.limits.memory_counters import MemoryCounters
from chat_sse.limits.scopes import Scope, amounts, scopes_of


def parse_rate(text: str) -> RateLimitItem | None:
    """Read `60/minute`; None for `off`."""
    return None if text == "off" else parse(text)


def share_of_rate(total: RateLimitItem | None, percent: int) -> RateLimitItem | None:
    """Return a part of everybody's rate, of one request at least. None where that is no part."""
    part = 0 if total is None else max(1, total.amount * percent // 100)
    return type(total)(part) if total is not None and part < total.amount else None


class Rates:
    """Counts the requests that ask."""

    def __init__(
        self,
        per_client: RateLimitItem | None,
        total: RateLimitItem | None,
        storage: Callable[[], Storage] = MemoryCounters,
        *,
        most: RateLimitItem | None = None,
    ) -> None:
        """`most`: what an address or a site may have of the total. It counts what the total counts.

        `storage`: gives the counters of each rate; those of this process unless told otherwise.
        """
        own = amounts(_amount(per_client), None)
        self._limits = {
            scope: [RateLimit(period(amount), scope.whose, storage()) for amount, period in limits]
            for scope, limits in own.items()
        }
        self._shares = {
            scope: [
                RateLimit(period(amount), scope.whose, storage())
                for amount, period in limits
                if (amount, period) not in own[scope]  # else the client's own limit is as narrow
            ]
            for scope, limits in amounts(_amount(per_client), _amount(most)).items()
        }
        self._everybody = RateLimit(total, "for everybody together", storage()) if total else None
        self._refunds: set[asyncio.Task[None]] = set()

    async def hit(self, client: str) -> LimitStatus | None:
        """Count a request for its client; returns what is left for it, None where nothing is limited.

        Raises TooManyRequests, and StoreUnavailable when the counts cannot be reached. A refused request does
        not count, so a client that is refused takes nothing from the others.
        """
        counted = [*self._of(client, self._limits), *self._of_total(client)]
        statuses = [await limit.test(name) for limit, name in counted]
        await self.hit_client(client)
        return reduce(tighter, statuses) if statuses else None

    async def hit_total(self, client: str) -> None:
        """Count a question for everybody together, once it is about to cost something. Raises as `hit` does.

        What costs nothing (a malformed body, a refusal) is counted for its sender alone, so that a few
        strangers cannot use up everybody's rate with it.
        """
        for limit, name in self._of_total(client):
            await limit.hit(name)

    def refund_total(self, client: str) -> None:
        """Take back one `hit_total`: upstream refused the question, unpaid. Never waits and never raises."""
        if self._everybody:
            task = asyncio.create_task(self._refund(client))
            self._refunds.add(task)
            task.add_done_callback(self._refunds.discard)

    async def hit_client(self, client: str) -> None:
        """Count a request for its client alone, one that was not let in. Raises as `hit` does."""
        for limit, name in self._of(client, self._limits):
            await limit.hit(name)

    async def _refund(self, client: str) -> None:
        for limit, name in self._of_total(client):
            await limit.refund(name)

    def _of_total(self, client: str) -> "Counts":
        """Return the rates that a question counts against once it costs something, everybody's last."""
        shares = self._of(client, self._shares, "share")
        return [*shares, (self._everybody, "all")] if self._everybody else shares

    def _of(self, client: str, limits: "dict[Scope, list[RateLimit]]", kind: str = "client") -> "Counts":
        """Return the rates that a client's requests count against, with the names of its counts."""
        return [
            (limit, f"{kind}/{self._name(name)}")
            for scope, name in scopes_of(client)
            for limit in limits[scope]
        ]

    def _name(self, name: str) -> str:
        """Return the name under which a count is kept."""
        return name


def _amount(rate: RateLimitItem | None) -> tuple[int, type[RateLimitItem]] | None:
    return None if rate is None else (rate.amount, type(rate))


class RateLimit:
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

    async def refund(self, name: str) -> None:
        """Take back one hit, if any is still counted."""
        _, left = await self._limiter.get_window_stats(self._rate, name)
        if left < self._rate.amount:
            await self._limiter.hit(self._rate, name, cost=-1)

    def _refusal(self, wait_seconds: float) -> TooManyRequests:
        return TooManyRequests(
            f"limit: {self._rate.amount} requests per {self._rate.GRANULARITY.name} {self._whose}",
            retry_after=max(wait_seconds, 1),
            headers=limit_headers(LimitStatus(self._rate.amount, self._window, 0, wait_seconds), None),
        )


Counts: TypeAlias = list[tuple[RateLimit, str]]
