"""One contract, every store: what `stores/base.py` promises, in memory and on a real Redis.

With Redis, `elsewhere` is a second store on the same server, as another process has it.
"""

import asyncio
import math
import signal
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import AsyncExitStack

import msgspec
import pytest
from redis.asyncio import Redis

from chat_sse.errors import Draining, KeyReused, StoreUnavailable, StreamNotFound, UpstreamTimeout
from chat_sse.events import Delta, Done, Start, failure, new_stream_id
from chat_sse.messages import Question
from chat_sse.relay.deadlines import Timeouts
from chat_sse.relay.relay import Relay
from chat_sse.stores.base import Log, LogSpec, Store
from chat_sse.stores.memory import MemoryStore
from chat_sse.stores.redis.lease import BEAT_SECONDS, LEASE_SECONDS
from chat_sse.stores.redis.logs import ProducedLog
from chat_sse.stores.redis.scripts import Keys
from chat_sse.stores.redis.store import RedisStore
from chat_sse.upstreams.generator import GeneratorUpstream
from tests.support.redis_server import RedisServer

TTL_SECONDS = 300.0
SHORT_TTL_SECONDS = 0.3
STOPPED = Done(finish_reason="cancelled")
FAILED = failure(UpstreamTimeout("too late"), "r1")

OpenStore = Callable[..., Awaitable[Store]]


@pytest.fixture(scope="module")
def redis_server() -> Iterator[RedisServer]:
    with RedisServer() as server:
        yield server


@pytest.fixture
async def open_redis(redis_server: RedisServer) -> AsyncIterator[Callable[..., Awaitable[RedisStore]]]:
    async with AsyncExitStack() as stack:

        async def open_store(ttl_seconds: float = TTL_SECONDS) -> RedisStore:
            store = RedisStore(redis_server.url, ttl_seconds=ttl_seconds, running_seconds=600)
            stack.push_async_callback(store.aclose)
            await store.start()
            return store

        yield open_store


@pytest.fixture(params=["memory", "redis"])
def open_store(request: pytest.FixtureRequest) -> Iterator[OpenStore]:
    if request.param == "redis":
        yield request.getfixturevalue("open_redis")
        return

    async def open_memory(ttl_seconds: float = TTL_SECONDS) -> Store:
        return MemoryStore(ttl_seconds=ttl_seconds, max_kept=100, max_kept_bytes=1_000_000)

    yield open_memory


@pytest.fixture
async def store(open_store: OpenStore) -> Store:
    return await open_store()


@pytest.fixture
async def elsewhere(store: Store, open_store: OpenStore) -> Store:
    """The same logs as another process sees them; memory has no other process."""
    return store if isinstance(store, MemoryStore) else await open_store()


async def create(store: Store, **fields: object) -> Log:
    log = await store.create(LogSpec(stream_id=new_stream_id(), **fields))  # type: ignore[arg-type]
    assert log is not None
    return log


def deltas(*texts: str) -> list[Delta]:
    return [Delta(text) for text in texts]


def contents(entries: Sequence[bytes]) -> list[str]:
    """Give what the deltas among some entries say."""
    events = [msgspec.json.decode(entry) for entry in entries]
    return [event["content"] for event in events if event["type"] == "delta"]


async def read_all(log: Log, after: int = -1) -> list[bytes]:
    found: list[bytes] = []
    with log.reading():
        while entries := await log.read(after + len(found)):
            found += entries
    return found


class Taking:
    """A subscriber that keeps what it takes, up to a word."""

    def __init__(self, until: str | None = None) -> None:
        self.taken: list[bytes] = []
        self._until = until

    def deliver(self, entries: Sequence[bytes]) -> bool:
        if self._until in contents(entries):
            return False
        self.taken.extend(entries)
        return True

    def deliver_entry(self, entry: bytes) -> bool:
        return self.deliver([entry])


async def eventually(condition: Callable[[], Awaitable[bool]]) -> None:
    """Wait until it holds; the test's own limit bounds it."""
    while not await condition():  # noqa: ASYNC110 - what it asks is another process's
        await asyncio.sleep(0.01)


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


