"""The response of each format that is an event stream, and what all have in common."""

import asyncio
import logging
from collections.abc import AsyncGenerator

import msgspec
import pytest

from chat_sse.errors import Draining, InvalidRequest
from tests.inside.formats.exchange import (
    DELIVERY,
    END,
    HI,
    KINDS,
    START,
    Exchange,
    block,
    sent,
)
from tests.support.fakes import QUESTION, STOPPED, turns

# Heads.


@pytest.mark.parametrize(
    ("wire", "fields"),
    [
        ("sse", {"content-type": "text/event-stream"}),
        ("html", {"content-type": "text/event-stream"}),
        ("ai-sdk", {"content-type": "text/event-stream", "x-vercel-ai-ui-message-stream": "v1"}),
        ("text", {"content-type": "text/plain; charset=utf-8", "x-content-type-options": "nosniff"}),
        ("json", {"content-type": "application/json", "x-content-type-options": "nosniff"}),
    ],
)
async def test_each_format_has_its_head_and_head_alone_reads_nothing(
    wire: str, fields: dict[str, str]
) -> None:
    fields |= {"x-mine": "1", "cache-control": "no-cache, no-transform", "x-accel-buffering": "no"}
    exchange = Exchange(wire)
    await exchange.run("HEAD")
    assert exchange.head() == (200, fields)
    assert [message["type"] for message in exchange.messages] == ["http.response.start", "http.response.body"]
    assert (exchange.ran, exchange.closed) == (["ran"], 0)
    whole = await sent(wire, START, HI, END)
    status, found = whole.head()
    found.pop("content-length", None)
    assert (status, found) == (200, fields)
    assert (whole.ran, whole.closed, whole.is_whole) == (["ran"], 1, True)
    exchange.messages.clear()
    exchange.response = KINDS[wire].respond_to_head()
    await exchange.run("HEAD")
    assert exchange.response.headers["vary"] == "Accept"
    assert [message["type"] for message in exchange.messages] == ["http.response.start", "http.response.body"]


# Server-sent events.


async def test_events_carry_their_numbers_and_the_first_the_time_to_reconnect() -> None:
    exchange = await sent("sse", START, HI, END)
    assert exchange.response.active is False  # type: ignore[attr-defined]  # as sse-starlette's
    assert exchange.body == b"retry: 2000\n" + block(0, START) + block(1, HI) + block(2, END)
    resumed = await sent("sse", START, HI, END, after=0)
    assert resumed.body == block(1, HI) + block(2, END)


async def test_events_are_sent_as_they_come_and_the_end_with_the_last() -> None:
    exchange = Exchange("sse")
    task = exchange.start()
    for event in (START, HI, END):
        await asyncio.sleep(1)
        exchange.log.append([event])
    await task
    bodies = [(message["body"], message["more_body"]) for message in exchange.messages[1:]]
    assert bodies == [
        (b"retry: 2000\n" + block(0, START), True),
        (block(1, HI), True),
        (block(2, END), False),
    ]


async def test_a_writer_gets_what_comes_without_a_task_being_woken() -> None:
    exchange = Exchange("sse", writer=True)
    task = exchange.start()
    await turns()
    exchange.log.append_entry(msgspec.json.encode(HI))  # the first event carries `retry`: it is sent
    await turns()
    assert (exchange.pushed, exchange.body) == ([], b"retry: 2000\n" + block(0, HI))
    exchange.log.append_entry(msgspec.json.encode(HI))
    exchange.log.append([HI, HI])
    exchange.log.append_entry(msgspec.json.encode(HI))
    assert exchange.pushed == [block(1, HI), block(2, HI) + block(3, HI), block(4, HI)]
    exchange.is_ready = False
    exchange.log.append_entry(msgspec.json.encode(HI))
    exchange.log.append([HI])
    assert len(exchange.pushed) == 3
    await turns()
    assert exchange.body.endswith(block(5, HI) + block(6, HI))
    exchange.is_ready = True
    exchange.log.append([END])
    await task
    assert exchange.body.endswith(block(7, END))
    assert len(exchange.pushed) == 3


async def test_who_replaces_the_body_iterator_sees_every_piece_and_may_begin_with_another() -> None:
    exchange = Exchange("sse", writer=True)
    pieces = exchange.response.body_iterator  # type: ignore[attr-defined]

    async def begun_by_another() -> AsyncGenerator[bytes, None]:
        yield b": mine\n"
        async for piece in pieces:
            yield piece

    exchange.response.body_iterator = begun_by_another()  # type: ignore[attr-defined]
    task = exchange.start()
    for event in (START, HI, HI, END):
        await turns()
        exchange.log.append([event])
    await task
    assert (exchange.pushed, len(exchange.messages)) == ([], 6)
    assert exchange.body.startswith(b": mine\nretry: 2000\n")


@pytest.mark.parametrize("wire", ["sse", "html", "ai-sdk"])
async def test_a_silent_answer_is_bridged_by_comments(wire: str) -> None:
    exchange = Exchange(wire)
    exchange.log.append([START])
    task = exchange.start()
    await asyncio.sleep(2 * DELIVERY.heartbeat_seconds + 1)
    assert exchange.body.endswith(b"\n\n: hb\n: hb\n")
    exchange.log.append([END])
    await task


