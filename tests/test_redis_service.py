"""Several service processes with one Redis: any of them resumes and stops what any other has asked for."""

import os
import signal
import socket
import subprocess
import sys
import sysconfig
import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import redis

from chat_sse.formats.sse import HEARTBEAT
from tests.conftest import QUICK
from tests.support import plain_http
from tests.support.redis_server import PASSWORD, RedisServer
from tests.support.service import (
    HELLO,
    RunningService,
    ask,
    events,
    open_sockets,
    refused_start,
    serve,
    text_of,
    until,
    workers_of,
)
from tests.support.streams import asking, attaching
from tests.support.upstream import Finish, Hold, Refuse, Say, ScriptedUpstream, Silence

Serve = Callable[..., RunningService]

# Upstreams here are silent for as long as a test wants; what ends an answer is the test.
PATIENT = {
    **QUICK,
    "CHAT_SSE_ACCEPT_WAIT": "0.3",
    "CHAT_SSE_FIRST_TOKEN_TIMEOUT": "60",
    "CHAT_SSE_IDLE_TIMEOUT": "60",
    "CHAT_SSE_DISCONNECT_GRACE": "2",
}


@pytest.fixture(scope="module")
def redis_server() -> Iterator[RedisServer]:
    with RedisServer() as server:
        yield server


@pytest.fixture(scope="module")
def environment(redis_server: RedisServer, upstream_port: int) -> Mapping[str, str]:
    base_url = f"http://127.0.0.1:{upstream_port}/v1"
    return {**PATIENT, "OPENAI_BASE_URL": base_url, "CHAT_SSE_REDIS_URL": redis_server.url}


@pytest.fixture(scope="module")
def left(environment: Mapping[str, str]) -> Iterator[RunningService]:
    with serve(environment) as running:
        yield running


@pytest.fixture(scope="module")
def right(environment: Mapping[str, str]) -> Iterator[RunningService]:
    with serve(environment) as running:
        yield running


def test_another_process_gives_the_same_bytes_while_it_runs_and_afterwards(
    left: RunningService, right: RunningService, upstream: ScriptedUpstream
) -> None:
    gate = threading.Event()
    upstream.answer(Say("Hel"), Hold(gate), Say("lo"), Say("!"), Finish())
    with asking(left) as here:
        here.wait_for(b"Hel")
        with attaching(right, here.id) as there:
            there.wait_for(b"Hel")
            gate.set()
            assert there.whole() == here.whole()
    whole = here.whole()
    for service in (left, right):
        again = plain_http.get(f"{service.url}/ask/{here.id}", timeout=30)
        assert again.content.replace(HEARTBEAT, b"") == whole
    assert upstream.paid_calls == 1


def test_another_process_resumes_after_any_event(
    left: RunningService, right: RunningService, upstream: ScriptedUpstream
) -> None:
    upstream.answer(Say("a"), Say("b"), Say("c"), Finish())
    whole = ask(left.url)
    stream_id = whole.headers["content-location"].removeprefix("/ask/")
    blocks = whole.content.replace(HEARTBEAT, b"").split(b"\n\n")
    for seq in range(len(blocks) - 2):
        place = {"Last-Event-ID": f"{stream_id}.{seq}"}
        rest = plain_http.get(f"{right.url}/ask/{stream_id}", headers=place, timeout=30)
        assert rest.content.replace(HEARTBEAT, b"") == b"\n\n".join(blocks[seq + 1 :])
    end = {"Last-Event-ID": f"{stream_id}.{len(blocks) - 2}"}
    assert plain_http.get(f"{right.url}/ask/{stream_id}", headers=end, timeout=30).status_code == 204
    assert upstream.paid_calls == 1


def test_a_stop_from_another_process_closes_a_silent_upstream_within_a_second(
    left: RunningService, right: RunningService, upstream: ScriptedUpstream
) -> None:
    upstream.answer(Say("Hel"), Silence())
    with asking(left) as here:
        here.wait_for(b"Hel")
        with attaching(right, here.id) as there:
            there.wait_for(b"Hel")
            [call] = upstream.wait_for_calls(1)
            for _ in range(2):
                assert plain_http.delete(f"{right.url}/ask/{here.id}", timeout=30).status_code == 204
            assert call.wait_gone(1)
            assert here.last_event() == {"type": "done", "finish_reason": "cancelled", "usage": None}
            assert there.whole() == here.whole()


