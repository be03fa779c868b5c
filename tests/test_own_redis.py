"""Several workers on one host without any set-up: a Redis that starts and ends with the service."""

import os
import signal
import subprocess
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx2
import redis

from tests.conftest import QUICK
from tests.support.service import RunningService, ask, events, refused_start, serve, text_of, workers_of
from tests.support.upstream import Finish, Say, ScriptedUpstream


def redis_of(folder: Path) -> list[int]:
    """List the servers whose socket lies below a folder."""
    found = subprocess.run(
        ["pgrep", "-f", f"unixsocket:{folder}"], check=False, capture_output=True, text=True
    )
    return [int(pid) for pid in found.stdout.split()]


def until(condition: Callable[[], bool], seconds: float = 15.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def read_everywhere(service: RunningService, path: str) -> list[str]:
    """Read an answer over so many connections that each worker gets some."""
    with ThreadPoolExecutor(8) as pool:
        answers = pool.map(lambda _: httpx2.get(service.url + path, timeout=30), range(16))
        return [text_of(events(answer)) for answer in answers]


def test_workers_share_a_redis_of_their_own_that_ends_with_them(
    upstream: ScriptedUpstream, tmp_path: Path
) -> None:
    upstream.answer(Say("Hello"), Finish())
    env = {**QUICK, "OPENAI_BASE_URL": upstream.base_url, "TMPDIR": str(tmp_path)}
    with serve(env, "--workers", "2") as service:
        assert len(workers_of(service)) == 2
        assert "redis-server, which ends with them" in service.log()
        [folder] = tmp_path.glob("chat-sse-*")
        assert folder.stat().st_mode & 0o777 == 0o700
        [server] = redis_of(tmp_path)
        with redis.Redis(unix_socket_path=str(folder / "redis.sock")) as client:
            told = {
                name: client.config_get(name)[name] for name in ("maxmemory", "port", "save", "appendonly")
            }
        memory = str(256 * 1_048_576 + 2 * 67_108_864)
        assert told == {"maxmemory": memory, "port": "0", "save": "", "appendonly": "no"}
        path = ask(service.url).headers["Content-Location"]
        assert read_everywhere(service, path) == ["Hello"] * 16
        os.kill(server, signal.SIGKILL)
        service.wait_for_log("redis.died")
        until(lambda: ask(service.url).status_code == 200)
        assert service.terminate() == 0
    until(lambda: not redis_of(tmp_path))
    assert not list(tmp_path.glob("chat-sse-*"))


def test_a_redis_of_its_own_does_not_outlive_a_killed_service(
    upstream: ScriptedUpstream, tmp_path: Path
) -> None:
    env = {**QUICK, "OPENAI_BASE_URL": upstream.base_url, "TMPDIR": str(tmp_path)}
    with serve(env, "--workers", "2") as service:
        assert len(redis_of(tmp_path)) == 1
        service.terminate(signal.SIGKILL)
        until(lambda: not redis_of(tmp_path))


def test_without_a_server_to_start_it_is_told_what_to_install() -> None:
    said = refused_start({}, "-m", "chat_sse", "--workers", "2")
    assert "install redis-server (or valkey-server), or set CHAT_SSE_REDIS_URL" in said
