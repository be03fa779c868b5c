"""From a question to its log: the gate, and that every answer ends with exactly one event."""

import asyncio
import logging

import msgspec
import pytest

from chat_sse.errors import (
    InternalError,
    StreamNotFound,
    UpstreamProtocol,
    UpstreamUnavailable,
)
from chat_sse.events import Delta, Done, Failure, Start
from chat_sse.stores.base import PRODUCER_GONE
from chat_sse.upstreams.base import Listener
from tests.support.fakes import (
    PAID,
    TIMEOUTS,
    UNPAID,
    FreePermit,
    House,
    answer_at_once,
    begin_and_hang,
    end_of,
    fail_with,
    hang,
    kinds,
    turns,
)

# The gate: until upstream has accepted or refused, or the accept wait is over.


async def test_an_answer_is_its_start_its_deltas_and_one_end() -> None:
    house = House(answer_at_once)
    permit = FreePermit()
    log = await house.ask(permit=permit, owner="ada")
    events = await house.read(log)
    assert events == [Start(id=log.id, model="m"), Delta("Hi"), Done(finish_reason="stop")]
    [record] = house.records
    assert (record.outcome, record.finish_reason, record.error) == ("done", "stop", None)
    assert (record.owner, record.model, record.answered_by) == ("ada", "m", "m")
    assert (record.charged_tokens, record.may_cost, record.abandoned) == (7, True, False)
    assert (record.events, record.size) == (3, log.size)
    assert record.stream_id == log.id
    [outcome] = permit.outcomes
    assert (outcome.refused, outcome.done, outcome.size) == (False, events[-1], log.size)


async def test_a_question_waits_until_upstream_has_accepted_it() -> None:
    accepted_at = 0.0

    async def script(listener: Listener) -> None:
        nonlocal accepted_at
        await asyncio.sleep(1)
        accepted_at = house.loop.time()
        await begin_and_hang(listener)

    house = House(script)
    log = await house.ask()
    assert house.loop.time() == accepted_at
    assert log.length >= 1


async def test_after_the_accept_wait_the_stream_starts_anyway() -> None:
    house = House(hang)
    began = house.loop.time()
    log = await house.ask()
    assert house.loop.time() - began == TIMEOUTS.accept_wait
    assert log.length == 1


async def test_where_the_model_is_not_decided_the_start_event_waits_for_it() -> None:
    async def script(listener: Listener) -> None:
        listener.on_model(None)
        await asyncio.sleep(2 * TIMEOUTS.accept_wait)
        listener.on_model("other")
        await answer_at_once(listener)

    house = House(script)
    log = await house.ask()
    assert log.length == 0
    assert (await house.read(log))[0] == Start(id=log.id, model="other")
    assert house.records[0].answered_by == "other"


async def test_an_unpaid_refusal_before_anything_was_sent_is_raised_and_frees_the_key() -> None:
    house, permit = House(fail_with(UNPAID)), FreePermit()
    with pytest.raises(UpstreamUnavailable):
        await house.ask(key="k", permit=permit)
    with pytest.raises(StreamNotFound):
        await house.store.find_key("k")
    await turns()
    assert permit.outcomes[0].refused
    [record] = house.records
    assert (record.outcome, record.may_cost, record.error) == ("error", False, "service_unavailable_error")


async def test_an_error_that_may_cost_is_raised_and_kept_for_the_keys_next_request() -> None:
    house, permit = House(fail_with(PAID)), FreePermit()
    with pytest.raises(UpstreamUnavailable):
        await house.ask(key="k", permit=permit)
    await turns()
    again = await house.ask(key="k")
    assert kinds(await house.read(again)) == ["start", "error"]
    assert house.upstream.calls == 1
    assert not permit.outcomes[0].refused


async def test_a_refusal_after_the_accept_wait_is_an_event_and_unpaid() -> None:
    async def script(_: Listener) -> None:
        await asyncio.sleep(2 * TIMEOUTS.accept_wait)
        raise UNPAID

    house, permit = House(script), FreePermit()
    assert kinds(await house.read(await house.ask(permit=permit))) == ["start", "error"]
    assert permit.outcomes[0].refused


async def test_an_error_after_upstream_accepted_is_an_event_and_paid_whatever_it_says() -> None:
    house, permit = House(fail_with(UpstreamProtocol("cut", may_cost=False), after_delta=True)), FreePermit()
    events = await house.read(await house.ask(permit=permit))
    assert kinds(events) == ["start", "delta", "error"]
    assert not permit.outcomes[0].refused
    assert house.records[0].may_cost


