"""When an answer is nobody's: its last reader has left, here or elsewhere, and the grace is over."""

import asyncio
import math

import pytest

from chat_sse.events import Done
from chat_sse.stores.base import Log
from chat_sse.stores.memory import MemoryStore
from tests.support.fakes import TIMEOUTS, House, begin_and_hang, end_of, turns
from tests.support.virtual_time import VirtualTimeLoop

GRACE = TIMEOUTS.disconnect_grace
# What the README says, and how often one that reads elsewhere is asked for.
FIRST_READER_SECONDS = 10.0
RECHECK_SECONDS = 1.0
ABANDONED = Done(finish_reason="cancelled")


async def seconds_to_end(house: House, log: Log) -> float:
    began = house.loop.time()
    assert await end_of(log) == ABANDONED
    return round(house.loop.time() - began, 6)


async def test_an_answer_ends_one_grace_after_its_last_reader_has_left() -> None:
    house = House(begin_and_hang)
    log = await house.ask()
    await house.read_and_leave(log, seconds=5)
    assert await seconds_to_end(house, log) == GRACE
    [record] = house.records
    assert (record.outcome, record.abandoned, record.readers) == ("cancelled", True, 1)
    assert house.upstream.cancelled == 1


async def test_a_reader_that_comes_back_in_time_keeps_the_answer_and_begins_the_grace_anew() -> None:
    house = House(begin_and_hang)
    log = await house.ask()
    for _ in range(3):
        await house.read_and_leave(log)
        await asyncio.sleep(GRACE - 1)
    await house.read_and_leave(log, seconds=1)
    assert await seconds_to_end(house, log) == GRACE
    assert house.records[0].readers == 4


async def test_as_long_as_one_reader_is_left_the_answer_goes_on() -> None:
    house = House(begin_and_hang, idle_timeout=500)
    log = await house.ask()
    staying = asyncio.create_task(house.read_and_leave(log, seconds=10 * GRACE))
    await asyncio.sleep(0)
    await house.read_and_leave(log)
    await asyncio.sleep(2 * GRACE)
    assert not log.sealed
    await staying
    assert await seconds_to_end(house, log) == GRACE


async def test_a_reader_that_cannot_come_back_leaves_no_grace() -> None:
    house = House(begin_and_hang)
    log = await house.ask()
    await house.read_and_leave(log, seconds=5, resumable=False)
    assert await seconds_to_end(house, log) == 0


async def test_the_grace_of_one_that_could_come_back_is_not_shortened_by_one_that_cannot() -> None:
    house = House(begin_and_hang)
    log = await house.ask()
    await house.read_and_leave(log)
    await asyncio.sleep(5)
    await house.read_and_leave(log, seconds=1, resumable=False)
    assert await seconds_to_end(house, log) == GRACE - 6  # and not prolonged either


@pytest.mark.parametrize("grace", [0.5, 2 * FIRST_READER_SECONDS])
async def test_the_first_reader_is_waited_for_longer_than_a_short_grace(grace: float) -> None:
    house = House(begin_and_hang, disconnect_grace=grace)
    log = await house.ask()
    assert await seconds_to_end(house, log) == max(grace, FIRST_READER_SECONDS)


async def test_each_asker_with_the_same_key_is_waited_for() -> None:
    house = House(begin_and_hang, disconnect_grace=0.5)
    log = await house.ask(key="k")
    await asyncio.sleep(FIRST_READER_SECONDS - 1)
    assert await house.ask(key="k") is log
    assert await seconds_to_end(house, log) == FIRST_READER_SECONDS


async def test_a_reader_that_comes_while_it_is_checked_elsewhere_saves_the_answer() -> None:
    store = ElsewhereStore(idle=[math.inf], seconds=3)
    house = House(begin_and_hang, store)
    log = await house.ask()
    await house.read_and_leave(log)
    await asyncio.sleep(GRACE + 1)
    await house.read_and_leave(log, seconds=5)
    assert not log.sealed
    assert await seconds_to_end(house, log) == GRACE + 3


