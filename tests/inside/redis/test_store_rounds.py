"""How often processes exchange what is new, and what they do when they may have missed an announcement."""

import asyncio

from chat_sse.events import Delta, Done, Start
from tests.inside.redis.stores import Site, create, entries_of
from tests.support.fakes import STOPPED
from tests.support.stores import read_all

START, HI, END = Start(id="s", model="m"), Delta("Hi"), Done(finish_reason="stop")


def deafen(site: Site) -> None:
    """Break the connections that listen, and no other."""
    site.loop.wait_for_none()
    site.data.client_kill_filter(_type="pubsub")
    site.loop.wait_for(site.redis.server)


async def test_many_deltas_share_the_round_trips_of_a_fiftieth_of_a_second(site: Site) -> None:
    here, there = await site.start(), await site.start()
    log = await create(here)
    reading = asyncio.ensure_future(read_all(await there.open("s")))
    await asyncio.sleep(0.1)
    for _ in range(100):
        log.append([HI])
        await asyncio.sleep(0.001)
    log.append([END])
    assert await reading == entries_of(*[HI] * 100, END)
    assert 4 <= site.data.xlen("p:{s}:log") <= 8


async def test_what_was_announced_to_nobody_is_read_all_the_same(site: Site) -> None:
    here, there = await site.start(), await site.start()
    log = await create(here)
    mirror = await there.open("s")
    reading = asyncio.ensure_future(mirror.read(0))
    log.append([START])
    await asyncio.sleep(1)
    deafen(site)
    log.append([HI])
    await asyncio.sleep(0.1)
    assert not reading.done()
    await asyncio.sleep(0.4)
    assert reading.done()
    assert await reading == entries_of(HI)


async def test_a_stop_that_nobody_heard_is_made_by_the_producer_once_it_listens_again(site: Site) -> None:
    here, there = await site.start(), await site.start()
    log = await create(here)
    log.append([START])
    await asyncio.sleep(1)
    deafen(site)
    assert await there.seal("s", STOPPED) is True
    assert log.terminal == STOPPED
    assert site.meta("s")["sealed"] == "2"


async def test_a_store_that_is_closed_has_no_timer_left(site: Site) -> None:
    store = await site.start()
    (await create(store)).append([START])
    await store.aclose()
    assert site.loop.timers() == []
    assert site.events("s") == entries_of(START)
