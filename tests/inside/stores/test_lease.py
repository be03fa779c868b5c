"""Signs of life: who is taken for dead, when, and what becomes of the logs of the dead."""

import asyncio

import msgspec
import pytest

from chat_sse.errors import StoreUnavailable, StreamNotFound
from chat_sse.events import Delta, Failure, decode_event
from chat_sse.stores.base import PRODUCER_GONE, LogSpec
from tests.inside.stores.processes import Process, hold_lease, piece, write
from tests.support.fakes import STOPPED, turns


async def test_a_beat_each_second_holds_a_lease_of_four(process: Process) -> None:
    keeping = asyncio.create_task(process.lease.keep())
    await asyncio.sleep(10.5)
    assert process.redis.said.count("SET") == 11
    assert process.redis.leases["p:{me}:lease"] == process.loop.time() - 0.5 + 4
    assert process.client.lease_until == process.loop.time() - 0.5 + 4
    assert process.redis.published.count(("p:{me}:control", b"")) == 11
    keeping.cancel()
    await process.lease.give_back()
    assert process.redis.leases == {}


async def test_a_producer_that_is_missing_at_one_beat_is_not_buried_and_at_two_it_is(
    process: Process, caplog: pytest.LogCaptureFixture
) -> None:
    mirror = process.mirror()
    with mirror.reading():
        process.exchange()
        await process.lease.beat()
        assert process.redis.sealed["p:{a}"] == 0
        hold_lease(process, 0.5)
        await process.lease.beat()
        await asyncio.sleep(1)
        await process.lease.beat()  # missing for the first time again
        assert process.redis.sealed["p:{a}"] == 0
        await process.lease.beat()
        assert process.redis.sealed["p:{a}"] == 3
        process.exchange()
        entries = await mirror.read(-1)
        end = decode_event(entries[-1])
        assert isinstance(end, Failure)
        assert (end.error, end.details, end.retryable) == ("internal_error", PRODUCER_GONE, True)
        assert len(entries) == 2
    assert [record.msg for record in caplog.records] == ["answer.orphan_sealed"]


async def test_only_the_logs_of_the_dead_are_sealed_and_only_those_that_are_read(process: Process) -> None:
    process.redis.make("b")
    hold_lease(process, 100, "living")
    living = process.inbox.mirror(LogSpec(stream_id="b"), "living", ended=False, readers=process)
    process.mirror()  # is opened, and not read
    with living.reading():
        for _ in range(5):
            await process.lease.beat()
    assert set(process.redis.sealed.values()) == {0}


async def test_what_two_processes_bury_is_sealed_once(
    process: Process, caplog: pytest.LogCaptureFixture
) -> None:
    other = Process(process.redis)
    with process.mirror().reading(), other.mirror().reading():
        for _ in range(3):
            await process.lease.beat()
            await other.lease.beat()
    assert len(process.redis.entries("a")) == 2
    assert [record.msg for record in caplog.records] == ["answer.orphan_sealed"]


async def test_a_log_that_is_gone_with_its_producer_is_told_to_be_lost(process: Process) -> None:
    mirror = process.mirror()
    with mirror.reading():
        process.redis.sealed.clear()
        await process.lease.beat()
        await process.lease.beat()
        with pytest.raises(StreamNotFound, match="lost"):
            await mirror.read(5)


async def test_after_an_outage_nobody_is_buried_before_a_second_look(process: Process) -> None:
    with process.mirror().reading():
        await process.lease.beat()  # missing once
        process.redis.is_away = True
        with pytest.raises(StoreUnavailable):
            await process.lease.beat()
        process.redis.is_away = False
        await process.lease.beat()  # the first beat of a Redis that is back says nothing
        await process.lease.beat()
        assert process.redis.sealed["p:{a}"] == 0
        await process.lease.beat()
        assert process.redis.sealed["p:{a}"] == 3


