"""Rates, slots and budgets: the same promises in one process and in Redis, where several share them."""

import asyncio
import signal
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack
from typing import cast

import pytest
import redis

from chat_sse.errors import (
    BudgetSpent,
    ChatError,
    Overloaded,
    PayloadTooLarge,
    StoreUnavailable,
    TooManyRequests,
    TooManyStreams,
)
from chat_sse.events import Done, Usage, new_stream_id
from chat_sse.limits.admission import Limits, Outcome, Permit
from chat_sse.limits.budget import TOKENS_PER_IMAGE, TOKENS_PER_PART, Budget, prompt_bound
from chat_sse.limits.counts import Counts, Reservation
from chat_sse.limits.headers import LimitStatus
from chat_sse.limits.memory import MAX_CLIENTS, MemoryCounts, Windows
from chat_sse.limits.plan import Plan
from chat_sse.limits.rates import Rate
from chat_sse.limits.redis import SharedCounts
from chat_sse.messages import ImagePart, ImageUrl, Message, Question, TextPart
from tests.support.redis_server import RedisServer

HOUR = Rate(3, 3600)


@pytest.fixture(scope="module")
def redis_server() -> Iterator[RedisServer]:
    with RedisServer() as server:
        yield server


def empty(server: RedisServer) -> None:
    with redis.Redis.from_url(server.url, protocol=2) as client:
        client.flushall()


async def ask(counts: Counts, client: str) -> LimitStatus | None:
    """Count a request that asks, and the question that it becomes."""
    status = await counts.arrive(client)
    await counts.admit(client, new_stream_id(), 0)
    return status


async def take(counts: Counts, client: str, stream_id: str) -> None:
    """Hold a slot for an answer that costs nothing."""
    await counts.admit(client, stream_id, 0)


def free(counts: Counts, client: str, stream_id: str) -> None:
    counts.settle(Reservation(client, stream_id, 0, time.time(), None), 0, refused=False)


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
        counts = SharedCounts(self._url, plan, clock=clock)
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


# Rates.


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
        await rates.misuse("stranger")
    for attempt in (rates.misuse, rates.arrive):
        with pytest.raises(TooManyRequests, match="per client"):
            await attempt("stranger")
    told = [status.left for name in "abcd" if (status := await ask(rates, name))]
    assert told == [2, 2, 1, 0]
    off = limits.rates(None, HOUR)
    for _ in range(10):
        await off.misuse("stranger")


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
        await counts.arrive("a")
    now = 3_500.0
    with pytest.raises(TooManyRequests):
        await counts.arrive("a")


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


# Slots.


async def test_a_client_holds_so_many_slots_and_gets_one_back_when_it_frees_one(limits: Parts) -> None:
    slots = limits.slots(2, 100)
    await take(slots, "a", "1")
    await take(slots, "a", "2")
    with pytest.raises(TooManyStreams) as refused:
        await take(slots, "a", "3")
    assert refused.value.retry_after
    await take(slots, "b", "4")
    free(slots, "a", "1")
    await eventually(lambda: take(slots, "a", "3"))


async def test_all_together_hold_so_many_slots(limits: Parts) -> None:
    slots = limits.slots(10, 2)
    await take(slots, "a", "1")
    await take(slots, "b", "2")
    with pytest.raises(Overloaded) as refused:
        await take(slots, "c", "3")
    assert refused.value.status == 503
    free(slots, "b", "2")
    await eventually(lambda: take(slots, "c", "3"))


async def test_parallel_takers_never_hold_more_than_there_are(limits: Parts) -> None:
    slots = limits.slots(5, 100)
    results = await asyncio.gather(*(take(slots, "a", str(n)) for n in range(40)), return_exceptions=True)
    assert sum(result is None for result in results) == 5
    assert sum(isinstance(result, TooManyStreams) for result in results) == 35


# Budgets.


