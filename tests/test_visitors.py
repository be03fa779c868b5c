"""People: each has limits of its own, sees where it stands, and is who a trusted proxy says, if one does."""

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from typing import Any

import httpx2
import pytest
from starlette.requests import Request
from starlette.testclient import TestClient

from chat_sse.access.principal import Principal
from chat_sse.app import ChatService
from chat_sse.limits.budget import Budget
from chat_sse.limits.plan import OwnLimits, Plan
from chat_sse.limits.rates import Rate
from chat_sse.settings import Settings
from tests.conftest import QUICK
from tests.support import plain_http
from tests.support.redis_server import RedisServer
from tests.support.service import HELLO, RunningService, ask, events, serve, until
from tests.support.tokens import SECRET, bearer, token
from tests.support.upstream import Finish, Hold, Say, ScriptedUpstream

Start = Callable[..., RunningService]
KEY = "machine-0123456789abcdef"
# What HELLO may cost with an output of 100 tokens, and what the scripted upstream says it has cost.
WORST, USED = 256 + 16 + 6 + 100, 18


@pytest.fixture(params=["memory", "redis"])
def start(request: pytest.FixtureRequest, upstream: ScriptedUpstream) -> Iterator[Start]:
    """Starts services that know people, with names of variables in lower case and without their prefix."""
    with ExitStack() as stack:
        env = {**QUICK, "OPENAI_BASE_URL": upstream.base_url, "CHAT_SSE_JWT_KEY": SECRET}
        env |= {"CHAT_SSE_IDLE_TIMEOUT": "30"}
        if request.param == "redis":
            env["CHAT_SSE_REDIS_URL"] = stack.enter_context(RedisServer()).url

        def run(**settings: str) -> RunningService:
            named = {f"CHAT_SSE_{name.upper()}": value for name, value in settings.items()}
            return stack.enter_context(serve({**env, **named}))

        yield run


def as_(who: str, **more: Any) -> dict[str, str]:
    return bearer(token(who, key=None, aud=None, **more))


def me(service: RunningService, headers: dict[str, str]) -> dict[str, Any]:
    response = plain_http.get(f"{service.url}/me", headers=headers)
    assert response.status_code == 200, response.text
    found: dict[str, Any] = response.json()
    return found


def codes(responses: list[httpx2.Response]) -> list[str]:
    """Give what became of questions, in the order of the alphabet."""
    return sorted(one.json()["error"] if one.status_code != 200 else "ok" for one in responses)


def in_parallel(service: RunningService, *people: dict[str, str], each: int) -> list[list[httpx2.Response]]:
    """Ask as each of some people at the same time; gives each one's answers."""
    with ThreadPoolExecutor(len(people) * each) as pool:
        asked = [[pool.submit(ask, service.url, headers=one) for _ in range(each)] for one in people]
        return [[future.result() for future in futures] for futures in asked]


def test_two_people_at_one_address_have_a_rate_each(start: Start, upstream: ScriptedUpstream) -> None:
    service = start(rate_limit="3/hour")
    for answers in in_parallel(service, as_("ada"), as_("bob"), each=5):
        assert codes(answers) == ["ok"] * 3 + ["too_many_requests"] * 2
    assert codes([ask(service.url, headers=as_("ada", jti="another token"))]) == ["too_many_requests"]
    assert upstream.paid_calls == 6


def test_two_people_have_slots_each(start: Start, upstream: ScriptedUpstream) -> None:
    gate = threading.Event()
    upstream.answer(Say("Hi"), Hold(gate), Finish())
    service = start(max_streams_per_client="2")
    with ThreadPoolExecutor(4) as pool:
        held = [pool.submit(ask, service.url, headers=as_(who)) for who in ("ada", "bob") * 2]
        upstream.wait_for_calls(4)
        for who in ("ada", "bob"):
            assert me(service, as_(who))["streams"] == {"limit": 2, "left": 0}
            assert codes([ask(service.url, headers=as_(who))]) == ["too_many_streams"]
        assert me(service, as_("eve"))["streams"] == {"limit": 2, "left": 2}
        gate.set()
        assert codes([one.result() for one in held]) == ["ok"] * 4
    until(lambda: me(service, as_("ada"))["streams"]["left"] == 2)
    assert upstream.paid_calls == 4


