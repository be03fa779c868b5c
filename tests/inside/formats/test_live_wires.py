"""The numbered streams of other protocols while an answer runs, and what they make of several choices."""

import asyncio
from collections.abc import Sequence

import msgspec
import pytest

from chat_sse.errors import InvalidRequest
from chat_sse.events import Delta, Done, Event, Reasoning
from chat_sse.upstreams.openai.chunks import ChunkDecoder
from tests.inside.formats.exchange import DELIVERY, END, HI, START, Exchange
from tests.inside.formats.test_other_wires import read, told
from tests.support.fakes import turns

WIRES = ["ag-ui", "openai"]


async def in_pieces(wire: str, *batches: Sequence[Event], after: int = -1) -> Exchange:
    """Return the exchange in which these came one after the other."""
    exchange = Exchange(wire, after=after)
    task = exchange.start()
    for batch in batches:
        await turns()
        exchange.log.append(batch)
    await task
    return exchange


@pytest.mark.parametrize("wire", WIRES)
async def test_an_answer_is_numbered_on_however_it_comes(wire: str) -> None:
    batches: list[list[Event]] = [[START], [HI, Reasoning("hm")], [HI], [END]]
    exchange = await in_pieces(wire, *batches)
    numbers = [event_id for event_id, _ in told(exchange) if event_id]
    assert numbers == ["s.0", "s.1", "s.2", "s.3", "s.4"]
    assert (exchange.is_whole, exchange.closed, exchange.ran) == (True, 1, ["ran"])


@pytest.mark.parametrize("wire", WIRES)
async def test_a_reader_that_comes_back_to_a_running_answer_gets_a_comment_for_what_it_has(wire: str) -> None:
    exchange = await in_pieces(wire, [START], [HI], [HI, HI], [END], after=2)
    first, second, *_ = [message["body"] for message in exchange.messages[1:]]
    assert (first, second) == (b": hb\n", b": hb\n")
    assert [line for line in exchange.body.split(b"\n") if line.startswith(b"id: ")] == [
        b"id: s.3",
        b"id: s.4",
    ]


@pytest.mark.parametrize("wire", WIRES)
async def test_a_silent_answer_is_bridged_and_a_reader_that_cannot_come_back_is_never_moved(
    wire: str,
) -> None:
    exchange = Exchange(wire)
    exchange.log.append([START, HI])
    task = exchange.start()
    await asyncio.sleep(2 * DELIVERY.heartbeat_seconds + 1)
    assert exchange.body.endswith(b"\n\n: hb\n: hb\n")
    await asyncio.sleep(1101)
    exchange.log.append([END])
    await task
    assert exchange.is_whole


# Several choices.


def chunk(*choices: tuple[int, str, str | None]) -> bytes:
    body = [
        {"index": index, "delta": {"content": text}, "finish_reason": reason}
        for index, text, reason in choices
    ]
    return b"data: " + msgspec.json.encode({"choices": body}) + b"\n\n"


TWO_CHOICES = [chunk((0, "a", None), (1, "x", None)), chunk((1, "x", "length"), (0, "b", "stop"))]
ONE_IN_TWO = [chunk((0, "a", None), (0, "b", None)), chunk((0, "", None), (0, "", "stop"))]


@pytest.mark.parametrize("chunks", [TWO_CHOICES, ONE_IN_TWO], ids=["two choices", "one in two parts"])
async def test_a_wire_tells_one_choice_of_an_upstream_that_sends_several(chunks: list[bytes]) -> None:
    decoder = ChunkDecoder()
    events = [event for data in chunks for event in decoder.feed(data)] + decoder.end()
    assert events == [Delta("a"), Delta("b"), Done(finish_reason="stop")]
    batches: list[list[Event]] = [[START]]
    batches += [[event] for event in events]
    completion = told(await in_pieces("openai", *batches))
    assert completion[-1] == ("s.3", "[DONE]")
    choices = [choice for _, data in completion[:-1] for choice in data["choices"]]
    assert {choice["index"] for choice in choices} == {0}
    assert [choice["delta"].get("content") for choice in choices] == ["", "a", "b", None]
    assert [choice["finish_reason"] for choice in choices] == [None, None, None, "stop"]
    run = told(await in_pieces("ag-ui", *batches))
    assert [data["type"] for _, data in run] == [
        *("RUN_STARTED", "TEXT_MESSAGE_START", "TEXT_MESSAGE_CONTENT", "TEXT_MESSAGE_CONTENT"),
        *("TEXT_MESSAGE_END", "RUN_FINISHED"),
    ]
    assert "".join(data.get("delta", "") for _, data in run) == "ab"
    body = Exchange("openai-body")
    body.log.append([START, *events])
    await body.run()
    [choice] = msgspec.json.decode(body.body)["choices"]
    assert (choice["index"], choice["message"]["content"], choice["finish_reason"]) == (0, "ab", "stop")


def test_nobody_is_sold_several_choices() -> None:
    for wire in ("openai", "openai-body"):
        read(wire, n=1)
        read(wire, n=None)
        for number in (2, 0, 128, "2"):
            with pytest.raises(InvalidRequest) as raised:
                read(wire, n=number)
            assert raised.value.details == "This service does not support this parameter - at `$.n`"