def test_a_stop_from_another_process_ends_a_call_that_upstream_has_not_accepted(
    left: RunningService, right: RunningService, upstream: ScriptedUpstream
) -> None:
    upstream.answer(Silence())
    accepted = plain_http.post(f"{left.url}/ask", json=HELLO, headers={"Prefer": "respond-async"}, timeout=30)
    assert accepted.status_code == 202
    [call] = upstream.wait_for_calls(1)
    path = accepted.headers["content-location"]
    assert plain_http.delete(f"{right.url}{path}", timeout=30).status_code == 204
    assert call.wait_gone(1)
    found = events(plain_http.get(f"{right.url}{path}", timeout=30))
    assert [event["type"] for event in found] == ["start", "done"]
    assert found[-1]["finish_reason"] == "cancelled"


def test_one_key_in_two_processes_makes_one_paid_call(
    left: RunningService, right: RunningService, upstream: ScriptedUpstream
) -> None:
    upstream.answer(Say("once"), Finish())
    key = {"Idempotency-Key": "both at once"}
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda n: ask((left, right)[n % 2].url, headers=key), range(8)))
    assert len({answer.headers["content-location"] for answer in answers}) == 1
    assert {text_of(events(answer)) for answer in answers} == {"once"}
    other = {"messages": [{"role": "user", "content": "Something else"}]}
    assert ask(right.url, other, headers=key).status_code == 422
    assert upstream.paid_calls == 1


def test_a_refusal_is_told_to_an_asker_in_another_process_and_frees_the_key(
    left: RunningService, right: RunningService, upstream: ScriptedUpstream
) -> None:
    gate = threading.Event()
    upstream.answer(Hold(gate), Refuse(401))
    key = {"Idempotency-Key": "refused"}
    with asking(left, headers=key) as here, asking(right, headers=key) as there:
        upstream.wait_for_calls(1)
        there.wait_for(b"start")
        gate.set()
        assert there.last_event()["error"] == "authentication_error"
        assert here.whole() == there.whole()
    assert upstream.paid_calls == 0


def test_a_refusal_is_an_http_error_also_where_redis_takes_longer_to_forget_the_question_than_the_accept_wait(
    environment: Mapping[str, str], upstream: ScriptedUpstream, redis_server: RedisServer
) -> None:
    gate = threading.Event()
    upstream.answer(Hold(gate), Refuse(400))
    with serve({**environment, "CHAT_SSE_ACCEPT_WAIT": "0.9"}) as service, ThreadPoolExecutor(1) as pool:
        asking = pool.submit(ask, service.url)
        upstream.wait_for_calls(1)
        with redis.Redis.from_url(redis_server.url, protocol=2) as client:
            client.client_pause(1_500)
        gate.set()
        response = asking.result(20)
    assert (response.status_code, response.json()["error"]) == (500, "invalid_request_error")


def test_an_answer_that_is_read_in_another_process_alone_goes_on_until_that_reader_leaves_for_good(
    left: RunningService, right: RunningService, upstream: ScriptedUpstream
) -> None:
    gate = threading.Event()
    upstream.answer(Say("Hel"), Hold(gate), Say("lo"), Silence())
    with ExitStack() as stack:
        here = stack.enter_context(asking(left))
        here.wait_for(b"Hel")
        there = stack.enter_context(attaching(right, here.id))
        there.wait_for(b"Hel")
        here.close()
        [call] = upstream.wait_for_calls(1)
        assert not call.wait_gone(3.5)  # longer than the grace of two seconds
        gate.set()
        there.wait_for(b"lo")
        there.close()
        assert not call.wait_gone(1.5)  # whose grace begins now
        assert call.wait_gone(10)


def test_a_draining_process_tells_those_who_read_another_ones_answer_to_come_back(
    environment: Mapping[str, str], right: RunningService, upstream: ScriptedUpstream
) -> None:
    gate = threading.Event()
    upstream.answer(Say("Hel"), Hold(gate), Say("lo"), Finish())
    with serve(environment) as leaving, asking(right) as here, attaching(leaving, here.id) as there:
        there.wait_for(b"Hel")
        assert leaving.terminate() == 0
        last = there.last_event()
        assert (last["type"], last["error"], last["retryable"]) == ("error", "server_draining", True)
        assert b"id: " not in there.whole().split(b"\n\n")[-2]
        assert " ERROR " not in leaving.log()
        gate.set()
        assert here.last_event()["finish_reason"] == "stop"


def test_a_killed_producer_leaves_no_reader_hanging(
    environment: Mapping[str, str], right: RunningService, upstream: ScriptedUpstream
) -> None:
    upstream.answer(Say("Hel"), Silence())
    with serve(environment) as doomed, asking(doomed) as here:
        here.wait_for(b"Hel")
        with attaching(right, here.id) as there:
            there.wait_for(b"Hel")
            doomed.process.send_signal(signal.SIGKILL)
            last = there.last_event()
            assert (last["type"], last["error"], last["retryable"]) == ("error", "internal_error", True)
        again = plain_http.get(f"{right.url}/ask/{here.id}", timeout=30)
        assert again.content.replace(HEARTBEAT, b"") == there.whole()


