"""The counts that several processes share, step by step against a real Redis."""

import asyncio
import hashlib
import time

import pytest

from chat_sse.errors import BudgetSpent, Overloaded, PayloadTooLarge, TooManyRequests, TooManyStreams
from chat_sse.limits.budget import Budget
from chat_sse.limits.headers import LimitStatus
from chat_sse.limits.plan import OwnLimits
from chat_sse.limits.rates import Rate
from tests.inside.redis.processes import (
    MIDNIGHT,
    THREE_A_DAY,
    Processes,
    admit,
    left,
    refused,
    round_trips,
    settle,
)


def digest(name: str) -> str:
    return hashlib.sha256(name.encode()).hexdigest()[:32]


# Rates.


async def test_a_client_asks_as_often_as_its_rate_says_whichever_process_it_asks(
    processes: Processes,
) -> None:
    here, there = processes.pair(rate=THREE_A_DAY)
    for counts, remaining in ((here, 2), (there, 1), (here, 0)):
        counts.check("a")
        status = (await admit(counts)).requests
        assert status is not None
        assert (status.quota, status.window_seconds, status.left) == (3, 86_400, remaining)
        assert status.reset_seconds == pytest.approx(86_400 - time.time() % 86_400, abs=5)
    for attempt in (admit(here), admit(there), here.count("a"), there.count("a")):
        with pytest.raises(TooManyRequests) as raised:
            await attempt
        assert raised.value.details == "limit: 3 requests per day per client"
        assert raised.value.headers["RateLimit-Policy"] == '"requests";q=3;w=86400'
        assert 0 < (raised.value.retry_after or 0) <= 2 * 86_400
    await there.count("b")
    standing = await there.standing("a")
    assert standing.requests is not None
    assert (standing.requests.left, standing.requests.quota) == (0, 3)


async def test_a_question_that_everybodys_rate_refuses_takes_nothing_from_its_client(
    processes: Processes,
) -> None:
    here, there = processes.pair(rate=THREE_A_DAY, rate_total=Rate(2, 86_400))
    for name in "ab":
        await admit(there, name, answer=name)
    for _ in range(2):
        with pytest.raises(TooManyRequests, match="limit: 2 requests per day for everybody together") as told:
            await admit(here, "c")
        assert 0 < (told.value.retry_after or 0) <= 2 * 86_400
    requests = (await here.standing("c")).requests
    assert requests is not None
    assert (requests.quota, requests.left) == (3, 0)
    for _ in range(3):  # everybody's has no say in it
        await here.count("c")
    for attempt in (here.count("c"), admit(here, "c"), admit(there, "c")):
        with pytest.raises(TooManyRequests, match="per client"):
            await attempt


async def test_a_question_that_upstream_refused_gives_its_place_in_everybodys_rate_back(
    processes: Processes,
) -> None:
    counts = processes.counts(rate_total=Rate(1, 86_400))
    for number in range(3):
        await settle(counts, await admit(counts, answer=str(number)), 0, refused=True)
    await settle(counts, await admit(counts), 0, refused=False)
    assert isinstance(await refused(counts), TooManyRequests)


async def test_what_is_full_is_named_among_all_counts(processes: Processes) -> None:
    limits = {"budget": Budget(100, "day"), "budget_total": Budget(150, "day")}
    counts = processes.counts(rate_total=Rate(3, 86_400), streams=2, **limits)
    held = await admit(counts, tokens=90)
    assert "100 tokens per day per client" in (await refused(counts, tokens=20)).details
    assert "150 tokens per day for everybody" in (await refused(counts, "b", 70)).details
    await admit(counts, "b", 1, "t")
    assert type(await refused(counts, "c")) is Overloaded
    await settle(counts, held, 90)
    await admit(counts, "c", answer="u")
    assert (await refused(counts, "d")).details == "limit: 3 requests per day for everybody together"


async def test_without_limits_nothing_is_counted_or_asked(processes: Processes) -> None:
    counts = processes.counts()
    counts.check("a")
    await counts.count("a")
    assert round_trips(counts) == (0, 0)
    held = await admit(counts)
    assert (held.requests, held.status) == (None, None)