def test_two_people_have_a_budget_each_which_no_parallel_questions_exceed(
    start: Start, upstream: ScriptedUpstream
) -> None:
    gate = threading.Event()
    upstream.answer(Say("Hi"), Hold(gate), Finish())
    service = start(token_budget=f"{2 * WORST}/day", max_output_tokens="100")
    with ThreadPoolExecutor(8) as pool:
        asked = [pool.submit(ask, service.url, headers=as_(who)) for who in ("ada", "bob") * 4]
        upstream.wait_for_calls(4)
        until(lambda: sum(one.done() for one in asked) == 4)
        assert me(service, as_("ada"))["tokens"]["left"] == 0
        gate.set()
        assert codes([one.result() for one in asked]) == ["budget_spent"] * 4 + ["ok"] * 4
    until(lambda: me(service, as_("ada"))["tokens"]["left"] == 2 * WORST - 2 * USED)
    assert me(service, as_("eve"))["tokens"]["left"] == 2 * WORST
    assert upstream.paid_calls == 4


def test_a_token_lowers_its_own_limits_and_never_raises_them(
    start: Start, upstream: ScriptedUpstream
) -> None:
    service = start(
        rate_limit="4/hour", token_budget="5000/day", max_output_tokens="100", models="small,large"
    )
    lower = {"rate": "2/hour", "tokens": f"{WORST + 1}/day", "models": ["large", "unknown"]}
    higher = {"rate": "400/hour", "tokens": "50000000/day", "models": ["small", "large", "huge"]}
    low, high = as_("low", chat_sse=lower), as_("high", chat_sse=higher)
    told = me(service, low)
    assert (told["models"], told["requests"]["limit"], told["tokens"]["limit"]) == (["large"], 2, WORST + 1)
    told = me(service, high)
    assert told["models"] == ["small", "large"]
    assert (told["requests"]["limit"], told["tokens"]["limit"]) == (4, 5000)
    assert upstream.calls == []
    assert codes([ask(service.url, {**HELLO, "model": "small"}, headers=low)]) == ["invalid_request"]
    assert events(ask(service.url, headers=low))[0]["model"] == "large"
    assert codes([ask(service.url, headers=low)]) == ["too_many_requests"]
    assert codes([ask(service.url, headers=high) for _ in range(5)]) == ["ok"] * 4 + ["too_many_requests"]
    assert codes([ask(service.url, headers=as_("none", chat_sse={"models": []}))]) == ["invalid_request"]


def test_a_rate_of_a_tokens_own_window_counts_beside_the_services(
    start: Start, upstream: ScriptedUpstream
) -> None:
    service = start(rate_limit="2/minute", token_budget="off", token_budget_total="off")
    daily = as_("ada", chat_sse={"rate": "3/day", "tokens": f"{4096 + 280}/month"})
    assert me(service, daily)["requests"]["left"] == 2
    assert me(service, daily)["tokens"] is not None
    assert codes([ask(service.url, headers=daily)]) == ["ok"]
    assert codes([ask(service.url, headers=daily)]) == ["budget_spent"]  # it might cost more than is left


@pytest.mark.parametrize(
    ("own", "rates", "budgets"),
    [
        (OwnLimits(), ["5/60"], ["1000/day"]),
        (OwnLimits(rate=Rate(3, 60), budget=Budget(900, "day")), ["3/60"], ["900/day"]),
        (OwnLimits(rate=Rate(9, 60), budget=Budget(9000, "day")), ["5/60"], ["1000/day"]),
        (
            OwnLimits(rate=Rate(1, 1), budget=Budget(9000, "month")),
            ["1/1", "5/60"],
            ["9000/month", "1000/day"],
        ),
    ],
)
def test_the_smallest_of_a_window_counts(own: OwnLimits, rates: list[str], budgets: list[str]) -> None:
    counts = Plan(rate=Rate(5, 60), budget=Budget(1000, "day")).of("jwt:ada", own)
    assert [f"{one.limit.amount}/{one.limit.seconds}" for one in counts.requests] == rates
    assert [f"{one.limit.tokens}/{one.limit.period}" for one in counts.budgets] == budgets


