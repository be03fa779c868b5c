"""The limits from outside: what a visitor who wants too much is told, and what the owner pays."""

import json
import signal
import socket
import threading
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import httpx2
import pytest

from chat_sse.limits.budget import TOKENS_PER_CONVERSATION, TOKENS_PER_MESSAGE
from tests.conftest import QUICK
from tests.support import plain_http
from tests.support.redis_server import RedisServer
from tests.support.service import HELLO, RunningService, ask, events, serve, until
from tests.support.upstream import Cut, Eof, Finish, Hold, Refuse, Reset, Say, ScriptedUpstream, Silence, Step

PROXY = {"CHAT_SSE_TRUSTED_PROXIES": "127.0.0.1"}
OUTPUT = 100
# What HELLO may cost with this output cap.
WORST = TOKENS_PER_CONVERSATION + TOKENS_PER_MESSAGE + len("Hello!") + OUTPUT
USED = 18  # what the scripted upstream reports


@contextmanager
def serving(upstream: ScriptedUpstream, **env: str) -> Iterator[RunningService]:
    """Run a service of this test's own, with names of variables in lower case and without their prefix."""
    named = {f"CHAT_SSE_{name.upper()}": value for name, value in env.items()}
    with serve({**QUICK, **PROXY, "OPENAI_BASE_URL": upstream.base_url, **named}) as running:
        yield running


def from_(address: str) -> dict[str, str]:
    return {"X-Forwarded-For": address}


def refused(response: httpx2.Response, status: int, code: str) -> httpx2.Response:
    assert (response.status_code, response.json()["error"]) == (status, code), response.text
    assert status == 413 or int(response.headers["retry-after"]) > 0
    return response


# Rates.


@pytest.mark.parametrize("is_shared", [False, True], ids=["memory", "redis"])
def test_over_the_rate_is_429_before_the_body_is_read_and_says_when_to_come_back(
    upstream: ScriptedUpstream, *, is_shared: bool
) -> None:
    with (
        RedisServer() as server,
        serving(upstream, **(sharing(server) if is_shared else {}), rate_limit="3/hour") as service,
    ):
        first = ask(service.url)
        assert first.headers["ratelimit"].startswith('"requests";r=2;t=')
        assert first.headers["ratelimit-policy"].startswith('"requests";q=3;w=3600, "tokens";q=')
        ask(service.url, {"messages": []})  # a bad question is one too
        assert plain_http.get(f"{service.url}/ask?q=Hi").status_code == 200
        big = {"messages": [{"role": "user", "content": "x" * 2_000_000}]}
        for response in (ask(service.url), ask(service.url, big), plain_http.get(f"{service.url}/ask?q=Hi")):
            refused(response, 429, "too_many_requests")
            assert response.headers["ratelimit"].startswith('"requests";r=0;t=')
            assert response.json()["retryable"] is True
        with socket.create_connection(("127.0.0.1", int(service.url.rpartition(":")[2])), 5) as head_alone:
            head_alone.sendall(
                b"POST /ask HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
                b"Content-Length: 1000\r\n\r\n"
            )
            assert head_alone.recv(1000).startswith(b"HTTP/1.1 429 ")
        assert ask(service.url, headers=from_("198.51.100.7")).status_code == 200  # another client
    assert upstream.paid_calls == 3


def test_rotating_the_forwarded_header_gains_nothing_unless_a_trusted_proxy_wrote_it(
    upstream: ScriptedUpstream,
) -> None:
    with serving(upstream, rate_limit="2/hour", trusted_proxies="10.0.0.0/8") as service:
        statuses = [ask(service.url, headers=from_(f"198.51.100.{n}")).status_code for n in range(6)]
        assert statuses == [200, 200, 429, 429, 429, 429]
    with serving(upstream, rate_limit="2/hour") as service:
        made_up = [from_(f"198.51.100.{n}, 203.0.113.9") for n in range(6)]
        assert [ask(service.url, headers=headers).status_code for headers in made_up] == [200] * 2 + [429] * 4
        for garbage in ("\xff", "," * 5000, "[", "::1::", "1.2.3.4, x"):
            assert ask(service.url, headers={"X-Forwarded-For": garbage.encode("latin-1")}).status_code in (
                200,
                429,
            )