# Slots.


async def test_a_client_and_all_together_hold_so_many_slots(processes: Processes) -> None:
    here, there = processes.pair(streams_per_client=2, streams=3)
    held = await admit(here, answer="1")
    await admit(there, answer="2")
    error = await refused(here)
    assert isinstance(error, TooManyStreams)
    assert (error.details, error.retry_after) == ("limit: 2 answers at once per client", 5)
    await admit(there, "b", answer="3")
    error = await refused(here, "c")
    assert type(error) is Overloaded
    assert error.details == "all 3 answers at once are running"
    assert [(await here.standing(name)).streams_left for name in "abc"] == [0, 0, 0]
    await settle(here, held, 0)
    standing = await there.standing("a")
    assert (standing.streams, standing.streams_left, standing.requests) == (2, 1, None)
    await admit(there, "a", answer="4")


async def test_a_slot_is_leased_as_long_as_its_answer_runs(processes: Processes) -> None:
    here, there = processes.pair(streams_per_client=1)
    held = await admit(here)
    data, key = processes.redis.data, f"p:{{limits}}:slots:{digest('a')}"

    def lease() -> float:
        """Return for how many more seconds it is held."""
        ends = data.zscore(key, "s")
        assert isinstance(ends, float)
        return ends / 1000 - time.time()

    for _ in range(2):
        assert lease() == pytest.approx(6, abs=1)
        assert data.pttl(key) == pytest.approx(12_000, abs=1000)
        data.zadd(key, {"s": (time.time() - 1) * 1000})  # it has run out
        await asyncio.sleep(1.8)
        assert lease() < 0
        await asyncio.sleep(0.3)
    assert isinstance(await refused(there), TooManyStreams)
    data.zadd(key, {"s": (time.time() - 1) * 1000})
    await admit(there, answer="t")  # one whose lease has run out holds nothing
    await settle(here, held, 0)
    await asyncio.sleep(2.5)
    assert data.zrange(key, 0, -1) == [b"t"]


async def test_leases_are_renewed_five_hundred_at_once(processes: Processes) -> None:
    counts = processes.counts()
    await asyncio.gather(*(admit(counts, answer=str(number)) for number in range(501)))
    (before, _), key = round_trips(counts), f"p:{{limits}}:slots:{digest('a')}"
    processes.redis.data.zunionstore(key, {key: 0})  # all have run out
    await asyncio.sleep(2.1)
    assert round_trips(counts)[0] == before + 2
    assert processes.redis.data.zcount(key, 1, "+inf") == 501


async def test_a_slot_that_is_freed_between_two_batches_of_a_renewal_is_not_taken_again(
    processes: Processes,
) -> None:
    counts = processes.counts(streams_per_client=1)
    one = await admit(counts)
    held = list(vars(counts)["_held"].items())
    await settle(counts, one, 0)
    before = round_trips(counts)
    await counts._renew_some(held)  # noqa: SLF001 - the moment between them
    assert round_trips(counts) == before
    await admit(counts, answer="t")


# Budgets.


async def test_what_was_reserved_and_not_spent_is_there_again(processes: Processes) -> None:
    here, there = processes.pair(budget=Budget(100, "day"), budget_total=Budget(150, "month"))
    held = await admit(here, tokens=90)
    assert held.status == LimitStatus(100, 86_400, 10, 43_200)
    error = await refused(there, tokens=11)
    assert isinstance(error, BudgetSpent)
    assert error.retry_after == 43_200
    assert error.details.startswith("limit: 100 tokens per day per client; ")
    assert error.headers["RateLimit"] == '"tokens";r=10;t=43200'
    assert (await refused(there, "b", 61)).details.startswith("limit: 150 tokens per month for everybody")
    await settle(here, held, 20)
    assert (await left(there), await left(there, "b")) == (80, 100)
    again = await admit(there, tokens=80, answer="t")
    await settle(there, again, 200)  # it cost more than anybody could know
    assert (await left(here), await left(here, "b")) == (0, 0)
    assert isinstance(await refused(here, "b", 1), BudgetSpent)


