"""A relay that is told to end: what new questions, running answers and readers see, and for how long."""

import asyncio

import pytest

from chat_sse.errors import (
    ChatError,
    Draining,
    StoreUnavailable,
    StreamNotFound,
    TooManyStreams,
)
from chat_sse.events import Delta, Done, Event, Failure, Start, is_terminal
from chat_sse.stores.base import LogSpec
from chat_sse.stores.memory import MemoryStore
from chat_sse.upstreams.base import Listener
from tests.support.fakes import (
    FreePermit,
    House,
    answer_at_once,
    begin_and_hang,
    end_of,
    hang,
    kinds,
    turns,
)


async def test_a_drain_lets_answers_finish_and_refuses_new_questions() -> None:
    async def script(listener: Listener) -> None:
        listener.on_accepted()
        listener.on_events([Delta("Hi")])
        await asyncio.sleep(20)
        listener.on_events([Done(finish_reason="stop")])

    house = House(script)
    log = await house.ask(key="k")
    began = house.loop.time()
    drain = asyncio.create_task(house.relay.drain(100))
    await turns()
    for attempt in (house.ask(), house.relay.attach("k", b"f"), house.relay.check()):
        with pytest.raises(Draining) as raised:
            await attempt
        assert raised.value.retry_after == 2
    reading = asyncio.create_task(house.read(await house.relay.open(log.id, "")))
    await drain
    assert house.loop.time() - began == 20
    assert (await reading)[-1] == Done(finish_reason="stop")


async def test_the_grace_is_the_longest_that_a_drain_waits() -> None:
    house = House(begin_and_hang, disconnect_grace=1000, idle_timeout=500)
    log = await house.ask()
    began = house.loop.time()
    await house.relay.drain(30)
    assert house.loop.time() - began == 30
    end = log.terminal
    assert isinstance(end, Failure)
    assert (end.error, end.retryable, end.request_id) == ("server_draining", True, "r")
    assert house.upstream.cancelled == 1
    assert house.relay.running == 0
    with pytest.raises(Draining):
        await house.relay.open(log.id, "")


async def test_during_the_delay_readiness_fails_and_questions_are_still_taken() -> None:
    house = House(answer_at_once)
    await house.relay.check()
    began = house.loop.time()
    drain = asyncio.create_task(house.relay.drain(30, delay_seconds=10))
    await asyncio.sleep(9)
    with pytest.raises(Draining):
        await house.relay.check()
    assert next(figure.value for figure in house.relay.figures() if figure.name == "draining")
    await house.read(await house.ask())
    await drain
    assert house.loop.time() - began == 10  # nothing was running any more


async def test_a_drain_waits_for_readers_of_other_processes_answers_too() -> None:
    house = House(answer_at_once)
    remote = await house.store.create(LogSpec(stream_id="of another process"))
    assert remote is not None
    remote.append([Start(id=remote.id, model="m")])
    reading = asyncio.create_task(house.read(remote))
    await turns()
    drain = asyncio.create_task(house.relay.drain(100))
    await asyncio.sleep(20)
    assert not drain.done()
    remote.append([Done(finish_reason="stop")])
    await turns()
    assert drain.done()
    assert kinds(await reading) == ["start", "done"]


async def test_a_drain_waits_for_a_question_that_is_not_running_yet() -> None:
    house = House(answer_at_once)
    asking = asyncio.create_task(house.ask(permit=FreePermit(admit_seconds=5)))
    await turns()
    began = house.loop.time()
    await house.relay.drain(100)
    assert house.loop.time() - began == 5
    assert await end_of(await asking) == Done(finish_reason="stop")


async def test_the_end_of_the_grace_takes_no_question_to_upstream() -> None:
    house, permit = House(answer_at_once), FreePermit(admit_seconds=50)
    asking = asyncio.create_task(house.ask(key="k", permit=permit))
    await turns()
    await house.relay.drain(10)
    with pytest.raises(Draining):
        await asking
    assert permit.outcomes[0].refused
    assert house.upstream.calls == 0
    with pytest.raises(StreamNotFound):
        await house.store.find_key("k")


async def test_an_upstream_that_does_not_end_when_it_is_cancelled_holds_nobody_up_for_ever() -> None:
    async def script(listener: Listener) -> None:
        listener.on_accepted()
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(1000)

    house = House(script)
    log = await house.ask()
    began = house.loop.time()
    await house.relay.aclose()
    assert house.loop.time() - began == 5
    assert log.sealed


async def test_a_drain_does_not_wait_for_a_question_that_was_refused_meanwhile() -> None:
    house = House(answer_at_once)
    asking = asyncio.create_task(house.ask(permit=FreePermit(TooManyStreams("full"), admit_seconds=5)))
    await turns()
    began = house.loop.time()
    await house.relay.drain(100)
    assert house.loop.time() - began == 5
    with pytest.raises(TooManyStreams):
        await asking


async def test_a_reader_that_comes_in_the_moment_when_the_last_one_leaves_is_waited_for() -> None:
    house = House(answer_at_once)
    remote = await house.store.create(LogSpec(stream_id="of another process"))
    assert remote is not None
    remote.append([Start(id=remote.id, model="m")])

    async def leave_and_come_back() -> list[Event]:
        await house.read_and_leave(remote, seconds=5)
        return await house.read(remote)

    reading = asyncio.create_task(leave_and_come_back())
    await turns()
    drain = asyncio.create_task(house.relay.drain(100))
    await asyncio.sleep(20)
    assert not drain.done()
    remote.append([Done(finish_reason="stop")])
    await drain
    assert kinds(await reading) == ["start", "done"]


async def test_the_end_of_the_grace_interrupts_those_who_wait_for_other_processes() -> None:
    errors: list[ChatError] = []

    class WatchedStore(MemoryStore):
        def interrupt(self, error: ChatError) -> None:
            errors.append(error)

        async def check(self) -> None:
            raise StoreUnavailable("away")

    house = House(answer_at_once, WatchedStore(ttl_seconds=60, max_kept=10, max_kept_bytes=1_000_000))
    with pytest.raises(StoreUnavailable):
        await house.relay.check()
    await house.relay.drain(1)
    [error] = errors
    assert (type(error), error.retry_after) == (Draining, 2)


async def test_an_answer_that_upstream_has_not_accepted_yet_is_announced_before_it_is_ended() -> None:
    house = House(hang)
    asking = asyncio.create_task(house.ask())
    await turns()
    await house.relay.aclose()
    log = await asking
    assert [is_terminal(entry) for entry in await log.read(-1)] == [False, True]