def test_one_ipv6_network_is_one_client_and_many_networks_meet_the_rate_of_all(
    upstream: ScriptedUpstream,
) -> None:
    with serving(upstream, rate_limit="2/hour", rate_limit_total="5/hour") as service:
        same = [ask(service.url, headers=from_(f"2001:db8::{n}")).status_code for n in range(1, 5)]
        assert same == [200, 200, 429, 429]
        many = [ask(service.url, headers=from_(f"2001:db8:{n}::1")).status_code for n in range(1, 6)]
        assert many == [200, 200, 200, 429, 429]


def test_a_reader_that_comes_back_again_and_again_always_gets_its_paid_answer(
    upstream: ScriptedUpstream,
) -> None:
    with serving(upstream, rate_limit="1/hour") as service:
        key = {"Idempotency-Key": "mine"}
        answer = ask(service.url, headers=key)
        stream_id = events(answer)[0]["id"]
        refused(ask(service.url), 429, "too_many_requests")
        for _ in range(5):
            assert ask(service.url, headers=key).content == answer.content
            for place in (f"/ask/{stream_id}", f"/ask/{stream_id}?last_event_id={stream_id}.0"):
                assert plain_http.get(service.url + place).status_code == 200
            resumed = plain_http.get(f"{service.url}/ask", headers={"Last-Event-ID": f"{stream_id}.0"})
            assert resumed.status_code == 200
            assert plain_http.head(f"{service.url}/ask?q=Hi").status_code == 200
            assert plain_http.delete(f"{service.url}/ask/{stream_id}").status_code == 204
        refused(ask(service.url), 429, "too_many_requests")
    assert upstream.paid_calls == 1


def test_one_visitor_that_is_refused_does_not_use_up_what_the_others_have(upstream: ScriptedUpstream) -> None:
    with serving(upstream, rate_limit="2/hour", rate_limit_total="4/hour") as service:
        for _ in range(20):
            ask(service.url, headers=from_("203.0.113.66"))
        assert [ask(service.url, headers=from_("203.0.113.1")).status_code for _ in range(2)] == [200, 200]


# Slots.


def start_asking(service: RunningService, pool: ThreadPoolExecutor, **options: Any) -> Any:
    return pool.submit(ask, service.url, **options)


def until_free(service: RunningService, seconds: float = 10.0, **options: Any) -> httpx2.Response:
    """Ask until there is a slot; gives the answer."""
    deadline = time.monotonic() + seconds
    while (response := ask(service.url, **options)).status_code in (429, 503):
        assert time.monotonic() < deadline, response.text
        time.sleep(0.05)
    return response


ENDS: dict[str, tuple[Step, ...]] = {
    "done": (Say("Hi"), Finish()),
    "refused": (Refuse(400),),
    "rate limited": (Refuse(429, headers={"retry-after": "30"}),),
    "reset before the head": (Reset(),),
    "cut in the middle": (Say("Hi"), Cut()),
    "no finish reason": (Say("Hi"), Eof()),
    "silent from the start": (Silence(),),
    "silent in the middle": (Say("Hi"), Silence()),
}


@pytest.fixture(scope="module")
def narrow(upstream_port: int) -> Iterator[RunningService]:
    """A service with one slot a client."""
    env = {"OPENAI_BASE_URL": f"http://127.0.0.1:{upstream_port}/v1", "CHAT_SSE_MAX_STREAMS_PER_CLIENT": "1"}
    quick = {"CHAT_SSE_FIRST_TOKEN_TIMEOUT": "1", "CHAT_SSE_IDLE_TIMEOUT": "1"}
    with serve({**QUICK, **PROXY, **env, **quick}) as running:
        yield running


@pytest.mark.parametrize("end", ENDS)
def test_a_slot_is_free_again_however_upstream_ends(
    narrow: RunningService, upstream: ScriptedUpstream, end: str
) -> None:
    upstream.answer_next(*ENDS[end])
    ask(narrow.url)
    assert events(until_free(narrow, 2))[-1]["type"] == "done"


def test_a_second_answer_at_once_is_refused_and_another_client_is_not(
    narrow: RunningService, upstream: ScriptedUpstream
) -> None:
    gate = threading.Event()
    upstream.answer_next(Say("Hi"), Hold(gate), Finish())
    with ThreadPoolExecutor() as pool:
        running = start_asking(narrow, pool)
        upstream.wait_for_calls(1)
        refused(ask(narrow.url), 429, "too_many_streams")
        assert ask(narrow.url, headers=from_("203.0.113.9")).status_code == 200
        gate.set()
        assert running.result(10).status_code == 200
    assert until_free(narrow).status_code == 200