class ElsewhereStore(MemoryStore):
    """A store that says how long ago other processes have read; the last word again and again."""

    def __init__(self, idle: list[float], seconds: float = 0) -> None:
        super().__init__(ttl_seconds=60, max_kept=10, max_kept_bytes=1_000_000)
        self.asked_at: list[float] = []
        self._idle, self._seconds = idle, seconds

    async def idle_elsewhere(self, _: Log) -> float:
        """Tell."""
        self.asked_at.append(asyncio.get_running_loop().time())
        await asyncio.sleep(self._seconds)
        return self._idle.pop(0) if len(self._idle) > 1 else self._idle[0]


async def test_while_it_is_read_in_another_process_the_answer_goes_on_and_is_checked_again() -> None:
    store = ElsewhereStore([0, 4, GRACE, math.nextafter(GRACE, math.inf)])
    house = House(begin_and_hang, store, idle_timeout=500)
    log = await house.ask()
    await house.read_and_leave(log)
    left_at = house.loop.time()
    assert await end_of(log) == ABANDONED
    assert [round(at - left_at, 6) for at in store.asked_at] == [
        GRACE,
        2 * GRACE,
        2 * GRACE + GRACE - 4,
        2 * GRACE + GRACE - 4 + RECHECK_SECONDS,
    ]


async def test_an_answer_that_ends_is_not_watched_any_more() -> None:
    store = ElsewhereStore([0], seconds=3)
    house = House(begin_and_hang, store)
    log = await house.ask()
    await house.read_and_leave(log)
    await asyncio.sleep(GRACE + 1)  # it is being checked
    await house.relay.stop(log.id, "")
    await turns()
    assert asyncio.all_tasks() == {asyncio.current_task()}
    await asyncio.sleep(10 * GRACE)
    assert len(store.asked_at) == 1


async def test_figures_count_those_who_read_and_those_who_have_come_back() -> None:
    house = House(begin_and_hang)
    log = await house.ask()
    reading = asyncio.create_task(house.read(log))
    resuming = asyncio.create_task(house.read(log, after=0))
    again = asyncio.create_task(house.read(log, after=0))
    await asyncio.sleep(1)
    figures = {figure.name: figure.value for figure in house.relay.figures()}
    assert figures == {"running_answers": 1, "readers": 3, "resumes": 2, "draining": False}
    await house.relay.stop(log.id, "")
    await asyncio.gather(reading, resuming, again)
    figures = {figure.name: figure.value for figure in house.relay.figures()}
    assert figures == {"running_answers": 0, "readers": 0, "resumes": 2, "draining": False}
    assert (house.records[0].readers, house.records[0].resumes) == (3, 2)


async def test_nothing_is_left_of_an_answer_that_has_ended_when_its_last_reader_leaves() -> None:
    house = House(begin_and_hang)
    log = await house.ask()
    reading = asyncio.create_task(house.read_and_leave(log, seconds=5))
    await turns()
    await house.read_and_leave(log)  # begins no grace: one is there
    await house.relay.stop(log.id, "")
    await reading
    await turns()
    assert isinstance(house.loop, VirtualTimeLoop)
    [ttl] = house.loop.timers()  # the store's
    assert ttl.when() <= house.loop.time() + 60
    assert asyncio.all_tasks() == {asyncio.current_task()}


async def test_a_grace_that_runs_ends_with_the_answer() -> None:
    house = House(begin_and_hang)
    log = await house.ask()
    await house.read_and_leave(log)
    await house.relay.stop(log.id, "")
    await turns()
    assert isinstance(house.loop, VirtualTimeLoop)
    assert len(house.loop.timers()) == 1


async def test_a_reader_could_come_back_unless_it_is_said_that_it_cannot() -> None:
    house = House(begin_and_hang)
    log = await house.ask()
    reading = asyncio.create_task(house.read(log))
    await asyncio.sleep(1)
    reading.cancel()
    assert await seconds_to_end(house, log) == GRACE
