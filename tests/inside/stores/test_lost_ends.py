"""Redis comes back without what it was told last: what its logs' producer does about it."""

import msgspec
import pytest

from chat_sse.events import Failure
from chat_sse.stores.base import LogSpec
from tests.inside.stores.test_outbox import END, Process, deltas, encoded
from tests.support.fake_redis import FakeRedis


@pytest.fixture
async def process() -> Process:
    return Process(FakeRedis())


async def test_an_end_that_a_failover_has_lost_is_sent_again_for_one_beat_at_least(process: Process) -> None:
    log = process.create()
    log.append([*deltas("a"), END])
    process.exchange_all()
    for beats, is_sent in ((0, True), (1, True), (2, False)):
        for _ in range(beats):
            process.outbox.age()
        process.redis.pieces.clear()
        process.redis.sealed.clear()
        process.outbox.recover()
        process.exchange_all()
        assert (len(process.redis.entries("a")) == 2) is is_sent
        assert process.outbox.logs == {}


async def test_a_log_that_redis_has_not_to_its_end_and_nobody_else_has_is_given_one(process: Process) -> None:
    process.redis.make("a")  # as an old dump of Redis's holds it
    process.outbox.hear(b"a")
    process.exchange_all()
    [entry] = process.redis.entries("a")
    assert msgspec.json.decode(entry, type=Failure).error == "internal_error"


async def test_a_log_that_is_being_created_or_has_just_been_released_is_given_no_other_end(
    process: Process,
) -> None:
    spec = LogSpec(stream_id="a")
    process.outbox.new_log(spec)
    process.redis.make("a")
    process.outbox.hear(b"a")
    process.exchange_all()
    assert process.redis.entries("a") == []
    process.create("b").append([END])
    process.exchange_all()
    process.redis.sealed["p:{b}"] = 0  # lost
    process.outbox.hear(b"b")
    process.outbox.age()
    process.outbox.hear(b"b")
    process.exchange_all()
    assert process.redis.entries("b") == encoded(END)