@pytest.mark.parametrize("before", [(), (Say("Hi"),)])
def test_a_slot_is_free_again_when_the_reader_leaves(
    narrow: RunningService, upstream: ScriptedUpstream, before: tuple[Step, ...]
) -> None:
    upstream.answer_next(*before, Silence())
    with pytest.raises(httpx2.ReadTimeout):
        plain_http.post(f"{narrow.url}/ask?format=text", json=HELLO, timeout=0.3)
    until_free(narrow)


def test_a_slot_is_free_again_after_a_stop(narrow: RunningService, upstream: ScriptedUpstream) -> None:
    upstream.answer_next(Say("Hi"), Silence())
    accepted = ask(narrow.url, headers={"Prefer": "respond-async"})
    assert accepted.status_code == 202
    refused(ask(narrow.url), 429, "too_many_streams")
    assert plain_http.delete(narrow.url + accepted.headers["content-location"]).status_code == 204
    until_free(narrow, 2)


def test_a_question_that_is_refused_a_slot_leaves_its_key_free(
    narrow: RunningService, upstream: ScriptedUpstream
) -> None:
    gate, key = threading.Event(), {"Idempotency-Key": "again"}
    upstream.answer_next(Say("Hi"), Hold(gate), Finish())
    with ThreadPoolExecutor() as pool:
        running = start_asking(narrow, pool)
        upstream.wait_for_calls(1)
        refused(ask(narrow.url, headers=key), 429, "too_many_streams")
        gate.set()
        running.result(10)
    assert events(until_free(narrow, headers=key))[-1]["type"] == "done"


def test_all_slots_taken_is_503_with_retry_after(upstream: ScriptedUpstream) -> None:
    gate = threading.Event()
    upstream.answer_next(Say("Hi"), Hold(gate), Finish())
    with serving(upstream, max_streams="1") as service, ThreadPoolExecutor() as pool:
        running = start_asking(service, pool)
        upstream.wait_for_calls(1)
        refused(ask(service.url, headers=from_("203.0.113.9")), 503, "overloaded")
        gate.set()
        running.result(10)
        until_free(service)


# Budgets.


def small(content: str = "Hello!") -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": content}], "max_output_tokens": OUTPUT}


def test_fifty_questions_at_once_cannot_spend_more_than_there_is(upstream: ScriptedUpstream) -> None:
    gate = threading.Event()
    upstream.answer(Say("Hi"), Hold(gate), Finish())
    budget = f"{4 * WORST - 1}/day"
    with (
        # No deadline may end an answer at the gate, which then settles, before all have asked.
        serving(upstream, token_budget_total=budget, max_output_tokens="500", idle_timeout="60") as service,
        ThreadPoolExecutor(50) as pool,
    ):
        asked = [pool.submit(ask, service.url, small(), headers=from_(f"203.0.113.{n}")) for n in range(50)]
        until(lambda: sum(future.done() for future in asked) >= 47, 50)
        gate.set()
        responses = [future.result(10) for future in asked]
        assert sorted(response.status_code for response in responses) == [200] * 3 + [429] * 47
        told = next(response for response in responses if response.status_code == 429)
        refused(told, 429, "budget_spent")
        assert 0 < int(told.headers["retry-after"]) <= 86_400
        assert told.headers["ratelimit"].startswith(f'"tokens";r={WORST - 1};t=')
        # Three answers have cost what upstream says, and not their worst.
        left = ask(service.url, small()).headers["ratelimit"]
        assert f'"tokens";r={4 * WORST - 1 - 3 * USED - WORST};t=' in left
    assert upstream.paid_calls == 4


BUDGET = 100_000


@pytest.fixture(scope="module")
def frugal(upstream_port: int) -> Iterator[RunningService]:
    """A service with a budget for each client."""
    env = {"OPENAI_BASE_URL": f"http://127.0.0.1:{upstream_port}/v1", "CHAT_SSE_FIRST_TOKEN_TIMEOUT": "1"}
    with serve({**QUICK, **PROXY, **env, "CHAT_SSE_TOKEN_BUDGET": f"{BUDGET}/month"}) as running:
        yield running


ADDRESSES = (f"198.51.100.{number}" for number in range(256))


