"""The counts of one process, on a clock that the test moves."""

import pytest

from chat_sse.errors import (
    BudgetSpent,
    ChatError,
    LimitReached,
    Overloaded,
    PayloadTooLarge,
    TooManyRequests,
    TooManyStreams,
)
from chat_sse.limits.budget import Budget
from chat_sse.limits.counts import Reservation
from chat_sse.limits.headers import LimitStatus
from chat_sse.limits.memory import MAX_CLIENTS, MemoryCounts, Spending, Windows
from chat_sse.limits.plan import OwnLimits, Plan
from chat_sse.limits.rates import Rate

NOON = 1_772_323_200.0 + 43_200  # on the first of March 2026
MIDNIGHT = 1_772_323_200.0 + 86_400
MINUTE = Rate(3, 60)


class Clock:
    """What the counts take for the time."""

    def __init__(self, now: float = NOON) -> None:
        self.now = now

    def __call__(self) -> float:
        """Tell."""
        return self.now


async def admit(counts: MemoryCounts, client: str = "a", tokens: int = 0) -> Reservation:
    return await counts.admit(client, "s", tokens)


async def refused(counts: MemoryCounts, client: str = "a", tokens: int = 0) -> ChatError:
    with pytest.raises((LimitReached, Overloaded, PayloadTooLarge)) as raised:
        await counts.admit(client, "s", tokens)
    return raised.value


# Rates.


async def test_the_rate_is_what_was_asked_in_this_window_and_the_old_ones_part() -> None:
    clock = Clock()
    counts = MemoryCounts(Plan(rate=Rate(10, 60)), clock)
    for left in range(9, 4, -1):
        assert (await admit(counts)).requests == LimitStatus(10, 60, left, 60)
    clock.now += 60 + 15  # a quarter of the new window: three quarters of the five count
    assert (await admit(counts)).requests == LimitStatus(10, 60, 6, 45)  # 10 less 3.75, and this one
    clock.now += 60 * 2  # none of them is in the window before
    assert (await admit(counts)).requests == LimitStatus(10, 60, 9, 45)


async def test_a_refusal_names_the_limit_and_when_it_ends() -> None:
    clock = Clock(NOON + 20)
    counts = MemoryCounts(Plan(rate=MINUTE), clock)
    for _ in range(3):
        await counts.count("a")
    with pytest.raises(TooManyRequests) as raised:
        counts.check("a")
    assert raised.value.details == "limit: 3 requests per minute per client"
    # At the next window's begin all three still count; one is too old when a third of it is over.
    wait = raised.value.retry_after or 0
    assert wait == pytest.approx(40, abs=0.01)
    assert raised.value.headers == {
        "RateLimit": '"requests";r=0;t=41',
        "RateLimit-Policy": '"requests";q=3;w=60',
    }
    clock.now += wait - 0.01
    with pytest.raises(TooManyRequests):
        await counts.count("a")
    clock.now += 0.01
    await counts.count("a")


async def test_a_refusal_for_less_than_a_second_says_a_second() -> None:
    counts = MemoryCounts(Plan(rate=Rate(1, 1)), Clock(NOON + 0.5))
    await counts.count("a")
    with pytest.raises(TooManyRequests) as raised:
        await counts.count("a")
    assert raised.value.retry_after == 1


async def test_a_question_that_everybodys_rate_refuses_takes_nothing_from_its_client() -> None:
    counts = MemoryCounts(Plan(rate=MINUTE, rate_total=Rate(2, 3600)), Clock())
    for name in "ab":
        await admit(counts, name)
    with pytest.raises(TooManyRequests, match="everybody"):
        counts.check("c")
    assert (await counts.standing("c")).requests == LimitStatus(3, 60, 0, 3600)
    for _ in range(4):
        with pytest.raises(TooManyRequests, match="everybody"):
            await admit(counts, "c")


