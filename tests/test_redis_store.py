"""The store on Redis alone: several processes, and its loss."""

import asyncio
import math
import signal
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack

import msgspec
import pytest
from redis.asyncio import Redis

from chat_sse.errors import Draining, StoreUnavailable, StreamNotFound
from chat_sse.events import Delta, new_stream_id
from chat_sse.stores.base import LogSpec
from chat_sse.stores.redis.lease import BEAT_SECONDS, LEASE_SECONDS
from chat_sse.stores.redis.scripts import Keys
from chat_sse.stores.redis.store import RedisStore
from tests.support.redis_server import RedisServer
from tests.support.stores import (
    STOPPED,
    contents,
    create,
    deltas,
    eventually,
    extent_of,
    read_all,
)


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