async def test_an_outage_is_probed_four_times_a_second_and_readers_are_told_after_two(
    process: Process,
) -> None:
    mirror = process.mirror()
    keeping = asyncio.create_task(process.lease.keep())
    await turns()
    reading = asyncio.create_task(mirror.read(0))
    await turns()
    process.redis.is_away = True
    away_at = process.loop.time()
    with pytest.raises(StoreUnavailable):
        await reading
    assert 2 < process.loop.time() - away_at <= 1 + 2 + 0.5
    process.redis.is_away = False
    back_at = process.loop.time()
    await process.client.up.wait()
    assert process.loop.time() - back_at <= 0.25
    keeping.cancel()


async def test_a_short_break_is_bridged(process: Process) -> None:
    mirror = process.mirror()
    keeping = asyncio.create_task(process.lease.keep())
    reading = asyncio.create_task(mirror.read(0))
    await turns()
    process.redis.is_away = True
    await asyncio.sleep(2.5)
    process.redis.is_away = False
    hold_lease(process, 100)
    await asyncio.sleep(1)
    write(process.redis, "b")
    process.inbox.hear("p:{a}:news")
    process.exchange()
    assert await reading == piece("b")
    keeping.cancel()


async def test_a_process_that_was_frozen_doubts_what_it_shows_until_redis_has_answered(
    process: Process,
) -> None:
    await process.lease.beat()
    process.redis.make("mine")
    log = process.outbox.new_log(LogSpec(stream_id="mine"))
    process.outbox.logs["mine"] = log
    await asyncio.sleep(3.9)
    await process.lease.beat()
    assert not log.is_doubtful
    await asyncio.sleep(4.1)
    log.append([Delta("held")])
    assert log.length == 0
    await process.lease.beat()
    assert log.is_doubtful
    process.exchange()
    assert (log.is_doubtful, log.length) == (False, 1)


async def test_a_frozen_process_without_a_word_of_its_own_asks_as_well(process: Process) -> None:
    await process.lease.beat()
    log = process.outbox.new_log(LogSpec(stream_id="mine"))
    process.outbox.logs["mine"] = log
    process.redis.make("mine")
    process.redis.sealed["p:{mine}"] = 3
    process.redis.pieces["p:{mine}"] = [(1, [msgspec.json.encode(STOPPED)])]
    await asyncio.sleep(10)
    await process.lease.beat()
    process.exchange()
    assert log.terminal == STOPPED


async def test_a_redis_that_has_lost_its_data_is_told_everything_again(process: Process) -> None:
    await process.lease.beat()
    log = process.outbox.new_log(LogSpec(stream_id="mine", idempotency_key="k"))
    process.outbox.logs["mine"] = log
    process.redis.make("mine")
    log.append([Delta("a")])
    process.outbox.send_all()
    process.exchange()
    process.redis.pieces.clear()
    process.redis.sealed.clear()
    process.redis.epoch = b"two"
    await process.lease.beat()
    process.exchange()
    assert process.redis.entries("mine") == piece("a")
    assert "claim" in process.redis.said


async def test_a_process_that_was_frozen_while_redis_was_away_doubts_as_soon_as_it_is_back(
    process: Process,
) -> None:
    await process.lease.beat()
    log = process.produce("a")
    process.redis.is_away = True
    with pytest.raises(StoreUnavailable):
        await process.lease.beat()
    await asyncio.sleep(10)
    assert log.append([Delta("shown: nobody can seal")])
    assert log.length == 2
    process.redis.is_away = False
    await process.lease.beat()
    assert log.is_doubtful
    process.exchange()
    assert not log.is_doubtful


async def test_a_short_outage_makes_nobody_doubt(process: Process) -> None:
    await process.lease.beat()
    log = process.produce("a")
    process.redis.is_away = True
    with pytest.raises(StoreUnavailable):
        await process.lease.beat()
    await asyncio.sleep(1)
    process.redis.is_away = False
    await process.lease.beat()
    assert not log.is_doubtful


async def test_what_is_held_is_shown_when_redis_goes_away(process: Process) -> None:
    log = process.produce("a")
    process.outbox.doubt()
    log.append([Delta("held")])
    assert log.length == 1
    process.redis.is_away = True
    keeping = asyncio.create_task(process.lease.keep())
    await turns()
    assert log.length == 2
    keeping.cancel()
