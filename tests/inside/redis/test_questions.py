"""What a question costs in round trips, of the log and of the limits together."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from chat_sse.errors import StoreUnavailable, TooManyStreams
from chat_sse.events import Done
from chat_sse.limits.admission import Limits, Outcome, Permit
from chat_sse.limits.budget import Budget
from chat_sse.limits.plan import Plan
from chat_sse.limits.rates import Rate
from chat_sse.limits.redis import SharedCounts
from chat_sse.messages import Message, Question
from chat_sse.relay.admission import create_admitted
from chat_sse.stores.base import Log, LogSpec
from chat_sse.stores.redis.store import RedisStore
from tests.inside.redis.stores import Site, figures

QUESTION = Question(messages=[Message(role="user", content="Hello!")], model="m", max_output_tokens=100)
COST = Outcome(refused=False, done=Done(finish_reason="stop"), seconds=1, size=10)


class Asker:
    """A process that asks, beside a Redis that knows its scripts."""

    def __init__(self, store: RedisStore) -> None:
        self.store = store
        plan = Plan(
            rate=Rate(100, 60),
            rate_total=Rate(100, 60),
            streams_per_client=2,
            budget_total=Budget(10**6, "day"),
        )
        self.counts = SharedCounts(store.redis, plan, "p")
        self.limits = Limits(counts=self.counts, system_prompt=None)

    async def ask(self, name: str, key: str | None = None, chat: str | None = None) -> tuple[Log, Permit]:
        """Ask a new question."""
        permit = self.limits.permit("a")
        spec = LogSpec(stream_id=name, idempotency_key=key, chat_id=chat)
        log = await create_admitted(self.store, spec, QUESTION, permit, "r")
        assert log is not None
        return log, permit

    @property
    def trips(self) -> float:
        """How many there were."""
        return figures(self.store)["redis_round_trips"]


@pytest.fixture
async def asker(site: Site) -> AsyncIterator[Asker]:
    asker = Asker(await site.start())
    log, permit = await asker.ask("first", "k", "c")
    await end(log, permit)
    yield asker
    await asker.counts.aclose()


async def end(log: Log, permit: Permit) -> None:
    log.append([Done(finish_reason="stop")])
    permit.settle(COST)
    await asyncio.sleep(0.1)


async def test_a_question_costs_one_round_trip_at_its_start_and_one_at_its_end(asker: Asker) -> None:
    before = asker.trips
    log, permit = await asker.ask("s", chat="c")
    assert asker.trips == before + 1
    assert (await asker.store.find_chat("c")).id == "s"
    before = asker.trips
    await end(log, permit)
    assert asker.trips == before + 1


async def test_a_key_is_claimed_before_its_question_takes_anything(asker: Asker, site: Site) -> None:
    before = asker.trips
    await asker.ask("s", "new key")
    assert asker.trips == before + 2
    spec = LogSpec(stream_id="t", idempotency_key="new key")
    assert await create_admitted(asker.store, spec, QUESTION, asker.limits.permit("a"), "r") is None
    standing = await asker.counts.standing("a")
    assert standing.requests is not None
    assert (standing.requests.left, standing.streams_left) == (98, 1)
    assert site.meta("t") == {}


async def test_many_questions_at_once_share_their_round_trips(asker: Asker, site: Site) -> None:
    asker.limits = Limits(counts=SharedCounts(asker.store.redis, Plan(), "p"), system_prompt=None)
    before = asker.trips
    asked = await asyncio.gather(*(asker.ask(str(number)) for number in range(100)))
    assert asker.trips == before + 1
    await asyncio.gather(*(end(*one) for one in asked))
    assert asker.trips == before + 2
    assert site.meta("99")["sealed"] == "1"


@pytest.mark.parametrize("key", [None, "another key"])
async def test_a_question_that_is_refused_leaves_no_log_and_no_key(asker: Asker, key: str | None) -> None:
    for name in "st":
        await asker.ask(name)
    for _ in range(2):
        with pytest.raises(TooManyStreams):
            await asker.ask("u", key)
    assert "u" not in vars(asker.store)["_outbox"].logs
    assert asker.store.redis.up.is_set()


@pytest.mark.parametrize("is_reached", [True, False])
async def test_a_question_that_redis_may_not_have_got_holds_nothing(
    asker: Asker, site: Site, *, is_reached: bool
) -> None:
    if is_reached:
        site.redis.hang()
    else:
        site.redis.crash()
    with pytest.raises(StoreUnavailable):
        await asker.ask("s")
    if is_reached:
        site.redis.go_on()
    else:
        site.redis.come_back()
    await asyncio.sleep(8)
    standing = await asker.counts.standing("a")
    assert standing.tokens is not None
    assert standing.streams_left == 2
    assert standing.tokens.left >= 10**6 - 1000
