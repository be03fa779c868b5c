"""Counts of one process and of several, as a fixture, and what the tests of the limits do with them."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from typing import cast

import pytest
import redis

from chat_sse.errors import (
    ChatError,
)
from chat_sse.events import new_stream_id
from chat_sse.limits.budget import Budget
from chat_sse.limits.counts import Counts, Reservation
from chat_sse.limits.headers import LimitStatus
from chat_sse.limits.memory import MemoryCounts
from chat_sse.limits.plan import Plan
from chat_sse.limits.rates import Rate
from chat_sse.limits.redis import SharedCounts
from chat_sse.messages import Message, Question
from chat_sse.redis_access import RoundTrips, connector
from tests.support.redis_server import RedisServer

HOUR = Rate(3, 3600)


def empty(server: RedisServer) -> None:
    with redis.Redis.from_url(server.url, protocol=2) as client:
        client.flushall()


async def ask(counts: Counts, client: str) -> LimitStatus | None:
    """Count a request that asks, and the question that it becomes."""
    counts.check(client)
    return (await counts.admit(client, new_stream_id(), 0)).requests


async def take(counts: Counts, client: str, stream_id: str) -> None:
    """Hold a slot for an answer that costs nothing."""
    await counts.admit(client, stream_id, 0)


def free(counts: Counts, client: str, stream_id: str) -> None:
    counts.settle(Reservation(client, stream_id, 0, time.time()), 0, refused=False)


async def reserve(counts: Counts, client: str, tokens: int) -> Reservation:
    return await counts.admit(client, new_stream_id(), tokens)


class Parts:
    """Makes counts of one kind. Two of the shared kind are two processes."""

    def __init__(self, url: str | None, stack: AsyncExitStack) -> None:
        self._url = url
        self._stack = stack

    def counts(self, plan: Plan, clock: Callable[[], float] = time.time) -> Counts:
        if self._url is None:
            return MemoryCounts(plan, clock)
        redis = RoundTrips(connector(self._url))
        self._stack.push_async_callback(redis.aclose)
        counts = SharedCounts(redis, plan, clock=clock)
        self._stack.push_async_callback(counts.aclose)
        return counts

    def rates(self, per_client: Rate | None, total: Rate | None) -> Counts:
        return self.counts(Plan(rate=per_client, rate_total=total))

    def slots(self, per_client: int, total: int) -> Counts:
        return self.counts(Plan(streams_per_client=per_client, streams=total))

    def budgets(
        self, per_client: Budget | None, total: Budget | None, clock: Callable[[], float] = time.time
    ) -> Counts:
        return self.counts(Plan(budget=per_client, budget_total=total), clock)


@pytest.fixture(params=["memory", "redis"])
async def limits(request: pytest.FixtureRequest) -> AsyncIterator[Parts]:
    url = None
    if request.param == "redis":
        server: RedisServer = request.getfixturevalue("redis_server")
        empty(server)
        url = server.url
    async with AsyncExitStack() as stack:
        yield Parts(url, stack)


async def eventually(attempt: Callable[[], object], seconds: float = 5.0) -> None:
    """Try until it does not raise: what is freed in Redis is free a moment later."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            await cast("asyncio.Future[None]", attempt())
        except ChatError:
            if time.monotonic() > deadline:
                raise
            await asyncio.sleep(0.01)
        else:
            return


def question(content: str = "Hello!", output: int = 100) -> Question:
    return Question(messages=[Message(role="user", content=content)], model="m", max_output_tokens=output)
