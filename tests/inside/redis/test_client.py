"""Commands to Redis, and what is known of it: whether it is there, for how long, and with its data."""

import asyncio
import logging
import math
from collections.abc import AsyncIterator

import pytest

from chat_sse.errors import StoreUnavailable
from chat_sse.stores.redis.client import Client, WrongMode
from tests.support.fake_redis import commands_of
from tests.support.redis_time import RedisBeside


@pytest.fixture
async def client(redis: RedisBeside) -> AsyncIterator[Client]:
    client = Client(redis.url, commands_of("me"))
    yield client
    await client.aclose()


async def test_it_is_down_until_a_probe_gets_through_and_up_until_something_fails(
    redis: RedisBeside, client: Client, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    await asyncio.sleep(5)
    assert (client.up.is_set(), client.seconds(), client.mode) == (False, 5, "")
    with pytest.raises(StoreUnavailable) as raised:
        await client.run([("PING",)])
    assert raised.value.retry_after == 2
    assert [figure.value for figure in client.figures()][:2] == [0, 0]
    assert await client.run([("PING",)], probe=True) == [b"PONG"]
    assert (client.up.is_set(), client.mode) == (True, "standalone")
    assert client.seconds() == 0
    await asyncio.sleep(7)
    assert await client.run([("PING",)]) == [b"PONG"]
    assert client.seconds() == 7
    redis.hang()
    began = redis.loop.time()
    with pytest.raises(StoreUnavailable):
        await client.run([("PING",)])
    assert redis.loop.time() == began + 3
    assert (client.up.is_set(), client.seconds()) == (False, 0)
    redis.go_on()
    await client.run([("PING",)], probe=True)
    assert [record.msg for record in caplog.records] == ["redis.up", "redis.down", "redis.up"]
    figures = {figure.name: figure.value for figure in client.figures()}
    assert (figures["redis_up"], figures["redis_round_trips"], figures["redis_failures"]) == (1, 4, 1)
    assert {figure.label for figure in client.figures()} == {""}


async def test_a_process_may_be_taken_for_dead_after_its_lease_unless_redis_is_away(client: Client) -> None:
    assert client.lease_until == math.inf
    client.lease_until = client._loop.time() + 4  # noqa: SLF001
    await client.run([("PING",)], probe=True)
    await asyncio.sleep(4)
    assert not client.is_overdue()
    await asyncio.sleep(0.01)
    assert client.is_overdue()
    client.up.clear()
    assert not client.is_overdue()


async def test_an_epoch_tells_a_loss_and_for_how_long_nobody_can_tell_what_was_lost(
    client: Client, caplog: pytest.LogCaptureFixture
) -> None:
    client.check_complete()
    assert client.note_epoch((b"one", 0)) is False
    client.check_complete()
    assert client.note_epoch((b"one", 0)) is False
    assert client.note_epoch((b"two", 2500)) is True
    assert [record.msg for record in caplog.records] == ["redis.data_lost"]
    with pytest.raises(StoreUnavailable, match="Redis has lost its data") as raised:
        client.check_complete()
    assert raised.value.retry_after == 3
    await asyncio.sleep(2.499)
    with pytest.raises(StoreUnavailable) as raised:
        client.check_complete()
    assert raised.value.retry_after == 1
    await asyncio.sleep(0.001)
    client.check_complete()
    assert client.note_epoch((b"two", 1000)) is False  # another process has found it out
    with pytest.raises(StoreUnavailable):
        client.check_complete()
    _, _, _, *arguments = client.epoch()
    assert (arguments[0:2], arguments[3:]) == (["p:{store}:epoch", "p:{store}:recovering"], ["two", 3000])
    assert len(str(arguments[2])) == 16


def test_a_server_in_another_mode_is_named() -> None:
    async def check(mode: str) -> None:
        client = Client("redis://h", commands_of("me"))
        client.mode = mode
        client.check_mode()

    for mode in ("", "standalone"):
        asyncio.run(check(mode))
    with pytest.raises(WrongMode, match=r"^CHAT_SSE_REDIS_URL leads to a Redis in the mode sentinel"):
        asyncio.run(check("sentinel"))
