"""Here a real Redis is beside the loop, in the same virtual time."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack

import pytest

from tests.inside.redis.processes import Processes
from tests.inside.redis.stores import Site
from tests.support.redis_server import RedisServer
from tests.support.redis_time import RedisBeside, RedisLoop


def pytest_asyncio_loop_factories(config: pytest.Config, item: pytest.Item) -> dict[str, type[RedisLoop]]:
    """Run the tests of this folder on the loop that waits for Redis."""
    return {"redis": RedisLoop}


@pytest.fixture
async def redis(redis_server: RedisServer) -> AsyncIterator[RedisBeside]:
    """An empty Redis."""
    with RedisBeside(redis_server) as beside:
        yield beside


@pytest.fixture
async def processes(redis: RedisBeside) -> AsyncIterator[Processes]:
    """Processes beside it, which end with the test."""
    async with AsyncExitStack() as stack:
        yield Processes(redis, stack)


@pytest.fixture
async def site(redis: RedisBeside) -> AsyncIterator[Site]:
    """A site whose processes end with the test."""
    async with AsyncExitStack() as stack:
        yield Site(redis, stack)
