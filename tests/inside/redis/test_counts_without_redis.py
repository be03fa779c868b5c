"""The counts that several processes share, while Redis is away, hangs, or has lost them."""

import asyncio
from typing import Any

import pytest

from chat_sse.errors import StoreUnavailable
from chat_sse.limits.budget import Budget
from chat_sse.limits.counts import Reservation
from chat_sse.limits.rates import Rate
from tests.inside.redis.processes import THREE_A_DAY, Processes, admit, left, round_trips, settle, settled

BUDGET = Budget(10_000, "day")


def logged(caplog: pytest.LogCaptureFixture, name: str) -> list[dict[str, Any]]:
    return [record.__dict__["fields"] for record in caplog.records if record.msg == name]


async def test_without_redis_nothing_is_let_in_and_nobody_waits_for_long(
    processes: Processes, caplog: pytest.LogCaptureFixture
) -> None:
    counts = processes.counts(rate=THREE_A_DAY, streams=1, budget=BUDGET)
    held = await admit(counts, tokens=4000)
    processes.redis.crash()
    attempts = counts.count("a"), counts.standing("a"), admit(counts, answer="t")
    for refusal in await asyncio.gather(*attempts, return_exceptions=True):
        assert isinstance(refusal, StoreUnavailable)
        assert refusal.retry_after == 2
    counts.settle(held, 100, refused=False)
    await asyncio.sleep(1)
    assert logged(caplog, "redis.failed")[0] == {"reason": "ConnectionError"}
    processes.redis.come_back()
    await settled(counts)
    processes.redis.hang()
    began = processes.redis.loop.time()
    with pytest.raises(StoreUnavailable):
        await counts.count("a")
    assert processes.redis.loop.time() == began + 2
    processes.redis.go_on()
    await counts.count("a")


async def test_what_is_settled_while_redis_is_away_is_settled_once(
    processes: Processes,
) -> None:
    counts, other = processes.pair(budget_total=BUDGET)
    first, second = await admit(counts, tokens=4000), await admit(counts, tokens=4000, answer="t")
    processes.redis.hang()
    counts.settle(first, 1000, refused=False)
    await asyncio.sleep(30)  # it is sent again and again
    counts.settle(second, 500, refused=False)
    processes.redis.go_on()
    for _ in range(3):
        await asyncio.sleep(2.5)
        assert await left(other) == 10_000 - 1500


async def test_a_settlement_is_tried_again_after_half_a_second(processes: Processes) -> None:
    counts = processes.counts(budget=BUDGET)
    held = await admit(counts, tokens=4000)
    before = round_trips(counts)[1]
    processes.redis.crash()
    counts.settle(held, 0, refused=False)
    await asyncio.sleep(5.2)
    assert round_trips(counts)[1] == before + 11
    processes.redis.come_back()
    await settled(counts)
    assert round_trips(counts)[1] == before + 11


async def test_all_that_is_settled_at_once_is_one_round_trip(processes: Processes) -> None:
    counts = processes.counts()
    held = await asyncio.gather(*(admit(counts, answer=str(number)) for number in range(201)))
    before, _ = round_trips(counts)
    for reservation in held:
        counts.settle(reservation, 0, refused=False)
    assert round_trips(counts)[0] == before
    await settled(counts)
    assert round_trips(counts) == (before + 1, 0)
    assert processes.redis.keys("*:slots:*") == []


async def test_after_an_outage_two_hundred_are_settled_at_once(processes: Processes) -> None:
    counts = processes.counts()
    held = await asyncio.gather(*(admit(counts, answer=str(number)) for number in range(402)))
    processes.redis.hang()
    counts.settle(held[0], 0, refused=False)
    await asyncio.sleep(3)
    for reservation in held[1:]:
        counts.settle(reservation, 0, refused=False)
    processes.redis.go_on()
    before = sum(round_trips(counts))
    await settled(counts)
    assert sum(round_trips(counts)) == before + 4  # the one that was under way, and 401 in three
    assert processes.redis.keys("*:slots:*") == []


async def test_what_may_be_settled_already_is_left_alone_when_that_would_not_be_noticed(
    processes: Processes, caplog: pytest.LogCaptureFixture
) -> None:
    counts = processes.counts(budget=BUDGET)
    first, second = await admit(counts, tokens=4000), await admit(counts, tokens=4000, answer="t")
    processes.redis.hang()
    counts.settle(first, 0, refused=False)
    await asyncio.sleep(10)
    counts.settle(second, 0, refused=False)  # is never sent: it is not doubtful
    await asyncio.sleep(112)
    assert logged(caplog, "limits.unsettled") == []
    await asyncio.sleep(5)
    assert logged(caplog, "limits.unsettled") == [{"id": "s"}]
    await asyncio.sleep(300)
    assert len(logged(caplog, "limits.unsettled")) == 1
    processes.redis.crash()
    processes.redis.come_back()
    await settled(counts)
    assert set(processes.redis.keys()) == {"p:{limits}:settled:t"}


async def test_what_is_settled_waits_in_bounded_memory(
    processes: Processes, caplog: pytest.LogCaptureFixture
) -> None:
    counts = processes.counts(budget=BUDGET)
    held = await admit(counts, tokens=4000)
    processes.redis.crash()
    waiting: dict[str, Any] = vars(vars(counts)["_settlements"])["_waiting"]
    waiting.update(dict.fromkeys(map(str, range(19_999)), ("PING",)))
    counts.settle(held, 0, refused=False)
    assert (len(waiting), logged(caplog, "limits.unsettled")) == (20_000, [])
    counts.settle(Reservation("a", "more", 0, processes.now), 0, refused=False)
    assert (len(waiting), logged(caplog, "limits.unsettled")) == (20_000, [{"id": "more"}])
    processes.redis.come_back()
    waiting.clear()


