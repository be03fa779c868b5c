"""Text and JSON: responses that must not look whole where the answer is not."""

import msgspec
import pytest

from chat_sse.errors import InternalError, UpstreamTimeout
from chat_sse.events import Delta, Event, Reasoning
from chat_sse.formats.json_body import collect
from tests.inside.formats.exchange import END, FAILED, HI, START, Exchange, sent
from tests.support.fakes import STOPPED, turns

# Text.


async def test_a_text_begins_with_the_first_delta_and_is_the_deltas_alone() -> None:
    exchange = Exchange("text")
    task = exchange.start()
    exchange.log.append([START, Reasoning("hmm")])
    await turns()
    assert exchange.messages == []
    exchange.log.append([HI])
    await turns()
    exchange.log.append([Reasoning("hmm")])
    await turns()
    exchange.log.append([Delta(" there"), END])
    await task
    bodies = [message["body"] for message in exchange.messages[1:]]
    assert bodies == [b"Hi", b" there", b""]
    assert exchange.is_whole


async def test_an_empty_answer_is_an_empty_text() -> None:
    exchange = await sent("text", START, END)
    assert (exchange.head()[0], exchange.body, exchange.is_whole) == (200, b"", True)


@pytest.mark.parametrize(("end", "reason"), [(STOPPED, "cancelled"), (FAILED, "timeout_error")])
async def test_a_text_that_is_not_whole_does_not_end_like_a_whole_one(
    end: Event, reason: str, caplog: pytest.LogCaptureFixture
) -> None:
    exchange = await sent("text", START, HI, end)
    assert (exchange.body, exchange.is_whole) == (b"Hi", False)
    [line] = caplog.records
    assert (line.msg, line.__dict__["fields"]) == ("text.broken_off", {"id": "s", "reason": reason})


async def test_a_text_that_fails_before_its_first_delta_is_an_http_error() -> None:
    with pytest.raises(UpstreamTimeout, match="late"):
        await sent("text", START, Reasoning("hmm"), FAILED)
    with pytest.raises(InternalError):
        await sent("text", START, error=InternalError("gone"))


async def test_a_reading_of_a_text_that_fails_later_breaks_off(caplog: pytest.LogCaptureFixture) -> None:
    exchange = await sent("text", START, HI, error=InternalError("gone"))
    assert (exchange.body, exchange.is_whole) == (b"Hi", False)
    assert caplog.records[0].__dict__["fields"]["reason"] == "internal_error"


# JSON.


async def test_a_json_answer_is_one_body_when_it_is_whole() -> None:
    exchange = Exchange("json")
    task = exchange.start()
    for event in (START, Reasoning("hmm"), HI, Delta(" there")):
        exchange.log.append([event])
        await turns()
    assert exchange.messages == []
    exchange.log.append([END])
    await task
    assert msgspec.json.decode(exchange.body) == {
        "role": "assistant",
        "content": "Hi there",
        "finish_reason": "stop",
        "usage": None,
        "id": "s",
        "model": "m",
        "reasoning": "hmm",
    }
    assert exchange.head()[1]["content-length"] == str(len(exchange.body))
    assert (await sent("json", START, HI, STOPPED)).is_whole


@pytest.mark.parametrize("wire", ["json", "openai-body"])
async def test_a_whole_body_that_fails_is_an_http_error_whenever_that_is_and_was_paid_for(wire: str) -> None:
    with pytest.raises(UpstreamTimeout, match="late") as raised:
        await sent(wire, START, HI, FAILED)
    assert raised.value.may_cost
    with pytest.raises(InternalError) as gone:
        await sent(wire, START, error=InternalError("gone"))
    assert gone.value.may_cost


def test_a_log_without_an_end_is_no_answer() -> None:
    with pytest.raises(ValueError, match="terminal event"):
        collect([msgspec.json.encode(event) for event in (START, HI)])