async def test_a_settlement_counts_once(processes: Processes) -> None:
    counts = processes.counts(budget=Budget(100, "day"))
    held = await admit(counts, tokens=50)
    for _ in range(3):
        await settle(counts, held, 10)
    assert await left(counts) == 90
    [mark] = processes.redis.keys("p:{limits}:settled:*")
    assert mark == "p:{limits}:settled:s"
    assert processes.redis.data.pttl(mark) == pytest.approx(120_000, abs=2000)


async def test_a_refused_question_costs_what_it_is_settled_with_and_frees_its_slot(
    processes: Processes,
) -> None:
    counts = processes.counts(streams=1, budget=Budget(100, "day"), rate_total=Rate(9, 86_400))
    await settle(counts, await admit(counts, tokens=60), 0, refused=True)
    assert await left(counts) == 100
    await admit(counts, tokens=100, answer="t")


async def test_a_question_that_never_fits_is_told_so_and_takes_nothing(processes: Processes) -> None:
    counts = processes.counts(streams=1, budget=Budget(100, "day"), budget_total=Budget(90, "day"))
    for tokens in (91, 101):
        assert isinstance(await refused(counts, tokens=tokens), PayloadTooLarge)
    assert round_trips(counts) == (0, 0)
    assert (await admit(counts, tokens=90)).tokens == 90


async def test_a_new_day_is_a_new_budget_and_an_old_answer_stays_in_its_own(processes: Processes) -> None:
    processes.now = MIDNIGHT - 1
    counts = processes.counts(budget=Budget(100, "day"))
    late = await admit(counts, tokens=100)
    assert (await refused(counts, tokens=1)).retry_after == 1
    processes.now = MIDNIGHT
    assert (await counts.standing("a")).tokens == LimitStatus(100, 86_400, 100, 86_400)
    await admit(counts, tokens=90, answer="t")
    await settle(counts, late, 0)
    assert await left(counts) == 10
    data = processes.redis.data
    expiries = [data.expiretime(key) for key in processes.redis.keys("p:{limits}:budget:*")]
    assert expiries == [MIDNIGHT + 86_400, MIDNIGHT + 2 * 86_400]  # each a day after its end


async def test_a_tokens_own_limits_hold_beside_the_servers(processes: Processes) -> None:
    own = OwnLimits(rate=Rate(1, 86_400), budget=Budget(10, "day"))
    counts = processes.counts(rate=THREE_A_DAY, budget=Budget(100, "day"))
    requests = (await counts.standing("jwt:a", own)).requests
    assert requests is not None
    assert (requests.quota, requests.left) == (1, 1)
    await counts.count("jwt:a", own)
    with pytest.raises(TooManyRequests):
        await counts.count("jwt:a", own)
    own = OwnLimits(budget=Budget(10, "day"))
    held = await counts.admit("jwt:a", "s", 10, own)
    with pytest.raises(BudgetSpent):
        await counts.admit("jwt:a", "t", 1, own)
    await settle(counts, held, 0)
    with pytest.raises(TooManyRequests, match="3 requests per day"):
        await counts.admit("jwt:a", "t", 10, own)


async def test_keys_tell_no_address_and_none_stays_for_ever(processes: Processes) -> None:
    counts = processes.counts(rate=THREE_A_DAY, rate_total=THREE_A_DAY, budget_total=Budget(9, "month"))
    client = "203.0.113.9"
    await admit(counts, client, 9)
    keys = processes.redis.keys()
    month = time.strftime("%Y-%m", time.gmtime(processes.now))
    assert keys == sorted(
        f"p:{{limits}}:{name}"
        for name in (
            *("epoch", f"budget:{month}:everybody", f"rate:86400:{digest(client)}"),
            *("rate:86400:everybody", f"slots:{digest(client)}", "slots:everybody"),
        )
    )
    assert all(processes.redis.data.ttl(key) > 0 for key in keys)
