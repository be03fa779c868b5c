"""The log in this process's memory: its caps, how long it is kept, and who is woken by what."""

import asyncio
import math
from collections.abc import Sequence
from contextlib import AsyncExitStack

import msgspec
import pytest

from chat_sse.errors import KeyReused, StreamNotFound
from chat_sse.events import Delta, Done, Event, Start
from chat_sse.opening import open_store
from chat_sse.settings import Settings
from chat_sse.stores.base import Log, LogSpec
from chat_sse.stores.memory import MemoryLog, MemoryStore
from tests.support.fakes import STOPPED, turns

END = Done(finish_reason="stop")


def store(*, ttl: float = 60, kept: int = 100, size: int = 1_000_000) -> MemoryStore:
    return MemoryStore(ttl_seconds=ttl, max_kept=kept, max_kept_bytes=size)


async def create(of: MemoryStore, stream_id: str = "a", **names: str) -> Log:
    log = await of.create(LogSpec(stream_id=stream_id, fingerprint=b"f", **names))
    assert log is not None
    return log


async def is_there(of: MemoryStore, stream_id: str) -> bool:
    try:
        await of.open(stream_id)
    except StreamNotFound:
        return False
    return True


async def test_a_sealed_log_and_its_names_are_kept_for_the_time_to_live_and_a_running_one_for_ever() -> None:
    of = store(ttl=60)
    await create(of, "running", idempotency_key="r", chat_id="rc")
    log = await create(of, "a", idempotency_key="k", chat_id="c")
    await asyncio.sleep(1_000)
    log.append([END])
    await asyncio.sleep(59)
    assert await of.find_key("k") is await of.find_chat("c") is log
    assert await of.create(LogSpec(stream_id="b", idempotency_key="k", fingerprint=b"f")) is None
    await asyncio.sleep(1)
    for asking in (of.open("a"), of.find_key("k"), of.find_chat("c"), of.seal("a", STOPPED)):
        with pytest.raises(StreamNotFound):
            await asking
    assert await is_there(of, "running")
    await create(of, "b", idempotency_key="k")


async def test_of_the_sealed_ones_as_many_are_kept_as_the_cap_says_the_newest() -> None:
    of = store(kept=2)
    await create(of, "running")
    for name in "abcd":
        (await create(of, name)).append([END])
    assert [await is_there(of, name) for name in ("running", *"abcd")] == [True, False, False, True, True]


async def test_of_the_sealed_ones_as_many_bytes_are_kept_as_the_cap_says_the_newest() -> None:
    size = len(msgspec.json.encode(END))
    of = store(size=3 * size)
    (await create(of, "running")).append([Delta("x" * 1_000)])
    for name in "abc":
        (await create(of, name)).append([END])
    assert [await is_there(of, name) for name in "abc"] == [True] * 3
    (await create(of, "d")).append([END])
    assert [await is_there(of, name) for name in "abcd"] == [False, True, True, True]
    await of.discard(await of.open("b"))
    (await create(of, "e")).append([END])
    assert [await is_there(of, name) for name in "cde"] == [True] * 3
    (await create(of, "large")).append([Delta("x" * 1_000), END])
    assert not await is_there(of, "large")
    assert not await is_there(of, "e")


async def test_the_caps_are_those_of_the_settings() -> None:
    async with AsyncExitStack() as stack:
        settings = Settings(openai_api_key="sk-x", max_kept_streams=3, stream_ttl=7)
        of = await open_store(settings, stack)
        assert isinstance(of, MemoryStore)
        for name in "abcde":
            (await create(of, name)).append([END])
        assert [await is_there(of, name) for name in "abcde"] == [False, False, True, True, True]
        await asyncio.sleep(7)
        assert not await is_there(of, "e")
    async with AsyncExitStack() as stack:
        small = await open_store(Settings(openai_api_key="sk-x", max_kept_bytes=50), stack)
        assert isinstance(small, MemoryStore)
        (await create(small, "a")).append([END])
        (await create(small, "b")).append([Delta("x" * 50), END])
        assert not await is_there(small, "a")


async def test_a_discarded_log_leaves_its_names_to_others() -> None:
    of = store()
    log = await create(of, "a", idempotency_key="k", chat_id="c")
    newer = await create(of, "b", chat_id="c")
    log.append([END])
    await of.discard(log)
    await of.discard(log)
    assert await of.find_chat("c") is newer
    await create(of, "d", idempotency_key="k")
    log_of_nobody = await create(of, "e")
    await of.discard(log_of_nobody)
    log_of_nobody.append([END])  # keeps nothing
    await asyncio.sleep(100)
    assert await is_there(of, "b")


async def test_closing_forgets_everything_and_leaves_no_timer() -> None:
    of = store()
    for name in "abc":
        (await create(of, name, idempotency_key=name, chat_id=name)).append([END])
    await create(of, "running")
    await of.aclose()
    assert not await is_there(of, "running")
    loop = asyncio.get_running_loop()
    assert [timer for timer in vars(loop)["_scheduled"] if not timer.cancelled()] == []
    await create(of, "a", idempotency_key="a")


