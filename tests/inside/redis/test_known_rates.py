"""What a process knows of rates without asking Redis, and which requests count."""

import pytest

from chat_sse.errors import BudgetSpent, PayloadTooLarge, TooManyRequests, TooManyStreams
from chat_sse.limits.budget import Budget
from chat_sse.limits.rates import Rate
from tests.inside.redis.processes import THREE_A_DAY, Processes, admit, refused, round_trips


async def test_a_rate_that_was_told_to_be_full_is_refused_without_asking(processes: Processes) -> None:
    for use in ("count", "admit"):
        counts = processes.counts(rate=THREE_A_DAY)
        for number in range(3):
            counts.check(use)
            await (counts.count(use) if use == "count" else admit(counts, use, answer=str(number)))
        before = round_trips(counts)
        with pytest.raises(TooManyRequests):
            counts.check(use)
        assert round_trips(counts) == before
        counts.check("another")


async def test_what_another_process_has_let_in_is_known_after_the_first_refusal(processes: Processes) -> None:
    here, there = processes.pair(rate=THREE_A_DAY)
    for number in range(3):
        await admit(there, answer=str(number))
    here.check("a")
    assert isinstance(await refused(here), TooManyRequests)
    with pytest.raises(TooManyRequests):
        here.check("a")
    other = processes.counts(rate=THREE_A_DAY)
    with pytest.raises(TooManyRequests):
        await other.count("a")
    with pytest.raises(TooManyRequests):
        other.check("a")


async def test_a_question_without_a_slot_or_tokens_counts_as_a_request(processes: Processes) -> None:
    counts = processes.counts(rate=THREE_A_DAY, streams_per_client=1, budget=Budget(100, "day"))
    await admit(counts, tokens=50)
    assert isinstance(await refused(counts), TooManyStreams)
    assert isinstance(await refused(counts, tokens=101), PayloadTooLarge)
    with pytest.raises(TooManyRequests):
        counts.check("a")
    counts = processes.counts(rate=Rate(1, 86_400), budget=Budget(100, "day"), budget_total=Budget(60, "day"))
    await admit(counts, "c", 50)
    assert isinstance(await refused(counts, "b", 20), BudgetSpent)  # the last of all counts but the rates
    with pytest.raises(TooManyRequests):
        counts.check("b")


async def test_a_question_that_everybodys_rate_refuses_is_not_taken_for_one_that_counts(
    processes: Processes,
) -> None:
    counts = processes.counts(rate=Rate(1, 86_400), rate_total=Rate(1, 86_400))
    await admit(counts, "b")
    assert "everybody" in (await refused(counts)).details
    counts.check("a")


async def test_of_several_rates_the_full_one_is_named(processes: Processes) -> None:
    counts = processes.counts(rate=Rate(1, 86_400))
    for number in range(4):  # the network's rate is four times one client's
        await counts.count(f"2001:db8:0:{number}::/64")
    for attempt in (counts.count("2001:db8:0:9::/64"), admit(counts, "2001:db8:0:9::/64")):
        with pytest.raises(TooManyRequests, match=r"limit: 4 requests per day per IPv6 /48 network"):
            await attempt
