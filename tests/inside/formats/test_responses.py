"""The response of each format, from a log that grows to the bytes that a client gets and when."""

import asyncio
import logging
from collections.abc import AsyncGenerator, Callable, Sequence
from typing import Any

import msgspec
import pytest
from starlette.background import BackgroundTask
from starlette.types import Message

from chat_sse.errors import ChatError, Draining, InternalError, UpstreamTimeout
from chat_sse.events import Delta, Done, Event, Reasoning, Start, Subscriber, failure
from chat_sse.formats import FORMATS
from chat_sse.formats.base import Delivery, Format, Reading
from chat_sse.stores.base import LogSpec
from chat_sse.stores.memory import MemoryLog
from tests.support.fakes import turns

DELIVERY = Delivery(heartbeat_seconds=15, send_timeout_seconds=30, max_age_seconds=1000)
KINDS: dict[str, Format] = {kind.name: kind(DELIVERY) for kind in FORMATS}
START, HI, END = Start(id="s", model="m"), Delta("Hi"), Done(finish_reason="stop")
STOPPED = Done(finish_reason="cancelled")
FAILED = failure(UpstreamTimeout("late"), "r")


class Exchange:
    """One client that reads a log in a format, through a server that may offer a body's writer."""

    def __init__(
        self, wire: str, *, after: int = -1, writer: bool = False, error: ChatError | None = None
    ) -> None:
        self.log = MemoryLog(LogSpec(stream_id="s"), lambda _: None)
        self.messages: list[Message] = []
        self.pushed: list[bytes] = []
        self.loop = asyncio.get_running_loop()
        self.leaves, self.accepts = asyncio.Event(), asyncio.Event()
        self.accepts.set()
        self.ran: list[str] = []
        self.closed = 0
        self._after, self._error = after, error
        # What a writer has.
        self.is_ready, self.is_gone, self.pushed_at = True, False, 0.0
        self.on_leave: Callable[[], object] | None = None
        self.state: dict[str, Any] = {"body_writer": self} if writer else {}
        reading = Reading(
            stream_id="s", after=after, follow=self._follow, headers={"X-Mine": "1"}, request_id="r"
        )
        self.response = KINDS[wire].respond(reading)
        self.response.background = BackgroundTask(self._background)

    async def _follow(self, subscriber: Subscriber | None) -> AsyncGenerator[Sequence[bytes], None]:
        after = self._after
        try:
            while entries := await self.log.read(after, subscriber):
                after = self.log.length - 1
                yield entries
                if self._error is not None:
                    raise self._error
        finally:
            self.closed += 1

    def review(self) -> None:
        """Nothing changes."""

    def backlog(self) -> int:
        """Nothing waits."""
        return 0

    def push(self, data: bytes) -> None:
        """Keep it."""
        self.pushed.append(data)
        self.pushed_at = self.loop.time()

    async def _background(self) -> None:
        self.ran.append("ran")

    async def _receive(self) -> Message:
        await self.leaves.wait()
        return {"type": "http.disconnect"}

    async def _send(self, message: Message) -> None:
        await self.accepts.wait()
        self.messages.append(message)

    async def run(self, method: str = "GET") -> None:
        """Send the response."""
        scope = {"type": "http", "method": method, "state": self.state}
        await self.response(scope, self._receive, self._send)

    def start(self) -> asyncio.Task[None]:
        """Begin to send it."""
        return asyncio.create_task(self.run())

    @property
    def body(self) -> bytes:
        """Return what was sent, and not pushed."""
        return b"".join(message.get("body", b"") for message in self.messages[1:])

    @property
    def is_whole(self) -> bool:
        """Return whether the body has its end."""
        return bool(self.messages) and not self.messages[-1].get("more_body", True)

    def head(self) -> tuple[int, dict[str, str]]:
        """Return the status and the header fields."""
        head = self.messages[0]
        return head["status"], {name.decode(): value.decode() for name, value in head["headers"]}


async def sent(wire: str, *events: Event, **options: Any) -> Exchange:
    """Return the exchange in which a finished log was read."""
    exchange = Exchange(wire, **options)
    exchange.log.append(events)
    await exchange.run()
    return exchange


def block(seq: int, event: Event) -> bytes:
    return b"data: %s\nid: s.%d\n\n" % (msgspec.json.encode(event), seq)


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
    of_question = KINDS[wire].respond_to_head()
    assert of_question.headers["vary"] == "Accept"


# Server-sent events.


async def test_events_carry_their_numbers_and_the_first_the_time_to_reconnect() -> None:
    exchange = await sent("sse", START, HI, END)
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


async def test_who_replaces_the_body_iterator_sees_every_piece() -> None:
    exchange = Exchange("sse", writer=True)
    exchange.response.body_iterator = (piece async for piece in exchange.response.body_iterator)  # type: ignore[attr-defined]
    task = exchange.start()
    for event in (START, HI, HI, END):
        await turns()
        exchange.log.append([event])
    await task
    assert (exchange.pushed, len(exchange.messages)) == ([], 5)


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


async def test_a_json_answer_that_fails_is_an_http_error_whenever_that_is() -> None:
    with pytest.raises(UpstreamTimeout, match="late"):
        await sent("json", START, HI, FAILED)


# What formats say of themselves.


def test_formats_say_who_can_come_back_and_how() -> None:
    told = {name: (kind.resumable, kind.has_ids, kind.is_sequential) for name, kind in KINDS.items()}
    assert told == {
        "sse": (True, True, True),
        "html": (True, True, True),
        "ai-sdk": (True, False, True),
        "text": (False, False, False),
        "json": (False, False, False),
    }
    entries = [msgspec.json.encode(event) for event in (START, HI, END)]
    assert KINDS["sse"].example(entries).startswith("retry: 2000\ndata: ")
    assert KINDS["html"].example(entries).startswith("retry: 2000\nevent: start\n")
    assert KINDS["text"].example(entries) == "Hi"
    assert KINDS["json"].example(entries)["content"] == "Hi"
    assert KINDS["ai-sdk"].example(entries).endswith("data: [DONE]\n\n")


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
