"""Processes that keep their logs in one Redis, in virtual time."""

import asyncio
from contextlib import AsyncExitStack
from typing import Any

import msgspec

from chat_sse.events import Event
from chat_sse.stores.base import Log, LogSpec
from chat_sse.stores.redis.store import RedisStore
from tests.support.redis_time import RedisBeside

TTL, RUNNING = 3000, 6000


class Site:
    """The processes of one site, and what their Redis holds."""

    def __init__(self, redis: RedisBeside, stack: AsyncExitStack) -> None:
        self.redis, self._stack = redis, stack
        self.data, self.loop = redis.data, redis.loop

    def store(self) -> RedisStore:
        """Make a process, not started."""
        store = RedisStore(self.redis.url, ttl_seconds=TTL, running_seconds=RUNNING, prefix="p")
        self._stack.push_async_callback(store.aclose)
        return store

    async def start(self) -> RedisStore:
        """Start a process."""
        store = self.store()
        await store.start()
        return store

    async def kill(self, store: RedisStore) -> None:
        """End a process as a crash does: nothing more is said, and its lease runs out."""
        await self.freeze(store)
        self.data.delete(f"p:{{{producer_of(store)}}}:lease")

    async def freeze(self, store: RedisStore) -> None:
        """Let a process do nothing more."""
        tasks: list[asyncio.Task[None]] = vars(store)["_tasks"]
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)

    def meta(self, stream_id: str) -> dict[str, str]:
        """Return what Redis knows of a log."""
        found: Any = self.data.hgetall(f"p:{{{stream_id}}}:meta")
        return {name.decode(): value.decode() for name, value in found.items()}

    def events(self, stream_id: str) -> list[bytes]:
        """Return the entries that Redis has."""
        pieces: Any = self.data.xrange(f"p:{{{stream_id}}}:log")
        return [entry for _, fields in pieces for entry in fields[b"e"].split(b"\n")]

    def life(self, key: str) -> float:
        """Return how many seconds a key has left, rounded."""
        left: Any = self.data.pttl(key)
        return float(round(left / 1000))


def producer_of(store: RedisStore) -> str:
    producer: str = vars(store)["_commands"].producer
    return producer


async def create(store: RedisStore, stream_id: str = "s", **fields: Any) -> Log:
    log = await store.create(LogSpec(stream_id=stream_id, **fields))
    assert log is not None
    return log


def figures(store: RedisStore) -> dict[str, float]:
    """Return what a store and its round trips say of themselves, by name."""
    return {figure.name: figure.value for figure in (*store.figures(), *store.redis.figures())}


def entries_of(*events: Event) -> list[bytes]:
    return [msgspec.json.encode(event) for event in events]
