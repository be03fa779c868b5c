"""How this service reaches Redis: who shares a round trip, and what a failure costs."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import Any

import pytest
from redis.asyncio import Connection
from redis.exceptions import RedisError

from chat_sse.errors import StoreUnavailable
from chat_sse.redis_access import RoundTrips, connector, evaluate, unavailable
from tests.support.fakes import turns
from tests.support.redis_time import RedisBeside

ECHO, KEYS = "return ARGV[1]", "return {#KEYS, KEYS[1], ARGV[2]}"


class Trips:
    """Round trips to a Redis, and how each went."""

    def __init__(self, redis: RedisBeside) -> None:
        self.redis = redis
        self.outcomes: list[str | None] = []
        self.connections = 0
        self.all = RoundTrips(
            connector(redis.url, self._on_connect), seconds=2, on_outcome=self.outcomes.append
        )

    async def _on_connect(self, _: Connection) -> None:
        self.connections += 1

    async def run(self, *commands: tuple[Any, ...]) -> list[Any]:
        """Send commands."""
        return await self.all.run(commands)

    def start(self, *commands: tuple[Any, ...]) -> asyncio.Task[list[Any]]:
        """Begin to send commands."""
        return asyncio.ensure_future(self.run(*commands))

    async def gather(self, calls: Sequence[asyncio.Task[list[Any]]]) -> list[Any]:
        """Return what they came to."""
        told: list[Any] = await asyncio.gather(*calls, return_exceptions=True)
        return told

    def figures(self) -> list[float]:
        """Return how many there were, how long they took, and how many failed."""
        told = list(self.all.figures())
        assert {figure.label for figure in told} == {""}
        assert [figure.name.removeprefix("redis_") for figure in told] == [
            *("round_trips", "round_trip_seconds", "failures")
        ]
        return [figure.value for figure in told]


@pytest.fixture
async def trips(redis: RedisBeside) -> AsyncIterator[Trips]:
    trips = Trips(redis)
    yield trips
    await trips.all.aclose()


async def test_all_who_call_share_a_round_trip_and_each_gets_its_own_results(trips: Trips) -> None:
    calls = [trips.start(("ECHO", f"{n}"), ("ECHO", f"{n}!")) for n in range(20)]
    assert await trips.gather(calls) == [[b"%d" % n, b"%d!" % n] for n in range(20)]
    assert await trips.run() == []
    assert trips.outcomes == [None, None]
    assert trips.connections == 1


async def test_who_hears_of_results_goes_on_in_the_next_round_trip(trips: Trips) -> None:
    async def go_on(name: str) -> list[Any]:
        await trips.run(("ECHO", name))
        return await trips.run(("ECHO", name))

    first = asyncio.ensure_future(go_on("a"))
    await turns()
    told = await asyncio.gather(first, trips.run(("ECHO", "b")))  # which waits for the first one's end
    assert list(told) == [[b"a"], [b"b"]]
    assert trips.figures()[0] == 2


async def test_while_one_round_trip_is_under_way_the_next_one_gathers(trips: Trips) -> None:
    first = trips.start(("ECHO", "a"))
    await turns()
    calls = [trips.start(("ECHO", "b")) for _ in range(20)]
    await asyncio.sleep(0.1)
    assert all(call.done() for call in (first, *calls))
    assert trips.outcomes == [None, None]


async def test_five_hundred_calls_are_a_round_trip(trips: Trips) -> None:
    await trips.gather([trips.start(("ECHO", "a")) for _ in range(500)])
    assert len(trips.outcomes) == 1
    assert await trips.gather([trips.start(("ECHO", f"{n}")) for n in range(501)]) == [
        [b"%d" % n] for n in range(501)
    ]
    assert len(trips.outcomes) == 3


async def test_a_command_that_redis_refuses_fails_its_caller_alone(trips: Trips) -> None:
    calls = [
        trips.start(("ECHO", "a")),
        trips.start(("ECHO", "b"), ("NO-SUCH-COMMAND",), ("ECHO", "c")),
        trips.start(("ECHO", "d")),
    ]
    first, failed, last = await trips.gather(calls)
    assert (first, type(failed), last) == ([b"a"], StoreUnavailable, [b"d"])
    assert trips.outcomes == ["ResponseError"]
    assert trips.figures()[0::2] == [1, 1]
    assert await trips.run(("ECHO", "e")) == [b"e"]
    assert trips.figures()[0::2] == [2, 1]


async def test_scripts_that_redis_does_not_know_are_loaded_and_only_they_are_run_again(trips: Trips) -> None:
    commands = ("INCR", "n"), evaluate(ECHO, [], b"a"), ("INCR", "n"), evaluate(KEYS, ["k", "l"], 1, "x")
    for number in (1, 3):
        assert await trips.run(*commands) == [number, b"a", number + 1, [2, b"k", b"x"]]
    unknown = "EVALSHA", 40 * "0", 0
    with pytest.raises(StoreUnavailable):
        await trips.run(unknown)
    assert trips.outcomes[-1] == "NoScriptError"
    assert await trips.run(("INCR", "n")) == [5]
    stats: Any = trips.redis.data.info("commandstats")
    trips.redis.data.script_flush()
    assert await trips.run(("INCR", "n"), evaluate(ECHO, [], "c")) == [6, b"c"]
    after: Any = trips.redis.data.info("commandstats")
    assert [after[name]["calls"] - stats[name]["calls"] for name in ("cmdstat_incr", "cmdstat_evalsha")] == [
        *(1, 2)
    ]


async def test_a_redis_that_hangs_fails_all_who_wait_after_the_deadline(trips: Trips) -> None:
    await trips.run(("PING",))
    trips.redis.hang()
    began = trips.redis.loop.time()
    calls = [trips.start(("ECHO", "a"))]
    await turns()
    calls.append(trips.start(("ECHO", "b")))  # would be in the next one
    for refused in await trips.gather(calls):
        assert isinstance(refused, StoreUnavailable)
        assert (refused.details, refused.retry_after) == ("Redis does not answer", 2)
    assert trips.redis.loop.time() == began + 2
    assert trips.outcomes == [None, "TimeoutError"]
    assert trips.figures() == [2, 2, 1]
    trips.redis.go_on()
    assert await trips.run(("ECHO", "c")) == [b"c"]  # and not what was asked before
    assert trips.connections == 2


async def test_connections_that_broke_while_idle_are_made_anew_before_anything_is_sent(trips: Trips) -> None:
    await trips.run(("PING",))
    trips.redis.break_connections()
    await asyncio.sleep(0.01)
    assert await trips.run(("ECHO", "a")) == [b"a"]
    assert (trips.connections, trips.outcomes) == (2, [None, None])


async def test_without_a_redis_each_call_tries_to_connect(trips: Trips) -> None:
    trips.redis.crash()
    for _ in range(2):
        with pytest.raises(StoreUnavailable):
            await trips.run(("PING",))
    assert trips.outcomes == ["ConnectionError"] * 2
    trips.redis.come_back()
    assert await trips.run(("ECHO", "a")) == [b"a"]


async def test_what_a_cancelled_caller_has_asked_is_not_sent(trips: Trips) -> None:
    first = trips.start(("PING",))
    await turns()
    calls = [trips.start(("SET", name, 1)) for name in ("a", "b")]
    await turns()
    calls[0].cancel()
    await trips.gather([first, *calls])
    assert trips.redis.keys() == ["b"]
    lonely = trips.start(("SET", "c", 1))
    await asyncio.sleep(0)
    lonely.cancel()
    await asyncio.sleep(0.1)
    assert (trips.redis.keys(), len(trips.outcomes)) == (["b"], 2)


async def test_a_caller_that_leaves_during_its_round_trip_does_no_harm(trips: Trips) -> None:
    await trips.run(("PING",))
    calls = [trips.start(("ECHO", "a")), trips.start(("ECHO", "b"))]
    await turns(2)
    calls[0].cancel()
    assert await calls[1] == [b"b"]
    assert trips.outcomes == [None, None]


async def test_closing_fails_who_waits_and_breaks_the_connection(trips: Trips) -> None:
    await trips.run(("PING",))
    trips.redis.hang()
    calls = [trips.start(("ECHO", "a"))]
    await turns()
    calls.append(trips.start(("ECHO", "b")))
    await turns()
    began = trips.redis.loop.time()
    await trips.all.aclose()
    assert trips.redis.loop.time() == began
    assert {type(refused) for refused in await trips.gather(calls)} == {StoreUnavailable}
    trips.redis.go_on()
    await asyncio.sleep(0.01)
    assert len(trips.redis.data.client_list(_type="normal")) == 2  # this one's, and the loop's
    assert len(asyncio.all_tasks()) == 1


async def test_closing_fails_who_has_only_just_asked(trips: Trips) -> None:
    call = trips.start(("SET", "a", 1))
    await asyncio.sleep(0)
    await trips.all.aclose()
    with pytest.raises(StoreUnavailable):
        await call
    assert trips.redis.keys() == []


async def test_who_refuses_a_connection_fails_what_was_to_be_sent(redis: RedisBeside) -> None:
    async def refuse(_: Connection) -> None:
        raise RedisError("wrong data")

    outcomes: list[str | None] = []
    trips = RoundTrips(connector(redis.url, refuse), seconds=2, on_outcome=outcomes.append)
    with pytest.raises(StoreUnavailable):
        await trips.run([("SET", "a", 1)])
    assert (outcomes, redis.keys()) == (["RedisError"], [])
    await trips.aclose()


# What a URL leads to.


def test_an_outage_is_over_in_two_seconds_as_a_rule() -> None:
    assert (unavailable().retry_after, unavailable().status) == (2, 503)