@pytest.fixture
def me() -> dict[str, str]:
    """A client that has spent nothing yet."""
    return from_(next(ADDRESSES))


def spent(service: RunningService, me: dict[str, str]) -> int:
    """Ask once more, and read what had been spent before."""
    left = ask(service.url, small(), headers=me).headers["ratelimit"].split('"tokens";r=')[1]
    return BUDGET - int(left.split(";")[0]) - WORST


@pytest.mark.parametrize(
    ("script", "cost"),
    [
        ((Say("Hi"), Finish()), USED),
        ((Refuse(400),), 0),
        ((Refuse(503, headers={"retry-after": "30"}),), 0),
        ((Say("Hi"), Cut()), WORST),
        ((Reset(),), WORST),  # it may have been taken and paid for
        ((Silence(),), WORST),
    ],
)
def test_what_an_answer_cost_is_taken_and_the_rest_is_there_again(
    frugal: RunningService,
    upstream: ScriptedUpstream,
    me: dict[str, str],
    script: tuple[Step, ...],
    cost: int,
) -> None:
    upstream.answer_next(*script)
    ask(frugal.url, small(), headers=me)
    assert spent(frugal, me) == cost


def test_an_answer_without_usage_costs_its_prompt_and_its_bytes_at_the_most(
    frugal: RunningService, upstream: ScriptedUpstream, me: dict[str, str]
) -> None:
    upstream.answer_next(Say("Hi"), Finish(usage=None))
    ask(frugal.url, small(), headers=me)
    assert WORST - OUTPUT < spent(frugal, me) <= WORST


def test_a_stopped_answer_stays_at_its_most(
    frugal: RunningService, upstream: ScriptedUpstream, me: dict[str, str]
) -> None:
    upstream.answer_next(Say("Hi"), Silence())
    accepted = ask(frugal.url, small(), headers={**me, "Prefer": "respond-async"})
    plain_http.delete(frugal.url + accepted.headers["content-location"])
    assert spent(frugal, me) == WORST


def test_a_question_too_dear_for_the_whole_budget_is_told_so(upstream: ScriptedUpstream) -> None:
    with serving(upstream, token_budget="5000/day") as service:
        response = refused(ask(service.url, small("x" * 5_000)), 413, "payload_too_large")
        assert "the whole budget is 5000 a day" in response.json()["details"]
        assert ask(service.url, small()).status_code == 200
    assert upstream.paid_calls == 1


def test_attaching_takes_no_tokens_and_no_slot(upstream: ScriptedUpstream) -> None:
    with serving(upstream, token_budget=f"{WORST + USED}/day", max_output_tokens="100") as service:
        for _ in range(5):
            assert ask(service.url, small(), headers={"Idempotency-Key": "k"}).status_code == 200
        assert ask(service.url, small()).status_code == 200
    assert upstream.paid_calls == 2


# Caps.


def test_no_other_parameter_reaches_upstream_and_the_output_cap_always_does(
    upstream: ScriptedUpstream,
) -> None:
    greedy = {
        **HELLO,
        "n": 50,
        "best_of": 50,
        "stream": False,
        "stream_options": {"include_usage": False},
        "tools": [{"type": "function", "function": {"name": "f"}}],
        "tool_choice": "required",
        "functions": [],
        "logit_bias": {"50256": 100},
        "logprobs": True,
        "max_tokens": 1_000_000,
        "max_completion_tokens": 1_000_000,
        "max_output_tokens": 1_000_000,
        "reasoning_effort": "high",
        "service_tier": "priority",
        "store": True,
        "metadata": {"a": "b"},
        "user": "somebody else",
        "prediction": {"type": "content", "content": "x"},
        "modalities": ["text", "audio"],
        "web_search_options": {},
        "extra_body": {"n": 50},
        "api_key": "sk-other",
        "base_url": "http://127.0.0.1:1",
    }
    greedy["messages"] = [{**HELLO["messages"][0], "name": "root", "tool_calls": [{}], "audio": {"id": "x"}}]
    with serving(upstream, max_output_tokens="300") as service:
        assert ask(service.url, greedy).status_code == 200
        query = "&".join(f"{name}=50" for name in greedy if name != "messages")
        assert plain_http.get(f"{service.url}/ask?q=Hello!&{query}").status_code == 200
    expected = {
        "model": "gpt-4o-mini",
        "messages": HELLO["messages"],
        "stream": True,
        "stream_options": {"include_usage": True},
        "max_tokens": 300,
    }
    assert [call.body for call in upstream.calls] == [expected, expected]