async def test_unknown_logs_keys_and_chats_are_not_found(store: Store) -> None:
    for asking in (
        store.open("unknown"),
        store.seal("unknown", STOPPED),
        store.find_key("unknown"),
        store.find_chat("unknown"),
    ):
        with pytest.raises(StreamNotFound):
            await asking


async def extent_of(log: Log) -> tuple[int, bool]:
    extent = await log.extent()
    return extent.length, extent.sealed


async def test_the_owner_and_the_extent_are_kept(store: Store, elsewhere: Store) -> None:
    log = await create(store, owner="ada")
    log.append([Start(id=log.id, model="m"), *deltas("a")])
    for source in (store, elsewhere):
        reader = await source.open(log.id)
        assert reader.owner == "ada"

        async def is_there(reader: Log = reader) -> bool:
            return await extent_of(reader) == (2, False)

        await eventually(is_there)
    log.append([STOPPED])

    async def is_sealed() -> bool:
        return await extent_of(await elsewhere.open(log.id)) == (3, True)

    await eventually(is_sealed)


async def test_of_many_simultaneous_claims_exactly_one_creates(store: Store, elsewhere: Store) -> None:
    def claim(source: Store) -> Awaitable[Log | None]:
        return source.create(LogSpec(stream_id=new_stream_id(), idempotency_key="k1", fingerprint=b"f"))

    claims = await asyncio.gather(*(claim((store, elsewhere)[n % 2]) for n in range(60)))
    [winner] = [log for log in claims if log is not None]
    for source in (store, elsewhere):
        assert (await source.find_key("k1")).id == winner.id


async def test_a_key_with_another_fingerprint_is_refused(store: Store, elsewhere: Store) -> None:
    log = await create(store, idempotency_key="k2", fingerprint=b"f")
    for source in (store, elsewhere):
        with pytest.raises(KeyReused):
            await source.create(LogSpec(stream_id=new_stream_id(), idempotency_key="k2", fingerprint=b"g"))
        with pytest.raises(KeyReused):
            await source.find_key("k2", b"g")
        for fingerprint in (None, b"f"):
            assert (await source.find_key("k2", fingerprint)).id == log.id


async def test_a_chat_moves_to_its_newest_log(store: Store, elsewhere: Store) -> None:
    first = await create(store, chat_id="chat")
    assert (await elsewhere.find_chat("chat")).id == first.id
    second = await create(elsewhere, chat_id="chat")
    assert (await store.find_chat("chat")).id == second.id
    first.append([STOPPED])
    await store.discard(first)
    assert (await store.find_chat("chat")).id == second.id


async def test_a_discarded_log_is_gone_and_frees_its_key_while_its_readers_finish(
    store: Store, elsewhere: Store
) -> None:
    log = await create(store, idempotency_key="k3", fingerprint=b"f", chat_id="l3")
    reader = await elsewhere.open(log.id)
    reading = asyncio.create_task(read_all(reader))
    await asyncio.sleep(0)
    log.append([FAILED])
    await store.discard(log)
    for source in (store, elsewhere):
        with pytest.raises(StreamNotFound):
            await source.open(log.id)
        with pytest.raises(StreamNotFound):
            await source.find_key("k3")
        with pytest.raises(StreamNotFound):
            await source.find_chat("l3")
    assert await reading == [msgspec.json.encode(FAILED)]
    await create(elsewhere, idempotency_key="k3", fingerprint=b"g")


async def test_a_log_can_be_discarded_long_after_its_end(store: Store, elsewhere: Store) -> None:
    log = await create(store, idempotency_key="k9", fingerprint=b"f")
    log.append([FAILED])
    if isinstance(log, ProducedLog):
        await log.settled.wait()
    await store.discard(log)
    for source in (store, elsewhere):
        with pytest.raises(StreamNotFound):
            await source.open(log.id)
        with pytest.raises(StreamNotFound):
            await source.find_key("k9")


async def test_a_chats_newest_log_may_be_forgotten_before_the_older_ones(
    store: Store, elsewhere: Store
) -> None:
    older, newest = await create(store, chat_id="l9"), await create(store, chat_id="l9")
    for log in (newest, older):
        log.append([FAILED])
        await store.discard(log)
    with pytest.raises(StreamNotFound):
        await elsewhere.find_chat("l9")


