"""One contract, every store: ids, keys and chats, and how long they last. See `test_stores.py`."""

import asyncio
from collections.abc import Awaitable

import msgspec
import pytest

from chat_sse.errors import KeyReused, StreamNotFound
from chat_sse.events import Start, new_stream_id
from chat_sse.stores.base import Log, LogSpec, Store
from chat_sse.stores.redis.logs import ProducedLog
from tests.support.stores import (
    FAILED,
    SHORT_TTL_SECONDS,
    STOPPED,
    OpenStore,
    create,
    deltas,
    eventually,
    extent_of,
    read_all,
)


async def test_unknown_logs_keys_and_chats_are_not_found(store: Store) -> None:
    for asking in (
        store.open("unknown"),
        store.seal("unknown", STOPPED),
        store.find_key("unknown"),
        store.find_chat("unknown"),
    ):
        with pytest.raises(StreamNotFound):
            await asking


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
