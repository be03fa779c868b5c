"""The last moments of sending to a client: what leaves nothing behind, and what counts as progress."""

import asyncio
import logging

import pytest
from starlette.types import Message

from tests.inside.formats.test_client_stream import HEAD, HEARTBEAT, STALL, Client, FakeWriter, logged
from tests.support.fakes import turns
from tests.support.virtual_time import VirtualTimeLoop


@pytest.fixture(autouse=True)
def _at_info(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)


class CountingWriter(FakeWriter):
    """Counts how often anybody looks at its backlog."""

    looks = 0

    def backlog(self) -> int:
        """Count."""
        self.looks += 1
        return self.unsent


def listener() -> "asyncio.Task[object]":
    """Return the one task beside the test's own."""
    [task] = asyncio.all_tasks() - {asyncio.current_task()}
    return task


async def test_a_heartbeat_comes_exactly_when_nothing_was_sent_for_so_long() -> None:
    client = Client()
    async with client.stream() as stream:
        await stream.begin(HEAD)
        await asyncio.sleep(0.5)
        await stream.send(b"a")
        await asyncio.sleep(HEARTBEAT + 1)
    assert client.sent[-1] == (0.5 + HEARTBEAT, b": hb\n")


async def test_nothing_is_left_of_a_body_that_was_sent() -> None:
    client = Client()
    async with client.stream() as stream:
        await stream.begin(HEAD)
    loop = asyncio.get_running_loop()
    assert isinstance(loop, VirtualTimeLoop)
    assert loop.timers() == []
    await turns()
    assert asyncio.all_tasks() == {asyncio.current_task()}


async def test_a_single_byte_that_does_not_move_is_a_stall(caplog: pytest.LogCaptureFixture) -> None:
    client = Client(writer=(writer := FakeWriter()))
    async with client.stream() as stream:
        writer.unsent = 1
        await stream.begin(HEAD)
        await asyncio.sleep(1000)
    assert client.seconds == STALL
    assert logged(caplog) == ["client.stalled"]


async def test_what_a_send_has_queued_and_then_moves_is_progress() -> None:
    client = Client(writer=(writer := FakeWriter()))
    async with client.stream() as stream:
        writer.unsent = 1000
        await stream.begin(HEAD)
        await asyncio.sleep(HEARTBEAT - 1)
        writer.unsent = 900  # is seen a second later
        await asyncio.sleep(1000)
    assert client.seconds == HEARTBEAT + STALL


async def test_a_body_without_heartbeats_is_looked_at_once_in_the_send_timeout() -> None:
    client = Client(writer=(writer := CountingWriter()), heartbeat_seconds=None)
    async with client.stream() as stream:
        await stream.begin(HEAD)
        looks = writer.looks
        await asyncio.sleep(20 * STALL - 1)
    assert writer.looks == looks + 19


async def test_a_client_that_leaves_while_it_is_moved_is_moved_once(caplog: pytest.LogCaptureFixture) -> None:
    client = Client(max_age_seconds=100, heartbeat_seconds=None)
    async with client.stream() as stream:
        await stream.begin(HEAD)
        listening = listener()
        try:
            await asyncio.sleep(1000)
        finally:
            client.leaves.set()
            await asyncio.sleep(1)
    assert logged(caplog) == ["client.moved"]
    assert listening.exception() is None


async def test_a_server_that_says_to_its_last_listener_that_the_client_has_left_does_no_harm() -> None:
    class Old(Client):
        async def receive(self) -> Message:
            try:
                return await super().receive()
            except asyncio.CancelledError:
                return {"type": "http.disconnect"}

    client = Old()
    async with client.stream() as stream:
        await stream.begin(HEAD)
        await turns()
        listening = listener()
    await turns()
    assert listening.exception() is None