async def test_an_upstream_that_crashes_ends_in_an_error_that_may_have_cost(
    caplog: pytest.LogCaptureFixture,
) -> None:
    house = House(fail_with(ValueError("secret"), after_delta=True))
    events = await house.read(await house.ask())
    assert isinstance(events[-1], Failure)
    assert (events[-1].error, events[-1].details) == ("internal_error", "the answer was interrupted")
    assert [record.msg for record in caplog.records if record.levelno == logging.ERROR] == ["answer.crashed"]


async def test_a_crash_before_anything_was_sent_is_raised_and_keeps_its_key() -> None:
    house = House(fail_with(ValueError("secret")))
    with pytest.raises(InternalError):
        await house.ask(key="k")
    await turns()
    assert kinds(await house.read(await house.ask(key="k"))) == ["start", "error"]
    assert house.upstream.calls == 1


# Every answer ends, and only once.


async def test_an_answer_whose_pump_is_cancelled_from_outside_is_sealed_all_the_same() -> None:
    house = House(begin_and_hang)
    log = await house.ask()
    reading = asyncio.create_task(house.read(log))
    await turns()
    [pump] = [task for task in asyncio.all_tasks() if task.get_name() == f"pump {log.id}"]
    pump.cancel()
    events = await reading
    assert isinstance(events[-1], Failure)
    assert (events[-1].error, events[-1].request_id) == ("internal_error", "r")
    assert house.records[0].outcome == "error"


async def test_an_upstream_that_returns_without_an_end_leaves_no_open_log() -> None:
    async def script(listener: Listener) -> None:
        listener.on_accepted()
        listener.on_events([Delta("Hi")])

    house = House(script)
    events = await house.read(await house.ask())
    assert kinds(events) == ["start", "delta", "error"]


async def test_a_log_that_ended_before_a_readers_cursor_says_so() -> None:
    house = House(answer_at_once)
    log = await house.ask()
    await house.read(log)
    with pytest.raises(InternalError, match=PRODUCER_GONE) as raised:
        await house.read(log, after=99)
    assert raised.value.may_cost


@pytest.mark.parametrize("way", ["on_events", "on_entry"])
async def test_an_answer_that_outgrows_its_log_ends_with_an_error_that_asking_again_does_not_mend(
    way: str,
) -> None:
    most, grow = 17 * 1_048_576, asyncio.Event()

    async def script(listener: Listener) -> None:
        listener.on_accepted()
        listener.on_events([Delta("first")])
        for text in ("x" * (most - log_size() - len(entry_of(""))), "x"):
            if way == "on_events":
                listener.on_events([Delta(text)])
            else:
                listener.on_entry(entry_of(text))
            await grow.wait()
        await asyncio.Event().wait()

    def log_size() -> int:
        return sum(len(msgspec.json.encode(event)) for event in (Start(id="s0", model="m"), Delta("first")))

    def entry_of(text: str) -> bytes:
        return msgspec.json.encode(Delta(text))

    house = House(script)
    log = await house.ask()
    await turns()
    assert (log.size, log.sealed) == (most, False)
    grow.set()
    end = await end_of(log)
    assert isinstance(end, Failure)
    assert (end.error, end.retryable) == ("upstream_protocol_error", False)


@pytest.mark.parametrize("error", [UpstreamUnavailable("down", may_cost=True), ValueError("bug")])
async def test_an_error_keeps_no_frames_alive(error: Exception, caplog: pytest.LogCaptureFixture) -> None:
    cause = OSError("reset")

    async def script(listener: Listener) -> None:
        listener.on_accepted()
        try:
            raise cause
        except OSError as exc:
            raise error from exc

    house = House(script)
    await house.read(await house.ask())
    caplog.clear()  # which holds what was raised
    assert (error.__traceback__, cause.__traceback__) == (None, None)


async def test_an_asker_whose_answer_is_cut_from_outside_does_not_wait_for_ever() -> None:
    house = House(hang)
    asking = asyncio.create_task(house.ask())
    await turns()
    [pump] = [task for task in asyncio.all_tasks() if task.get_name().startswith("pump")]
    pump.cancel()
    await turns()
    assert asking.done()
    assert kinds(await house.read(await asking))[-1] == "error"


async def test_an_unpaid_refusal_is_an_event_too_where_the_accept_wait_is_over_and_no_model_decided() -> None:
    async def script(listener: Listener) -> None:
        listener.on_model(None)
        await asyncio.sleep(2 * TIMEOUTS.accept_wait)
        raise UNPAID

    house, permit = House(script), FreePermit()
    log = await house.ask(key="k", permit=permit)
    assert kinds(await house.read(log)) == ["start", "error"]
    assert permit.outcomes[0].refused
    assert await house.store.find_key("k") is log