async def test_a_sealed_log_expires_with_its_key_and_a_running_one_does_not(open_store: OpenStore) -> None:
    store = await open_store(ttl_seconds=SHORT_TTL_SECONDS)
    running = await create(store, idempotency_key="k4", chat_id="l4")
    sealed = await create(store, idempotency_key="k5", chat_id="l5")
    sealed.append([STOPPED])

    async def is_gone() -> bool:
        try:
            await store.find_key("k5")
        except StreamNotFound:
            return True
        return False

    await eventually(is_gone)
    for asking in (store.open(sealed.id), store.find_chat("l5")):
        with pytest.raises(StreamNotFound):
            await asking
    assert (await store.open(running.id)).id == running.id
    assert (await store.find_key("k4")).id == running.id
    await create(store, idempotency_key="k5")


async def test_it_takes_questions(store: Store) -> None:
    await store.check()


# Redis alone: several processes, and its loss.


async def test_a_second_producer_is_fenced(
    open_redis: Callable[..., Awaitable[RedisStore]], redis_server: RedisServer
) -> None:
    store, elsewhere = await open_redis(), await open_redis()
    log = await create(store)
    assert not (await elsewhere.open(log.id)).append(deltas("foreign"))
    stopped = asyncio.Event()
    log.on_stop = stopped.set
    async with Redis.from_url(redis_server.url, protocol=2) as raw:
        keys = Keys("chat_sse")
        await raw.xadd(keys.log(log.id), {"e": msgspec.json.encode(Delta("foreign"))}, id="1-0")
        await raw.hset(keys.meta(log.id), "length", "1")
    log.append(deltas("own"))
    await stopped.wait()
    assert not log.append(deltas("refused"))


async def test_a_log_that_others_have_ended_holds_nothing_more() -> None:
    noted: list[str] = []
    log = ProducedLog(LogSpec(stream_id="a"), lambda produced: noted.append(produced.id), lambda: True)
    assert log.append(deltas("held"))
    assert (log.length, noted) == (0, ["a"])
    log.overrule(STOPPED)
    assert not log.append(deltas("late"))
    assert not log.append_entry(b'{"type":"delta","content":"late"}')
    assert (log.length, noted) == (1, ["a"])


async def test_a_log_whose_end_is_held_is_sealed() -> None:
    log = ProducedLog(LogSpec(stream_id="a"), lambda _: None, lambda: True)
    told: list[None] = []
    log.on_stop = lambda: told.append(None)
    assert log.append(deltas("held"))
    assert log.stop(STOPPED)
    assert not log.stop(STOPPED)
    assert not log.append(deltas("late"))
    assert not log.append_entry(b'{"type":"delta","content":"late"}')
    log.confirm()
    assert (log.length, log.terminal, told) == (2, STOPPED, [None])


async def test_every_key_expires(
    open_redis: Callable[..., Awaitable[RedisStore]], redis_server: RedisServer
) -> None:
    async with Redis.from_url(redis_server.url, protocol=2) as raw:
        await raw.flushall()
    store = await open_redis()
    elsewhere = await open_redis()
    running = await create(store, idempotency_key="k6", chat_id="l6")
    running.append(deltas("a"))
    await (await elsewhere.open(running.id)).read(-1)
    sealed = await create(store, idempotency_key="k7", chat_id="l7")
    sealed.append([*deltas("a"), STOPPED])
    await read_all(await elsewhere.open(sealed.id))
    async with Redis.from_url(redis_server.url, protocol=2) as raw:
        for key in await raw.keys("*"):
            longest = 31 * 86_400_000 if "epoch" in str(key) else 600_000
            assert 0 < await raw.pttl(key) <= longest, key