def test_one_person_does_not_have_all_that_everybody_has_and_a_key_may(upstream: ScriptedUpstream) -> None:
    env = {**QUICK, "OPENAI_BASE_URL": upstream.base_url, "CHAT_SSE_JWT_KEY": SECRET}
    env |= {"CHAT_SSE_RATE_LIMIT_TOTAL": "8/hour", "CHAT_SSE_API_KEYS": f"robot:{KEY}"}
    with serve(env) as service:
        assert codes([ask(service.url, headers=as_("ada")) for _ in range(5)]) == ["ok"] * 4 + [
            "too_many_requests"
        ]
        assert codes([ask(service.url, headers=bearer(KEY)) for _ in range(4)]) == ["ok"] * 4


def test_bad_tokens_count_for_their_address_and_take_nothing_from_the_people_there(
    upstream: ScriptedUpstream,
) -> None:
    env = {**QUICK, "OPENAI_BASE_URL": upstream.base_url, "CHAT_SSE_JWT_KEY": SECRET}
    with serve({**env, "CHAT_SSE_RATE_LIMIT": "3/hour"}) as service:
        bad = bearer(token(key=None, secret="x" * 32))
        assert [ask(service.url, headers=bad).status_code for _ in range(5)] == [401] * 3 + [429] * 2
        assert ask(service.url, headers=as_("ada")).status_code == 200


# GET /me


def test_looking_where_one_stands_counts_nothing(upstream: ScriptedUpstream) -> None:
    env = {**QUICK, "OPENAI_BASE_URL": upstream.base_url, "CHAT_SSE_API_KEYS": f"robot:{KEY}"}
    with serve({**env, "CHAT_SSE_RATE_LIMIT": "2/hour"}) as service:
        for _ in range(5):
            told = me(service, bearer(KEY))
        assert told["requests"].pop("reset_seconds") <= 3600
        assert told["tokens"].pop("reset_seconds") <= 86_400
        assert told == {
            "name": "robot",
            "models": ["gpt-4o-mini"],
            "requests": {"limit": 2, "left": 2, "window_seconds": 3600},
            "streams": {"limit": 10_000, "left": 10_000},
            "tokens": {"limit": 1_000_000_000, "left": 1_000_000_000, "window_seconds": 86_400},
        }
        ask(service.url, headers=bearer(KEY))
        assert me(service, bearer(KEY))["requests"]["left"] == 1
        assert plain_http.get(f"{service.url}/me").status_code == 401
        foreign = {**bearer(KEY), "Origin": "https://evil.example"}
        assert plain_http.get(f"{service.url}/me", headers=foreign).status_code == 403


def test_a_person_is_called_by_its_name_where_the_token_has_one(upstream: ScriptedUpstream) -> None:
    env = {**QUICK, "OPENAI_BASE_URL": upstream.base_url, "CHAT_SSE_JWT_KEY": SECRET}
    with serve({**env, "CHAT_SSE_RATE_LIMIT": "off", "CHAT_SSE_RATE_LIMIT_TOTAL": "off"}) as service:
        told = me(service, as_("auth0|1815", name="Ada Lovelace"))
        assert (told["name"], told["requests"]) == ("Ada Lovelace", None)
        assert me(service, as_("auth0|1815", name=["?"]))["name"] == "auth0|1815"


# A proxy that has logged its people in


