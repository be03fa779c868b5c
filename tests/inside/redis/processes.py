"""Processes that count as one, beside a real Redis."""

import asyncio
import time
from contextlib import AsyncExitStack
from typing import Any

import pytest

from chat_sse.errors import ChatError, LimitReached, Overloaded, PayloadTooLarge
from chat_sse.limits.counts import Reservation
from chat_sse.limits.plan import Plan
from chat_sse.limits.rates import Rate
from chat_sse.limits.redis import SharedCounts
from chat_sse.redis_access import RoundTrips, connector
from tests.support.redis_time import RedisBeside

# Redis drops counters by its own clock, so these days are real ones.
MIDNIGHT = (time.time() // 86_400 + 1) * 86_400
NOON = MIDNIGHT - 43_200
THREE_A_DAY = Rate(3, 86_400)


class Processes:
    """Processes that serve one site, with one clock for the days of their budgets."""

    def __init__(self, redis: RedisBeside, stack: AsyncExitStack) -> None:
        self.redis, self._stack = redis, stack
        self.now = NOON

    def counts(self, **limits: Any) -> SharedCounts:
        """Start one with these limits."""
        redis = RoundTrips(connector(self.redis.url), seconds=2)
        self._stack.push_async_callback(redis.aclose)
        counts = SharedCounts(redis, Plan(**limits), "p", lambda: self.now)
        self._stack.push_async_callback(counts.aclose)
        return counts

    def pair(self, **limits: Any) -> tuple[SharedCounts, SharedCounts]:
        """Start two."""
        return self.counts(**limits), self.counts(**limits)


async def admit(counts: SharedCounts, client: str = "a", tokens: int = 0, answer: str = "s") -> Reservation:
    return await counts.admit(client, answer, tokens)


async def refused(counts: SharedCounts, client: str = "a", tokens: int = 0) -> ChatError:
    with pytest.raises((LimitReached, Overloaded, PayloadTooLarge)) as raised:
        await counts.admit(client, "another", tokens)
    return raised.value


async def settle(counts: SharedCounts, held: Reservation, tokens: int, *, refused: bool = False) -> None:
    """Settle, and wait until Redis knows."""
    counts.settle(held, tokens, refused=refused)
    await settled(counts)


async def settled(counts: SharedCounts) -> None:
    """Wait until nothing is left to be settled."""
    settlements = vars(vars(counts)["_settlements"])
    if settlements["_under_way"]:
        await asyncio.wait(settlements["_under_way"])
        await asyncio.sleep(0)
    if (retrying := settlements["_retrying"]) is not None:
        await asyncio.wait([retrying])


async def left(counts: SharedCounts, client: str = "a") -> int | None:
    """Return how many tokens are left to a client."""
    tokens = (await counts.standing(client)).tokens
    return None if tokens is None else tokens.left


def round_trips(counts: SharedCounts) -> tuple[float, float]:
    """Return how many there were, and how many have failed."""
    told = {figure.name: figure.value for figure in vars(counts)["_redis"].figures()}
    return told["redis_round_trips"], told["redis_failures"]
