"""Rates: the same promises in one process and in Redis, where several share them."""

import asyncio
import time

import pytest

from chat_sse.errors import (
    Overloaded,
    TooManyRequests,
)
from chat_sse.limits.memory import MAX_CLIENTS, MemoryCounts, Windows
from chat_sse.limits.plan import Plan
from chat_sse.limits.rates import Rate
from tests.support.counts import HOUR, Parts, ask


async def test_a_client_is_refused_beyond_its_rate_and_the_others_are_not(limits: Parts) -> None:
    rates = limits.rates(HOUR, None)
    lefts = [status.left for _ in range(3) if (status := await ask(rates, "a"))]
    assert lefts == [2, 1, 0]
    for _ in range(5):
        with pytest.raises(TooManyRequests) as refused:
            await ask(rates, "a")
    assert 0 < (refused.value.retry_after or 0) <= 2 * 3600
    assert refused.value.headers["RateLimit"].startswith('"requests";r=0;t=')
    assert refused.value.headers["RateLimit-Policy"] == '"requests";q=3;w=3600'
    await ask(rates, "b")


async def test_everybody_is_refused_beyond_the_rate_of_all(limits: Parts) -> None:
    rates = limits.rates(Rate(100, 3600), HOUR)
    told = [status.left for name in "abc" if (status := await ask(rates, name))]
    assert told == [2, 1, 0]  # of everybody's
    with pytest.raises(TooManyRequests, match="everybody"):
        await ask(rates, "d")


async def test_a_client_that_is_refused_takes_nothing_from_the_others(limits: Parts) -> None:
    rates = limits.rates(Rate(2, 3600), Rate(4, 3600))
    for _ in range(2):
        await ask(rates, "greedy")
    for _ in range(20):
        with pytest.raises(TooManyRequests, match="per client"):
            await ask(rates, "greedy")
    await ask(rates, "b")
    await ask(rates, "c")


@pytest.mark.parametrize("limits", ["redis"], indirect=True)  # on memory's clock: tests/inside
async def test_when_a_refusal_says_so_the_client_may_ask_again(limits: Parts) -> None:
    rates = limits.rates(Rate(2, 1), None)
    refused: list[float] = []
    for _ in range(40):
        try:
            await ask(rates, "a")
        except TooManyRequests as error:
            refused.append(error.retry_after or 0)
            await asyncio.sleep((error.retry_after or 0) + 0.01)
            await ask(rates, "a")
        if len(refused) == 2:
            break
    assert len(refused) == 2


async def test_no_limit_says_nothing(limits: Parts) -> None:
    rates = limits.rates(None, None)
    assert [await ask(rates, "a") for _ in range(5)] == [None] * 5


async def test_parallel_hits_are_counted_one_by_one(limits: Parts) -> None:
    rates = limits.rates(Rate(7, 3600), None)
    results = await asyncio.gather(*(ask(rates, "a") for _ in range(50)), return_exceptions=True)
    assert sum(isinstance(result, TooManyRequests) for result in results) == 43
    assert not [result for result in results if isinstance(result, Overloaded)]


@pytest.mark.parametrize("limits", ["redis"], indirect=True)  # on memory's clock: tests/inside
async def test_no_burst_gets_through_where_two_windows_meet(limits: Parts) -> None:
    rates = limits.rates(Rate(10, 1), None)
    await asyncio.sleep(-time.time() % 1)
    began = time.monotonic()
    await ask(rates, "a")  # a window begins now, in memory with the second, and in Redis with its first hit
    await asyncio.sleep(0.85)
    let_in = 1
    while (elapsed := time.monotonic() - began) < 1.25:
        try:
            await ask(rates, "a")
        except TooManyRequests:
            await asyncio.sleep(0.002)
        else:
            let_in += 1
    # In the next window only as many as have become too old since it began.
    assert let_in <= 10 + 10 * (elapsed - 1) + 2


async def test_a_request_that_is_not_let_in_counts_for_its_client_alone(limits: Parts) -> None:
    rates = limits.rates(HOUR, Rate(4, 3600))
    for _ in range(3):
        await rates.count("stranger")
    for attempt in (rates.count, lambda client: ask(rates, client)):
        with pytest.raises(TooManyRequests, match="per client"):
            await attempt("stranger")
    told = [status.left for name in "abcd" if (status := await ask(rates, name))]
    assert told == [2, 2, 1, 0]
    off = limits.rates(None, HOUR)
    for _ in range(10):
        await off.count("stranger")


@pytest.mark.parametrize("limits", ["redis"], indirect=True)  # on memory's clock: tests/inside
async def test_a_refusal_by_everybodys_rate_takes_nothing_from_the_client(limits: Parts) -> None:
    rates = limits.rates(HOUR, Rate(1, 1))
    let_in = 0
    while let_in < 3:
        try:
            await ask(rates, "a")
        except TooManyRequests as error:
            assert "everybody" in error.details  # noqa: PT017 - many are let in and refused in turn
            await asyncio.sleep(0.05)
        else:
            let_in += 1


async def test_a_flood_from_more_addresses_than_there_is_room_for_is_counted_in_bounded_memory() -> None:
    windows = Windows(3600)
    for name in ("greedy", *map(str, range(MAX_CLIENTS - 1))):
        windows.seen(name, 0.0)
        windows.add(name)
    assert windows.seen("greedy", 0.0).here == 1
    for hours in range(2):
        for number in range(2 * MAX_CLIENTS + 1):
            windows.seen(str(number), hours * 3600.0)
            windows.add(str(number))
        assert len(windows) <= 2 * MAX_CLIENTS


async def test_counts_are_dropped_when_their_time_is_over() -> None:
    windows = Windows(60)
    for number in range(1_000):
        windows.seen(str(number), 0.0)
        windows.add(str(number))
    assert windows.seen("999", 59.9).here == 1
    assert windows.seen("999", 60.0).before == 1
    assert len(windows) == 1_000
    assert windows.seen("999", 120.0).before == 0
    assert len(windows) == 0


async def test_a_clock_that_is_set_back_lets_nobody_ask_more() -> None:
    now = 7_200.0
    counts = MemoryCounts(Plan(rate=HOUR), clock=lambda: now)
    for _ in range(3):
        await counts.count("a")
    now = 3_500.0
    with pytest.raises(TooManyRequests):
        await counts.count("a")


@pytest.mark.parametrize("rate", [Rate(1, 60), Rate(3, 60), Rate(60, 60)])
def test_a_wait_is_as_long_as_it_must_be(rate: Rate) -> None:
    windows, now, waits = Windows(60), 1_000.0, []
    for _ in range(5 * rate.amount):
        seen = windows.seen("a", now)
        if seen.is_full(rate):
            waits.append(seen.wait_seconds(rate))
            assert windows.seen("a", now + waits[-1] - 0.01).is_full(rate)
            now += waits[-1]
            assert not windows.seen("a", now).is_full(rate)
        windows.add("a")
    assert waits
