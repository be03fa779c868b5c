"""Signs of life: who is taken for dead, when, and what becomes of the logs of the dead; readers elsewhere."""

import asyncio
import math
from collections.abc import Sequence
from typing import Any, cast

import msgspec
import pytest

from chat_sse.errors import Draining, StoreUnavailable, StreamNotFound
from chat_sse.events import Delta, Done, Failure, decode_event
from chat_sse.redis_access import Command
from chat_sse.stores.base import PRODUCER_GONE, Extent, LogSpec
from chat_sse.stores.redis.client import Client
from chat_sse.stores.redis.inbox import Inbox
from chat_sse.stores.redis.lease import Lease
from chat_sse.stores.redis.logs import MirroredLog, ProducedLog
from chat_sse.stores.redis.outbox import Outbox
from chat_sse.stores.redis.pubsub import PubSub
from tests.support.fake_redis import FakeRedis, commands_of
from tests.support.fakes import turns

STOPPED = Done(finish_reason="cancelled")


class FakeClient:
    """A Client over the fake Redis, which the test takes away."""

    def __init__(self, redis: FakeRedis) -> None:
        self.redis = redis
        self.loop = asyncio.get_running_loop()
        self.up = asyncio.Event()
        self.up.set()
        self.changed_at = self.loop.time()
        self.lease_until = math.inf
        self.known = b""

    async def run(self, commands: Sequence[Command], **_: bool) -> list[Any]:
        """Do it; note whether Redis is there."""
        try:
            results = self.redis.run(commands)
        except StoreUnavailable:
            if self.up.is_set():
                self.up.clear()
                self.changed_at = self.loop.time()
            raise
        if not self.up.is_set():
            self.up.set()
            self.changed_at = self.loop.time()
        return results

    def seconds(self) -> float:
        """Tell for how long it has been up, or down."""
        return self.loop.time() - self.changed_at

    def is_overdue(self) -> bool:
        """Tell whether it may be taken for dead."""
        return self.loop.time() > self.lease_until and self.up.is_set()

    def epoch(self) -> Command:
        """Ask."""
        return commands_of("me").epoch("fresh", self.known.decode())

    def note_epoch(self, result: tuple[bytes, int]) -> bool:
        """Compare."""
        was_lost = self.known not in (b"", result[0])
        self.known = result[0]
        return was_lost


class FakePubSub:
    """The channels that are wanted."""

    def __init__(self) -> None:
        self.wanted: set[str] = set()

    def subscribe(self, channel: str) -> None:
        """Want it."""
        self.wanted.add(channel)

    def unsubscribe(self, channel: str) -> None:
        """Want it no more."""
        self.wanted.remove(channel)


class Process:
    """A process called "me" with the parts of its store, and a reader of another one's log."""

    def __init__(self, redis: FakeRedis) -> None:
        self.redis, self.loop = redis, asyncio.get_running_loop()
        self.client, self.listener = FakeClient(redis), FakePubSub()
        self.work = asyncio.Event()
        commands = commands_of("me")
        self.outbox = Outbox(commands, self.work.set, self.client.is_overdue)
        self.inbox = Inbox(commands, cast("PubSub", self.listener), self.work.set)
        self.lease = Lease(cast("Client", self.client), commands, self.outbox, self.inbox)

    def attend(self, mirror: MirroredLog) -> None:
        """Follow it."""
        self.inbox.attend(mirror)

    def leave(self, mirror: MirroredLog) -> None:
        """Follow it no more."""
        self.inbox.leave(mirror)

    async def extent(self, stream_id: str) -> Extent:
        """Tell what Redis has."""
        return Extent(len(self.redis.entries(stream_id)), sealed=False)

    def produce(self, *texts: str) -> ProducedLog:
        """Create the log "mine" of this process."""
        self.redis.make("mine")
        log = self.outbox.new_log(LogSpec(stream_id="mine"))
        self.outbox.logs["mine"] = log
        log.append([Delta(text) for text in texts])
        return log

    def mirror(self, *, ended: bool = False) -> MirroredLog:
        """Open the log "a" of the process "other"."""
        return self.inbox.mirror(LogSpec(stream_id="a"), "other", ended=ended, readers=self)

    def exchange(self) -> None:
        """Make round trips until nothing is left to do."""
        while self.work.is_set():
            self.work.clear()
            jobs = [*self.outbox.jobs(), *self.inbox.jobs()]
            results = self.redis.run([command for command, _ in jobs])
            for (_, on_result), result in zip(jobs, results, strict=True):
                if on_result is not None:
                    on_result(result)


def piece(*texts: str) -> list[bytes]:
    return [msgspec.json.encode(Delta(text)) for text in texts]


def write(redis: FakeRedis, *texts: str) -> None:
    """Append one piece to the log "a"."""
    redis.make("a")
    redis.pieces.setdefault("p:{a}", []).append((len(redis.entries("a")) + len(texts), piece(*texts)))