def test_text_images_and_query_strings_are_capped(upstream: ScriptedUpstream) -> None:
    with serving(upstream, max_chars="1000", max_messages="3", max_body_bytes="4096") as service:
        turn = {"role": "user", "content": "x" * 500}
        part = {"role": "user", "content": [{"type": "text", "text": "y" * 501}]}
        assert ask(service.url, {"messages": [turn, turn]}).status_code == 200
        assert ask(service.url, {"messages": [turn, part]}).json()["error"] == "payload_too_large"
        assert ask(service.url, {"messages": [turn, part]}).status_code == 413
        short = json.dumps([{"role": "user", "content": "x"}] * 4)
        for params, status in (
            ({"q": "x" * 1_000}, 200),
            ({"q": "x" * 1_001}, 413),
            ({"q": "世" * 1_000}, 413),  # percent-encoded it is too many bytes
            ({"messages": short}, 400),
            ({"q": "x", "padding": "x" * 5_000}, 413),
        ):
            assert plain_http.get(f"{service.url}/ask", params=params).status_code == status, status
            assert plain_http.head(f"{service.url}/ask", params=params).status_code == status
    assert upstream.paid_calls == 2


def test_a_conversation_that_is_too_long_is_told_so_or_its_newest_turns_are_taken(
    upstream: ScriptedUpstream,
) -> None:
    turns = [{"role": ("user", "assistant")[n % 2], "content": f"turn {n}"} for n in range(9)]
    small = {"max_messages": "4", "max_chars": "100"}
    with serving(upstream, **small) as service:
        for messages, status in ((turns, 400), ([{"role": "user", "content": "x" * 60}] * 2, 413)):
            refusal = ask(service.url, {"messages": messages})
            assert refusal.status_code == status
            assert refusal.json()["content"].startswith("This conversation has grown too long")
    assert upstream.calls == []
    with serving(upstream, **small, long_conversations="newest") as service:
        long = {"role": "user", "content": "x" * 96}
        cases = {
            "by number": (turns, turns[6:]),  # the fourth from the end is the assistant's
            "by length": ([*turns, long], [long]),
            "all fit": (turns[:3], turns[:3]),
            "a greeting": (turns[1:4], turns[1:4]),
        }
        for messages, taken in cases.values():
            assert ask(service.url, {"messages": messages}).status_code == 200
            assert upstream.calls[-1].body["messages"] == taken
        too_long = ask(service.url, {"messages": [*turns, {"role": "user", "content": "x" * 101}]})
        assert (too_long.status_code, too_long.json()["error"]) == (413, "payload_too_large")


def test_a_setting_lets_clients_send_system_messages_after_the_servers_prompt(
    upstream: ScriptedUpstream,
) -> None:
    system = {"role": "system", "content": "Answer in verse."}
    developer = {"role": "developer", "parts": [{"type": "text", "text": "Rhyme."}]}
    users = [{"role": "user", "content": f"turn {n}"} for n in range(6)]
    allowing = {"system_messages": "allow", "system_prompt": "Be kind.", "max_messages": "3"}
    with serving(upstream, **allowing, long_conversations="newest") as service:
        assert ask(service.url, {"messages": [system, developer, *users]}).status_code == 200
        empty = ask(service.url, {"messages": [{**system, "content": " "}, *users]})
        assert (empty.status_code, empty.json()["error"]) == (400, "invalid_request")
    sent = [(turn["role"], turn["content"]) for turn in upstream.calls[0].body["messages"]]
    assert sent == [
        ("system", "Be kind."),
        ("system", "Answer in verse."),
        ("developer", "Rhyme."),
        ("user", "turn 5"),
    ]
    with serving(upstream) as service:
        refusal = ask(service.url, {"messages": [users[0], system]})
        assert refusal.status_code == 400
        assert "CHAT_SSE_SYSTEM_PROMPT" in refusal.json()["details"]
        assert "$.messages[1].role" in refusal.json()["details"]