def test_an_outage_of_redis_cuts_no_local_reader_and_is_over_when_it_is_back(
    environment: Mapping[str, str], upstream: ScriptedUpstream
) -> None:
    gate = threading.Event()
    upstream.answer_next(Say("Hel"), Hold(gate), Say("lo"), Finish())
    with RedisServer() as redis, ExitStack() as stack:
        both = {**environment, "CHAT_SSE_REDIS_URL": redis.url}
        producer, other = (stack.enter_context(serve(both)) for _ in range(2))
        here = stack.enter_context(asking(producer))
        here.wait_for(b"Hel")
        there = stack.enter_context(attaching(other, here.id))
        there.wait_for(b"Hel")

        redis.kill()
        last = there.last_event()
        assert (last["type"], last["error"], last["retryable"]) == ("error", "log_unavailable", True)
        assert b"id: " not in there.whole().split(b"\n\n")[-2]
        for service in (producer, other):
            refused = ask(service.url)  # by the limits or by the log, whichever is asked first
            assert (refused.status_code, refused.json()["retryable"]) == (503, True)
            assert int(refused.headers["retry-after"]) > 0
            assert plain_http.get(f"{service.url}/readyz", timeout=30).status_code == 503
            assert plain_http.get(f"{service.url}/healthz", timeout=30).status_code == 200
        unread = plain_http.get(f"{other.url}/ask/{here.id}", timeout=30)
        assert (unread.status_code, unread.json()["error"]) == (503, "log_unavailable")
        gate.set()
        assert here.last_event()["finish_reason"] == "stop"
        assert upstream.paid_calls == 1

        redis.start()
        for service in (producer, other):
            wait_until_ready(service)
        # What Redis had lost, its producer has sent again: the reader that was cut off reads on.
        seen = f"{here.id}.1"
        wait_until_found(other, here.id)
        rest = plain_http.get(f"{other.url}/ask/{here.id}", headers={"Last-Event-ID": seen}, timeout=30)
        assert text_of(events(rest)) == "lo"
        assert text_of(events(ask(other.url))) == "Hello there!"
        assert PASSWORD not in producer.log() + other.log()
        assert "Traceback" not in producer.log() + other.log()


def wait_until_ready(service: RunningService) -> None:
    until(lambda: plain_http.get(f"{service.url}/readyz", timeout=30).status_code == 200)


def wait_until_found(service: RunningService, stream_id: str) -> None:
    until(lambda: plain_http.head(f"{service.url}/ask/{stream_id}", timeout=30).status_code == 200)


def test_a_service_may_start_before_its_redis(
    environment: Mapping[str, str], upstream: ScriptedUpstream
) -> None:
    redis = RedisServer()
    with serve({**environment, "CHAT_SSE_REDIS_URL": redis.url}) as service:
        ready = plain_http.get(f"{service.url}/readyz", timeout=30)
        assert (ready.status_code, ready.json()["error"]) == (503, "log_unavailable")
        assert ask(service.url).status_code == 503
        assert upstream.paid_calls == 0
        with redis:
            wait_until_ready(service)
            assert text_of(events(ask(service.url))) == "Hello there!"
        assert PASSWORD not in service.log()


# One service of several workers.


def test_any_worker_serves_any_resume_and_any_stop(
    environment: Mapping[str, str], upstream: ScriptedUpstream
) -> None:
    upstream.answer_next(Say("Hel"), Say("lo"), Finish())
    upstream.answer(Say("Hel"), Silence())
    with serve(environment, "--workers", "2") as service:
        whole = ask(service.url)
        place = whole.headers["content-location"]

        def again(_: int) -> bytes:
            response = plain_http.get(f"{service.url}{place}", timeout=30)  # a connection of its own
            return response.content.replace(HEARTBEAT, b"")

        with ThreadPoolExecutor(8) as pool:
            assert set(pool.map(again, range(24))) == {whole.content.replace(HEARTBEAT, b"")}
        for number in range(6):
            with asking(service) as stream:
                stream.wait_for(b"Hel")
                call = upstream.wait_for_calls(number + 2)[-1]
                assert plain_http.delete(f"{service.url}/ask/{stream.id}", timeout=30).status_code == 204
                assert call.wait_gone(1)
                assert stream.last_event()["finish_reason"] == "cancelled"
        assert service.terminate() == 0
        assert upstream.paid_calls == 7
        assert "Traceback" not in service.log()


