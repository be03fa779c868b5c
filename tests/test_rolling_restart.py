"""Two processes behind a proxy, set up as the README shows it: what a restart and a crash cost."""

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path
from uuid import uuid4

import httpx2
import msgspec
import pytest

from tests.conftest import QUICK
from tests.support import plain_http
from tests.support.ports import free_port
from tests.support.redis_server import RedisServer
from tests.support.reverse_proxies import replace, run_shown, shown
from tests.support.service import RunningService, ask, events, serve, text_of, until
from tests.support.streams import Reader, asking, check_all
from tests.support.upstream import Finish, Hold, Pause, Say, ScriptedUpstream, Silence

# What asks a refused question at the next process; Caddy has nothing like it.
NEXT = {
    "nginx": "proxy_next_upstream error http_503 non_idempotent;",
    "haproxy": "retry-on conn-failure empty-response 503",
}
WITH_TIMEOUT = {
    "nginx": NEXT["nginx"].replace("error", "error timeout"),
    "haproxy": f"{NEXT['haproxy']} response-timeout",
}
CLOCK = {"nginx": "proxy_read_timeout 630s", "haproxy": "timeout server 630s"}
ASKERS = 6
# A thousand take a minute: CHAT_SSE_TEST_QUESTIONS=1000.
QUESTIONS = int(os.environ.get("CHAT_SSE_TEST_QUESTIONS", "200"))
AT_ONCE, MAX_CONNECTIONS = 20, 20

Start = Callable[..., RunningService]
Run = Callable[[str, str], AbstractContextManager[str]]


@pytest.fixture(scope="module")
def ports() -> list[int]:
    return [free_port(), free_port()]


@pytest.fixture
def start(redis_server: RedisServer, ports: list[int], upstream: ScriptedUpstream) -> Iterator[Start]:
    """Starts one of the two processes."""
    env = {
        **QUICK,
        "CHAT_SSE_SHUTDOWN_GRACE": "20",
        "CHAT_SSE_IDLE_TIMEOUT": "30",
        "OPENAI_BASE_URL": upstream.base_url,
        "CHAT_SSE_REDIS_URL": redis_server.url,
    }
    with ExitStack() as stack:
        yield lambda which, **more: stack.enter_context(
            serve({**env, **more, "CHAT_SSE_PORT": str(ports[which])})
        )


@pytest.fixture
def run(ports: list[int], tmp_path: Path) -> Run:
    """Runs a proxy in front of both, with a configuration that holds the README's addresses."""

    def run(proxy: str, config: str) -> AbstractContextManager[str]:
        port = free_port()
        behind = [f"127.0.0.1:{port}" for port in ports]
        return run_shown(proxy, config, tmp_path / str(port), port=port, upstreams=behind)

    return run


@pytest.mark.parametrize("proxy", NEXT)
def test_a_rolling_restart_costs_no_client_its_answer(
    start: Start, run: Run, upstream: ScriptedUpstream, proxy: str
) -> None:
    with run(proxy, shown(proxy)) as url:
        answers = restart_both(start, upstream, url)
    assert {text_of(events(answer)) for answer in answers} == {"to the end"}
    assert {events(answer)[-1]["finish_reason"] for answer in answers} == {"stop"}
    assert upstream.paid_calls == len(answers)


def test_behind_caddy_a_rolling_restart_refuses_some_questions_for_a_second_and_cuts_no_answer(
    start: Start, run: Run, upstream: ScriptedUpstream
) -> None:
    with run("caddy", shown("caddy")) as url:
        answers = restart_both(start, upstream, url)
        assert ask(url).status_code == 200
    whole = [answer for answer in answers if answer.status_code == 200]
    assert {answer.status_code for answer in answers} <= {200, 502, 503}
    assert {text_of(events(answer)) for answer in whole} == {"to the end"}
    assert upstream.paid_calls == len(whole) + 1


def restart_both(start: Start, upstream: ScriptedUpstream, url: str) -> list[httpx2.Response]:
    """Restart two processes one after the other, while some clients keep asking."""
    upstream.answer(*(step for word in ("to ", "the ", "end") for step in (Say(word), Pause(0.05))), Finish())
    running, enough = [start(0), start(1)], threading.Event()
    answers: list[httpx2.Response] = []

    def keep_asking() -> None:
        while not enough.is_set():
            answers.append(ask(url))

    until(lambda: plain_http.get(f"{url}/readyz").status_code == 200)
    with ThreadPoolExecutor(ASKERS) as pool:
        asked = [pool.submit(keep_asking) for _ in range(ASKERS)]
        try:
            for which in (0, 1):
                wait_for_more(answers, 2 * ASKERS)
                assert running[which].terminate() == 0
                wait_for_more(answers, ASKERS)
                start(which)
            until(lambda: [answer.status_code for answer in answers[-2 * ASKERS :]] == [200] * 2 * ASKERS)
        finally:
            enough.set()
        for one in asked:
            one.result(30)
    return answers


class At(msgspec.Struct, frozen=True):
    """Where readers ask."""

    url: str


