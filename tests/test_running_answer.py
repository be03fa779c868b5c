"""How far a question has got, and what an error is then; the readers of an answer, and its orphan timer."""

import asyncio
from contextlib import aclosing
from typing import cast

import msgspec
import pytest

from chat_sse.errors import ChatError, Draining, StreamNotFound, UpstreamProtocol, UpstreamUnavailable
from chat_sse.events import Delta, Event, decode_event
from chat_sse.limits.admission import Outcome, Permit
from chat_sse.messages import Question
from chat_sse.relay.deadlines import Timeouts
from chat_sse.relay.relay import Relay
from chat_sse.stores.base import Log, LogSpec
from chat_sse.stores.memory import MemoryStore
from chat_sse.upstreams.base import Listener, Upstream

WAIT_SECONDS = 5
QUESTION = Question(messages=[], model="m", max_output_tokens=1)
SPEC = LogSpec(stream_id="a", idempotency_key="key")


class FreePermit:
    """Admits everything, and remembers what it is told in the end."""

    outcome: Outcome

    async def admit(self, _id: str, _question: Question) -> None:
        """Admit."""

    def settle(self, outcome: Outcome) -> int:
        """Remember."""
        self.outcome = outcome
        return 0


class OneUpstream:
    """Accepts or not, says a delta or not, and then fails or stays silent."""

    def __init__(self, *, accepts: bool = False, error: ChatError | None = None) -> None:
        self.accepts, self.error = accepts, error
        self.may_fail = asyncio.Event()

    async def answer(self, _: Question, listener: Listener) -> None:
        """Do as told."""
        if self.accepts:
            listener.on_accepted()
            listener.on_events([Delta("Hi")])
        await self.may_fail.wait()
        if self.error:
            raise self.error
        await asyncio.Event().wait()


def relay_of(
    upstream: OneUpstream, *, accept_wait: float = 5, grace: float = 5
) -> tuple[Relay, MemoryStore, FreePermit]:
    store = MemoryStore(ttl_seconds=60, max_kept=10, max_kept_bytes=1_000_000)
    timeouts = Timeouts(
        accept_wait=accept_wait,
        first_token_timeout=9,
        idle_timeout=9,
        total_timeout=9,
        disconnect_grace=grace,
    )
    return Relay(cast("Upstream", upstream), store, timeouts), store, FreePermit()


async def start(relay: Relay, permit: FreePermit) -> Log:
    return await relay.start(QUESTION, SPEC, "r", cast("Permit", permit))


async def kinds_of(relay: Relay, log: Log) -> list[str]:
    events: list[Event] = []
    async with asyncio.timeout(WAIT_SECONDS), aclosing(relay.follow(log, -1)) as batches:
        async for entries in batches:
            events += map(decode_event, entries)
    return [msgspec.to_builtins(event)["type"] for event in events]


def test_an_unpaid_refusal_before_anything_was_sent_is_raised_and_frees_the_key() -> None:
    async def check() -> None:
        upstream = OneUpstream(error=UpstreamUnavailable("down", may_cost=False))
        upstream.may_fail.set()
        relay, store, permit = relay_of(upstream)
        with pytest.raises(UpstreamUnavailable):
            await start(relay, permit)
        with pytest.raises(StreamNotFound):
            await store.find_key("key")
        await relay.aclose()
        assert permit.outcome.refused

    asyncio.run(check())


def test_an_error_that_may_cost_is_raised_and_kept_for_the_keys_next_request() -> None:
    async def check() -> None:
        upstream = OneUpstream(error=UpstreamUnavailable("down", may_cost=True))
        upstream.may_fail.set()
        relay, store, permit = relay_of(upstream)
        with pytest.raises(UpstreamUnavailable):
            await start(relay, permit)
        assert await kinds_of(relay, await store.find_key("key")) == ["start", "error"]
        await relay.aclose()
        assert not permit.outcome.refused

    asyncio.run(check())