@pytest.mark.parametrize("sig", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_drains_all_workers(
    environment: Mapping[str, str], upstream: ScriptedUpstream, sig: signal.Signals
) -> None:
    gate = threading.Event()
    upstream.answer(Say("Hel"), Hold(gate), Say("lo"), Finish())
    with (
        serve({**environment, "CHAT_SSE_SHUTDOWN_GRACE": "20"}, "--workers", "2") as service,
        ExitStack() as s,
    ):
        streams = [s.enter_context(asking(service)) for _ in range(6)]
        for stream in streams:
            stream.wait_for(b"Hel")
        service.process.send_signal(sig)
        service.wait_for_log("relay.draining")
        gate.set()
        assert [stream.last_event()["finish_reason"] for stream in streams] == ["stop"] * 6
        assert service.process.wait(20) == 0
        assert not [line for line in service.log().splitlines() if " ERROR " in line or "Traceback" in line]


def test_a_worker_that_dies_is_replaced(environment: Mapping[str, str], upstream: ScriptedUpstream) -> None:
    with serve(environment, "--workers", "2") as service:
        victim = workers_of(service)[0]
        os.kill(victim, signal.SIGKILL)
        service.wait_for_log("worker.died")
        for _ in range(10):  # whatever dies with a worker, questions come to the other one
            assert text_of(events(ask(service.url))) == "Hello there!"
        until(lambda: len(workers_of(service)) == 2 and victim not in workers_of(service))
        assert service.terminate() == 0


def test_a_worker_that_is_still_starting_when_its_supervisor_dies_ends_too(
    environment: Mapping[str, str],
) -> None:
    with serve(environment, "--workers", "2") as service:
        first = workers_of(service)
        os.kill(first[0], signal.SIGKILL)
        until(lambda: bool(set(workers_of(service)) - set(first)))
        [newcomer] = set(workers_of(service)) - set(first)
        assert service.terminate(signal.SIGKILL) == -signal.SIGKILL
        until(lambda: not Path(f"/proc/{newcomer}").exists(), seconds=30)


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere the workers share one socket")
def test_connections_that_come_together_are_spread_over_the_workers(environment: Mapping[str, str]) -> None:
    with serve(environment, "--workers", "2") as service, ExitStack() as stack:
        address, workers = urlsplit(service.url), workers_of(service)
        before = [open_sockets(pid) for pid in workers]
        for pid in workers:
            os.kill(pid, signal.SIGSTOP)  # so that all have come when the first one looks
        for _ in range(40):
            stack.enter_context(socket.create_connection((address.hostname, address.port), timeout=10))
        for pid in workers:
            os.kill(pid, signal.SIGCONT)

        def taken() -> list[int]:
            return [open_sockets(pid) - count for pid, count in zip(workers, before, strict=True)]

        until(lambda: sum(taken()) == 40)
        assert min(taken()) >= 5  # fewer: once in a million


def test_an_address_in_use_is_not_shared_with_a_stranger(environment: Mapping[str, str]) -> None:
    with serve(environment, "--workers", "2") as service:
        port = str(urlsplit(service.url).port)
        second = subprocess.run(
            [sys.executable, "-m", "chat_sse", "--workers", "2"],
            env={"PATH": "", **environment, "CHAT_SSE_PORT": port},
            capture_output=True, text=True, timeout=30, check=False,
        )  # fmt: skip
    assert second.returncode == 3
    assert "Address already in use" in second.stderr


def test_a_redis_url_with_an_unknown_option_is_refused_and_not_echoed() -> None:
    said = refused_start({"CHAT_SSE_REDIS_URL": f"redis://:{PASSWORD}@h/0?colour=red"})
    assert "CHAT_SSE_REDIS_URL cannot be used" in said
    assert PASSWORD not in said


def test_without_the_extra_the_start_says_what_to_install(tmp_path: Path) -> None:
    for package in Path(sysconfig.get_path("purelib")).iterdir():
        if package.suffix != ".pth" and not package.name.startswith(("redis", "hiredis")):
            (tmp_path / package.name).symlink_to(package)
    path = f"{Path(__file__).parent.parent}:{tmp_path}"
    for settings in ({"CHAT_SSE_REDIS_URL": f"redis://:{PASSWORD}@127.0.0.1:1/0"}, {"CHAT_SSE_WORKERS": "2"}):
        refused = subprocess.run(
            [sys.executable, "-S", "-m", "chat_sse"],
            env={"PYTHONPATH": path, **settings},
            capture_output=True, text=True, timeout=30, check=False,
        )  # fmt: skip
        assert refused.returncode == 2
        [variable] = settings
        assert f"{variable} needs the extra `redis`: pip install 'chat-sse[redis]'" in refused.stderr
        assert PASSWORD not in refused.stderr
