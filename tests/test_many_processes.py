"""Crashes, cuts, restarts and storms with several processes and one Redis."""

import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

import httpx2
import pytest
import redis

from tests.conftest import QUICK
from tests.support import plain_http
from tests.support.redis_server import RedisServer
from tests.support.service import HELLO, RunningService, events, serve, text_of, until
from tests.support.streams import Reader, asking, attaching, check_all
from tests.support.upstream import Finish, Hold, Pause, Say, ScriptedUpstream, Silence

WORDS = [f"w{number} " for number in range(30)]
TEXT = "".join(WORDS)
LEASE_SECONDS = 4.0


@pytest.fixture
def redis_server() -> Iterator[RedisServer]:
    with RedisServer() as server:
        yield server


@pytest.fixture
def start(redis_server: RedisServer, upstream: ScriptedUpstream) -> Iterator[Callable[..., RunningService]]:
    """Starts processes of one site, with settings in lower case and without their prefix."""
    with ExitStack() as stack:
        env: Mapping[str, str] = {
            **QUICK,
            "CHAT_SSE_FIRST_TOKEN_TIMEOUT": "60",
            "CHAT_SSE_IDLE_TIMEOUT": "60",
            "CHAT_SSE_DISCONNECT_GRACE": "20",
            "OPENAI_BASE_URL": upstream.base_url,
            "CHAT_SSE_REDIS_URL": redis_server.url,
        }

        def start(**settings: str) -> RunningService:
            named = {f"CHAT_SSE_{name.upper()}": value for name, value in settings.items()}
            return stack.enter_context(serve({**env, **named}))

        yield start


def slowly(*words: str, seconds: float = 0.02) -> list[Say | Pause]:
    return [step for word in words for step in (Say(word), Pause(seconds))]


def test_a_reader_that_is_cut_and_is_back_at_once_elsewhere_reads_on(
    start: Callable[..., RunningService], upstream: ScriptedUpstream
) -> None:
    left, right = start(), start()
    upstream.answer(*slowly(*WORDS, seconds=0.003), Finish())
    readers = [Reader() for _ in range(20)]

    def read(reader: Reader) -> None:
        reader.ask(left, leave_after=5)
        reader.come_back(right, leave_after=12)
        reader.come_back(left, leave_after=20)
        reader.come_back(right)

    with ThreadPoolExecutor(10) as pool:
        list(pool.map(read, readers))
    assert {status for reader in readers for status in reader.statuses} == {200}
    check_all(readers, TEXT, paid_calls=upstream.paid_calls, questions=len(readers))


def test_a_killed_process_leaves_each_of_its_readers_one_end(
    start: Callable[..., RunningService], upstream: ScriptedUpstream
) -> None:
    doomed, other = start(), start()
    upstream.answer(*slowly(*WORDS[:15]), Silence())
    readers = [Reader() for _ in range(10)]
    with ThreadPoolExecutor(len(readers)) as pool:
        asked = [pool.submit(reader.ask, doomed) for reader in readers]
        until(lambda: all(len(reader.found) >= 8 for reader in readers))
        doomed.process.send_signal(signal.SIGKILL)
        for one in asked:
            one.result(30)
        # One log is sealed by another reader first, who has seen less.
        assert readers[0].last_id is not None
        first = Reader()
        first.found = [(f"{readers[0].last_id.partition('.')[0]}.0", readers[0].found[0][1])]
        first.come_back(other)
        list(pool.map(lambda reader: reader.come_back(other), readers))
    check_all([first, *readers], TEXT, paid_calls=upstream.paid_calls, questions=len(readers))
    for reader in readers:
        last_id, last = reader.found[-1]
        assert (last["error"], last["retryable"]) == ("internal_error", True)
        if last_id is None:  # it came back with a number that the log cannot account for: so again
            reader.found.pop()
            reader.come_back(other)
            assert reader.found[-1][0] is None
            assert reader.found[-1][1]["error"] == last["error"]


