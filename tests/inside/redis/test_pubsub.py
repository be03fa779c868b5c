"""What Redis announces: one connection that listens, over every break."""

import asyncio
from collections.abc import AsyncIterator

import pytest
from redis.asyncio import Connection

from chat_sse.redis_access import connector
from chat_sse.stores.redis.pubsub import PubSub
from tests.support.redis_time import RedisBeside


class Ear:
    """A process that listens, and what it hears."""

    def __init__(self, redis: RedisBeside) -> None:
        self.redis = redis
        self.heard: list[tuple[str, bytes | None]] = []
        self.joins_late = ""
        connect = connector(redis.url, self._on_connect)
        self.pubsub = PubSub(connect, lambda *heard: self.heard.append(heard))
        self.pubsub.subscribe("own")
        self.task = asyncio.create_task(self.pubsub.listen())

    async def _on_connect(self, _: Connection) -> None:
        if self.joins_late:
            self.pubsub.subscribe(self.joins_late)
            await self.pubsub.update()

    async def say(self, channel: str, message: str = "x") -> int:
        """Publish. Returns how many heard it."""
        count: int = self.redis.data.publish(channel, message)
        await asyncio.sleep(0.01)
        return count

    def connections(self) -> int:
        """Return how many connections listen."""
        return len(self.redis.data.client_list(_type="pubsub"))


@pytest.fixture
async def ear(redis: RedisBeside) -> AsyncIterator[Ear]:
    ear = Ear(redis)
    await asyncio.sleep(0.1)
    yield ear
    ear.task.cancel()
    await asyncio.wait([ear.task])
    assert ear.connections() == 0


async def test_a_channel_is_heard_from_its_subscription_to_its_end(ear: Ear) -> None:
    assert ear.heard == [("own", None)]
    await ear.say("own", "a")
    assert ear.heard.pop() == ("own", b"a")
    ear.pubsub.subscribe("b")
    assert await ear.say("b") == 0  # from the next update on
    await ear.pubsub.update()
    await asyncio.sleep(0.01)
    assert ear.heard.pop() == ("b", None)
    assert await ear.say("b") == 1
    assert ear.heard.pop() == ("b", b"x")
    ear.pubsub.unsubscribe("b")
    await ear.pubsub.update()
    assert await ear.say("b") == 0
    assert ear.heard == [("own", None)]
    ear.pubsub.unsubscribe("b")  # again, harmlessly
    await ear.pubsub.update()
    assert (await ear.say("own"), ear.connections()) == (1, 1)


async def test_after_a_break_all_channels_are_heard_anew_within_a_moment(ear: Ear) -> None:
    ear.pubsub.subscribe("b")
    await ear.pubsub.update()
    await asyncio.sleep(0.01)
    ear.heard.clear()
    ear.redis.break_connections()
    await asyncio.sleep(0.2)
    assert ear.heard == []
    ear.pubsub.subscribe("c")
    await ear.pubsub.update()  # there is no connection
    await asyncio.sleep(0.1)
    assert sorted(ear.heard, key=str) == [("b", None), ("c", None), ("own", None)]
    await ear.pubsub.update()
    await asyncio.sleep(0.1)
    assert len(ear.heard) == 3  # nothing is subscribed to twice
    assert await ear.say("c") == 1


async def test_a_connection_that_hears_nothing_for_four_seconds_is_dead(ear: Ear) -> None:
    await asyncio.sleep(3.8)
    await ear.say("own")
    await asyncio.sleep(3.9)
    assert ear.heard == [("own", None), ("own", b"x")]
    await asyncio.sleep(0.4)
    assert ear.heard[2:] == [("own", None)]
    assert ear.connections() == 1


async def test_a_redis_that_hangs_is_tried_for_two_seconds_again_and_again(ear: Ear) -> None:
    ear.redis.crash()
    await asyncio.sleep(30)
    assert not ear.task.done()
    ear.redis.come_back()
    await asyncio.sleep(0.3)
    assert ear.heard == [("own", None)] * 2


async def test_a_channel_that_is_wanted_while_it_connects_is_heard_too(ear: Ear) -> None:
    ear.joins_late = "late"
    ear.redis.break_connections()
    await asyncio.sleep(0.5)
    await ear.pubsub.update()
    assert await ear.say("late") == 1


async def test_an_update_over_a_connection_that_breaks_is_made_up_for(ear: Ear) -> None:
    ear.redis.break_connections()
    ear.pubsub.subscribe("b")
    await ear.pubsub.update()
    await asyncio.sleep(0.5)
    assert ear.heard.count(("b", None)) == 1
    assert await ear.say("b") == 1
