"""Other processes' logs, as far as they are read here."""

import asyncio

import msgspec
import pytest

from chat_sse.errors import Draining, StoreUnavailable, StreamNotFound
from chat_sse.events import Delta
from chat_sse.stores.base import Extent
from tests.inside.stores.processes import Process, hold_lease, piece, write
from tests.support.fakes import STOPPED, turns


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
