"""Processes of one site, within the test's own: each is a thread with an event loop and a store.

What happens to processes can then happen to a store within a hundredth of a second: one is frozen while the
others go on, one is cut off from Redis for ever, which to the others is a crash, and time passes.
"""

from __future__ import annotations

import asyncio
import selectors
import threading
from collections.abc import Callable, Coroutine
from contextlib import ExitStack
from typing import Any, TypeVar

import redis

from chat_sse.events import Done, new_stream_id
from chat_sse.redis_access import DEFAULT_PREFIX
from chat_sse.stores.base import Log, LogSpec, Store
from chat_sse.stores.memory import MemoryStore
from chat_sse.stores.redis.scripts import Keys
from chat_sse.stores.redis.store import RedisStore
from tests.support.proxy import BadNetwork
from tests.support.redis_server import RedisServer

SECONDS = 20.0
TTL_SECONDS = 300.0
RUNNING_SECONDS = 86_400.0
# How many of its seconds a loop counts in one. What the store waits for passes so much sooner.
SPEED = 5

T = TypeVar("T")


class _Selector(selectors.DefaultSelector):
    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        return super().select(timeout / SPEED if timeout else timeout)


class Loop(asyncio.SelectorEventLoop):
    """An event loop with a fast clock, which can also be put forward."""

    ahead = 0.0

    def __init__(self) -> None:
        super().__init__(_Selector())

    def time(self) -> float:
        return super().time() * SPEED + self.ahead


class Process:
    """A store in a loop of its own."""

    def __init__(self, store: Callable[[], Store]) -> None:
        self.loop = Loop()
        self._thread = threading.Thread(target=self.loop.run_forever, daemon=True)
        self._thread.start()
        self.store = self.call(store)
        if isinstance(self.store, RedisStore):
            self.run(self.store.start())

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Return the result of a coroutine."""
        return asyncio.run_coroutine_threadsafe(work, self.loop).result(SECONDS)

    def create(self, spec: LogSpec) -> Log | None:
        """Create a log here."""

        async def work() -> Log | None:
            return await self.store.create(spec)

        return self.run(work())

    def call(self, function: Callable[..., T], *arguments: Any) -> T:
        """Return the result of a function that has to be called within the loop."""

        async def work() -> T:
            return function(*arguments)

        return self.run(work())

    def freeze(self) -> Callable[[], None]:
        """Let nothing run here any more. Returned is what ends that."""
        thaw = threading.Event()
        self.loop.call_soon_threadsafe(thaw.wait, SECONDS)
        return thaw.set

    def put_forward(self, seconds: float) -> None:
        """Let so many of its seconds have passed."""
        self.loop.ahead += seconds
        self.call(lambda: None)

    def close(self) -> None:
        """Close the store and end the loop."""
        self.run(self._cancel())
        self.run(self.store.aclose())
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join(SECONDS)
        self.loop.close()

    async def _cancel(self) -> None:
        """End the readers. The store's own tasks are its own."""
        tasks = [task for task in asyncio.all_tasks() if task.get_name().startswith("reader")]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


class MemorySite:
    """One process whose memory is the log."""

    is_shared = False

    def __init__(self) -> None:
        self.processes = [self._start()]

    def crash(self, _: int) -> None:
        """End the process, and with it everything; another begins."""
        self.close()
        self.processes = [self._start()]

    def expire(self) -> None:
        """Let a sealed log's time to live pass."""
        self.processes[0].put_forward(TTL_SECONDS + 1)

    def cut(self, _: int) -> None:
        """Cut nothing: there is no network."""

    def lag(self, _: int) -> None:
        """Wait for nothing."""

    def lose_lease(self, _: int) -> None:
        """There is none."""

    def close(self) -> None:
        """End it."""
        self.processes[0].close()

    def _start(self) -> Process:
        return Process(lambda: MemoryStore(ttl_seconds=TTL_SECONDS, max_kept=1000, max_kept_bytes=2**30))


class RedisSite:
    """Three processes with one Redis, each with a network of its own to it."""

    is_shared = True

    def __init__(self, server: RedisServer) -> None:
        self._server = server
        self._redis = redis.Redis.from_url(server.url, protocol=2, decode_responses=True)
        self._networks: dict[int, ExitStack] = {}
        self._proxies: dict[int, BadNetwork] = {}
        self._keys = Keys(DEFAULT_PREFIX)
        self._leases: dict[int, str] = {}
        self.processes = [self._start(number) for number in range(3)]

    def crash(self, number: int) -> None:
        """End a process as a crash does: Redis hears nothing more from it. Another takes its place."""
        self._networks[number].close()
        self.processes[number].close()
        self.lose_lease(number)
        self.processes[number] = self._start(number)

    def lose_lease(self, number: int) -> None:
        """Let a process's lease run out."""
        self._redis.delete(self._leases[number])

    def expire(self) -> None:
        """Let a sealed log's time to live pass, for every key but the leases, and with it some beats."""
        for process in self.processes:
            assert isinstance(process.store, RedisStore)
            for _ in range(2):
                process.call(process.store._outbox.age)  # noqa: SLF001 - no beat is waited for
        passed_ms = int((TTL_SECONDS + 1) * 1000)
        for key in self._redis.keys(f"{DEFAULT_PREFIX}:*"):
            left_ms = self._redis.pttl(key)
            assert left_ms != -1, f"{key!r} lives for ever"
            if not str(key).endswith(":lease"):
                self._redis.pexpire(key, max(1, left_ms - passed_ms))

    def cut(self, number: int) -> None:
        """Cut a process's connections; new ones are let through."""
        self._proxies[number].cut_all()

    def lag(self, milliseconds: int) -> None:
        """Let Redis answer nobody for a while."""
        self._redis.client_pause(milliseconds)

    def close(self) -> None:
        """End all processes."""
        for process in self.processes:
            process.close()
        for network in self._networks.values():
            network.close()
        self._redis.close()

    def _start(self, number: int) -> Process:
        stack = self._networks[number] = ExitStack()
        proxy = self._proxies[number] = stack.enter_context(BadNetwork(self._server.url))
        url = self._server.url.replace(f":{self._server.port}/", f":{proxy.port}/")
        process = Process(lambda: RedisStore(url, ttl_seconds=TTL_SECONDS, running_seconds=RUNNING_SECONDS))
        name = new_stream_id()
        log = process.create(LogSpec(stream_id=name))
        assert log is not None
        producer = self._redis.hget(self._keys.meta(name), "producer")
        process.call(log.append, [Done(finish_reason="stop")])
        self._leases[number] = self._keys.lease(str(producer))
        return process


Site = MemorySite | RedisSite