@pytest.mark.parametrize("is_done", [True, False])
async def test_a_reservation_whose_reply_was_lost_is_given_back(
    processes: Processes, *, is_done: bool
) -> None:
    counts = processes.counts(budget=BUDGET, rate_total=Rate(1, 86_400))
    assert await left(counts) == 10_000
    if is_done:
        processes.redis.hang()
    else:
        processes.redis.crash()
    with pytest.raises(StoreUnavailable):
        await admit(counts, tokens=4000)
    if is_done:
        processes.redis.go_on()  # now it reserves, and nobody hears of it
    else:
        processes.redis.come_back()
    await settled(counts)
    assert await left(counts) == 10_000
    assert processes.redis.keys("*:slots:*") == []
    await admit(counts, tokens=4000, answer="t")
    assert len(vars(counts)["_held"]) == 1


async def test_a_question_whose_client_leaves_meanwhile_holds_nothing(processes: Processes) -> None:
    counts = processes.counts(budget=BUDGET)
    admitting = asyncio.ensure_future(admit(counts, tokens=4000))
    await asyncio.sleep(0)
    admitting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await admitting
    await settled(counts)
    assert (await left(counts), vars(counts)["_held"]) == (10_000, {})


async def test_answers_from_before_redis_lost_its_counts_give_nothing_back_to_the_new_ones(
    processes: Processes,
) -> None:
    counts = processes.counts(budget_total=BUDGET)
    held = [await admit(counts, tokens=2000, answer=str(number)) for number in range(5)]
    assert len({reservation.epoch for reservation in held}) == 1
    assert len(held[0].epoch) == 16
    processes.redis.crash()
    processes.redis.come_back()
    await asyncio.sleep(0.01)  # the break is noticed
    new = await admit(counts, tokens=1000, answer="new")
    assert new.epoch != held[0].epoch
    for reservation in held:
        counts.settle(reservation, 100, refused=False)
    await settled(counts)
    assert await left(counts) == 10_000 - 1000 - 5 * 100


async def test_what_was_settled_after_an_outage_is_not_in_doubt_any_more(
    processes: Processes, caplog: pytest.LogCaptureFixture
) -> None:
    counts = processes.counts(budget=BUDGET)
    for answer in "st":
        held = await admit(counts, tokens=4000, answer=answer)
        processes.redis.hang()
        counts.settle(held, 0, refused=False)
        await asyncio.sleep(5)
        processes.redis.go_on()
        await asyncio.sleep(130)
        assert await left(counts) == 10_000
    assert logged(caplog, "limits.unsettled") == []


async def test_leases_go_on_after_an_outage(processes: Processes) -> None:
    counts = processes.counts()
    await asyncio.gather(*(admit(counts, answer=str(number)) for number in range(501)))
    processes.redis.crash()
    await asyncio.sleep(9)
    assert round_trips(counts)[1] == 4  # one each two seconds, however many there are
    processes.redis.come_back()
    await asyncio.sleep(2)
    assert len(processes.redis.keys("*:slots:*")) == 2


# The end.


async def test_closing_writes_what_is_to_be_settled_and_ends_its_tasks(processes: Processes) -> None:
    counts = processes.counts(budget=BUDGET)
    counts.settle(await admit(counts, tokens=4000), 0, refused=False)
    await counts.aclose()
    assert await left(processes.counts(budget=BUDGET)) == 10_000
    assert not [task for task in asyncio.all_tasks() if task.get_name() in ("settlements", "leases of slots")]


async def test_closing_waits_two_seconds_for_a_redis_that_is_away(processes: Processes) -> None:
    counts = processes.counts()
    counts.settle(await admit(counts), 0, refused=False)
    processes.redis.crash()
    began = processes.redis.loop.time()
    await counts.aclose()
    assert processes.redis.loop.time() == began + 2
    assert [task for task in asyncio.all_tasks() if task.get_name() == "settlements"] == []
    processes.redis.come_back()


async def test_counts_that_were_never_used_are_closed_at_once(processes: Processes) -> None:
    await processes.counts().aclose()
    counts = processes.counts()
    await settle(counts, Reservation("a", "s", 0, processes.now, epoch="*"), 0)
    assert processes.redis.keys() == []


async def test_what_is_settled_is_forgotten(processes: Processes) -> None:
    counts = processes.counts(budget=BUDGET)
    for number in range(3):
        await settle(counts, await admit(counts, tokens=10, answer=str(number)), 0)
    settlements = vars(vars(counts)["_settlements"])
    assert [settlements[name] for name in ("_waiting", "_doubtful", "_under_way")] == [{}, {}, set()]


async def test_what_is_not_settled_at_the_end_starts_nothing_more(processes: Processes) -> None:
    counts = processes.counts(budget=BUDGET)
    held = await admit(counts, tokens=10)
    processes.redis.hang()
    counts.settle(held, 0, refused=False)
    await counts.aclose()  # before the round trip's own deadline
    await asyncio.sleep(10)
    assert not [task for task in asyncio.all_tasks() if task.get_name() == "settlements"]
    processes.redis.go_on()
