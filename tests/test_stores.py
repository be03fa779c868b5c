"""One contract, every store: what `stores/base.py` promises of a log, in memory and on a real Redis.

With Redis, `elsewhere` is a second store on the same server, as another process has it.
"""

import asyncio
from collections.abc import AsyncGenerator

import msgspec
import pytest

from chat_sse.events import Delta, Done
from chat_sse.messages import Question
from chat_sse.relay.deadlines import Timeouts
from chat_sse.relay.relay import Relay
from chat_sse.stores.base import Store
from chat_sse.upstreams.generator import GeneratorUpstream
from tests.support.stores import (
    FAILED,
    STOPPED,
    Taking,
    contents,
    create,
    deltas,
    extent_of,
    read_all,
)


async def test_entries_come_in_the_order_of_appending_without_gaps(store: Store, elsewhere: Store) -> None:
    log = await create(store)
    words = [f"w{number}" for number in range(1200)]
    for word in words:
        assert log.append(deltas(word))
    assert log.append([Done(finish_reason="stop")])
    for reader in (log, await elsewhere.open(log.id)):
        entries = await read_all(reader)
        assert contents(entries) == words
        assert await extent_of(reader) == (len(words) + 1, True)


async def test_readers_that_join_in_mid_append_see_the_same_entries(store: Store, elsewhere: Store) -> None:
    log = await create(store)

    async def append() -> None:
        for number in range(300):
            log.append(deltas(str(number)))
            if number % 7 == 0:
                await asyncio.sleep(0.001)
        log.append([Done(finish_reason="stop")])

    async def join(source: Store, moment: int) -> list[bytes]:
        await asyncio.sleep(moment * 0.002)
        return await read_all(await source.open(log.id))

    async with asyncio.TaskGroup() as group:
        group.create_task(append())
        readers = [group.create_task(join((store, elsewhere)[n % 2], n)) for n in range(20)]
    expected = await read_all(log)
    assert contents(expected) == [str(number) for number in range(300)]
    assert all(reader.result() == expected for reader in readers)


async def test_a_cursor_gives_exactly_what_follows_it(store: Store, elsewhere: Store) -> None:
    log = await create(store)
    log.append([*deltas("a", "b", "c"), Done(finish_reason="stop")])
    for source in (store, elsewhere):
        reader = await source.open(log.id)
        everything = await read_all(reader)
        for after in range(-1, 4):
            assert await read_all(reader, after) == everything[after + 1 :]


async def test_a_reader_waits_for_the_next_entry_and_may_give_up(store: Store, elsewhere: Store) -> None:
    log = await create(store)
    for source in (store, elsewhere):
        reader = await source.open(log.id)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05):
                await reader.read(-1)
    waiting = asyncio.create_task((await elsewhere.open(log.id)).read(-1))
    log.append(deltas("now"))
    assert contents(await waiting) == ["now"]


async def test_a_waiting_reader_is_offered_what_comes_and_returns_with_what_it_does_not_take(
    store: Store, elsewhere: Store
) -> None:
    log = await create(store)
    log.append(deltas("before"))

    async def read(source: Store) -> tuple[list[str], list[str]]:
        subscriber = Taking(until="no more")
        reader = await source.open(log.id)
        with reader.reading():
            returned = await reader.read(0, subscriber)
            assert 1 + len(subscriber.taken) + len(returned) == reader.length
        assert [*subscriber.taken, *returned] == (await read_all(reader, 0))[
            : len(subscriber.taken) + len(returned)
        ]
        return contents(subscriber.taken), contents(returned)

    reading = [asyncio.create_task(read(source)) for source in (store, elsewhere)]
    for word in ("one", "two", "no more"):
        await asyncio.sleep(0.1)
        log.append_entry(msgspec.json.encode(Delta(word)))
    await asyncio.sleep(0.1)
    log.append([*deltas("later"), Done(finish_reason="stop")])
    for task in reading:
        assert await task == (["one", "two"], ["no more"])


