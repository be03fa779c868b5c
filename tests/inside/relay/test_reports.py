"""What the log, the observers and the application are told of an answer that has ended."""

import asyncio
import logging
import time
from typing import Any, cast

import pytest

from chat_sse.events import Delta, Done, Reasoning, Usage
from chat_sse.records import AnsweredQuestion
from chat_sse.relay.relay import Relay
from chat_sse.relay.reports import Reports
from chat_sse.upstreams.base import Listener
from tests.support.fakes import (
    PAID,
    QUESTION,
    TIMEOUTS,
    UNPAID,
    FreePermit,
    House,
    begin_and_hang,
    fail_with,
    turns,
)

USAGE = Usage(prompt_tokens=10, completion_tokens=8, total_tokens=18)


async def answer_with_usage(listener: Listener) -> None:
    """Think for a second, say "Hi there" in another, and tell what it cost."""
    listener.on_accepted()
    await asyncio.sleep(1.23456)
    listener.on_events([Reasoning("hmm")])
    await asyncio.sleep(1)
    listener.on_events([Delta("Hi"), Delta(" there"), Done(finish_reason="stop", usage=USAGE)])


def line_of(caplog: pytest.LogCaptureFixture) -> dict[str, Any]:
    [line] = [record for record in caplog.records if record.msg == "answer.ended"]
    return cast("dict[str, Any]", line.__dict__["fields"])


async def test_the_log_line_of_an_answer_tells_what_an_operator_asks_for(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)
    house = House(answer_with_usage)
    log = await house.ask(owner="ada")
    await house.read(log)
    assert line_of(caplog) == {
        "id": log.id,
        "request_id": "r",
        "principal": "ada",
        "model": "m",
        "answered_by": "m",
        "outcome": "done",
        "finish_reason": "stop",
        "first_event_seconds": 1.235,
        "seconds": 2.235,
        "events": 5,
        "bytes": log.size,
        "usage": "told",
        "tokens": 18,
        "input_tokens": 10,
        "output_tokens": 8,
        "readers": 1,
        "resumes": 0,
    }


async def test_the_line_of_a_failed_answer_names_the_error_and_never_the_question(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)
    house = House(fail_with(PAID, after_delta=True))
    await house.read(await house.ask())
    fields = line_of(caplog)
    assert "finish_reason" not in fields
    assert (fields["outcome"], fields["error"], fields["details"]) == (
        "error",
        "service_unavailable_error",
        "down",
    )
    assert (fields["usage"], fields["tokens"], fields["first_event_seconds"]) == ("estimated", 7, 0)
    assert "Hello!" not in str(fields)


async def test_a_refusal_that_cost_nothing_is_told_to_the_observers_and_not_to_the_application(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)
    house = House(fail_with(UNPAID))
    with pytest.raises(type(UNPAID)):
        await house.ask()
    await turns()
    assert (line_of(caplog)["usage"], line_of(caplog)["first_event_seconds"]) == ("none", None)
    assert (len(house.records), house.told) == (1, [])


async def test_the_application_gets_the_question_and_the_whole_answer() -> None:
    house = House(answer_with_usage)
    began = time.time()
    await house.read(await house.ask())
    [told] = house.told
    assert (told.question, told.text, told.reasoning) == (QUESTION, "Hi there", "hmm")
    assert (told.outcome, told.usage) == ("done", USAGE)
    assert began - 60 < told.started_at < began
    assert asyncio.all_tasks() == {asyncio.current_task()}


async def test_at_the_end_the_application_is_waited_for_but_not_for_ever(
    caplog: pytest.LogCaptureFixture,
) -> None:
    told: list[str] = []

    async def hook(answered: AnsweredQuestion) -> None:
        await asyncio.sleep(8 if answered.owner == "quick" else 1000)
        told.append(answered.owner)

    house = House(begin_and_hang)
    house.relay = Relay(house.upstream, house.store, TIMEOUTS, Reports((), hook))
    for owner in ("quick", "slow"):
        await house.ask(owner=owner)
    began = house.loop.time()
    await house.relay.aclose()
    assert (house.loop.time() - began, told) == (10, ["quick"])
    await turns()
    assert [record.msg for record in caplog.records] == ["after_answer.failed"]


async def test_an_observer_is_told_once_whatever_the_end() -> None:
    house = House(begin_and_hang)
    log = await house.ask(permit=FreePermit())
    await house.relay.stop(log.id, "")
    await house.relay.aclose()
    await turns()
    assert [record.outcome for record in house.records] == ["cancelled"]