def test_a_refusal_after_the_accept_wait_is_an_event_and_unpaid() -> None:
    async def check() -> None:
        upstream = OneUpstream(error=UpstreamUnavailable("down", may_cost=False))
        relay, _, permit = relay_of(upstream, accept_wait=0)
        log = await start(relay, permit)
        upstream.may_fail.set()
        assert await kinds_of(relay, log) == ["start", "error"]
        await relay.aclose()
        assert permit.outcome.refused

    asyncio.run(check())


def test_an_error_after_upstream_accepted_is_an_event_and_paid() -> None:
    async def check() -> None:
        upstream = OneUpstream(accepts=True, error=UpstreamProtocol("cut", may_cost=False))
        upstream.may_fail.set()
        relay, _, permit = relay_of(upstream)
        log = await start(relay, permit)
        assert await kinds_of(relay, log) == ["start", "delta", "error"]
        await relay.aclose()
        assert not permit.outcome.refused

    asyncio.run(check())


@pytest.mark.parametrize(("resumable", "grace"), [(True, 0.05), (False, 60)])
def test_an_answer_ends_when_its_last_reader_has_left_and_its_grace_if_any_is_over(
    resumable: bool, grace: float
) -> None:
    async def check() -> None:
        relay, _, permit = relay_of(OneUpstream(accepts=True), grace=grace)
        log = await start(relay, permit)
        async with aclosing(relay.follow(log, -1, resumable=resumable)) as only:
            await anext(only)
        async with asyncio.timeout(WAIT_SECONDS):
            [last] = await log.read(1)  # past the relay, so not counted as a reader
        assert b'"cancelled"' in last
        await relay.aclose()

    asyncio.run(check())


def test_a_reader_that_could_come_back_keeps_its_grace_when_one_that_cannot_leaves() -> None:
    async def check() -> None:
        relay, _, permit = relay_of(OneUpstream(accepts=True), grace=60)
        log = await start(relay, permit)
        for resumable in (True, False):
            async with aclosing(relay.follow(log, -1, resumable=resumable)) as one:
                await anext(one)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.1):
                await log.read(1)
        await relay.aclose()

    asyncio.run(check())


class SlowPermit(FreePermit):
    """Admits once it is told to, as a slow Redis does."""

    def __init__(self) -> None:
        self.may_admit = asyncio.Event()

    async def admit(self, _id: str, _question: Question) -> None:
        """Admit in the end."""
        await self.may_admit.wait()


async def test_a_drain_waits_for_a_question_that_is_not_running_yet() -> None:
    relay, _, _ = relay_of(upstream := OneUpstream(accepts=True, error=UpstreamProtocol("cut")))
    permit = SlowPermit()
    asking = asyncio.create_task(start(relay, permit))
    await asyncio.sleep(0)
    drain = asyncio.create_task(relay.drain(WAIT_SECONDS))
    await asyncio.sleep(0.05)
    assert not drain.done()
    permit.may_admit.set()
    log = await asking
    assert not drain.done()
    upstream.may_fail.set()
    await drain
    assert await kinds_of(relay, log) == ["start", "delta", "error"]


async def test_the_end_of_the_grace_takes_no_question_to_upstream() -> None:
    relay, store, _ = relay_of(OneUpstream(accepts=True))
    permit = SlowPermit()
    asking = asyncio.create_task(start(relay, permit))
    await asyncio.sleep(0)
    await relay.drain(0.01)
    permit.may_admit.set()
    with pytest.raises(Draining):
        await asking
    assert permit.outcome.refused
    with pytest.raises(StreamNotFound):
        await store.find_key("key")


def test_a_reader_that_comes_when_all_is_over_is_refused_before_its_answer_begins() -> None:
    async def check() -> None:
        relay, _, permit = relay_of(OneUpstream(accepts=True))
        log = await start(relay, permit)
        await relay.drain(0)
        with pytest.raises(Draining):
            await relay.open(log.id, log.owner)

    asyncio.run(check())
