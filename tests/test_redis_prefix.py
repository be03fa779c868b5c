"""Two sites on one Redis database: neither finds, stops, attaches to or counts what is the other's."""

from collections.abc import Iterator

import pytest
import redis

from tests.conftest import QUICK
from tests.support import plain_http
from tests.support.redis_server import RedisServer
from tests.support.service import HELLO, RunningService, ask, events, serve
from tests.support.upstream import Finish, Say, ScriptedUpstream, Silence

LIMITS = {"CHAT_SSE_RATE_LIMIT": "3/minute", "CHAT_SSE_TOKEN_BUDGET": "100000/day"}


@pytest.fixture
def sites(redis_server: RedisServer, upstream: ScriptedUpstream) -> Iterator[list[RunningService]]:
    with redis.Redis.from_url(redis_server.url, protocol=2) as raw:
        raw.flushall()
    shared = {
        **QUICK,
        **LIMITS,
        "OPENAI_BASE_URL": upstream.base_url,
        "CHAT_SSE_REDIS_URL": redis_server.url,
        "CHAT_SSE_MAX_OUTPUT_TOKENS": "100",
    }
    with (
        serve({**shared, "CHAT_SSE_REDIS_PREFIX": "blue"}) as blue,
        serve({**shared, "CHAT_SSE_REDIS_PREFIX": "green"}) as green,
    ):
        yield [blue, green]


def test_neither_site_sees_or_counts_what_is_the_others(
    sites: list[RunningService], upstream: ScriptedUpstream, redis_server: RedisServer
) -> None:
    blue, green = sites
    upstream.answer(Say("Hi"), Finish())
    key = {"Idempotency-Key": "the same"}
    [start, *_] = events(ask(blue.url, headers=key))
    assert plain_http.get(f"{green.url}/ask/{start['id']}").status_code == 404
    assert plain_http.delete(f"{green.url}/ask/{start['id']}").status_code == 404
    [other, *_] = events(ask(green.url, headers=key))
    assert other["id"] != start["id"]
    assert upstream.paid_calls == 2
    for _ in range(2):
        assert ask(blue.url).status_code == 200
    assert ask(blue.url).status_code == 429
    assert ask(green.url).status_code == 200
    with redis.Redis.from_url(redis_server.url, protocol=2) as raw:
        for name in raw.scan_iter():
            assert name.startswith((b"blue:", b"green:")), name
            assert raw.ttl(name) > 0, name


def test_a_running_answer_is_stopped_by_its_own_site_alone(
    sites: list[RunningService], upstream: ScriptedUpstream
) -> None:
    blue, green = sites
    upstream.answer(Say("Hi"), Silence())
    response = plain_http.post(f"{blue.url}/ask", json=HELLO, headers={"Prefer": "respond-async"})
    address = response.headers["Content-Location"]
    assert plain_http.delete(green.url + address).status_code == 404
    assert plain_http.delete(blue.url + address).status_code == 204


def test_a_prefix_that_is_none_is_refused_at_start(redis_server: RedisServer) -> None:
    with (
        pytest.raises(AssertionError, match="CHAT_SSE_REDIS_PREFIX must be 1 to 64 letters"),
        serve({**QUICK, "CHAT_SSE_REDIS_URL": redis_server.url, "CHAT_SSE_REDIS_PREFIX": "a:{b}"}),
    ):
        pass