@pytest.mark.timeout(240)
def test_a_rolling_restart_under_load_loses_no_answer_whose_readers_move(
    start: Start, run: Run, upstream: ScriptedUpstream
) -> None:
    words = [f"w{number} " for number in range(12)]
    upstream.answer(*(step for word in words for step in (Say(word), Pause(0.05))), Finish())
    moving = {"CHAT_SSE_MAX_CONNECTION_AGE": "0.4", "CHAT_SSE_DISCONNECT_GRACE": "20"}
    moving |= {"CHAT_SSE_SHUTDOWN_DELAY": "0.5"}
    running = [start(0, **moving), start(1, **moving)]
    readers: list[Reader] = []
    enough = threading.Event()

    def keep_asking(place: At) -> None:
        while not enough.is_set():
            reader = Reader(f"question {uuid4()}")
            readers.append(reader)
            while not reader.is_ended and len(reader.statuses) < MAX_CONNECTIONS:
                if reader.last_id is None:
                    reader.ask(place)
                else:
                    reader.come_back(place)

    with run("nginx", shown("nginx")) as url, ThreadPoolExecutor(AT_ONCE) as pool:
        asked = [pool.submit(keep_asking, At(url)) for _ in range(AT_ONCE)]
        try:
            for which in (0, 1):
                wait_for_more(readers, AT_ONCE)
                assert running[which].terminate() == 0
                wait_for_more(readers, AT_ONCE)
                start(which, **moving)
            until(lambda: len(readers) >= QUESTIONS, 120)
        finally:
            enough.set()
        for one in asked:
            one.result(60)
    asked_in_all = len(readers)
    check_all(readers, "".join(words), paid_calls=upstream.paid_calls, questions=asked_in_all)
    ends = [reader.found[-1] for reader in readers]
    moves = sum(len(reader.statuses) - 1 for reader in readers)
    lost = [end for end in ends if end[1].get("finish_reason") != "stop"]
    print(f"\n{len(lost)} of {asked_in_all} answers lost, {moves} times a reader came back")  # noqa: T201
    assert lost == []
    assert moves >= asked_in_all


def wait_for_more(answers: Sequence[object], count: int) -> None:
    wanted, deadline = len(answers) + count, time.monotonic() + 15
    while len(answers) < wanted:
        assert time.monotonic() < deadline
        time.sleep(0.02)


@pytest.mark.parametrize("proxy", NEXT)
def test_a_question_that_meets_a_draining_process_is_asked_at_the_next_one_by_this_line_alone(
    start: Start, run: Run, upstream: ScriptedUpstream, proxy: str
) -> None:
    gate = threading.Event()
    upstream.answer_next(Say("Hel"), Hold(gate), Say("lo"), Finish())
    leaving, _ = start(0), start(1)
    with asking(leaving) as held:
        held.wait_for(b"Hel")
        leaving.process.send_signal(signal.SIGTERM)
        leaving.wait_for_log("relay.draining")
        with run(proxy, shown(proxy)) as url:
            assert [ask(url).status_code for _ in range(8)] == [200] * 8
        with run(proxy, replace(shown(proxy), NEXT[proxy], "")) as url:
            assert sorted(ask(url).status_code for _ in range(8)) == [200] * 4 + [503] * 4
        gate.set()
        assert held.last_event()["finish_reason"] == "stop"
    assert upstream.paid_calls == 1 + 8 + 4


@pytest.mark.parametrize("proxy", NEXT)
@pytest.mark.parametrize("with_timeout", [False, True])
def test_a_slow_answer_is_not_asked_for_again_which_timeout_would_do(
    start: Start, run: Run, upstream: ScriptedUpstream, proxy: str, with_timeout: bool
) -> None:
    upstream.answer(Say("Hel"), Silence())
    start(0), start(1)
    config = replace(shown(proxy), CLOCK[proxy], CLOCK[proxy].replace("630s", "1s"))
    if with_timeout:
        config = replace(config, NEXT[proxy], WITH_TIMEOUT[proxy])
    with run(proxy, config) as url:
        assert ask(url, params={"format": "json"}).status_code == 504
    assert (upstream.paid_calls > 1) is with_timeout


@pytest.mark.parametrize("proxy", NEXT)
@pytest.mark.parametrize(("has_key", "paid"), [(True, 1), (False, 2)])
def test_a_question_whose_process_is_killed_is_paid_once_if_it_has_a_key(
    start: Start, run: Run, upstream: ScriptedUpstream, proxy: str, has_key: bool, paid: int
) -> None:
    gate = threading.Event()
    upstream.answer_next(Hold(gate), Finish())
    upstream.answer(Say("Hello"), Finish())
    doomed, _ = start(0), start(1)
    headers = {"Idempotency-Key": f"behind {proxy}"} if has_key else {}
    with run(proxy, shown(proxy)) as url, ThreadPoolExecutor(1) as pool:
        asked = pool.submit(ask, url, headers=headers)
        upstream.wait_for_calls(1)
        doomed.process.send_signal(signal.SIGKILL)  # they begin with the first
        gate.set()
        last = events(asked.result(30))[-1]
    if has_key:
        assert (last["error"], last["retryable"]) == ("internal_error", True)
    else:
        assert last["finish_reason"] == "stop"
    assert upstream.paid_calls == paid
