"""Sending to a client: heartbeats, a client that stalls or leaves, and one that is there for too long."""

import asyncio
import logging
from collections.abc import Callable
from typing import Any

import pytest
from starlette.types import Message

from chat_sse.formats.client_stream import ClientStream
from tests.support.fakes import turns

HEARTBEAT, STALL = 15.0, 30.0
HEAD: Message = {"type": "http.response.start", "status": 200, "headers": []}


class FakeWriter:
    """A body's writer, with a client that accepts what the test says."""

    def __init__(self) -> None:
        self.is_ready = self.is_gone = False
        self.on_leave: Callable[[], object] | None = None
        self.pushed_at = 0.0
        self.unsent = 0
        self.reviews = 0

    def review(self) -> None:
        """Count."""
        self.reviews += 1

    def push(self, _: bytes) -> None:
        """Take it."""
        self.pushed_at = asyncio.get_running_loop().time()

    def backlog(self) -> int:
        """Tell."""
        return self.unsent


class Client:
    """One client of a server, with or without a writer. What it is sent, and when."""

    def __init__(self, *, writer: FakeWriter | None = None, **options: Any) -> None:
        self.loop = asyncio.get_running_loop()
        self.began = self.loop.time()
        self.writer = writer
        self.sent: list[tuple[float, bytes]] = []
        self.accepts, self.leaves = asyncio.Event(), asyncio.Event()
        self.accepts.set()
        self.error: OSError | None = None
        self.options = {"heartbeat_seconds": HEARTBEAT, "heartbeat": b": hb\n", **options}

    async def receive(self) -> Message:
        """Leave, once told to."""
        await self.leaves.wait()
        return {"type": "http.disconnect"}

    async def send(self, message: Message) -> None:
        """Take a message, when it accepts any."""
        await self.accepts.wait()
        if self.error:
            raise self.error
        self.sent.append((self.seconds, message.get("body", b"")))

    @property
    def seconds(self) -> float:
        """Since when it is here."""
        return round(self.loop.time() - self.began, 6)

    def stream(self) -> ClientStream:
        """Begin to send to it."""
        state = {} if self.writer is None else {"body_writer": self.writer}
        return ClientStream(
            {"type": "http", "state": state},
            self.receive,
            self.send,
            stream_id="s",
            send_timeout_seconds=STALL,
            **self.options,
        )


def logged(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.msg for record in caplog.records]


@pytest.fixture(autouse=True)
def _at_info(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)


async def test_a_heartbeat_is_sent_whenever_nothing_else_was_for_so_long() -> None:
    client = Client()
    async with client.stream() as stream:
        await stream.begin(HEAD)
        await asyncio.sleep(10)
        await stream.send(b"a")
        await asyncio.sleep(2 * HEARTBEAT + 1)
        await stream.last(b"end")
        await asyncio.sleep(10 * HEARTBEAT)
    assert client.sent == [
        (0, b""),
        (10, b"a"),
        (10 + HEARTBEAT, b": hb\n"),
        (10 + 2 * HEARTBEAT, b": hb\n"),
        (10 + 2 * HEARTBEAT + 1, b"end"),
    ]


async def test_what_is_pushed_puts_the_heartbeat_off() -> None:
    client = Client(writer=(writer := FakeWriter()))
    async with client.stream() as stream:
        await stream.begin(HEAD)
        assert writer.reviews == 1
        await asyncio.sleep(10)
        writer.push(b"x")
        await asyncio.sleep(HEARTBEAT + 1)
    assert client.sent == [(0, b""), (10 + HEARTBEAT, b": hb\n")]


async def test_a_body_without_heartbeats_is_left_alone() -> None:
    client = Client(heartbeat_seconds=None)
    async with client.stream() as stream:
        await stream.begin(HEAD)
        await asyncio.sleep(20 * STALL)
        await stream.last(b"end")
    assert [data for _, data in client.sent] == [b"", b"end"]


async def test_a_client_that_accepts_nothing_is_cut_off_after_the_send_timeout(
    caplog: pytest.LogCaptureFixture,
) -> None:
    client = Client()
    async with client.stream() as stream:
        await stream.begin(HEAD)
        await asyncio.sleep(10)
        client.accepts.clear()
        await stream.send(b"a")
    assert client.seconds == 10 + STALL
    assert logged(caplog) == ["client.stalled"]
    await turns()
    assert asyncio.all_tasks() == {asyncio.current_task()}


async def test_a_heartbeat_that_is_not_accepted_is_a_stall_too(caplog: pytest.LogCaptureFixture) -> None:
    client = Client()
    async with client.stream() as stream:
        await stream.begin(HEAD)
        client.accepts.clear()
        await asyncio.sleep(1000)
    assert client.seconds == HEARTBEAT + STALL
    assert logged(caplog) == ["client.stalled"]
    await turns()
    assert asyncio.all_tasks() == {asyncio.current_task()}