def test_a_trusted_proxy_names_people_and_nobody_else_does(upstream: ScriptedUpstream) -> None:
    env = {**QUICK, "OPENAI_BASE_URL": upstream.base_url, "CHAT_SSE_USER_HEADER": "X-Forwarded-User"}
    env |= {"CHAT_SSE_RATE_LIMIT": "6/hour"}
    with serve({**env, "CHAT_SSE_TRUSTED_PROXIES": "127.0.0.1"}) as service:
        assert "as X-Forwarded-User of 127.0.0.1 says" in service.log()
        ada, bob = ({"X-Forwarded-User": f"{who}@example.org"} for who in ("ada", "bob"))
        for answers in in_parallel(service, ada, bob, each=7):
            assert codes(answers) == ["ok"] * 6 + ["too_many_requests"]
        assert me(service, ada)["name"] == "ada@example.org"
        # oauth2-proxy may pass one of these on; without keys and tokens it is not for us.
        for other in ("Basic eDp5", "Bearer of.the.proxy"):
            assert me(service, {**ada, "Authorization": other})["name"] == "ada@example.org"
        for nobody in (
            {},
            {"X-Forwarded-User": ""},
            {"X-User": "ada@example.org"},
            [("X-Forwarded-User", "ada@example.org"), ("X-Forwarded-User", "bob@example.org")],
            {"X-Forwarded-User": "x" * 300},
            {"Authorization": "Bearer wrong"},
        ):
            response = plain_http.get(f"{service.url}/me", headers=nobody)
            assert (response.status_code, response.json()["accepts"]) == (401, ["proxy"])
        service.wait_for_log("path=/me status=200 client=proxy:ada@example.org")
    with serve({**env, "CHAT_SSE_TRUSTED_PROXIES": "10.0.0.0/8"}) as service:
        forged = {**ada, "X-Forwarded-For": "10.0.0.1"}
        assert plain_http.get(f"{service.url}/me", headers=forged).status_code == 401
    with serve(
        {**env, "CHAT_SSE_TRUSTED_PROXIES": "10.0.0.0/8", "CHAT_SSE_MAY_ASK": "proxy,anonymous"}
    ) as service:
        assert me(service, ada)["name"] is None
    assert upstream.paid_calls == 12


def test_a_person_of_a_proxys_and_one_of_a_token_are_two_even_with_one_name(
    upstream: ScriptedUpstream,
) -> None:
    env = {**QUICK, "OPENAI_BASE_URL": upstream.base_url, "CHAT_SSE_JWT_KEY": SECRET}
    env |= {"CHAT_SSE_USER_HEADER": "Remote-User", "CHAT_SSE_TRUSTED_PROXIES": "127.0.0.1"}
    env |= {"CHAT_SSE_API_KEYS": f"ada:{KEY}"}
    with serve(env) as service:
        ways = [as_("ada"), {"Remote-User": "ada"}, bearer(KEY)]
        paths = [ask(service.url, headers=way).headers["content-location"] for way in ways]
        found = [
            [plain_http.get(service.url + path, headers=way).status_code for path in paths] for way in ways
        ]
    assert found == [[200, 404, 404], [404, 200, 404], [404, 404, 200]]


# An application around the service


@pytest.mark.parametrize(("may_ask", "strangers"), [((), 401), (("keys", "jwt", "anonymous"), 200)])
def test_an_applications_people_come_in_beside_keys_and_tokens(
    may_ask: tuple[str, ...], strangers: int
) -> None:
    async def authenticate(request: Request) -> Principal | None:
        user = request.headers.get("x-session")
        return Principal.named(user) if user else None

    settings = Settings(
        openai_base_url="http://127.0.0.1:9/v1", api_keys=(f"robot:{KEY}",), jwt_key=SECRET, may_ask=may_ask
    )
    with TestClient(
        ChatService(settings, authenticate=authenticate).app, base_url="http://localhost"
    ) as client:
        for headers, name in (
            ({"X-Session": "a/b"}, "a/b"),
            (bearer(KEY), "robot"),
            (as_("ada"), "ada"),
            ({"X-Session": "eve", **as_("ada")}, "ada"),
            ({"X-Session": "eve", **bearer("of.the.application")}, "eve"),
        ):
            assert client.get("/me", headers=headers).json()["name"] == name
        assert client.get("/me").status_code == strangers
        assert client.get("/me", headers=bearer("wrong")).status_code == 401
    assert "/" not in Principal.named("a/b").owner  # which names of questions begin with
