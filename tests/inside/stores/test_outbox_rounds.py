"""What travels in which round, and what changes of a log while some of it is on its way to Redis."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from chat_sse.stores.redis.logs import ProducedLog
from tests.inside.stores.test_outbox import END, Process, deltas, encoded
from tests.support.fake_redis import FakeRedis
from tests.support.fakes import STOPPED


@pytest.fixture
async def process() -> Process:
    return Process(FakeRedis())


def with_change(process: Process, change: Callable[[], object]) -> bool:
    """Make a round trip, and a change before its results come. Returns whether another was asked for."""
    jobs = list(process.outbox.jobs())
    results: list[Any] = process.redis.run([command for command, _ in jobs])
    change()
    process.woken = 0
    for (_, on_result), result in zip(jobs, results, strict=True):
        if on_result is not None:
            on_result(result)
    return bool(process.woken)


def sending(process: Process, *words: str) -> ProducedLog:
    """Return a log that is about to be sent."""
    log = process.create()
    log.append(deltas(*words))
    process.outbox.send_all()
    return log


async def test_a_log_that_is_sent_anyway_waits_for_nothing_beside(process: Process) -> None:
    log = sending(process, "a")
    process.outbox.note(log)
    assert process.outbox.unsent == 1


async def test_what_comes_meanwhile_has_half_a_second_of_its_own(process: Process) -> None:
    log = sending(process, "a")
    assert not with_change(process, lambda: log.append(deltas("b")))
    await asyncio.sleep(0.39)
    assert not process.exchange()
    await asyncio.sleep(0.11)
    process.exchange_all()
    assert process.redis.entries("a") == encoded(*deltas("a", "b"))
    assert process.outbox.empty


@pytest.mark.parametrize("count", [500, 501])
async def test_as_much_as_a_piece_holds_does_not_wait(process: Process, count: int) -> None:
    log = sending(process, "a")
    assert with_change(process, lambda: log.append(deltas(*map(str, range(count)))))
    process.exchange_all()
    assert len(process.redis.entries("a")) == 501


async def test_a_log_that_is_discarded_while_its_end_is_sent_is_sent_as_such(process: Process) -> None:
    log = process.create(idempotency_key="k")
    log.append([END])
    assert with_change(process, lambda: setattr(log, "discarded", True))
    assert process.outbox.logs == {"a": log}
    process.redis.said.clear()
    process.exchange_all()
    assert process.redis.said == ["append", "HSET", "PEXPIRE", "keep"]
    assert process.outbox.logs == {}


@pytest.mark.parametrize("kept", [1, 2])
async def test_a_discarded_log_of_which_redis_has_lost_a_part_is_completed(
    process: Process, kept: int
) -> None:
    log = process.create()
    for word in "abc":
        log.append(deltas(word))
        process.outbox.send_all()
        process.exchange_all()
    del process.redis.pieces["p:{a}"][kept:]
    log.append([STOPPED])
    log.discarded = True
    process.exchange_all()
    assert process.redis.entries("a") == encoded(*deltas("a", "b", "c"), STOPPED)
    assert process.outbox.logs == {}


async def test_a_doubted_log_that_nobody_has_sealed_goes_on_or_is_over(process: Process) -> None:
    running, ended = process.create("a"), process.create("b")
    ended.append([END])
    process.outbox.doubt()
    process.exchange_all()
    assert process.outbox.logs == {"a": running}
    assert not running.is_doubtful
    running.append([END])
    assert running.sealed
    process.exchange_all()
    assert process.outbox.logs == {}


# Many logs.


async def test_logs_that_have_something_new_at_about_the_same_time_are_sent_together(
    process: Process,
) -> None:
    logs = [process.create(f"{number:02}") for number in range(50)]
    rounds = 0
    for _ in range(3):
        for log in logs:
            log.append(deltas("a"))
            await asyncio.sleep(0.01)
            rounds += process.exchange()
    await asyncio.sleep(0.5)
    rounds += process.exchange()
    assert all(len(process.redis.entries(log.id)) == 3 for log in logs)
    assert rounds <= 1.5 / 0.1 + 1


async def test_of_many_logs_two_hundred_are_sent_in_a_round(process: Process) -> None:
    logs = [process.create(f"{number:03}") for number in range(401)]
    for log in logs:
        log.append(deltas("a"))
    await asyncio.sleep(0.5)
    sent = []
    while process.exchange():
        sent.append(sum(bool(process.redis.entries(log.id)) for log in logs))
    assert sent == [200, 400, 401]
    assert process.outbox.empty