async def test_a_question_that_upstream_refused_gives_its_place_in_everybodys_rate_back() -> None:
    counts = MemoryCounts(Plan(rate_total=Rate(1, 3600)), Clock())
    for _ in range(3):
        counts.settle(await admit(counts), 0, refused=True)
    counts.settle(await admit(counts), 0, refused=False)
    assert isinstance(await refused(counts), TooManyRequests)


async def test_a_place_is_not_given_back_to_a_window_that_never_counted_it() -> None:
    clock = Clock()
    counts = MemoryCounts(Plan(rate_total=Rate(2, 60)), clock)
    late = await admit(counts)
    clock.now += 180
    await admit(counts)
    await admit(counts)
    counts.settle(late, 0, refused=True)  # takes one back of this window: as good as any
    windows = Windows(60)
    windows.seen("a", NOON)
    windows.take_back("a")
    assert windows.seen("a", NOON).here == 0


async def test_what_becomes_no_question_counts_for_its_client_alone() -> None:
    counts = MemoryCounts(Plan(rate=MINUTE, rate_total=Rate(1, 60)), Clock())
    for _ in range(3):
        await counts.count("a")
    with pytest.raises(TooManyRequests, match="per client"):
        await counts.count("a")
    await admit(counts, "b")


def test_windows_are_dropped_as_a_whole_and_a_clock_set_back_stays_in_its_window() -> None:
    windows = Windows(60)
    for number in range(100):
        windows.seen(str(number), 0)
        windows.add(str(number))
    assert (windows.seen("5", 59.9).here, windows.seen("5", 60).before, len(windows)) == (1, 1, 100)
    assert (windows.seen("5", 60).here, windows.seen("5", 90).into) == (0, 30)
    windows.add("5")
    assert windows.seen("5", 10).here == 1  # set back
    assert (windows.seen("5", 180).before, len(windows)) == (0, 0)


def test_of_too_many_clients_the_oldest_is_forgotten() -> None:
    windows = Windows(60)
    for number in range(MAX_CLIENTS):
        windows.seen(str(number), 0)
        windows.add(str(number))
    windows.add("0")  # is counted already
    assert (len(windows), windows.seen("0", 0).here) == (50_000, 2)
    windows.add("new")
    assert (len(windows), windows.seen("0", 0).here, windows.seen("1", 0).here) == (50_000, 0, 1)


# Slots.


async def test_a_client_and_all_together_hold_so_many_slots() -> None:
    counts = MemoryCounts(Plan(streams_per_client=2, streams=3), Clock())
    held = [await admit(counts), await admit(counts)]
    error = await refused(counts)
    assert isinstance(error, TooManyStreams)
    assert (error.details, error.retry_after) == ("limit: 2 answers at once per client", 5)
    held.append(await admit(counts, "b"))
    error = await refused(counts, "c")
    assert type(error) is Overloaded
    assert (error.details, error.retry_after) == ("all 3 answers at once are running", 5)
    standing = await counts.standing("a")
    assert (standing.streams, standing.streams_left) == (2, 0)
    assert (await counts.standing("key:new")).streams_left == 0  # everybody's
    counts.settle(held[0], 0, refused=False)
    assert (await counts.standing("a")).streams_left == 1
    assert (await MemoryCounts(Plan(streams_per_client=2), Clock()).standing("new")).streams_left == 2
    await admit(counts, "c")


# Budgets.


async def test_what_was_reserved_and_not_spent_is_there_again() -> None:
    counts = MemoryCounts(Plan(budget=Budget(100, "day"), budget_total=Budget(150, "month")), Clock())
    reservation = await admit(counts, tokens=90)
    assert reservation.status == LimitStatus(100, 86_400, 10, 43_200)
    error = await refused(counts, tokens=11)
    assert isinstance(error, BudgetSpent)
    assert error.retry_after == 43_200
    assert error.details.startswith("limit: 100 tokens per day per client; ")
    assert error.headers["RateLimit"] == '"tokens";r=10;t=43200'
    counts.settle(reservation, 20, refused=False)
    again = await admit(counts, tokens=80)
    counts.settle(again, 200, refused=False)  # it cost more than anybody could know
    assert (await counts.standing("a")).tokens == LimitStatus(100, 86_400, 0, 43_200)
    assert isinstance(await refused(counts, "b", 1), BudgetSpent)