def hold_lease(process: Process, seconds: float, producer: str = "other") -> None:
    process.redis.leases[f"p:{{{producer}}}:lease"] = process.loop.time() + seconds


@pytest.fixture
async def process() -> Process:
    process = Process(FakeRedis())
    write(process.redis, "a")
    return process


# Leases.


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


# Other processes' logs, as far as they are read here.


async def test_a_log_is_fetched_and_followed_as_long_as_it_has_readers(process: Process) -> None:
    mirror = process.mirror()
    with mirror.reading(), mirror.reading():
        assert process.listener.wanted == {"p:{a}:news"}
        process.exchange()
        assert await mirror.read(-1) == piece("a")
        write(process.redis, "b", "c")
        process.inbox.hear("p:{a}:news")
        process.exchange()
        assert await mirror.read(0) == piece("b", "c")
    assert process.listener.wanted == set()
    assert process.redis.said.count("mark_read") == 1
    process.exchange()
    assert process.redis.said.count("mark_read") == 2  # that it has left
    process.inbox.hear("p:{a}:news")
    assert not process.work.is_set()


async def test_a_log_of_more_pieces_than_one_fetch_brings_is_fetched_to_its_end(process: Process) -> None:
    for number in range(120):
        write(process.redis, *(f"{number}.{part}" for part in range(5)))
    mirror = process.mirror()
    with mirror.reading():
        process.exchange()
        assert await mirror.read(-1) == process.redis.entries("a")
    assert mirror.length == 601
    assert process.redis.said.count("XRANGE") == 3


async def test_a_piece_that_is_known_in_part_is_not_taken_twice(process: Process) -> None:
    mirror = process.mirror()
    with mirror.reading():
        mirror.extend(piece("a", "b"))
        write(process.redis, "b", "c")
        process.inbox.fetch(mirror)
        process.exchange()
        assert await mirror.read(-1) == piece("a", "b", "c")


async def test_readers_share_a_mirror_until_it_has_failed(process: Process) -> None:
    mirror = process.mirror()
    assert process.mirror() is mirror
    with mirror.reading():
        process.inbox.interrupt(Draining())
        with pytest.raises(Draining):
            await mirror.read(5)
    assert process.mirror() is not mirror


async def test_a_sealed_log_that_has_expired_meanwhile_is_told_so(process: Process) -> None:
    process.redis.pieces.clear()
    mirror = process.mirror(ended=True)
    with mirror.reading():
        process.exchange()
        with pytest.raises(StreamNotFound, match="expired"):
            await mirror.read(-1)
    assert "mark_read" not in process.redis.said


async def test_what_was_missed_in_a_break_is_fetched_after_it(process: Process) -> None:
    mirror = process.mirror()
    with mirror.reading():
        process.exchange()
        write(process.redis, "b")  # nobody heard of it
        process.inbox.recover()
        process.exchange()
        assert await mirror.read(-1) == piece("a", "b")


async def test_each_beat_says_again_that_a_running_log_is_read(process: Process) -> None:
    hold_lease(process, 100)
    mirror = process.mirror()
    with mirror.reading():
        process.exchange()
        await process.lease.beat()
        process.exchange()
        assert process.redis.said.count("mark_read") == 2
        process.redis.pieces["p:{a}"].append((2, [msgspec.json.encode(STOPPED)]))
        process.inbox.hear("p:{a}:news")
        process.exchange()
        assert process.inbox.running() == []
        await process.lease.beat()
        process.exchange()
        assert process.redis.said.count("mark_read") == 2


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


async def test_what_was_appended_elsewhere_during_an_outage_is_fetched_after_it(process: Process) -> None:
    hold_lease(process, 100)
    mirror = process.mirror()
    with mirror.reading():
        process.exchange()
        process.redis.is_away = True
        with pytest.raises(StoreUnavailable):
            await process.lease.beat()
        process.redis.is_away = False
        write(process.redis, "b")
        await process.lease.beat()
        process.exchange()
        assert await mirror.read(0) == piece("b")


async def test_a_mirror_is_read_only_and_asks_redis_how_long_its_log_is(process: Process) -> None:
    mirror = process.mirror()
    assert mirror.append([Delta("x")]) is False
    assert mirror.append_entry(b"x") is False
    write(process.redis, "b", "c")
    assert await mirror.extent() == Extent(3, sealed=False)
    assert mirror.length == 0


async def test_reading_to_the_end_follows_a_log_until_it_is_sealed(process: Process) -> None:
    mirror = process.mirror()
    reading = asyncio.create_task(mirror.read_to_end())
    await turns()
    process.exchange()
    await turns()
    assert not reading.done()
    process.redis.pieces["p:{a}"].append((2, [msgspec.json.encode(STOPPED)]))
    process.inbox.hear("p:{a}:news")
    process.exchange()
    await reading
    assert (mirror.terminal, mirror.size) == (STOPPED, sum(map(len, process.redis.entries("a"))))
    assert process.listener.wanted == set()
