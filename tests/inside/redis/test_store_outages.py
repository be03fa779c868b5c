"""The log that several processes share, while Redis is away, comes back, or has lost its data."""

import asyncio
import logging
from typing import Any

import pytest

from chat_sse.errors import KeyReused, Overloaded, StoreUnavailable, StreamNotFound
from chat_sse.events import Delta, Done, Start
from chat_sse.stores.redis.client import WrongMode
from tests.inside.redis.stores import Site, create, entries_of, figures, producer_of
from tests.support.ports import free_port
from tests.support.redis_server import RedisServer
from tests.support.stores import read_all

START, HI, END = Start(id="s", model="m"), Delta("Hi"), Done(finish_reason="stop")


def logged(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.msg for record in caplog.records]


# An outage.


async def test_an_answer_goes_on_while_redis_is_away_and_is_all_there_afterwards(
    site: Site, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    here, there = await site.start(), await site.start()
    log = await create(here, idempotency_key="k", fingerprint=b"f", chat_id="c")
    log.append([START])
    reading = asyncio.ensure_future(read_all(await there.open("s")))
    await asyncio.sleep(1)
    assert figures(here)["redis_up"] == 1
    site.redis.crash()
    await asyncio.sleep(1)
    log.append([HI])
    assert (figures(here)["redis_up"], figures(here)["redis_unsent_logs"]) == (0, 1)
    site.redis.come_back()  # empty
    await asyncio.sleep(0.4)
    assert figures(here)["redis_up"] == 1
    log.append([END])
    assert await reading == entries_of(START, HI, END)
    assert site.events("s") == entries_of(START, HI, END)
    assert site.meta("s")["producer"] == producer_of(here)
    await asyncio.sleep(4)
    assert (await there.find_key("k", b"f")).id == (await there.find_chat("c")).id == "s"
    assert figures(here)["redis_unsent_logs"] == 0
    assert {"redis.down", "redis.up", "redis.data_lost"} <= set(logged(caplog))
    down = next(record for record in caplog.records if record.msg == "redis.down")
    assert down.__dict__["fields"]["reason"]


async def test_who_reads_anothers_log_is_told_of_an_outage_that_lasts(site: Site) -> None:
    here, there = await site.start(), await site.start()
    await create(here)
    reading = asyncio.ensure_future(read_all(await there.open("s")))
    await asyncio.sleep(0.5)
    site.redis.crash()
    began = site.loop.time()
    with pytest.raises(StoreUnavailable):
        await reading
    assert 2 < site.loop.time() - began < 4
    site.redis.come_back()


async def test_while_redis_is_away_nothing_is_asked_of_it_but_by_the_probes(site: Site) -> None:
    store = await site.start()
    site.redis.hang()
    await asyncio.sleep(10)
    began, before = site.loop.time(), figures(store)["redis_round_trips"]
    for attempt in (store.open("x"), store.find_key("x"), store.find_chat("x"), store.check()):
        with pytest.raises(StoreUnavailable) as raised:
            await attempt
        assert raised.value.retry_after == 2
    assert (site.loop.time(), figures(store)["redis_round_trips"]) == (began, before)
    site.redis.go_on()
    await asyncio.sleep(4)
    await store.check()


@pytest.mark.parametrize("is_done", [True, False])
async def test_a_question_of_which_nobody_knows_whether_it_was_registered_is_forgotten(
    site: Site, *, is_done: bool
) -> None:
    here, there = await site.start(), await site.start()
    await here.check()
    if is_done:
        site.redis.hang()
    else:
        site.redis.crash()
    with pytest.raises(StoreUnavailable):
        await create(here, idempotency_key="k", fingerprint=b"f", chat_id="c")
    with pytest.raises(StoreUnavailable if not is_done else StreamNotFound):
        await here.open("s" if is_done else "x")
    if is_done:
        site.redis.go_on()
    else:
        site.redis.come_back()
    await asyncio.sleep(8)
    site.data.delete("p:{store}:recovering")  # its time is up
    await asyncio.sleep(1.1)
    assert site.redis.keys("p:*:claim") + site.redis.keys("p:*:chat") == []
    assert site.meta("s")["discarded"] == "1"
    with pytest.raises(StreamNotFound):
        await there.open("s")
    assert (await create(there, "t", idempotency_key="k", fingerprint=b"f")).id == "t"


async def test_a_question_whose_client_leaves_meanwhile_is_forgotten_and_a_reused_key_is_no_fault(
    site: Site,
) -> None:
    store = await site.start()
    asking = asyncio.ensure_future(create(store, idempotency_key="k", fingerprint=b"f"))
    await asyncio.sleep(0)
    asking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asking
    await asyncio.sleep(1)
    assert site.redis.keys("p:*:claim") == []
    await create(store, "t", idempotency_key="k", fingerprint=b"f")
    with pytest.raises(KeyReused):
        await create(store, "u", idempotency_key="k", fingerprint=b"g")
    assert list(vars(vars(store)["_outbox"])["logs"]) == ["t"]


# Lost data.


async def test_until_all_producers_can_have_said_what_they_hold_nothing_is_said_to_be_unknown(
    site: Site,
) -> None:
    store = await site.start()
    site.redis.crash()
    site.redis.come_back()
    await asyncio.sleep(2)
    for attempt in (store.open("x"), store.find_key("x"), store.find_chat("x"), store.extent("x")):
        with pytest.raises(StoreUnavailable, match="has lost its data") as raised:
            await attempt
        assert raised.value.retry_after in (1, 2, 3)
    with pytest.raises(StoreUnavailable, match="has lost its data"):
        await create(store, idempotency_key="k")
    await create(store, "t")  # nobody can have claimed it
    site.data.delete("p:{store}:recovering")  # its time is up
    await asyncio.sleep(1.1)
    with pytest.raises(StreamNotFound):
        await store.open("x")
    await create(store, idempotency_key="k")


async def test_a_loss_is_found_out_before_anything_is_read_over_a_new_connection(
    site: Site, caplog: pytest.LogCaptureFixture
) -> None:
    store = await site.start()
    await asyncio.sleep(0.1)
    epoch = site.data.get("p:{store}:epoch")
    assert isinstance(epoch, bytes)
    assert len(epoch) == 16
    site.redis.crash()
    site.redis.come_back()
    await asyncio.sleep(0.01)  # the break is noticed
    with pytest.raises(StoreUnavailable):
        await store.redis.run([("GET", "x")], probe=True)
    assert logged(caplog).count("redis.data_lost") == 1
    assert site.data.get("p:{store}:epoch") != epoch
    assert 0 < site.life("p:{store}:recovering") <= 3


async def test_a_redis_that_lost_its_data_over_an_open_connection_is_found_out_at_the_next_beat(
    site: Site, caplog: pytest.LogCaptureFixture
) -> None:
    store = await site.start()
    log = await create(store, chat_id="c")
    log.append([START])
    await asyncio.sleep(1)
    site.data.flushall()
    await asyncio.sleep(1.2)
    assert logged(caplog) == ["redis.data_lost"]
    assert site.events("s") == entries_of(START)
    assert len(site.redis.keys("p:*:chat")) == 1


# The beginning and the end.


async def test_a_process_starts_without_redis_and_serves_when_it_is_there(site: Site) -> None:
    site.redis.crash()
    store = await site.start()
    with pytest.raises(StoreUnavailable):
        await store.check()
    site.redis.come_back()
    await asyncio.sleep(0.3)
    await store.check()
    assert [task.get_name() for task in vars(store)["_tasks"]] == [
        *("redis lease", "redis exchange", "redis listen")
    ]


async def test_a_node_of_a_cluster_is_refused_at_the_start(site: Site, tmp_path: Any) -> None:
    options = "--cluster-enabled", "yes", "--cluster-config-file", str(tmp_path / "nodes.conf")
    with RedisServer(*options, "--cluster-port", str(free_port())) as server:
        site.loop.wait_for(server)
        store = type(site.store())(server.url, ttl_seconds=1, running_seconds=1)
        words = "CHAT_SSE_REDIS_URL leads to a Redis in the mode cluster: it must be a single server"
        with pytest.raises(WrongMode, match=words):
            await store.start()
        await store.aclose()
        site.loop.wait_for(site.redis.server)


async def test_a_process_that_ends_sends_what_it_has_and_gives_its_lease_back(site: Site) -> None:
    here, there = await site.start(), await site.start()
    log = await create(here)
    log.append([START, HI])
    foreign = asyncio.ensure_future(read_all(await here.open((await create(there, "t")).id)))
    await asyncio.sleep(0.1)
    assert site.redis.keys("p:*:lease") != []
    began = site.loop.time()
    await here.aclose()
    assert site.loop.time() - began < 0.1
    assert site.events("s") == entries_of(START, HI)
    assert site.redis.keys("p:*:lease") == [f"p:{{{producer_of(there)}}}:lease"]
    with pytest.raises(Overloaded, match="the log was closed"):
        await foreign
    assert site.life(f"p:{{{producer_of(there)}}}:lease") == 4


async def test_a_process_ends_within_seconds_of_a_redis_that_hangs(site: Site) -> None:
    store = await site.start()
    (await create(store)).append([START])
    site.redis.hang()
    began = site.loop.time()
    await store.aclose()
    assert site.loop.time() - began == pytest.approx(2, abs=0.3)
    assert site.loop.timers() == []
    site.redis.go_on()


async def test_a_producer_that_is_gone_is_told_to_who_reads_its_log(site: Site) -> None:
    here, there = await site.start(), await site.start()
    (await create(here)).append([START])
    await asyncio.sleep(1)
    reading = asyncio.ensure_future(read_all(await there.open("s")))
    await site.kill(here)
    began = site.loop.time()
    *_, last = await reading
    assert site.loop.time() - began < 3
    assert b"the process that produced this answer is gone" in last
    assert site.meta("s")["sealed"] == "3"


async def test_a_task_that_fails_is_reported(site: Site, caplog: pytest.LogCaptureFixture) -> None:
    store = await site.start()

    outbox = vars(store)["_outbox"]
    outbox.jobs = lambda: 1 / 0
    (await create(store)).append([START])
    await asyncio.sleep(2)
    assert logged(caplog) == ["store.crashed"]
    report = next(record for record in caplog.records if record.msg == "store.crashed")
    assert report.__dict__["fields"] == {"task": "redis exchange"}
    assert report.exc_info
    with pytest.raises(StoreUnavailable):
        await store.check()
    del outbox.jobs
