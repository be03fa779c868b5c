"""A process beside a Redis in which another one's log is."""

import pytest

from tests.inside.stores.processes import Process, write
from tests.support.fake_redis import FakeRedis


@pytest.fixture
async def process() -> Process:
    process = Process(FakeRedis())
    write(process.redis, "a")
    return process