async def test_the_end_of_a_log_is_returned_and_never_taken(store: Store, elsewhere: Store) -> None:
    log = await create(store)
    waiting = [
        asyncio.create_task((await source.open(log.id)).read(-1, Taking())) for source in (store, elsewhere)
    ]
    await asyncio.sleep(0)
    log.append(deltas("taken"))
    await asyncio.sleep(0.1)
    log.append([*deltas("last"), Done(finish_reason="stop")])
    for task in waiting:
        assert (await task)[-1] == (await read_all(log))[-1]


async def test_an_entry_is_appended_as_its_event_is(store: Store, elsewhere: Store) -> None:
    log = await create(store)
    waiting = [asyncio.create_task(read_all(await source.open(log.id))) for source in (store, elsewhere)]
    assert log.append(deltas("a"))
    assert log.append_entry(msgspec.json.encode(Delta("b")))
    assert log.append([Done(finish_reason="stop")])
    size = log.size
    assert not log.append_entry(msgspec.json.encode(Delta("never")))
    for task in waiting:
        assert contents(entries := await task) == ["a", "b"]
        assert sum(map(len, entries)) == size == log.size
    assert not (await elsewhere.open(log.id)).append_entry(b"{}")


async def test_a_reader_ahead_of_the_log_waits_until_it_is_reached(store: Store, elsewhere: Store) -> None:
    log = await create(store)
    waiting = [asyncio.create_task((await source.open(log.id)).read(1)) for source in (store, elsewhere)]
    for word in ("a", "b", "c"):
        await asyncio.sleep(0.1)
        assert not any(task.done() for task in waiting)
        log.append(deltas(word))
    for task in waiting:
        assert contents(await task) == ["c"]


async def test_the_first_terminal_event_is_the_last_entry(store: Store, elsewhere: Store) -> None:
    log = await create(store)
    assert log.append([*deltas("a"), Done(finish_reason="stop"), *deltas("never")])
    assert log.sealed
    assert not log.append(deltas("never"))
    assert not log.append([FAILED])
    for source in (store, elsewhere):
        assert contents(await read_all(await source.open(log.id))) == ["a"]


async def test_a_reader_that_has_seen_the_end_gets_no_other_one(store: Store, elsewhere: Store) -> None:
    timeouts = Timeouts(
        accept_wait=1, first_token_timeout=1, idle_timeout=1, total_timeout=1, disconnect_grace=1
    )
    log = await create(store)
    log.append([*deltas("a"), Done(finish_reason="stop")])
    for source in (elsewhere, store):  # elsewhere it may not be known yet that the log has ended
        relay = Relay(GeneratorUpstream(_nothing, models=("m",)), source, timeouts)
        assert [entries async for entries in relay.follow(await source.open(log.id), 1)] == []


async def _nothing(question: Question) -> AsyncGenerator[str, None]:
    yield ""


async def test_sealing_from_anywhere_ends_it_for_all_and_tells_the_producer_once(
    store: Store, elsewhere: Store
) -> None:
    log = await create(store)
    told: list[None] = []
    log.on_stop = lambda: told.append(None)
    log.append(deltas("a"))
    readers = [asyncio.create_task(read_all(await source.open(log.id))) for source in (store, elsewhere)]
    results = await asyncio.gather(*(source.seal(log.id, STOPPED) for source in (elsewhere, store) * 3))
    assert results.count(True) == 1
    assert not log.append(deltas("never"))
    first, second = await asyncio.gather(*readers)
    assert first == second
    assert first[-1] == msgspec.json.encode(STOPPED)
    assert told == [None]


async def test_sealing_a_finished_answer_changes_nothing(store: Store, elsewhere: Store) -> None:
    log = await create(store)
    log.append([*deltas("a"), Done(finish_reason="stop")])
    before = await read_all(await elsewhere.open(log.id))
    for source in (store, elsewhere):
        assert not await source.seal(log.id, STOPPED)
    assert await read_all(await elsewhere.open(log.id)) == before


async def test_an_own_terminal_event_is_no_stop(store: Store) -> None:
    log = await create(store)
    log.on_stop = lambda: pytest.fail("nobody stopped it")
    log.append([Done(finish_reason="stop")])
    assert await read_all(log)