async def test_the_producer_knows_since_when_nobody_reads_elsewhere(
    open_redis: Callable[..., Awaitable[RedisStore]], redis_server: RedisServer
) -> None:
    store, elsewhere = await open_redis(), await open_redis()
    log, unread = await create(store), await create(store)

    async def is_known() -> bool:
        return 2 * BEAT_SECONDS <= await store.idle_elsewhere(log) < 4 * BEAT_SECONDS

    async def is_listened_to(expected: int) -> bool:
        async with Redis.from_url(redis_server.url, protocol=2) as raw:
            [(_, count)] = await raw.pubsub_numsub(Keys("chat_sse").news(log.id))
            return bool(count == expected)

    reading = asyncio.create_task(read_all(await elsewhere.open(log.id)))
    await eventually(lambda: is_listened_to(1))
    await asyncio.sleep(LEASE_SECONDS)  # so long that nothing is known after a break
    assert await store.idle_elsewhere(log) == 0
    reading.cancel()
    await eventually(lambda: is_listened_to(0))
    assert await store.idle_elsewhere(log) == 0
    await eventually(is_known)
    assert await store.idle_elsewhere(unread) == math.inf


async def test_just_after_an_outage_nobody_elsewhere_is_known_to_have_left(
    open_redis: Callable[..., Awaitable[RedisStore]],
) -> None:
    store = await open_redis()  # which has begun with Redis down
    assert await store.idle_elsewhere(await create(store)) == 0


@pytest.mark.parametrize("fate", ["lost", "discarded"])
async def test_a_claim_whose_log_is_gone_is_taken_over_and_a_good_one_is_not(
    fate: str, open_redis: Callable[..., Awaitable[RedisStore]], redis_server: RedisServer
) -> None:
    store, elsewhere = await open_redis(), await open_redis()
    key = f"over {fate}"
    log = await create(store, idempotency_key=key, fingerprint=b"f")
    spec = LogSpec(stream_id=new_stream_id(), idempotency_key=key, fingerprint=b"f")
    assert await elsewhere.create(spec) is None
    async with Redis.from_url(redis_server.url, protocol=2) as raw:
        meta = Keys("chat_sse").meta(log.id)
        if fate == "lost":
            await raw.delete(meta)
        else:
            await raw.hset(meta, "discarded", "1")
    assert await elsewhere.create(spec) is not None
    assert (await elsewhere.find_key(key)).id == spec.stream_id


async def test_all_readers_of_a_log_in_a_process_share_one_copy(
    open_redis: Callable[..., Awaitable[RedisStore]],
) -> None:
    store, elsewhere = await open_redis(), await open_redis()
    log = await create(store)
    first = await elsewhere.open(log.id)
    assert await elsewhere.open(log.id) is first
    readers = [asyncio.create_task(read_all(await elsewhere.open(log.id))) for _ in range(10)]
    log.append([*deltas("a"), STOPPED])
    assert [contents(await reader) for reader in readers] == [["a"]] * 10


async def test_hundreds_of_readers_elsewhere_share_a_few_connections(
    open_redis: Callable[..., Awaitable[RedisStore]], redis_server: RedisServer
) -> None:
    store, elsewhere = await open_redis(), await open_redis()
    logs = [await create(store) for _ in range(500)]
    async with asyncio.TaskGroup() as group:
        readers = [group.create_task(read_all(await elsewhere.open(log.id))) for log in logs]
        for log in logs:
            log.append(deltas("a"))
        async with Redis.from_url(redis_server.url, protocol=2) as raw:
            assert (
                len(await raw.client_list()) <= 2 * 2 + 1
            )  # each has one for commands, and one that listens
        for log in logs:
            log.append([STOPPED])
    assert all(contents(reader.result()) == ["a"] for reader in readers)


async def test_a_storm_of_lookups_at_a_slow_redis_is_no_outage(
    open_redis: Callable[..., Awaitable[RedisStore]], redis_server: RedisServer
) -> None:
    store, elsewhere = await open_redis(), await open_redis()
    log = await create(store, idempotency_key="storm")
    async with Redis.from_url(redis_server.url, protocol=2) as raw:
        await raw.client_pause(1_000)
        found = await asyncio.gather(*(elsewhere.find_key("storm") for _ in range(2_000)))
    assert {there.id for there in found} == {log.id}
    await elsewhere.check()


