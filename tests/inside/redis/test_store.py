"""The log that several processes share: names, claims, ends, and who reads it, beside a real Redis."""

import asyncio
import hashlib
import math
import time

import pytest

from chat_sse.errors import ChatError, Draining, InternalError, KeyReused, StoreUnavailable, StreamNotFound
from chat_sse.events import Delta, Done, Start
from chat_sse.stores.base import Extent, Log, LogSpec
from chat_sse.stores.redis.store import RedisStore
from tests.inside.redis.stores import Site, create, entries_of, figures, producer_of
from tests.support.fakes import STOPPED
from tests.support.stores import read_all

START, HI, END = Start(id="s", model="m"), Delta("Hi"), Done(finish_reason="stop")
KEY, CHAT = hashlib.sha256(b"k").hexdigest(), hashlib.sha256(b"c").hexdigest()


async def details(finding: object) -> str:
    """Return why a log was not found."""
    with pytest.raises(StreamNotFound) as raised:
        await finding  # type: ignore[misc]
    return raised.value.details


def round_trips(store: RedisStore) -> float:
    return figures(store)["redis_round_trips"]


# Names.


async def test_a_new_log_is_known_to_all_by_its_id_its_key_and_its_chat(site: Site) -> None:
    here, there = await site.start(), await site.start()
    log = await create(here, owner="ada", idempotency_key="k", fingerprint=b"f", chat_id="c")
    names = [f"p:{{{KEY}}}:claim", f"p:{{{CHAT}}}:chat", "p:{s}:meta"]
    assert [site.life(name) for name in names] == [6000] * 3
    assert site.meta("s") == {"owner": "ada", "producer": producer_of(here), "sealed": "0"}
    for found in (await there.open("s"), await there.find_key("k", b"f"), await there.find_chat("c")):
        assert (found.id, found.owner, found.sealed) == ("s", "ada", False)
    assert await here.open("s") is log
    assert await there.find_key("k") is await there.open("s")
    log.append([START, END])
    await asyncio.sleep(0.1)
    assert [site.life(name) for name in (*names, "p:{s}:log")] == [3000] * 4
    assert (await there.open("s")).owner == "ada"
    assert await read_all(await there.open("s")) == entries_of(START, END)
    assert await here.open("s") is not log  # Redis has it


async def test_what_nobody_knows_is_not_found(site: Site) -> None:
    store = await site.start()
    assert await details(store.open("x")) == "no answer has this id, or it has expired"
    assert await details(store.extent("x")) == "no answer has this id, or it has expired"
    assert await details(store.find_key("x")) == "no answer belongs to this key"
    assert await details(store.find_chat("x")) == "no answer belongs to this chat"
    assert await details(store.seal("x", STOPPED)) == "no answer has this id, or it has expired"


async def test_of_two_who_claim_a_key_one_creates(site: Site) -> None:
    here, there = await site.start(), await site.start()
    spec = LogSpec(stream_id="s", idempotency_key="k", fingerprint=b"f")
    other = LogSpec(stream_id="t", idempotency_key="k", fingerprint=b"f", chat_id="c")
    made = await asyncio.gather(here.create(spec), there.create(other))
    assert sum(log is not None for log in made) == 1
    [log] = [log for log in made if log is not None]
    assert (await here.find_key("k", b"f")).id == (await there.find_key("k", b"f")).id == log.id
    assert len(site.redis.keys("p:*:meta")) == 1
    for store in (here, there):
        with pytest.raises(KeyReused, match="another body"):
            await store.create(LogSpec(stream_id="u", idempotency_key="k", fingerprint=b"g"))
        with pytest.raises(KeyReused, match="another body"):
            await store.find_key("k", b"g")
        assert await details(store.open("u")) == "no answer has this id, or it has expired"


@pytest.mark.parametrize("is_gone", [True, False])
async def test_a_claim_whose_log_is_lost_or_was_forgotten_is_replaced(site: Site, *, is_gone: bool) -> None:
    here, there = await site.start(), await site.start()
    await create(here, "s", idempotency_key="k", fingerprint=b"f")
    if is_gone:
        site.data.delete("p:{s}:meta")
    else:
        site.data.hset("p:{s}:meta", "discarded", 1)
    log = await create(there, "t", idempotency_key="k", fingerprint=b"f")
    assert await there.find_key("k", b"f") is log