def test_a_setting_keeps_urls_from_a_model_server_that_would_fetch_them(upstream: ScriptedUpstream) -> None:
    pixel = "data:image/png;base64,iVBORw0KGgo="
    with serving(upstream, image_urls="data") as service:
        for url, status in ((pixel, 200), ("https://169.254.169.254/latest/meta-data", 400)):
            openai_part = {"type": "image_url", "image_url": {"url": url}}
            ui_part = {"type": "file", "mediaType": "image/png", "url": url}
            attachment = {"contentType": "image/png", "url": url}
            for turn in (
                {"content": [{"type": "text", "text": "What?"}, openai_part]},
                {"parts": [{"type": "text", "text": "What?"}, ui_part]},
                {"content": "What?", "experimental_attachments": [attachment]},
            ):
                response = ask(service.url, {"messages": [{"role": "user", **turn}]})
                assert response.status_code == status
        assert response.json()["details"] == "Expected images as `data:image/` URLs - at `$.messages`"
    assert upstream.paid_calls == 3


# Several processes.


@pytest.fixture
def redis_server() -> Iterator[RedisServer]:
    """A Redis for one test: a process that is killed at a test's end leaves its leases there."""
    with RedisServer() as server:
        yield server


def sharing(server: RedisServer, **env: str) -> Mapping[str, str]:
    return {"redis_url": server.url, **env}


def test_a_killed_process_gives_its_slots_back_within_seconds(
    upstream: ScriptedUpstream, redis_server: RedisServer
) -> None:
    upstream.answer_next(Say("Hi"), Silence())
    settings = sharing(redis_server, max_streams="1", disconnect_grace="60", idle_timeout="60")
    with serving(upstream, **settings) as left, serving(upstream, **settings) as right:
        assert ask(left.url, headers={"Prefer": "respond-async"}).status_code == 202
        refused(ask(right.url), 503, "overloaded")
        left.process.send_signal(signal.SIGKILL)
        began = time.monotonic()
        until_free(right, 15)
        assert time.monotonic() - began < 10


def test_a_process_that_is_told_to_stop_frees_its_slots_at_once(
    upstream: ScriptedUpstream, redis_server: RedisServer
) -> None:
    upstream.answer_next(Say("Hi"), Silence())
    settings = sharing(redis_server, max_streams="1", disconnect_grace="60", idle_timeout="60")
    with serving(upstream, **settings, shutdown_grace="0.2") as left, serving(upstream, **settings) as right:
        assert ask(left.url, headers={"Prefer": "respond-async"}).status_code == 202
        refused(ask(right.url), 503, "overloaded")
        assert left.terminate() == 0
        assert ask(right.url).status_code == 200


@pytest.mark.parametrize("end", ["done", "refused", "cut in the middle", "silent in the middle"])
def test_a_slot_in_redis_is_free_again_for_the_other_process(
    upstream: ScriptedUpstream, redis_server: RedisServer, end: str
) -> None:
    upstream.answer_next(*ENDS[end])
    settings = sharing(redis_server, max_streams_per_client="1", idle_timeout="1")
    with serving(upstream, **settings) as left, serving(upstream, **settings) as right:
        asked = ask(left.url)
        assert asked.status_code == (500 if end == "refused" else 200)
        until_free(right, 3)


def test_two_processes_spend_one_budget_and_count_one_rate(
    upstream: ScriptedUpstream, redis_server: RedisServer
) -> None:
    gate = threading.Event()
    upstream.answer(Say("Hi"), Hold(gate), Finish())
    settings = sharing(redis_server, token_budget=f"{4 * WORST - 1}/day", max_output_tokens="500")
    with (
        serving(upstream, **settings) as left,
        serving(upstream, **settings) as right,
        ThreadPoolExecutor(40) as pool,
    ):
        sides = (left, right)
        asked = [pool.submit(ask, sides[n % 2].url, small()) for n in range(40)]
        deadline = time.monotonic() + 20
        while sum(future.done() for future in asked) < 37:
            assert time.monotonic() < deadline
            time.sleep(0.02)
        gate.set()
        statuses = sorted(future.result(10).status_code for future in asked)
        assert statuses == [200] * 3 + [429] * 37
    assert upstream.paid_calls == 3


def test_without_redis_questions_are_refused_and_the_service_recovers(upstream: ScriptedUpstream) -> None:
    with RedisServer() as server, serving(upstream, **sharing(server)) as service:
        assert ask(service.url).status_code == 200
        server.kill()
        began = time.monotonic()
        refused(ask(service.url), 503, "log_unavailable")
        assert time.monotonic() - began < 4
        server.start()
        assert until_free(service).status_code == 200
    assert upstream.paid_calls == 2
