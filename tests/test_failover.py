"""A replica that takes over lacks what was written last: nothing is paid twice for it, and no end is lost."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
import redis.asyncio

from chat_sse.errors import StoreUnavailable
from chat_sse.events import Delta, Done, new_stream_id
from chat_sse.stores.base import Log, LogSpec
from chat_sse.stores.redis.logs import ProducedLog
from chat_sse.stores.redis.store import RedisStore
from tests.support.proxy import BadNetwork
from tests.support.redis_server import PASSWORD, RedisServer

END = Done(finish_reason="stop")


class Process:
    """A store, and its own way to Redis."""

    def __init__(self, network: BadNetwork) -> None:
        self.network = network
        url = f"redis://:{PASSWORD}@127.0.0.1:{network.port}/0"
        self.store = RedisStore(url, ttl_seconds=60, running_seconds=600)

    async def create(self, key: str | None = None) -> Log | None:
        """Create a log; None where another process has, for this key."""
        spec = LogSpec(stream_id=new_stream_id(), idempotency_key=key, fingerprint=b"f")
        return await self.store.create(spec)

    def lead_to(self, server: RedisServer) -> None:
        """Reach another server from now on."""
        self.network.lead_to(server.url)
        self.network.cut_all()

    def is_up(self) -> bool:
        [up] = [figure.value for figure in self.store.redis.figures() if figure.name == "redis_up"]
        return bool(up)


@pytest.fixture
def master() -> Iterator[RedisServer]:
    with RedisServer("--repl-diskless-sync-delay", "0") as server:
        yield server


@pytest.fixture
def replica(master: RedisServer, tmp_path: Path) -> Iterator[RedisServer]:
    follows = "--replicaof", "127.0.0.1", str(master.port), "--masterauth", PASSWORD
    with RedisServer(*follows, "--dir", str(tmp_path)) as server:
        yield server


@pytest.fixture
async def processes(master: RedisServer) -> AsyncIterator[list[Process]]:
    async with AsyncExitStack() as stack:
        found = []
        for _ in range(2):
            process = Process(stack.enter_context(BadNetwork(f"redis://127.0.0.1:{master.port}")))
            stack.push_async_callback(process.store.aclose)
            await process.store.start()
            found.append(process)
        yield found


async def eventually(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(15):
        while not condition():  # noqa: ASYNC110 - a figure of a store
            await asyncio.sleep(0.01)


async def run(server: RedisServer, *command: str) -> object:
    async with redis.asyncio.Redis.from_url(server.url, protocol=2) as client:
        return await client.execute_command(*command)  # type: ignore[no-untyped-call]


async def fall_behind(master: RedisServer, replica: RedisServer) -> None:
    """Let the replica be as the master is now, and hear no more of it."""
    await run(master, "SET", "now", "", "PX", "1")
    assert await run(master, "WAIT", "1", "15000") == 1
    await run(replica, "REPLICAOF", "NO", "ONE")


async def refused(process: Process, key: str) -> None:
    """Ask with a key that another process has, until it is refused since data is lost; nothing is created."""
    async with asyncio.timeout(15):
        while True:
            try:
                assert await process.create(key) is None
            except StoreUnavailable as exc:
                if "lost its data" in str(exc):
                    return
            await asyncio.sleep(0.01)


async def attached(process: Process, key: str) -> Log:
    """Ask with it until it is no more refused."""
    async with asyncio.timeout(15):
        while True:
            try:
                assert await process.create(key) is None
            except StoreUnavailable:
                await asyncio.sleep(0.05)
            else:
                return await process.store.find_key(key)


async def test_what_was_lost_is_not_paid_again_and_has_its_end(
    master: RedisServer, replica: RedisServer, processes: list[Process]
) -> None:
    here, elsewhere = processes
    await fall_behind(master, replica)
    running, ended = await here.create("running"), await here.create("ended")
    assert isinstance(running, ProducedLog)
    assert isinstance(ended, ProducedLog)
    ended.append([Delta("all of it"), END])
    await ended.settled.wait()
    elsewhere.lead_to(replica)  # the first to get there
    await refused(elsewhere, "running")
    here.lead_to(replica)
    assert (await attached(elsewhere, "running")).id == running.id
    mirror = await attached(elsewhere, "ended")
    async with asyncio.timeout(5):
        assert await mirror.read(-1) == await ended.read(-1)


async def test_a_master_that_became_a_replica_is_left_for_the_server_that_has_its_address_now(
    master: RedisServer, processes: list[Process]
) -> None:
    here, _ = processes
    with RedisServer() as other:
        here.network.lead_to(other.url)  # the connections that are open stay where they are
        await run(master, "REPLICAOF", "127.0.0.1", str(other.port))
        await eventually(lambda: not here.is_up())
        await eventually(here.is_up)
        assert await here.create() is not None