async def test_a_chat_is_its_newest_answer(site: Site) -> None:
    store = await site.start()
    first = await create(store, "s", chat_id="c")
    second = await create(store, "t", chat_id="c")
    assert await store.find_chat("c") is second
    first.append([END])
    await asyncio.sleep(0.1)
    assert site.life(f"p:{{{CHAT}}}:chat") == 6000  # it has moved on


# Extent, and ends.


async def test_how_far_a_log_has_got_is_what_redis_has(site: Site) -> None:
    here, there = await site.start(), await site.start()
    log = await create(here)
    assert await there.extent("s") == Extent(0, sealed=False, is_exact=False)
    log.append([START, HI])
    await asyncio.sleep(1)
    assert await there.extent("s") == Extent(2, sealed=False, is_exact=False)
    for state, is_exact in ((1, True), (2, True), (3, False)):
        site.data.hset("p:{s}:meta", "sealed", state)
        assert await there.extent("s") == Extent(2, sealed=True, is_exact=is_exact)


async def test_a_stop_from_elsewhere_is_the_producers_to_make(site: Site) -> None:
    here, there = await site.start(), await site.start()
    log, stops = await create(here), list[str]()
    log.on_stop = lambda: stops.append("stopped")
    log.append([START, HI])
    began = site.loop.time()
    first, second = await asyncio.gather(there.seal("s", STOPPED), there.seal("s", END))
    assert (first, second) == (True, False)
    assert site.loop.time() - began < 0.2
    assert stops == ["stopped"]
    assert not log.append([HI])
    assert site.events("s") == entries_of(START, HI, STOPPED)
    assert site.meta("s")["sealed"] == "2"
    assert await there.seal("s", STOPPED) is False


async def test_a_stop_beside_the_producer_needs_no_redis(site: Site) -> None:
    store = await site.start()
    log = await create(store)
    site.redis.crash()
    assert await store.seal("s", STOPPED) is True
    assert await store.seal("s", STOPPED) is False
    assert log.terminal == STOPPED
    site.redis.come_back()


async def test_a_stop_that_comes_too_late_has_stopped_nothing(site: Site) -> None:
    here, there = await site.start(), await site.start()
    log = await create(here)
    log.append([START])
    await asyncio.sleep(1)
    stopping = asyncio.ensure_future(there.seal("s", STOPPED))
    log.append([END])
    assert await stopping is False
    assert log.terminal == END


async def test_a_log_whose_producer_does_not_answer_is_sealed_in_its_stead(site: Site) -> None:
    here, there = await site.start(), await site.start()
    (await create(here)).append([START])
    await asyncio.sleep(1)
    await site.freeze(here)
    began = site.loop.time()
    assert await there.seal("s", STOPPED) is True
    assert 0.7 <= site.loop.time() - began < 0.75
    assert site.events("s") == entries_of(START, STOPPED)
    assert site.meta("s")["sealed"] == "3"
    assert [site.life(key) for key in ("p:{s}:log", "p:{s}:meta")] == [3000, 3000]


async def test_a_log_that_goes_while_it_is_stopped_is_not_found(site: Site) -> None:
    here, there = await site.start(), await site.start()
    await create(here)
    await asyncio.sleep(0.9)
    before = round_trips(there)
    stopping = asyncio.ensure_future(there.seal("s", STOPPED))
    while round_trips(there) == before:  # noqa: ASYNC110 - it looks whether there is such a log
        await asyncio.sleep(0)
    site.data.delete("p:{s}:meta")
    assert await details(stopping) == "no answer has this id, or it has expired"


