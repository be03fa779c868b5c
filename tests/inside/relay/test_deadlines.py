"""How long an answer may take. The clock is the test's, so each deadline is met to the millisecond."""

import asyncio

import pytest

from chat_sse.events import Delta, Done, Event, Failure, Reasoning
from chat_sse.upstreams.base import Listener
from tests.support.fakes import (
    TIMEOUTS,
    House,
    Script,
    answer_in,
    begin_and_hang,
    end_of,
    hang,
    kinds,
    texts,
)


async def run(script: Script, **timeouts: float) -> tuple[float, Event, House]:
    """Return after how many seconds an answer has ended, that someone reads to its end, and how."""
    house = House(script, None, **timeouts)
    began = house.loop.time()
    log = await house.ask()
    events = await house.read(log)
    return round(house.loop.time() - began, 6), events[-1], house


def error_of(event: Event) -> str:
    return event.error if isinstance(event, Failure) else ""


async def test_silence_before_the_first_event_ends_in_a_timeout_that_may_have_cost() -> None:
    seconds, end, house = await run(hang)
    assert (seconds, error_of(end)) == (TIMEOUTS.first_token_timeout, "timeout_error")
    [record] = house.records
    assert record.may_cost
    assert record.first_event_seconds is None
    assert record.seconds == seconds
    assert house.upstream.cancelled == 1


async def test_signs_of_life_put_the_first_events_deadline_off() -> None:
    async def script(listener: Listener) -> None:
        listener.on_accepted()
        for _ in range(10):
            await asyncio.sleep(TIMEOUTS.first_token_timeout - 1)
            listener.on_activity()
        await asyncio.Event().wait()

    seconds, end, _ = await run(script)
    assert seconds == 10 * (TIMEOUTS.first_token_timeout - 1) + TIMEOUTS.first_token_timeout
    assert error_of(end) == "timeout_error"


@pytest.mark.parametrize("first", [Delta("a"), Reasoning("a")])
async def test_silence_after_an_event_has_a_deadline_of_its_own(first: Delta | Reasoning) -> None:
    async def script(listener: Listener) -> None:
        listener.on_accepted()
        await asyncio.sleep(10)
        listener.on_events([first])
        await asyncio.Event().wait()

    seconds, end, house = await run(script)
    assert (seconds, error_of(end)) == (10 + TIMEOUTS.idle_timeout, "timeout_error")
    assert house.records[0].first_event_seconds == 10


@pytest.mark.parametrize("way", ["on_events", "on_entry", "on_activity"])
async def test_whatever_upstream_sends_puts_the_silences_deadline_off(way: str) -> None:
    async def script(listener: Listener) -> None:
        listener.on_accepted()
        listener.on_events([Delta("a")])
        for _ in range(5):
            await asyncio.sleep(TIMEOUTS.idle_timeout - 1)
            match way:
                case "on_events":
                    listener.on_events([Delta("b")])
                case "on_entry":
                    listener.on_entry(b'{"type":"delta","content":"b"}')
                case _:
                    listener.on_activity()
        await asyncio.Event().wait()

    seconds, _, _ = await run(script)
    assert seconds == 5 * (TIMEOUTS.idle_timeout - 1) + TIMEOUTS.idle_timeout


async def test_an_answer_that_never_stops_talking_ends_when_its_time_is_over() -> None:
    seconds, end, house = await run(answer_in(10 * TIMEOUTS.total_timeout))
    assert (seconds, error_of(end)) == (TIMEOUTS.total_timeout, "timeout_error")
    assert house.upstream.cancelled == 1


async def test_the_total_time_begins_with_the_question_and_not_with_the_first_event() -> None:
    async def script(listener: Listener) -> None:
        await asyncio.sleep(20)
        await answer_in(10 * TIMEOUTS.total_timeout)(listener)

    seconds, _, _ = await run(script)
    assert seconds == TIMEOUTS.total_timeout


async def test_an_answer_that_ends_just_in_time_is_whole() -> None:
    seconds, end, house = await run(answer_in(TIMEOUTS.total_timeout - 0.5))
    assert (seconds, end) == (TIMEOUTS.total_timeout - 0.5, Done(finish_reason="stop"))
    assert house.records[0].outcome == "done"


async def test_nothing_is_left_of_the_deadlines_of_an_answer_that_has_ended() -> None:
    async def script(listener: Listener) -> None:
        listener.on_accepted()
        listener.on_events([Delta("Hi"), Done(finish_reason="stop")])

    house = House(script)
    events = await house.read(await house.ask())
    assert (kinds(events), texts(events)) == (["start", "delta", "done"], "Hi")
    assert asyncio.all_tasks() == {asyncio.current_task()}
    await asyncio.sleep(2 * TIMEOUTS.total_timeout)  # no timer strikes
    assert len(house.records) == 1


async def test_a_timeout_of_upstreams_own_is_no_cancellation() -> None:
    async def script(_: Listener) -> None:
        raise TimeoutError

    house = House(script)
    with pytest.raises(Exception, match="too long"):
        await house.ask(key="k")
    log = await house.store.find_key("k")
    assert error_of(await end_of(log)) == "timeout_error"


async def test_the_deadline_between_events_holds_also_where_it_is_the_shorter_one() -> None:
    seconds, end, _ = await run(begin_and_hang, idle_timeout=1, first_token_timeout=300)
    assert (seconds, error_of(end)) == (1, "timeout_error")
    seconds, end, _ = await run(hang, idle_timeout=1, first_token_timeout=300)
    assert (seconds, error_of(end)) == (300, "timeout_error")