def test_a_frozen_process_that_comes_back_agrees_with_what_the_log_says(
    start: Callable[..., RunningService], upstream: ScriptedUpstream
) -> None:
    gate = threading.Event()
    frozen, other = start(), start()
    upstream.answer(*slowly(*WORDS[:5]), Hold(gate), *slowly(*WORDS[5:]), Finish())
    with asking(frozen) as here:
        here.wait_for(b"w4 ")
        with attaching(other, here.id) as there:
            there.wait_for(b"w4 ")
            frozen.process.send_signal(signal.SIGSTOP)
            gate.set()  # upstream sends all of it to a process that cannot read
            last = there.last_event()
            assert (last["error"], last["retryable"]) == ("internal_error", True)
        frozen.process.send_signal(signal.SIGCONT)
        assert here.last_event() == last
        assert here.whole() == there.whole()
    for service in (frozen, other):
        again = plain_http.get(f"{service.url}/ask/{here.id}", timeout=30)
        assert events(again)[-1] == last
    assert upstream.paid_calls == 1


def test_a_process_that_was_frozen_for_a_moment_goes_on(
    start: Callable[..., RunningService], upstream: ScriptedUpstream
) -> None:
    gate = threading.Event()
    frozen, _ = start(), start()
    upstream.answer(*slowly(*WORDS[:5]), Hold(gate), *slowly(*WORDS[5:]), Finish())
    with asking(frozen) as here:
        here.wait_for(b"w4 ")
        frozen.process.send_signal(signal.SIGSTOP)
        gate.set()
        time.sleep(LEASE_SECONDS + 1)  # nobody reads it elsewhere, so nobody seals it
        frozen.process.send_signal(signal.SIGCONT)
        assert here.last_event()["finish_reason"] == "stop"
        assert text_of(events(plain_http.get(f"{frozen.url}/ask/{here.id}", timeout=30))) == TEXT


def test_a_drain_lets_questions_end_that_were_on_their_way(
    start: Callable[..., RunningService], upstream: ScriptedUpstream, redis_server: RedisServer
) -> None:
    service = start(shutdown_grace="15")
    upstream.answer(*slowly(*WORDS), Finish())
    readers = [Reader() for _ in range(120)]
    with ThreadPoolExecutor(len(readers)) as pool:
        asked = [pool.submit(reader.ask, service) for reader in readers]
        upstream.wait_for_calls(5)
        with redis.Redis.from_url(redis_server.url, protocol=2) as client:
            client.client_pause(1_200)  # those on their way are for longer than the running ones last
        service.process.send_signal(signal.SIGTERM)
        for one in asked:
            one.result(30)
    assert service.process.wait(20) == 0
    taken = [reader for reader in readers if reader.statuses == [200]]
    assert taken  # how many come too late and are refused is a matter of the machine
    check_all(taken, TEXT, paid_calls=upstream.paid_calls, questions=len(taken))
    assert {reader.found[-1][1].get("finish_reason") for reader in taken} == {"stop"}


def test_a_redis_that_comes_back_empty_makes_nobody_pay_twice_and_loses_no_answer(
    start: Callable[..., RunningService], upstream: ScriptedUpstream, redis_server: RedisServer
) -> None:
    left, right = start(), start()
    gate = threading.Event()
    upstream.answer(Say("Hel"), Hold(gate), Say("lo"), Finish())
    keys = [f"key {number}" for number in range(10)]
    with ExitStack() as stack:
        asked = [stack.enter_context(asking(left, headers={"Idempotency-Key": key})) for key in keys]
        for stream in asked:
            stream.wait_for(b"Hel")
        refused = set()

        def again(key: str) -> httpx2.Response:
            """Ask the other process, as a client does whose connection broke: until it is not refused."""
            while True:
                response = plain_http.post(
                    f"{right.url}/ask",
                    json=HELLO,
                    headers={"Idempotency-Key": key, "Prefer": "respond-async"},
                    timeout=30,
                )
                if response.status_code != 503:
                    return response
                refused.add(response.json()["error"])
                assert 1 <= int(response.headers["Retry-After"]) <= 3
                time.sleep(0.1)

        def look_up(stream_id: str) -> int:
            while (status := plain_http.head(f"{right.url}/ask/{stream_id}", timeout=30).status_code) == 503:
                time.sleep(0.1)
            return status

        with ThreadPoolExecutor(20) as pool:
            redis_server.kill()
            statuses = pool.map(look_up, [stream.id for stream in asked])
            answers = pool.map(again, keys)
            redis_server.start()
            attached = list(answers)
            assert set(statuses) == {200}
        gate.set()
        assert refused == {"log_unavailable"}
        assert [response.headers["Content-Location"] for response in attached] == [
            f"/ask/{stream.id}" for stream in asked
        ]
        assert all(stream.last_event()["finish_reason"] == "stop" for stream in asked)
    assert upstream.paid_calls == len(keys)