async def test_the_tightest_budget_is_what_a_client_is_told() -> None:
    counts = MemoryCounts(Plan(budget=Budget(100, "day"), budget_total=Budget(150, "month")), Clock())
    counts.settle(await admit(counts, "b", 90), 90, refused=False)
    tokens = (await counts.standing("a")).tokens
    assert tokens == LimitStatus(100, 86_400, 60, 31 * 86_400 - 43_200)


async def test_a_question_that_never_fits_is_told_so_and_takes_nothing() -> None:
    counts = MemoryCounts(Plan(streams=1, budget=Budget(100, "day"), rate_total=Rate(1, 60)), Clock())
    for _ in range(3):
        assert isinstance(await refused(counts, tokens=101), PayloadTooLarge)
    assert (await admit(counts, tokens=100)).tokens == 100


async def test_a_new_day_is_a_new_budget_and_an_old_answer_stays_in_its_own() -> None:
    clock = Clock(MIDNIGHT - 1)
    counts = MemoryCounts(Plan(budget=Budget(100, "day")), clock)
    late = await admit(counts, tokens=100)
    assert (await refused(counts, tokens=1)).retry_after == 1
    clock.now = MIDNIGHT
    assert (await counts.standing("a")).tokens == LimitStatus(100, 86_400, 100, 86_400)
    await admit(counts, tokens=90)
    counts.settle(late, 0, refused=False)
    assert isinstance(await refused(counts, tokens=11), BudgetSpent)
    await admit(counts, tokens=10)


def test_only_what_was_spent_is_kept() -> None:
    spending = Spending()
    spending.turn("day one")
    for number in range(100):
        spending.add(str(number), 50)
        spending.add(str(number), -50)
    spending.add("kept", 1)
    assert vars(spending)["_spent"] == {"kept": 1}
    spending.turn("day one")
    assert spending.spent("kept") == 1
    spending.turn("day two")
    assert (spending.spent("kept"), vars(spending)["_spent"]) == (0, {})


async def test_a_client_whose_answers_have_ended_leaves_no_count_behind() -> None:
    counts = MemoryCounts(Plan(streams_per_client=2, budget=Budget(100, "day")), Clock())
    for number in range(50):
        client = f"2001:db8:0:{number:x}::/64"
        held = [await admit(counts, client, 10) for _ in range(2)]
        for reservation in held:
            counts.settle(reservation, 0, refused=True)
    assert vars(counts)["_running"] == {}
    assert vars(vars(counts)["_spending"]["day"])["_spent"] == {}


# The client's own limits, of its token.


async def test_a_tokens_own_limits_hold_beside_the_servers() -> None:
    own = OwnLimits(rate=Rate(1, 60), budget=Budget(10, "day"))
    counts = MemoryCounts(Plan(rate=MINUTE, budget=Budget(100, "day")), Clock())
    assert (await counts.standing("jwt:a", own)).requests == LimitStatus(1, 60, 1, 60)
    await counts.count("jwt:a", own)
    with pytest.raises(TooManyRequests):
        await counts.count("jwt:a", own)
    own = OwnLimits(budget=Budget(10, "day"))
    counts = MemoryCounts(Plan(rate=MINUTE, budget=Budget(100, "day")), Clock())
    held = await counts.admit("jwt:a", "s", 10, own)
    with pytest.raises(BudgetSpent):
        await counts.admit("jwt:a", "s", 1, own)
    counts.settle(held, 0, refused=False)
    await counts.admit("jwt:a", "s", 10, own)
