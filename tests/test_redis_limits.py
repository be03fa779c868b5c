"""What of the limits only Redis can show. More of it, in virtual time: tests/inside/redis."""

import asyncio
import signal
import time
from contextlib import AsyncExitStack

import pytest

from chat_sse.errors import (
    BudgetSpent,
    StoreUnavailable,
    TooManyRequests,
    TooManyStreams,
)
from chat_sse.limits.budget import Budget
from chat_sse.limits.rates import Rate
from tests.support.counts import HOUR, Parts, ask, empty, free, reserve, take
from tests.support.redis_server import RedisServer


async def test_two_processes_share_every_count(redis_server: RedisServer) -> None:
    empty(redis_server)
    async with AsyncExitStack() as stack:
        left, right = Parts(redis_server.url, stack), Parts(redis_server.url, stack)
        rates = [side.rates(Rate(3, 3600), None) for side in (left, right)]
        slots = [side.slots(3, 100) for side in (left, right)]
        budgets = [side.budgets(None, Budget(350, "day")) for side in (left, right)]
        for attempts, kind in (
            ([ask(rates[n % 2], "a") for n in range(20)], TooManyRequests),
            ([take(slots[n % 2], "b", str(n)) for n in range(20)], TooManyStreams),
            ([reserve(budgets[n % 2], "c", 100) for n in range(20)], BudgetSpent),
        ):
            results = await asyncio.gather(*attempts, return_exceptions=True)
            assert sum(isinstance(result, kind) for result in results) == 17, results


async def test_without_redis_nothing_is_let_in() -> None:
    with RedisServer() as server:
        async with AsyncExitStack() as stack:
            limits = Parts(server.url, stack)
            rates, slots, budgets = (
                limits.rates(HOUR, None),
                limits.slots(1, 1),
                limits.budgets(None, Budget(9, "day")),
            )
            await take(slots, "a", "1")
            server.kill()
            for attempt in (ask(rates, "a"), take(slots, "a", "2"), reserve(budgets, "a", 1)):
                with pytest.raises(StoreUnavailable) as refused:
                    await attempt
                assert refused.value.retry_after
            free(slots, "a", "1")
            server.start()
            await ask(rates, "a")
            server.signal(signal.SIGSTOP)
            began = time.monotonic()
            hanging = (ask(rates, "a"), rates.count("a"), take(slots, "a", "2"), reserve(budgets, "a", 1))
            refusals = await asyncio.gather(*hanging, return_exceptions=True)
            assert {type(error) for error in refusals} == {StoreUnavailable}
            assert time.monotonic() - began < 4
            server.signal(signal.SIGCONT)
            await ask(rates, "b")
