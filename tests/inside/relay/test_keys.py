"""One key is one paid call; whose an answer is, and how it is stopped."""

import asyncio
import logging

import pytest

from chat_sse.errors import (
    KeyReused,
    Overloaded,
    StreamNotFound,
    TooManyStreams,
    UpstreamRejected,
)
from chat_sse.events import Delta, Done, Failure
from chat_sse.messages import Question
from chat_sse.upstreams.base import Listener
from tests.support.fakes import (
    STOPPED,
    FreePermit,
    House,
    answer_at_once,
    begin_and_hang,
    end_of,
    hang,
    texts,
    turns,
)

# Keys: one question is one call.


async def test_the_same_key_attaches_to_the_answer_and_makes_no_second_call() -> None:
    house = House(begin_and_hang)
    logs = await asyncio.gather(*(house.ask(key="k") for _ in range(20)))
    assert len({log.id for log in logs}) == house.upstream.calls == 1
    assert await house.relay.knows("k")
    assert await house.relay.knows("other") is False
    assert not await house.relay.knows(None)


async def test_all_askers_with_one_key_get_upstreams_refusal() -> None:
    async def script(_: Listener) -> None:
        await asyncio.sleep(1)
        raise UpstreamRejected("no")

    house = House(script)
    results = await asyncio.gather(*(house.ask(key="k") for _ in range(5)), return_exceptions=True)
    assert {type(result) for result in results} == {UpstreamRejected}
    assert house.upstream.calls == 1


async def test_an_asker_that_gives_up_at_the_gate_leaves_the_others_there() -> None:
    house = House(hang)
    asking = [asyncio.create_task(house.ask(key="k")) for _ in range(2)]
    await asyncio.sleep(1)
    asking[0].cancel()
    log = await asking[1]
    assert log.length == 1
    assert asking[0].cancelled()


async def test_a_key_whose_question_has_just_failed_is_503_for_a_second() -> None:
    house = House(begin_and_hang)
    with pytest.raises(Overloaded) as raised:
        await house.relay.attach("gone", b"f")
    assert (raised.value.status, raised.value.retry_after) == (503, 1)
    assert type(raised.value) is Overloaded


async def test_a_key_with_another_body_is_refused() -> None:
    house = House(begin_and_hang)
    await house.ask(key="k")
    with pytest.raises(KeyReused):
        await house.relay.attach("k", b"g")


@pytest.mark.parametrize("cause", [TooManyStreams("full"), RuntimeError("bug")])
async def test_a_question_that_the_limits_refuse_ends_its_log_and_frees_its_key(cause: Exception) -> None:
    house = House(answer_at_once)
    permit = FreePermit()

    async def refuse(_id: str, _question: Question) -> None:
        raise cause

    permit.admit = refuse  # type: ignore[method-assign]
    with pytest.raises(type(cause)):
        await house.ask(key="k", permit=permit)
    assert house.upstream.calls == house.relay.running == 0
    assert permit.outcomes == []
    await house.ask(key="k")
    assert house.upstream.calls == 1


async def test_who_attaches_while_the_limits_are_asked_learns_their_refusal() -> None:
    house = House(answer_at_once)
    first = asyncio.create_task(house.ask(key="k", permit=FreePermit(TooManyStreams("full"), 1)))
    await turns()
    assert house.relay.running == 1
    log = await house.ask(key="k")
    events = asyncio.create_task(house.read(log))
    with pytest.raises(TooManyStreams):
        await first
    [end] = await events
    assert isinstance(end, Failure)
    assert end.error == "too_many_streams"


# Reading and stopping.


async def test_an_answer_is_its_owners_alone() -> None:
    house = House(begin_and_hang)
    log = await house.ask(owner="ada")
    assert await house.relay.open(log.id, "ada") is log
    for attempt in (house.relay.open(log.id, "eve"), house.relay.stop(log.id, "eve")):
        with pytest.raises(StreamNotFound):
            await attempt
    assert not log.sealed


async def test_a_stop_ends_the_answer_and_its_call_at_once_and_only_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)
    house = House(begin_and_hang)
    log = await house.ask()
    for _ in range(3):
        await house.relay.stop(log.id, "")
    assert await end_of(log) == STOPPED
    assert house.upstream.cancelled == 1
    [record] = house.records
    assert (record.outcome, record.abandoned) == ("cancelled", False)
    assert [entry.msg for entry in caplog.records].count("answer.stopped") == 1


async def test_what_upstream_says_after_a_stop_is_not_heard() -> None:
    async def script(listener: Listener) -> None:
        listener.on_accepted()
        listener.on_events([Delta("Hi")])
        try:
            await asyncio.Event().wait()
        finally:
            listener.on_events([Delta("late"), Done(finish_reason="stop")])

    house = House(script)
    log = await house.ask()
    await house.relay.stop(log.id, "")
    events = await house.read(log)
    assert (texts(events), events[-1]) == ("Hi", STOPPED)


async def test_a_chats_running_answer_is_found_and_a_finished_one_is_not() -> None:
    house = House(begin_and_hang)
    assert await house.relay.running_in_chat("c") is None
    log = await house.ask(chat="c")
    assert await house.relay.running_in_chat("c") is log
    await house.relay.stop(log.id, "")
    assert await house.relay.running_in_chat("c") is None
