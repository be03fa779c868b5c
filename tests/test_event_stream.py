"""EventStream stands in for sse-starlette's response, on servers that only know ASGI."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from typing import Any

import httpx2
import msgspec
import pytest
from sse_starlette import EventSourceResponse
from starlette.background import BackgroundTask
from starlette.types import Message, Receive, Scope, Send

from chat_sse.errors import Draining
from chat_sse.events import Delta, Done, Event, Start, Subscriber
from chat_sse.formats.base import Delivery, Reading
from chat_sse.formats.sse import HEARTBEAT, EventStream, SseEncoder
from tests.support import plain_http
from tests.support.service import parse_sse

WAIT_SECONDS = 5
DELIVERY = Delivery(heartbeat_seconds=7, send_timeout_seconds=9)
EVENTS: list[Event] = [Start(id="a", model="m"), Delta("Hi"), Done(finish_reason="stop")]


def stream(left: list[bool] | None = None, *, silent: bool = False, fails: bool = False) -> EventStream:
    """Make a response. `left` gets an entry when its reading is closed; a silent one never ends."""

    async def follow(_: Subscriber | None) -> AsyncGenerator[Sequence[bytes], None]:
        try:
            yield [msgspec.json.encode(EVENTS[0])]
            if silent:
                await asyncio.Event().wait()
            if fails:
                raise Draining
            yield [msgspec.json.encode(event) for event in EVENTS[1:]]
        finally:
            if left is not None:
                left.append(True)

    reading = Reading(stream_id="a", after=-1, follow=follow, headers={"X-Mine": "1"}, request_id="r")
    return EventStream(reading, SseEncoder("a", 0), DELIVERY)


def scope(method: str = "GET") -> Scope:
    return {"type": "http", "method": method, "asgi": {"spec_version": "2.4"}}


async def never() -> Message:
    await asyncio.Event().wait()
    raise AssertionError


def test_its_attributes_say_what_it_does() -> None:
    async def check() -> None:
        response = stream()
        assert isinstance(response, EventSourceResponse)
        assert (response.status_code, response.media_type, response.charset) == (
            200,
            "text/event-stream",
            "utf-8",
        )
        assert (response.ping_interval, response.send_timeout) == (7, 9)
        assert (response.background, response.active, response.sep) == (None, True, "\n")
        assert response.ping_message_factory is not None
        assert response.ping_message_factory() == HEARTBEAT
        assert dict(response.headers) == {
            "content-type": "text/event-stream",
            "cache-control": "no-cache, no-transform",
            "x-accel-buffering": "no",
            "x-mine": "1",
        }
        body = b"".join([piece async for piece in response.body_iterator])
        assert [event["type"] for _, event in parse_sse(body)] == ["start", "delta", "done"]

    asyncio.run(check())


def test_what_is_set_on_it_is_sent_and_its_background_task_runs() -> None:
    async def check() -> None:
        response = stream()
        ran: list[str] = []
        response.status_code = 203
        response.headers["X-Other"] = "2"
        response.set_cookie("c", "v")
        response.background = BackgroundTask(ran.append, "ran")
        transport = httpx2.ASGITransport(app=response)
        async with plain_http.AsyncClient(transport=transport, base_url="http://test") as client:
            got = await client.get("/")
            assert (got.status_code, got.headers["x-other"], got.cookies["c"]) == (203, "2", "v")
            assert len(parse_sse(got.content)) == 3
            assert ran == ["ran"]
            assert not response.active

    asyncio.run(check())


def test_a_reading_with_nothing_left_ends_well() -> None:
    async def check() -> None:
        sent: list[Message] = []

        async def send(message: Message) -> None:
            sent.append(message)

        async def follow(_: Subscriber | None) -> AsyncGenerator[Sequence[bytes], None]:
            for entries in list[Sequence[bytes]]():
                yield entries

        reading = Reading(stream_id="a", after=2, follow=follow, headers={})
        await run(EventStream(reading, SseEncoder("a", 3), DELIVERY), never, send)
        assert sent[1:] == [{"type": "http.response.body", "body": b"", "more_body": False}]

    asyncio.run(check())


def test_head_has_no_body_and_runs_the_background_task() -> None:
    async def check() -> None:
        response = stream()
        ran: list[str] = []
        sent: list[Message] = []
        response.background = BackgroundTask(ran.append, "ran")

        async def send(message: Message) -> None:
            sent.append(message)

        await response(scope("HEAD"), never, send)
        assert [message.get("body", b"") for message in sent] == [b"", b""]
        assert ran == ["ran"]

    asyncio.run(check())


async def run(response: EventStream, receive: Receive, send: Send) -> None:
    async with asyncio.timeout(WAIT_SECONDS):
        await response(scope(), receive, send)


@pytest.mark.parametrize("way", ["a message", "an error"])
def test_a_clients_leaving_ends_the_reading_however_the_server_says_it(way: str) -> None:
    async def check() -> None:
        left: list[bool] = []
        ran: list[str] = []
        began = asyncio.Event()

        async def receive() -> Message:
            await began.wait()
            return {"type": "http.disconnect"} if way == "a message" else await never()

        async def send(message: Message) -> None:
            if message.get("body"):
                began.set()
                if way == "an error":
                    raise BrokenPipeError

        response = stream(left, silent=True)
        response.background = BackgroundTask(ran.append, "ran")
        await run(response, receive, send)
        assert (left, ran) == ([True], ["ran"])

    asyncio.run(check())


def test_an_error_of_its_reading_is_the_last_event_without_an_id() -> None:
    async def check() -> None:
        sent: list[Any] = []

        async def send(message: Message) -> None:
            sent.append(message)

        await run(stream(fails=True), never, send)
        assert sent[-1]["body"].startswith(b'data: {"type":"error",')
        assert b'"error":"server_draining"' in sent[-1]["body"]
        assert b"\nid:" not in sent[-1]["body"]
        assert sent[-1]["more_body"] is False

    asyncio.run(check())


def test_a_body_iterator_put_in_its_place_is_what_is_sent() -> None:
    async def check() -> None:
        response, sent = stream(), []
        original = response.body_iterator

        async def louder() -> AsyncIterator[bytes]:
            async for piece in original:
                yield piece.upper()

        async def send(message: Message) -> None:
            sent.append(message.get("body", b""))

        response.body_iterator = louder()
        await run(response, never, send)
        assert b'"CONTENT":"HI"' in b"".join(sent)

    asyncio.run(check())