async def test_parallel_questions_never_reserve_more_than_there_is(limits: Parts) -> None:
    budgets = limits.budgets(None, Budget(3_999, "day"))
    results = await asyncio.gather(
        *(reserve(budgets, f"client {n}", 1_000) for n in range(50)), return_exceptions=True
    )
    assert sum(not isinstance(result, BaseException) for result in results) == 3
    refused = [result for result in results if isinstance(result, BudgetSpent)]
    assert len(refused) == 47
    assert 0 < (refused[0].retry_after or 0) <= 86_400
    assert refused[0].headers["RateLimit"].startswith('"tokens";r=999;t=')
    assert refused[0].headers["RateLimit-Policy"] == '"tokens";q=3999;qu="tokens";w=86400'


async def test_what_was_not_spent_is_there_again(limits: Parts) -> None:
    budgets = limits.budgets(Budget(1_000, "month"), Budget(5_000, "day"))
    reservation = await reserve(budgets, "a", 900)
    assert reservation.status is not None
    assert reservation.status.left == 100
    with pytest.raises(BudgetSpent):
        await reserve(budgets, "a", 101)
    budgets.settle(reservation, 20, refused=False)
    await eventually(lambda: reserve(budgets, "a", 980))
    with pytest.raises(BudgetSpent):
        await reserve(budgets, "a", 1)
    await reserve(budgets, "b", 1_000)


async def test_a_refusal_by_one_budget_takes_nothing_out_of_the_other(limits: Parts) -> None:
    budgets = limits.budgets(Budget(1_000, "day"), Budget(2_000, "day"))
    await reserve(budgets, "a", 1_000)
    for _ in range(5):
        with pytest.raises(BudgetSpent, match="per client"):
            await reserve(budgets, "a", 1_000)
    await reserve(budgets, "b", 1_000)
    with pytest.raises(BudgetSpent, match="everybody"):
        await reserve(budgets, "c", 1)


async def test_spending_more_than_was_reserved_counts_in_full(limits: Parts) -> None:
    budgets = limits.budgets(None, Budget(1_000, "day"))
    budgets.settle(await reserve(budgets, "a", 10), 995, refused=False)
    await asyncio.sleep(0.05)
    with pytest.raises(BudgetSpent):
        await reserve(budgets, "a", 10)


async def test_a_question_that_the_whole_budget_is_too_small_for_is_told_so(limits: Parts) -> None:
    budgets = limits.budgets(Budget(1_000, "day"), None)
    with pytest.raises(PayloadTooLarge, match=r"may cost 1001 tokens.*the whole budget is 1000 a day"):
        await reserve(budgets, "a", 1_001)