async def test_a_key_is_one_body() -> None:
    of = store()
    log = await create(of, "a", idempotency_key="k")
    with pytest.raises(KeyReused):
        await of.create(LogSpec(stream_id="b", idempotency_key="k", fingerprint=b"g"))
    with pytest.raises(KeyReused):
        await of.find_key("k", b"g")
    assert await of.find_key("k", b"f") is await of.find_key("k") is log


async def test_a_stop_seals_once_and_tells_the_producer_and_its_own_end_does_not() -> None:
    of = store()
    told: list[str] = []
    for name in "ab":
        log = await create(of, name)
        log.on_stop = lambda name=name: told.append(name)  # type: ignore[misc]
    assert [await of.seal("a", STOPPED), await of.seal("a", END)] == [True, False]
    own = await of.open("b")
    assert own.append([Delta("a")]) is own.append_entry(entries(Delta("b"))[0]) is True
    assert own.append([END, Delta("never")]) is True
    assert not await of.seal("b", STOPPED)
    assert told == ["a"]
    assert (own.length, own.terminal, (await own.extent()).sealed) == (3, END, True)
    assert own.append([STOPPED]) is own.append_entry(b"{}") is False
    assert await of.idle_elsewhere(own) == math.inf


# Reading.


def log() -> MemoryLog:
    return MemoryLog(LogSpec(stream_id="a", owner="ada"), lambda _: None)


def entries(*events: Event) -> list[bytes]:
    return [msgspec.json.encode(event) for event in events]


class Taking:
    """A subscriber that takes as much as it is told to."""

    def __init__(self, most: int = 1_000) -> None:
        self.taken: list[bytes] = []
        self.most = most

    def deliver(self, entries: Sequence[bytes]) -> bool:
        """Take all of them, or none."""
        if len(self.taken) + len(entries) > self.most:
            return False
        self.taken += entries
        return True

    def deliver_entry(self, entry: bytes) -> bool:
        """Take it, or not."""
        return self.deliver([entry])


async def test_a_reader_waits_until_there_is_something_after_its_cursor() -> None:
    one = log()
    said: list[Event] = [Start(id="a", model="m"), Delta("b"), Delta("c")]
    waiting = [asyncio.create_task(one.read(after)) for after in (-1, 0, 1)]
    for count, event in enumerate(said):
        await turns()
        assert [task.done() for task in waiting] == [n < count for n in range(3)]
        one.append([event])
    await turns()
    assert [await task for task in waiting] == [
        entries(Start(id="a", model="m")),
        entries(Delta("b")),
        entries(Delta("c")),
    ]
    assert one.size == sum(map(len, await one.read(-1)))


async def test_a_reader_behind_gets_all_at_once_and_one_at_the_end_nothing() -> None:
    one = log()
    one.append([Delta("a"), Delta("b"), END])
    with one.reading():
        assert one.owner == "ada"
    assert await one.read(-1) == entries(Delta("a"), Delta("b"), END)
    assert await one.read(1) == entries(END)
    assert await one.read(2) == await one.read(99) == []


@pytest.mark.parametrize("way", ["append", "append_entry"])
async def test_what_a_subscriber_takes_wakes_nobody_and_what_it_does_not_is_returned(way: str) -> None:
    one, subscriber = log(), Taking(most=2)
    reading = asyncio.create_task(one.read(-1, subscriber))
    await turns()
    for word in "abcd":
        if way == "append":
            one.append([Delta(word)])
        else:
            one.append_entry(entries(Delta(word))[0])
        if word == "b":
            await turns()
            assert not reading.done()
    assert subscriber.taken == entries(Delta("a"), Delta("b"))
    assert await reading == entries(Delta("c"), Delta("d"))


async def test_the_end_is_returned_even_where_a_subscriber_would_take_it() -> None:
    one, subscriber = log(), Taking()
    reading = asyncio.create_task(one.read(-1, subscriber))
    await turns()
    one.append([Delta("a")])
    one.append([Delta("b"), END])
    assert await reading == entries(Delta("b"), END)
    assert subscriber.taken == entries(Delta("a"))


async def test_a_subscriber_ahead_of_the_log_is_offered_nothing_before_its_cursor() -> None:
    one, subscriber = log(), Taking()
    reading = asyncio.create_task(one.read(0, subscriber))
    await turns()
    one.append([Delta("a")])
    await turns()
    one.append([Delta("b")])
    await turns()
    assert subscriber.taken in ([], entries(Delta("b")))
    one.append([END])
    returned = await reading
    assert [*subscriber.taken, *returned][-2:] == entries(Delta("b"), END)


async def test_a_reader_that_gives_up_loses_nothing_and_holds_up_nobody() -> None:
    one = log()
    leaving, staying = (asyncio.create_task(one.read(-1)) for _ in range(2))
    await turns()
    leaving.cancel()
    one.append([Delta("a")])
    assert await staying == entries(Delta("a"))
    assert vars(type(one))["_waiting"].__get__(one) == []


async def test_entries_are_ascii_however_they_come() -> None:
    one = log()
    one.append([Delta("ü\u2028")])
    one.append_entry('{"type":"delta","content":"ü\u2028"}'.encode())
    assert await one.read(-1) == [b'{"type":"delta","content":"\\u00fc\\u2028"}'] * 2
    assert one.size == 2 * 41