@pytest.mark.parametrize(
    ("wire", "is_moved"),
    [("sse", True), ("html", True), ("ai-sdk", False), ("text", False), ("json", False)],
)
async def test_only_a_reader_that_can_come_back_is_moved(wire: str, is_moved: bool) -> None:
    exchange = Exchange(wire)
    exchange.log.append([START])
    task = exchange.start()
    await asyncio.sleep(1101)
    assert task.done() == is_moved
    exchange.log.append([END])
    await task
    assert exchange.is_whole != is_moved


@pytest.mark.parametrize("wire", ["sse", "html"])
async def test_a_fault_of_this_reading_has_no_number_to_resume_behind(wire: str) -> None:
    exchange = await sent(wire, START, HI, error=Draining("bye"))
    assert exchange.is_whole
    *_, last, rest = exchange.body.split(b"\n\n")
    assert (rest, b"\nid:" in last, b"server_draining" in last) == (b"", False, True)
    assert wire == "html" or b'"request_id":"r"' in last


async def test_a_fault_ends_a_message_stream_as_an_answers_failure_does() -> None:
    exchange = await sent("ai-sdk", START, HI, error=Draining("bye"))
    assert exchange.body.endswith(b"data: [DONE]\n\n")
    assert b'{"type":"error","errorText":"The service is restarting.' in exchange.body


@pytest.mark.parametrize("wire", ["sse", "html", "ai-sdk", "text", "json"])
async def test_a_client_that_accepts_nothing_is_cut_off_in_every_format(
    wire: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    exchange = Exchange(wire)
    exchange.log.append([START, HI, END])
    exchange.accepts.clear()
    task = exchange.start()
    began = exchange.loop.time()
    await task
    assert exchange.loop.time() - began == DELIVERY.send_timeout_seconds
    assert (exchange.messages, exchange.ran) == ([], ["ran"])
    assert [record.msg for record in caplog.records] == ["client.stalled"]


@pytest.mark.parametrize("wire", ["sse", "html", "ai-sdk", "text", "json"])
async def test_a_client_that_leaves_closes_its_reading(wire: str) -> None:
    exchange = Exchange(wire)
    exchange.log.append([START, HI])
    task = exchange.start()
    await asyncio.sleep(5)
    exchange.leaves.set()
    await task
    assert (exchange.closed, exchange.is_whole, exchange.ran) == (1, False, ["ran"])


# What formats say of themselves.


def test_formats_say_who_can_come_back_and_how() -> None:
    told = {name: (kind.resumable, kind.has_ids, kind.is_sequential) for name, kind in KINDS.items()}
    expected = {
        "sse": (True, True, True),
        "html": (True, True, True),
        "ai-sdk": (True, False, True),
        "text": (False, False, False),
        "json": (False, False, False),
    }
    assert {name: told[name] for name in expected} == expected
    entries = [msgspec.json.encode(event) for event in (START, HI, END)]
    assert KINDS["sse"].example(entries).startswith("retry: 2000\n" + block(0, START).decode())
    assert KINDS["html"].example(entries).startswith("retry: 2000\nevent: start\n")
    assert KINDS["text"].example(entries) == "Hi"
    assert KINDS["json"].example(entries)["content"] == "Hi"
    assert KINDS["ai-sdk"].example(entries).endswith("data: [DONE]\n\n")


@pytest.mark.parametrize("wire", ["sse", "html", "ai-sdk", "text", "json"])
def test_a_format_without_a_body_of_its_own_reads_ours_and_refuses_in_our_words(wire: str) -> None:
    fmt = KINDS[wire]
    assert (fmt.reads_body, fmt.replays, fmt.root) == (False, False, "/")
    body = msgspec.json.encode({"messages": [{"role": "system", "content": "x"}, *QUESTION.messages]})
    asked = fmt.read(body, allows_system=True)
    assert (asked.format, asked.key, asked.ask.messages[1].content) == (fmt, None, "Hello!")
    with pytest.raises(InvalidRequest):
        fmt.read(body, allows_system=False)
    error = Draining("bye")
    refusal = fmt.refusal(error, "r")
    assert (refusal.status, refusal.body, dict(refusal.headers)) == (error.status, error.body("r"), {})


async def test_a_reading_that_is_resumed_is_numbered_on_in_html_too() -> None:
    exchange = await sent("html", START, HI, END, after=0)
    assert exchange.body.count(b"\nid: s.1\n") == 1
    one = Exchange("html")
    task = one.start()
    for event in (START, HI, HI, STOPPED):
        await turns()
        one.log.append([event])
    await task
    numbers = [line for line in one.body.split(b"\n") if line.startswith(b"id: ")]
    assert numbers == [b"id: s.0", b"id: s.1", b"id: s.2", b"id: s.3"]


async def test_an_html_writer_gets_single_entries_as_well() -> None:
    exchange = Exchange("html", writer=True)
    exchange.log.append([START])
    task = exchange.start()
    await turns()
    exchange.log.append_entry(msgspec.json.encode(HI))
    exchange.log.append_entry(msgspec.json.encode(HI))
    assert exchange.pushed == [b"data: Hi\nid: s.1\n\n", b"data: Hi\nid: s.2\n\n"]
    exchange.log.append([END])
    await task
    assert (len(exchange.pushed), exchange.closed) == (2, 1)


async def test_a_stopped_message_stream_is_an_abort() -> None:
    exchange = await sent("ai-sdk", START, HI, STOPPED)
    chunks = [part.removeprefix(b"data: ") for part in exchange.body.split(b"\n\n")]
    assert chunks[-3:] == [b'{"type":"abort"}', b"[DONE]", b""]
    assert not [chunk for chunk in chunks if b"text-end" in chunk]
