"""A process that is told to end: what its load balancer, new questions and running answers see."""

import signal
import socket
import threading

import pytest

from tests.conftest import QUICK
from tests.support import plain_http
from tests.support.redis_server import RedisServer
from tests.support.service import ask, serve, until
from tests.support.streams import Reader, asking, check_all
from tests.support.upstream import Finish, Hold, Pause, Say, ScriptedUpstream

WORDS = [f"w{number} " for number in range(30)]
MOVING = {**QUICK, "CHAT_SSE_MAX_CONNECTION_AGE": "0.3", "CHAT_SSE_DISCONNECT_GRACE": "20"}


def test_readiness_fails_first_and_questions_are_taken_until_the_delay_is_over(
    upstream: ScriptedUpstream,
) -> None:
    gate = threading.Event()
    upstream.answer_next(Say("first "), Hold(gate), Say("last"), Finish())
    upstream.answer(Say("late"), Finish())
    env = {**QUICK, "OPENAI_BASE_URL": upstream.base_url, "CHAT_SSE_SHUTDOWN_DELAY": "1.5"}
    with serve({**env, "CHAT_SSE_SHUTDOWN_GRACE": "10"}) as service, asking(service) as stream:
        stream.wait_for(b"first")
        assert plain_http.get(f"{service.url}/readyz").status_code == 200
        service.process.send_signal(signal.SIGTERM)
        service.wait_for_log("relay.leaving running=1 seconds=1.5")
        ready = plain_http.get(f"{service.url}/readyz")
        assert (ready.status_code, ready.json()["error"]) == (503, "server_draining")
        assert plain_http.get(f"{service.url}/healthz").status_code == 200
        assert ask(service.url).status_code == 200
        service.wait_for_log("relay.draining")
        refused = ask(service.url)
        assert (refused.status_code, refused.headers["retry-after"]) == (503, "2")
        assert plain_http.get(f"{service.url}/healthz").status_code == 200
        gate.set()
        assert stream.last_event()["finish_reason"] == "stop"
        assert service.process.wait(10) == 0


@pytest.mark.parametrize("workers", ["1", "2"])
def test_an_idle_process_waits_for_its_load_balancer_too_unless_it_is_told_twice(workers: str) -> None:
    with serve({**QUICK, "CHAT_SSE_SHUTDOWN_DELAY": "60"}, "--workers", workers) as service:
        service.process.send_signal(signal.SIGTERM)
        service.wait_for_log("relay.leaving")
        assert plain_http.get(f"{service.url}/healthz").status_code == 200
        service.process.send_signal(signal.SIGTERM)
        assert service.process.wait(15) == 0


def test_readiness_tells_of_redis_and_health_does_not(upstream: ScriptedUpstream) -> None:
    with (
        RedisServer() as redis,
        serve({**QUICK, "OPENAI_BASE_URL": upstream.base_url, "CHAT_SSE_REDIS_URL": redis.url}) as service,
    ):
        assert plain_http.get(f"{service.url}/readyz").status_code == 200
        redis.kill()
        until(lambda: plain_http.get(f"{service.url}/readyz", timeout=30).status_code == 503)
        refused = plain_http.get(f"{service.url}/readyz")
        assert refused.json()["error"] == "log_unavailable"
        assert plain_http.get(f"{service.url}/healthz").status_code == 200
    assert upstream.calls == []


def test_readiness_tells_of_a_redis_that_says_nothing(upstream: ScriptedUpstream) -> None:
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        url = f"redis://127.0.0.1:{silent.getsockname()[1]}/0"
        env = {**QUICK, "OPENAI_BASE_URL": upstream.base_url, "CHAT_SSE_REDIS_URL": url}
        with serve(env) as service:
            refused = plain_http.get(f"{service.url}/readyz", timeout=30)
            assert (refused.status_code, refused.json()["error"]) == (503, "log_unavailable")


def test_a_reader_that_is_moved_between_two_events_misses_none(upstream: ScriptedUpstream) -> None:
    upstream.answer(*(step for word in WORDS for step in (Say(word), Pause(0.05))), Finish())
    with serve({**MOVING, "OPENAI_BASE_URL": upstream.base_url}) as service:
        reader = Reader()
        reader.ask(service)
        assert not reader.is_ended
        while not reader.is_ended:
            reader.come_back(service)
        assert len(reader.statuses) > 2
        moved = service.log().count("client.moved")  # the last one may be too, in the moment when it ends
        assert moved in (len(reader.statuses) - 1, len(reader.statuses))
    check_all([reader], "".join(WORDS), paid_calls=upstream.paid_calls, questions=1)
