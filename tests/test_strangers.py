"""One stranger cannot close the service for everybody with a handful of networks."""

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from typing import Any

import httpx2
import pytest

from chat_sse.limits.budget import Budget
from chat_sse.limits.plan import EVERYBODY, Plan
from chat_sse.limits.rates import Rate
from tests.conftest import QUICK
from tests.support import plain_http
from tests.support.redis_server import RedisServer
from tests.support.service import HELLO, RunningService, ask, serve
from tests.support.upstream import Finish, Hold, Refuse, Say, ScriptedUpstream, Silence

FRIEND = {"X-Forwarded-For": "198.51.100.1"}


@pytest.fixture(params=["memory", "redis"])
def starting(
    request: pytest.FixtureRequest, upstream: ScriptedUpstream
) -> Iterator[Callable[..., RunningService]]:
    """Starts services behind a proxy, with names of variables in lower case and without their prefix."""
    with ExitStack() as stack:
        env = {**QUICK, "OPENAI_BASE_URL": upstream.base_url, "CHAT_SSE_TRUSTED_PROXIES": "127.0.0.1"}
        if request.param == "redis":
            env["CHAT_SSE_REDIS_URL"] = stack.enter_context(RedisServer()).url

        def start(**settings: str) -> RunningService:
            named = {f"CHAT_SSE_{name.upper()}": value for name, value in settings.items()}
            return stack.enter_context(serve({**env, **named}))

        yield start


def network(number: int) -> dict[str, str]:
    """One of the 65,536 /64s in one /48."""
    return {"X-Forwarded-For": f"2001:db8:1:{number:x}::1"}


def code(response: httpx2.Response) -> str:
    return str(response.json()["error"]) if response.status_code != 200 else "ok"


def test_malformed_and_refused_questions_leave_everybodys_rate(
    starting: Callable[..., RunningService], upstream: ScriptedUpstream
) -> None:
    service = starting(rate_limit="20/hour", rate_limit_total="20/hour")
    for number in range(30):
        stranger = {"X-Forwarded-For": f"203.0.113.{number}"}
        assert code(ask(service.url, {"messages": []}, headers=stranger)) == "invalid_request"
        assert code(ask(service.url, {**HELLO, "model": "other"}, headers=stranger)) == "invalid_request"
    upstream.answer(Refuse(400))
    for number in range(30):  # by upstream, which is not paid for it
        stranger = {"X-Forwarded-For": f"203.0.113.{number}"}
        assert code(ask(service.url, headers=stranger)) == "invalid_request_error"
    upstream.answer(Say("Hi"), Finish())
    assert [code(ask(service.url, headers=FRIEND)) for _ in range(10)] == ["ok"] * 10


def test_a_site_of_many_networks_has_a_share_of_everybodys_rate(
    starting: Callable[..., RunningService],
) -> None:
    service = starting(rate_limit="3/hour", rate_limit_total="40/hour")
    codes = [code(ask(service.url, {"messages": []}, headers=network(number))) for number in range(20)]
    assert codes == ["invalid_request"] * 12 + ["too_many_requests"] * 8  # four times a client's
    assert "per IPv6 /48 network" in ask(service.url, headers=network(99)).json()["details"]
    assert code(ask(service.url, headers=FRIEND)) == "ok"


def test_no_address_and_no_site_has_more_than_its_share_of_the_rate(
    starting: Callable[..., RunningService],
) -> None:
    service = starting(rate_limit="off", rate_limit_total="8/hour", max_share="25")
    assert [code(ask(service.url, headers=FRIEND)) for _ in range(3)] == ["ok", "ok", "too_many_requests"]
    codes = [code(ask(service.url, headers=network(number))) for number in range(4)]
    assert codes == ["ok", "ok", "too_many_requests", "too_many_requests"]


def test_stopped_questions_of_many_networks_leave_everybodys_day(
    starting: Callable[..., RunningService], upstream: ScriptedUpstream
) -> None:
    upstream.answer(Say("Hi"), Silence())
    service = starting(max_output_tokens="50000", token_budget="60000/day", token_budget_total="200000/day")
    for number in range(12):
        taken = ask(service.url, headers={**network(number), "Prefer": "respond-async"})
        assert taken.status_code in (202, 429)
        if taken.status_code == 202:
            path = taken.headers["Content-Location"]
            assert plain_http.delete(service.url + path, headers=network(number)).status_code == 204
    upstream.answer(Say("Hi"), Finish())
    assert code(ask(service.url, headers=FRIEND)) == "ok"