async def test_bytes_that_are_queued_and_do_not_move_are_a_stall(caplog: pytest.LogCaptureFixture) -> None:
    client = Client(writer=(writer := FakeWriter()))
    async with client.stream() as stream:
        await stream.begin(HEAD)
        writer.unsent = 1000
        writer.push(b"x" * 1000)
        await asyncio.sleep(1000)
    assert client.seconds == STALL
    assert logged(caplog) == ["client.stalled"]


async def test_a_slow_reader_that_still_moves_is_kept(caplog: pytest.LogCaptureFixture) -> None:
    client = Client(writer=(writer := FakeWriter()))
    async with client.stream() as stream:
        await stream.begin(HEAD)
        writer.unsent = 1000
        writer.push(b"x" * 1000)
        for _ in range(20):  # a byte now and then, far more seldom than heartbeats, is progress
            await asyncio.sleep(STALL - 1)
            writer.unsent -= 1
        moved_at = client.seconds
        assert logged(caplog) == []
        await asyncio.sleep(1000)
    assert moved_at < client.seconds <= moved_at + 2 * STALL
    assert [data for _, data in client.sent] == [b""]  # and no heartbeat is piled upon its backlog
    assert logged(caplog) == ["client.stalled"]


async def test_a_backlog_that_grows_is_no_progress(caplog: pytest.LogCaptureFixture) -> None:
    client = Client(writer=(writer := FakeWriter()))
    async with client.stream() as stream:
        await stream.begin(HEAD)
        writer.unsent = 1000
        await stream.send(b"x")
        for _ in range(20):
            await asyncio.sleep(10)
            writer.unsent += 1
    assert client.seconds == STALL
    assert logged(caplog) == ["client.stalled"]


@pytest.mark.parametrize("way", ["a message", "an error", "the writer", "a heartbeat's error"])
async def test_a_client_that_leaves_cancels_what_is_sent_however_the_server_says_it(way: str) -> None:
    writer = FakeWriter() if way == "the writer" else None
    client = Client(writer=writer)
    was_cancelled = False

    def leave() -> None:
        if way == "a message":
            client.leaves.set()
        elif writer is not None:
            assert writer.on_leave
            writer.on_leave()
        else:
            client.error = BrokenPipeError()

    client.loop.call_later(10, leave)
    async with client.stream() as stream:
        await stream.begin(HEAD)
        try:
            if way == "an error":
                await asyncio.sleep(12)
                await stream.send(b"a")
            await asyncio.sleep(1000)
        except asyncio.CancelledError:
            was_cancelled = True
            raise
    expected = {"an error": 12, "a heartbeat's error": HEARTBEAT}.get(way, 10)
    assert client.seconds == expected
    assert was_cancelled == (way != "an error")
    if writer is not None:
        assert writer.on_leave is None
    await turns()
    assert asyncio.all_tasks() == {asyncio.current_task()}


async def test_a_client_that_has_left_before_the_response_begins_is_noticed_at_once() -> None:
    writer = FakeWriter()
    writer.is_gone = True
    client = Client(writer=writer)
    async with client.stream():
        await asyncio.sleep(1000)
    assert client.seconds == 0


async def test_a_server_that_calls_the_end_a_disconnect_cuts_nothing_off() -> None:
    client, is_over = Client(), False
    async with client.stream() as stream:
        await stream.begin(HEAD)
        await stream.last(b"end")
        client.leaves.set()
        await asyncio.sleep(1)
        is_over = True
    assert is_over


async def test_what_the_code_inside_raises_is_raised() -> None:
    client = Client()
    with pytest.raises(ValueError, match="bug"):
        async with client.stream():
            raise ValueError("bug")
    with pytest.raises(TimeoutError):
        async with client.stream():
            raise TimeoutError
    await turns()
    assert asyncio.all_tasks() == {asyncio.current_task()}


async def test_a_reader_is_moved_when_it_is_old_give_or_take_a_tenth(
    caplog: pytest.LogCaptureFixture,
) -> None:
    ages = set()
    for _ in range(60):
        client = Client(max_age_seconds=100)
        async with client.stream() as stream:
            await stream.begin(HEAD)
            while True:
                await asyncio.sleep(1)
                await stream.send(b"a")
        ages.add(client.seconds)
    assert len(ages) > 5
    assert 90 <= min(ages) < 97
    assert 103 < max(ages) <= 110 + 0.05
    assert set(logged(caplog)) == {"client.moved"}


async def test_the_body_goes_past_our_own_middleware_and_the_head_through_it() -> None:
    through: list[str] = []

    async def middleware(message: Message) -> None:
        through.append(message["type"])

    client = Client()
    scope = {"type": "http", "state": {"server_send": client.send}}
    stream = ClientStream(scope, client.receive, middleware, stream_id="s", send_timeout_seconds=STALL)
    async with stream:
        await stream.begin(HEAD)
        await stream.send(b"a")
        await stream.last(b"b")
    assert through == ["http.response.start"]
    assert client.sent == [(0, b"a"), (0, b"b")]
