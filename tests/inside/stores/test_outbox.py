"""A process's own logs on their way to Redis: what is sent when, again, and refused."""

import asyncio
import logging

import msgspec
import pytest

from chat_sse.events import Delta, Done, Failure
from chat_sse.stores.base import LogSpec
from chat_sse.stores.redis.logs import ProducedLog
from chat_sse.stores.redis.outbox import Outbox
from tests.support.fake_redis import FakeRedis, commands_of
from tests.support.fakes import STOPPED

END = Done(finish_reason="stop")


class Process:
    """An outbox, and the exchange that it wakes; `rounds` are its round trips."""

    def __init__(self, redis: FakeRedis) -> None:
        self.redis = redis
        self.woken = self.rounds = 0
        self.is_overdue = False
        self.outbox = Outbox(commands_of("me"), self._wake, lambda: self.is_overdue)

    def _wake(self) -> None:
        self.woken += 1

    def create(self, stream_id: str = "a", **names: str) -> ProducedLog:
        """Create a log, as the store does."""
        self.redis.make(stream_id)
        log = self.outbox.new_log(LogSpec(stream_id=stream_id, **names))  # type: ignore[arg-type]
        self.outbox.logs[stream_id] = log
        self.outbox.creating.discard(stream_id)
        return log

    def exchange(self) -> bool:
        """Make one round trip if it was woken. Returns whether it was."""
        if not self.woken:
            return False
        self.woken = 0
        jobs = list(self.outbox.jobs())
        results = self.redis.run([command for command, _ in jobs])
        for (_, on_result), result in zip(jobs, results, strict=True):
            if on_result is not None:
                on_result(result)
        self.rounds += bool(jobs)
        return True

    def exchange_all(self) -> None:
        """Make round trips until nothing wakes it any more; at most a hundred."""
        assert any(not self.exchange() for _ in range(100))


@pytest.fixture
async def process() -> Process:
    return Process(FakeRedis())


def deltas(*texts: str) -> list[Delta]:
    return [Delta(text) for text in texts]


def encoded(*events: Delta | Done) -> list[bytes]:
    return [msgspec.json.encode(event) for event in events]


async def test_what_nobody_reads_elsewhere_is_sent_half_a_second_late_in_one_piece(process: Process) -> None:
    log = process.create()
    log.append(deltas("a"))
    await asyncio.sleep(0.3)
    log.append(deltas("b"))
    log.append_entry(encoded(Delta("c"))[0])
    await asyncio.sleep(0.09)
    assert not process.exchange()
    assert process.outbox.unsent == 1
    await asyncio.sleep(0.11)
    assert process.exchange()
    assert process.redis.pieces["p:{a}"] == [(3, encoded(*deltas("a", "b", "c")))]
    assert process.outbox.empty


async def test_of_several_logs_each_has_its_own_half_second(process: Process) -> None:
    first, second = process.create("a"), process.create("b")
    first.append(deltas("a"))
    await asyncio.sleep(0.3)
    second.append(deltas("b"))
    await asyncio.sleep(0.2)
    process.exchange_all()
    assert (process.redis.entries("a"), process.redis.entries("b")) == (encoded(Delta("a")), [])
    await asyncio.sleep(0.3)
    process.exchange_all()
    assert process.redis.entries("b") == encoded(Delta("b"))
    await asyncio.sleep(10)
    first.append(deltas("c"))
    await asyncio.sleep(0.5)
    process.exchange_all()
    assert len(process.redis.entries("a")) == 2


async def test_what_is_read_elsewhere_is_sent_at_once_for_three_seconds(process: Process) -> None:
    log = process.create()
    log.append(deltas("waiting"))
    process.outbox.hear(b"a")
    process.exchange_all()
    assert len(process.redis.entries("a")) == 1
    await asyncio.sleep(2.9)
    log.append(deltas("soon"))
    assert process.exchange()
    await asyncio.sleep(0.1)
    log.append(deltas("late"))
    assert not process.exchange()
    process.outbox.hear(b"of another process")


async def test_an_end_is_sent_at_once_and_the_log_leaves_the_memory(process: Process) -> None:
    log = process.create(idempotency_key="k", chat_id="c")
    log.append([*deltas("a"), END])
    process.exchange_all()
    assert process.redis.entries("a") == encoded(*deltas("a"), END)
    assert process.redis.sealed["p:{a}"] == 1
    assert process.outbox.logs == {}
    assert (process.outbox.empty, log.settled.is_set(), process.rounds) == (True, True, 1)
    assert process.redis.said == ["append", "keep", "keep"]


async def test_more_than_a_piece_holds_is_sent_in_several(process: Process) -> None:
    log = process.create()
    words = [str(number) for number in range(1_700)]
    process.outbox.hear(b"a")
    log.append(deltas(*words[:1_000]))
    process.exchange_all()
    assert process.redis.entries("a") == encoded(*deltas(*words[:1_000]))
    log.append([*deltas(*words[1_000:]), END])
    process.exchange_all()
    assert process.redis.entries("a") == encoded(*deltas(*words), END)
    assert [len(piece) for _, piece in process.redis.pieces["p:{a}"]] == [500, 500, 500, 201]
    assert [last for last, _ in process.redis.pieces["p:{a}"]] == [500, 1_000, 1_500, 1_701]
    assert process.outbox.logs == {}


async def test_what_came_while_a_piece_was_under_way_is_sent_after_it(process: Process) -> None:
    log = process.create()
    process.outbox.hear(b"a")
    log.append(deltas("a"))
    [(command, on_result)] = list(process.outbox.jobs())
    log.append(deltas("b"))
    [result] = process.redis.run([command])
    assert on_result
    on_result(result)
    process.woken = 1
    process.exchange_all()
    assert process.redis.entries("a") == encoded(*deltas("a", "b"))