async def test_a_new_window_begins_with_the_day_and_answers_stay_in_theirs(limits: Parts) -> None:
    midnight = (time.time() // 86_400 + 1) * 86_400
    now = midnight - 1
    budgets = limits.budgets(Budget(100, "day"), None, clock=lambda: now)
    late = await reserve(budgets, "a", 100)
    with pytest.raises(BudgetSpent) as refused:
        await reserve(budgets, "a", 1)
    assert refused.value.retry_after == 1
    now = midnight
    await reserve(budgets, "a", 90)
    budgets.settle(late, 0, refused=False)  # gives nothing back to the new day
    await asyncio.sleep(0.05)
    with pytest.raises(BudgetSpent):
        await reserve(budgets, "a", 11)


# What an answer costs.


def question(content: str = "Hello!", output: int = 100) -> Question:
    return Question(messages=[Message(role="user", content=content)], model="m", max_output_tokens=output)


def test_a_prompt_has_no_more_tokens_than_its_bound() -> None:
    for text in ("Hello!", "Grüße, 世界 🙂", "\ud800", "a" * 1000):
        assert prompt_bound(question(text)) >= len(text.encode("utf-8", "surrogatepass")) + 4 + 3
    assert prompt_bound(question(), "Be brief.") == prompt_bound(question()) + len("Be brief.")
    image = ImagePart(image_url=ImageUrl(url="https://example.org/a.png"))
    shown = Message(role="user", content=[TextPart(text="What?"), image, image])
    pictures = Question(messages=[shown], model="m", max_output_tokens=1)
    assert (
        prompt_bound(pictures) == prompt_bound(question("What?")) + 2 * TOKENS_PER_IMAGE + 3 * TOKENS_PER_PART
    )


USAGE = Usage(prompt_tokens=10, completion_tokens=8, total_tokens=18)


@pytest.mark.parametrize(
    ("refused", "done", "size", "cost"),
    [
        (True, None, 0, 0),
        (False, Done(finish_reason="stop", usage=USAGE), 500, 18),
        (False, Done(finish_reason="stop"), 40, "prompt and size"),
        (False, Done(finish_reason="stop"), 4_000, "all"),
        (False, None, 40, "all"),
    ],
)
async def test_an_answer_costs_what_upstream_says_and_else_its_most(
    refused: bool, done: Done | None, size: int, cost: int | str
) -> None:
    prompt = prompt_bound(question(), None)
    budgets = MemoryCounts(Plan(budget_total=Budget(10_000, "day")))
    admission = Limits(counts=budgets, system_prompt=None)
    permit = await admission.arrive("a", attaches=False)
    await permit.admit("1", question())
    for _ in range(2):  # the second time changes nothing
        permit.settle(Outcome(refused=refused, done=done, seconds=60, size=size))
    expected = {"all": prompt + 100, "prompt and size": prompt + size}.get(str(cost), cost)
    left = (await reserve(budgets, "a", 1)).status
    assert left is not None
    assert left.left == 10_000 - 1 - int(expected)


async def test_a_question_that_the_budget_refuses_gives_its_slot_back() -> None:
    admission = Limits(counts=MemoryCounts(Plan(streams=1, budget=Budget(1_000, "day"))), system_prompt=None)
    for _ in range(3):
        with pytest.raises(PayloadTooLarge):
            await Permit(admission, "a", None).admit("1", question(output=1_000))
    await Permit(admission, "a", None).admit("1", question())


# What only Redis can show. More of it, in virtual time: tests/inside/redis


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
            hanging = (ask(rates, "a"), rates.misuse("a"), take(slots, "a", "2"), reserve(budgets, "a", 1))
            refusals = await asyncio.gather(*hanging, return_exceptions=True)
            assert {type(error) for error in refusals} == {StoreUnavailable}
            assert time.monotonic() - began < 3
            server.signal(signal.SIGCONT)
            await ask(rates, "b")


async def test_what_costs_nothing_takes_nothing_from_everybody() -> None:
    limits = Limits(counts=MemoryCounts(Plan(rate_total=Rate.parse("3/hour"))), system_prompt=None)
    for number in range(20):  # malformed, or refused before they cost anything
        await limits.arrive(f"stranger {number}", attaches=False)
    for number in range(3):
        permit = await limits.arrive("a", attaches=False)
        await permit.admit(str(number), question())
    with pytest.raises(TooManyRequests):
        await limits.arrive("a", attaches=False)


async def test_an_answer_that_is_stopped_at_once_gives_most_of_its_reservation_back() -> None:
    budgets = MemoryCounts(Plan(budget_total=Budget(10_000, "day")))
    limits = Limits(counts=budgets, system_prompt=None)
    permit = await limits.arrive("a", attaches=False)
    await permit.admit("1", question(output=8_000))
    permit.settle(Outcome(refused=False, done=None, seconds=0.1, size=100))
    left = (await reserve(budgets, "a", 1)).status
    assert left is not None
    assert left.left == 10_000 - 1 - prompt_bound(question(), None) - 100 - 500


async def test_another_questions_key_is_counted_as_a_request() -> None:
    limits = Limits(counts=MemoryCounts(Plan(rate=Rate.parse("2/hour"))), system_prompt=None)
    for _ in range(2):
        permit = await limits.arrive("a", attaches=True)
        await permit.count_misuse()
    with pytest.raises(TooManyRequests):
        await permit.count_misuse()