async def test_a_log_that_redis_has_to_its_end_leaves_the_producers_memory(
    open_redis: Callable[..., Awaitable[RedisStore]],
) -> None:
    store = await open_redis()
    log = await create(store)
    log.append([*deltas("a"), STOPPED])

    async def is_released() -> bool:
        return await store.open(log.id) is not log

    await eventually(is_released)
    assert contents(await read_all(await store.open(log.id))) == ["a"]
    assert contents(await read_all(log)) == ["a"]


async def test_shutting_down_interrupts_those_who_wait_for_other_processes(
    open_redis: Callable[..., Awaitable[RedisStore]],
) -> None:
    store, elsewhere = await open_redis(), await open_redis()
    log = await create(store)
    log.append(deltas("a"))
    reader = await elsewhere.open(log.id)
    with reader.reading():
        assert contents(await reader.read(-1)) == ["a"]
        waiting = asyncio.create_task(reader.read(0))
        await asyncio.sleep(0)
        elsewhere.interrupt(Draining())
        with pytest.raises(Draining):
            await waiting
    log.append([STOPPED])
    assert len(await read_all(log)) == 2


async def test_an_outage_leaves_local_readers_alone_and_what_was_lost_is_sent_again() -> None:
    with RedisServer() as server:
        async with AsyncExitStack() as stack:
            stores = [RedisStore(server.url, ttl_seconds=60, running_seconds=600) for _ in range(2)]
            for store in stores:
                stack.push_async_callback(store.aclose)
                await store.start()
            here, there = stores
            log = await create(here, idempotency_key="k8", fingerprint=b"f")
            log.append(deltas("before"))
            reader = await there.open(log.id)
            with reader.reading():
                assert contents(await reader.read(-1)) == ["before"]
                server.kill()
                log.append(deltas("during"))
                assert contents(await log.read(0)) == ["during"]
                with pytest.raises(StoreUnavailable):
                    await reader.read(0)
            with pytest.raises(StoreUnavailable):
                await create(here)
            with pytest.raises(StoreUnavailable):
                await there.check()
            server.start()
            log.append([*deltas("after"), STOPPED])

            async def is_back() -> bool:
                try:
                    return await extent_of(await there.find_key("k8")) == (4, True)
                except (StoreUnavailable, StreamNotFound):
                    return False

            await eventually(is_back)
            entries = await read_all(await there.find_key("k8"))
            assert contents(entries) == ["before", "during", "after"]


async def test_a_redis_that_hangs_is_an_outage_and_buries_nobody(
    open_redis: Callable[..., Awaitable[RedisStore]], redis_server: RedisServer
) -> None:
    store, elsewhere = await open_redis(), await open_redis()
    log = await create(store)
    log.append(deltas("before"))
    redis_server.signal(signal.SIGSTOP)
    try:
        refused = await asyncio.gather(*map(create, (store, elsewhere)), return_exceptions=True)
        assert {type(error) for error in refused} == {StoreUnavailable}
        log.append(deltas("during"))
        assert contents(await log.read(-1)) == ["before", "during"]
        await asyncio.sleep(LEASE_SECONDS)  # so long that every lease runs out
    finally:
        redis_server.signal(signal.SIGCONT)

    async def is_back() -> bool:
        try:
            return await extent_of(await elsewhere.open(log.id)) == (2, False)
        except StoreUnavailable:
            return False

    await eventually(is_back)
    for source in (store, elsewhere):
        await source.check()
    reading = asyncio.create_task(read_all(await elsewhere.open(log.id)))
    await asyncio.sleep(3 * BEAT_SECONDS)  # so long that a producer without a lease would be buried
    log.append([*deltas("after"), STOPPED])
    assert contents(await reading) == ["before", "during", "after"]


async def test_a_store_may_start_before_its_redis() -> None:
    server = RedisServer()
    store = RedisStore(server.url, ttl_seconds=60, running_seconds=600)
    async with AsyncExitStack() as stack:
        stack.push_async_callback(store.aclose)
        await store.start()
        with pytest.raises(StoreUnavailable):
            await store.check()
        stack.enter_context(server)

        async def is_up() -> bool:
            try:
                await store.check()
            except StoreUnavailable:
                return False
            return True

        await eventually(is_up)