async def test_a_log_is_forgotten_with_its_names_and_readers_of_it_learn_why(site: Site) -> None:
    here, there = await site.start(), await site.start()
    log = await create(here, idempotency_key="k", fingerprint=b"f", chat_id="c")
    reading = asyncio.ensure_future(read_all(await there.open("s")))
    await asyncio.sleep(0.1)
    log.append([STOPPED])
    await here.discard(log)
    assert await reading == entries_of(STOPPED)
    assert site.redis.keys("p:*:claim") + site.redis.keys("p:*:chat") == []
    assert [site.life(key) for key in ("p:{s}:log", "p:{s}:meta")] == [10, 10]
    for store in (here, there):
        assert "no answer has this id" in await details(store.open("s"))
    log = await create(here, "u", chat_id="c")
    log.append([STOPPED])
    await asyncio.sleep(0.1)  # Redis has it to its end
    assert len(site.redis.keys("p:*:chat")) == 1
    await here.discard(log)
    assert site.redis.keys("p:*:chat") == []
    await create(here, "t")
    await there.discard(await there.open("t"))  # its producer's to call
    assert (await there.open("t")).id == "t"


async def test_forgetting_waits_a_second_for_redis_and_not_at_all_for_one_that_is_away(site: Site) -> None:
    store = await site.start()
    log = await create(store)
    log.append([STOPPED])
    await asyncio.sleep(0.1)
    site.redis.hang()
    began = site.loop.time()
    await store.discard(log)
    assert site.loop.time() == began + 1
    assert await details(store.open("s")) == "the question with this id has failed"
    await asyncio.sleep(5)
    began = site.loop.time()
    await store.discard(log)
    assert site.loop.time() == began
    site.redis.go_on()


# Readers elsewhere.


async def test_a_reader_elsewhere_gets_what_comes_within_a_moment(site: Site) -> None:
    here, there = await site.start(), await site.start()
    log = await create(here)
    seen: list[tuple[float, int]] = []

    async def read(log: Log) -> None:
        with log.reading():
            while entries := await log.read(sum(count for _, count in seen) - 1):
                seen.append((site.loop.time(), len(entries)))

    reading = asyncio.ensure_future(read(await there.open("s")))
    await asyncio.sleep(0.5)
    for event in (START, HI, END):
        appended_at = site.loop.time()
        log.append([event])
        await asyncio.sleep(1)
        assert seen[-1][0] - appended_at < 0.1
    await reading
    assert [count for _, count in seen] == [1, 1, 1]


async def test_when_a_log_was_last_read_elsewhere_is_known_to_its_producer(site: Site) -> None:
    here, there = await site.start(), await site.start()
    await asyncio.sleep(5)  # it has been up for longer than a lease
    log = await create(here)
    assert await here.idle_elsewhere(log) == math.inf
    mirror = await there.open("s")
    with mirror.reading():
        await asyncio.sleep(0.1)
        assert await here.idle_elsewhere(log) == 0
    for milliseconds, idle in ((-1000, 0), (1900, 0), (2500, 2.5), (600_000, 600)):
        site.data.hset("p:{s}:meta", "read", int(time.time() * 1000) - milliseconds)
        assert await here.idle_elsewhere(log) == pytest.approx(idle, abs=0.09)
    site.redis.crash()
    await asyncio.sleep(3)
    assert await here.idle_elsewhere(log) == 0
    site.redis.come_back()
    await asyncio.sleep(3.9)
    assert await here.idle_elsewhere(log) == 0  # the others are about to come back
    await asyncio.sleep(0.5)
    assert await here.idle_elsewhere(log) == math.inf


@pytest.mark.parametrize("error", [Draining("bye"), InternalError("gone")])
async def test_who_reads_anothers_log_here_can_be_sent_away(site: Site, error: ChatError) -> None:
    here, there = await site.start(), await site.start()
    own = await create(there, "own")
    await create(here)
    readings = [asyncio.ensure_future(read_all(log)) for log in (await there.open("s"), own)]
    await asyncio.sleep(0.1)
    there.interrupt(error)
    with pytest.raises(type(error)):
        await readings[0]
    own.append([END])
    assert await readings[1] == entries_of(END)


async def test_a_stores_health_is_that_of_redis_and_of_its_own_tasks(site: Site) -> None:
    store = await site.start()
    await store.check()
    await site.freeze(store)
    with pytest.raises(StoreUnavailable):
        await store.check()