def test_no_site_reserves_more_than_its_share_of_the_budget(
    starting: Callable[..., RunningService], upstream: ScriptedUpstream
) -> None:
    upstream.answer(Say("Hi"), Silence())
    service = starting(
        max_output_tokens="10000",
        token_budget="off",
        token_budget_total="100000/day",
        idle_timeout="30",
        disconnect_grace="30",
    )
    asynchronous = {"Prefer": "respond-async"}
    asked = [ask(service.url, headers={**network(number), **asynchronous}) for number in range(6)]
    assert [response.status_code for response in asked] == [202] * 4 + [429] * 2
    assert asked[-1].json()["error"] == "budget_spent"
    alone = {"X-Forwarded-For": "203.0.113.1", **asynchronous}
    assert [ask(service.url, headers=alone).status_code for _ in range(5)] == [202] * 4 + [429]


def test_no_site_holds_more_than_its_share_of_the_slots(
    starting: Callable[..., RunningService], upstream: ScriptedUpstream
) -> None:
    gate = threading.Event()
    upstream.answer(Say("Hi"), Hold(gate), Finish())
    service = starting(max_streams="6", max_streams_per_client="6", disconnect_grace="30", idle_timeout="30")
    asked: list[Any] = [
        ask(service.url, headers={**network(number), "Prefer": "respond-async"}) for number in range(5)
    ]
    assert [response.status_code for response in asked] == [202] * 3 + [429] * 2
    assert code(asked[-1]) == "too_many_streams"
    with ThreadPoolExecutor() as pool:
        friend = pool.submit(ask, service.url, headers=FRIEND)
        upstream.wait_for_calls(4)
        gate.set()
        assert code(friend.result(20)) == "ok"


@pytest.mark.parametrize(
    ("client", "names"),
    [
        ("203.0.113.1", ["203.0.113.1"]),
        ("unknown", ["unknown"]),
        ("key:web", ["key:web"]),
        ("key:a/64", ["key:a/64"]),
        ("2001:db8:1:2::/64", ["2001:db8:1:2::/64", "2001:db8:1::/48"]),
    ],
)
def test_an_ipv6_client_counts_twice(client: str, names: list[str]) -> None:
    counts = Plan(rate=Rate(9, 60), budget=Budget(9, "day")).of(client)
    assert [count.name for count in counts.requests] == names
    assert [count.name for count in counts.budgets] == names
    assert [count.name for count in counts.slots] == [*names, EVERYBODY]


@pytest.mark.parametrize(
    ("own", "total", "address", "site"),
    [
        ("10/day", "200/day", ["10/day"], ["40/day"]),
        ("10/day", "40/day", ["10/day"], ["20/day"]),
        ("10/day", "10/day", ["5/day"], ["5/day"]),
        ("10/day", "100/month", ["10/day", "50/month"], ["40/day", "50/month"]),
        ("off", "10/day", ["5/day"], ["5/day"]),
        ("10/day", "off", ["10/day"], ["40/day"]),
        ("off", "off", [], []),
    ],
)
def test_an_address_and_a_site_have_the_smaller_of_their_budget_and_the_share(
    own: str, total: str, address: list[str], site: list[str]
) -> None:
    plan = Plan(budget=Budget.parse(own), budget_total=Budget.parse(total), share_percent=50)
    name = "2001:db8:1:2::/64"
    of_client = [count for count in plan.of(name).budgets if count.name != EVERYBODY]
    found = [(count.name, f"{count.limit.tokens}/{count.limit.period}") for count in of_client]
    assert found == [*((name, text) for text in address), *(("2001:db8:1::/48", text) for text in site)]
    of_key = [count.limit for count in plan.of("key:web").budgets if count.name != EVERYBODY]
    assert of_key == ([] if own == "off" else [Budget.parse(own)])