async def test_a_round_trip_that_is_made_again_changes_nothing(process: Process) -> None:
    log = process.create()
    log.append([*deltas("a"), END])
    process.redis.run([command for command, _ in process.outbox.jobs()])  # the reply is lost
    process.outbox.recover()
    process.exchange_all()
    assert process.redis.entries("a") == encoded(*deltas("a"), END)
    assert process.outbox.logs == {}


@pytest.mark.parametrize("kept", [0, 1, 2])
async def test_what_redis_has_lost_is_sent_again_from_where_it_stands(process: Process, kept: int) -> None:
    log = process.create(idempotency_key="k", chat_id="c")
    process.outbox.hear(b"a")
    for word in ("a", "b", "c"):
        log.append(deltas(word))
        process.exchange_all()
    del process.redis.pieces["p:{a}"][kept:]
    if not kept:
        del process.redis.sealed["p:{a}"]
    process.redis.said.clear()
    process.outbox.recover()
    process.exchange_all()
    assert process.redis.entries("a") == encoded(*deltas("a", "b", "c"))
    assert ("register" in process.redis.said) == (kept == 0)
    assert ("claim" in process.redis.said, "SET" in process.redis.said) == (kept == 0, kept == 0)


async def test_a_discarded_log_that_redis_does_not_know_any_more_is_not_sent_again(process: Process) -> None:
    log = process.create()
    log.append([END])
    log.discarded = True
    del process.redis.sealed["p:{a}"]
    process.exchange_all()
    assert (process.outbox.logs, process.redis.sealed) == ({}, {})


async def test_a_stop_that_another_process_asks_for_ends_the_log_as_asked(process: Process) -> None:
    log = process.create()
    stopped: list[bool] = []
    log.on_stop = lambda: stopped.append(True)
    log.append(deltas("a"))
    process.outbox.hear(b"a " + encoded(STOPPED)[0])
    assert (log.terminal, stopped) == (STOPPED, [True])
    process.exchange_all()
    assert process.redis.sealed["p:{a}"] == 2
    process.outbox.hear(b"a " + encoded(STOPPED)[0])
    assert stopped == [True]


async def test_a_stop_that_was_not_heard_is_found_with_the_next_piece(process: Process) -> None:
    log = process.create()
    process.redis.stops["p:{a}"] = encoded(STOPPED)[0]
    process.outbox.hear(b"a")
    log.append(deltas("a"))
    process.exchange_all()
    assert log.terminal == STOPPED
    assert process.redis.entries("a") == encoded(*deltas("a"), STOPPED)


async def test_an_overruled_producer_ends_as_the_others_have_seen_it(
    process: Process, caplog: pytest.LogCaptureFixture
) -> None:
    log = process.create()
    stopped: list[bool] = []
    log.on_stop = lambda: stopped.append(True)
    log.append(deltas("a"))
    process.outbox.send_all()
    process.exchange_all()
    process.redis.pieces["p:{a}"].append((2, encoded(STOPPED)))
    process.redis.sealed["p:{a}"] = 3
    log.append(deltas("b"))
    process.outbox.send_all()
    process.exchange_all()
    assert (log.terminal, stopped) == (STOPPED, [True])
    assert (process.outbox.logs, process.outbox.empty, log.settled.is_set()) == ({}, True, True)
    assert [(record.levelno, record.msg) for record in caplog.records] == [(logging.WARNING, "log.overruled")]


async def test_a_second_producer_is_refused_and_its_readers_get_an_error(process: Process) -> None:
    log = process.create()
    process.redis.pieces["p:{a}"] = [(1, encoded(Delta("another's")))]
    log.append(deltas("own"))
    process.outbox.send_all()
    process.exchange_all()
    assert isinstance(log.terminal, Failure)
    assert log.terminal.error == "internal_error"


async def test_a_process_that_was_frozen_shows_nothing_before_redis_confirms_it(
    process: Process,
) -> None:
    log = process.create()
    log.append(deltas("before"))
    process.is_overdue = True
    assert log.append_entry(encoded(Delta("held"))[0])
    assert log.append(deltas("too"))
    assert log.length == 1
    process.is_overdue = False
    log.append([END])
    assert (log.length, log.sealed) == (1, False)
    process.exchange_all()
    assert process.redis.entries("a") == encoded(*deltas("before", "held", "too"), END)
    assert (log.length, log.sealed) == (4, True)
    assert process.outbox.logs == {}


async def test_what_was_held_is_dropped_where_others_have_sealed_the_log(process: Process) -> None:
    log = process.create()
    process.redis.pieces["p:{a}"] = [(1, encoded(STOPPED))]
    process.redis.sealed["p:{a}"] = 3
    process.outbox.doubt()
    log.append(deltas("held"))
    assert log.length == 0
    process.exchange_all()
    assert log.terminal == STOPPED


async def test_a_closed_outbox_sets_no_timer(process: Process) -> None:
    process.create().append(deltas("a"))
    process.outbox.close()
    await asyncio.sleep(10)
    assert process.woken == 0


async def test_a_single_entry_is_noted_as_events_are(process: Process) -> None:
    log = process.create()
    assert log.append_entry(encoded(Delta("a"))[0]) is True
    assert log.append_entry(encoded(Delta("b"))[0]) is True
    await asyncio.sleep(0.5)
    process.exchange_all()
    assert len(process.redis.entries("a")) == 2
    assert log.append_entry(encoded(Delta("c"))[0]) is True
    await asyncio.sleep(0.5)
    process.exchange_all()
    assert len(process.redis.entries("a")) == 3
    log.append([END])
    assert log.append_entry(encoded(Delta("d"))[0]) is False
    assert log.append([END]) is False
