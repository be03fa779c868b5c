"""The stores that the contract is tested on, as fixtures, and what those tests say to a log."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import AsyncExitStack

import msgspec
import pytest

from chat_sse.errors import UpstreamTimeout
from chat_sse.events import Delta, Done, failure, new_stream_id
from chat_sse.stores.base import Log, LogSpec, Store
from chat_sse.stores.memory import MemoryStore
from chat_sse.stores.redis.store import RedisStore
from tests.support.redis_server import RedisServer

TTL_SECONDS = 300.0
SHORT_TTL_SECONDS = 0.3
STOPPED = Done(finish_reason="cancelled")
FAILED = failure(UpstreamTimeout("too late"), "r1")

OpenStore = Callable[..., Awaitable[Store]]


@pytest.fixture(scope="module")
def redis_server() -> Iterator[RedisServer]:
    with RedisServer() as server:
        yield server


@pytest.fixture
async def open_redis(redis_server: RedisServer) -> AsyncIterator[Callable[..., Awaitable[RedisStore]]]:
    async with AsyncExitStack() as stack:

        async def open_store(ttl_seconds: float = TTL_SECONDS) -> RedisStore:
            store = RedisStore(redis_server.url, ttl_seconds=ttl_seconds, running_seconds=600)
            stack.push_async_callback(store.aclose)
            await store.start()
            return store

        yield open_store


@pytest.fixture(params=["memory", "redis"])
def open_store(request: pytest.FixtureRequest) -> Iterator[OpenStore]:
    if request.param == "redis":
        yield request.getfixturevalue("open_redis")
        return

    async def open_memory(ttl_seconds: float = TTL_SECONDS) -> Store:
        return MemoryStore(ttl_seconds=ttl_seconds, max_kept=100, max_kept_bytes=1_000_000)

    yield open_memory


@pytest.fixture
async def store(open_store: OpenStore) -> Store:
    return await open_store()


@pytest.fixture
async def elsewhere(store: Store, open_store: OpenStore) -> Store:
    """The same logs as another process sees them; memory has no other process."""
    return store if isinstance(store, MemoryStore) else await open_store()


async def create(store: Store, **fields: object) -> Log:
    log = await store.create(LogSpec(stream_id=new_stream_id(), **fields))  # type: ignore[arg-type]
    assert log is not None
    return log


def deltas(*texts: str) -> list[Delta]:
    return [Delta(text) for text in texts]


def contents(entries: Sequence[bytes]) -> list[str]:
    """Give what the deltas among some entries say."""
    events = [msgspec.json.decode(entry) for entry in entries]
    return [event["content"] for event in events if event["type"] == "delta"]


async def read_all(log: Log, after: int = -1) -> list[bytes]:
    found: list[bytes] = []
    with log.reading():
        while entries := await log.read(after + len(found)):
            found += entries
    return found


class Taking:
    """A subscriber that keeps what it takes, up to a word."""

    def __init__(self, until: str | None = None) -> None:
        self.taken: list[bytes] = []
        self._until = until

    def deliver(self, entries: Sequence[bytes]) -> bool:
        if self._until in contents(entries):
            return False
        self.taken.extend(entries)
        return True

    def deliver_entry(self, entry: bytes) -> bool:
        return self.deliver([entry])


async def eventually(condition: Callable[[], Awaitable[bool]]) -> None:
    """Wait until it holds; the test's own limit bounds it."""
    while not await condition():  # noqa: ASYNC110 - what it asks is another process's
        await asyncio.sleep(0.01)


async def extent_of(log: Log) -> tuple[int, bool]:
    extent = await log.extent()
    return extent.length, extent.sealed
