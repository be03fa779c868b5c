"""Two processes behind nginx, set up as the README shows it: what a restart and a crash cost."""

import signal
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path

import httpx2
import pytest

from tests.conftest import QUICK
from tests.support.nginx import run_nginx
from tests.support.ports import free_port
from tests.support.readme import code_block
from tests.support.redis_server import RedisServer
from tests.support.service import RunningService, ask, events, serve, text_of
from tests.support.streams import asking
from tests.support.upstream import Finish, Hold, Pause, Say, ScriptedUpstream, Silence

SHOWN = code_block("nginx", "upstream ")
NEXT = "proxy_next_upstream error http_503 non_idempotent;"
ASKERS = 6

Start = Callable[[int], RunningService]
Nginx = Callable[[str], AbstractContextManager[str]]


@pytest.fixture(scope="module")
def redis_server() -> Iterator[RedisServer]:
    with RedisServer() as server:
        yield server


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
        yield lambda which: stack.enter_context(serve({**env, "CHAT_SSE_PORT": str(ports[which])}))


@pytest.fixture
def nginx(ports: list[int], tmp_path: Path) -> Nginx:
    """Runs nginx in front of both, with a configuration that holds the README's ports."""

    def run(config: str) -> AbstractContextManager[str]:
        port = free_port()
        config = config.replace("listen 80;", f"listen 127.0.0.1:{port};")
        for shown, real in zip((8001, 8002), ports, strict=True):
            config = config.replace(f"127.0.0.1:{shown} ", f"127.0.0.1:{real} ")
        return run_nginx(tmp_path / str(port), config, port)

    return run


def test_a_rolling_restart_costs_no_client_its_answer(
    start: Start, nginx: Nginx, upstream: ScriptedUpstream
) -> None:
    upstream.answer(*(step for word in ("to ", "the ", "end") for step in (Say(word), Pause(0.05))), Finish())
    running, enough = [start(0), start(1)], threading.Event()
    answers: list[httpx2.Response] = []

    def keep_asking(url: str) -> None:
        while not enough.is_set():
            answers.append(ask(url))

    with nginx(SHOWN) as url, ThreadPoolExecutor(ASKERS) as pool:
        asked = [pool.submit(keep_asking, url) for _ in range(ASKERS)]
        try:
            for which in (0, 1):
                wait_for_more(answers, 2 * ASKERS)
                assert running[which].terminate() == 0
                wait_for_more(answers, ASKERS)
                start(which)
            wait_for_more(answers, 2 * ASKERS)
        finally:
            enough.set()
        for one in asked:
            one.result(30)
    assert {text_of(events(answer)) for answer in answers} == {"to the end"}
    assert {events(answer)[-1]["finish_reason"] for answer in answers} == {"stop"}
    assert upstream.paid_calls == len(answers)


def wait_for_more(answers: list[httpx2.Response], count: int) -> None:
    wanted, deadline = len(answers) + count, time.monotonic() + 15
    while len(answers) < wanted:
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_a_question_that_meets_a_draining_process_is_asked_at_the_next_one_by_this_line_alone(
    start: Start, nginx: Nginx, upstream: ScriptedUpstream
) -> None:
    gate = threading.Event()
    upstream.answer_next(Say("Hel"), Hold(gate), Say("lo"), Finish())
    leaving, _ = start(0), start(1)
    with asking(leaving) as held:
        held.wait_for(b"Hel")
        leaving.process.send_signal(signal.SIGTERM)
        leaving.wait_for_log("relay.draining")
        with nginx(SHOWN) as url:
            assert [ask(url).status_code for _ in range(8)] == [200] * 8
        assert NEXT in SHOWN
        with nginx(SHOWN.replace(NEXT, "")) as url:
            assert sorted(ask(url).status_code for _ in range(8)) == [200] * 4 + [503] * 4
        gate.set()
        assert held.last_event()["finish_reason"] == "stop"
    assert upstream.paid_calls == 1 + 8 + 4


@pytest.mark.parametrize(("line", "paid"), [(NEXT, 1), (NEXT.replace("error", "error timeout"), 2)])
def test_a_slow_answer_is_not_asked_for_again_which_timeout_would_do(
    start: Start, nginx: Nginx, upstream: ScriptedUpstream, line: str, paid: int
) -> None:
    upstream.answer(Say("Hel"), Silence())
    start(0), start(1)
    config = SHOWN.replace(NEXT, line).replace("proxy_read_timeout 630s", "proxy_read_timeout 1s")
    with nginx(config) as url:
        assert ask(url, params={"format": "json"}).status_code == 504
    assert upstream.paid_calls == paid


@pytest.mark.parametrize(("headers", "paid"), [({"Idempotency-Key": "mine"}, 1), ({}, 2)])
def test_a_question_whose_process_is_killed_is_paid_once_if_it_has_a_key(
    start: Start, nginx: Nginx, upstream: ScriptedUpstream, headers: dict[str, str], paid: int
) -> None:
    gate = threading.Event()
    upstream.answer_next(Hold(gate), Finish())
    upstream.answer(Say("Hello"), Finish())
    doomed, _ = start(0), start(1)
    with nginx(SHOWN) as url, ThreadPoolExecutor(1) as pool:
        asked = pool.submit(ask, url, headers=headers)
        upstream.wait_for_calls(1)
        doomed.process.send_signal(signal.SIGKILL)  # nginx begins with the first
        gate.set()
        last = events(asked.result(30))[-1]
    if headers:
        assert (last["error"], last["retryable"]) == ("internal_error", True)
    else:
        assert last["finish_reason"] == "stop"
    assert upstream.paid_calls == paid
