"""Several workers on one host without any set-up: a Redis that starts and ends with the service."""

import os
import shutil
import signal
import subprocess
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import pytest
import redis

from tests.conftest import QUICK
from tests.support import plain_http
from tests.support.service import (
    RunningService,
    ask,
    events,
    refused_start,
    serve,
    text_of,
    until,
    workers_of,
)
from tests.support.streams import asking, attaching
from tests.support.upstream import Finish, Hold, Say, ScriptedUpstream


@pytest.fixture
def env(upstream: ScriptedUpstream, tmp_path: Path) -> Mapping[str, str]:
    return {**QUICK, "OPENAI_BASE_URL": upstream.base_url, "TMPDIR": str(tmp_path)}


def redis_of(folder: Path) -> list[int]:
    """List the servers whose socket lies below a folder."""
    return pids("-f", f"unixsocket:{folder}")


def keeper_of(service: RunningService) -> int:
    [pid] = pids("-P", str(service.process.pid), "-f", "redis_keeper")
    return pid


def pids(*arguments: str) -> list[int]:
    found = subprocess.run(["pgrep", *arguments], check=False, capture_output=True, text=True)
    return [int(pid) for pid in found.stdout.split()]


def nothing_is_left(folder: Path) -> bool:
    return not redis_of(folder) and not list(folder.glob("chat-sse-*"))


def read_everywhere(service: RunningService, path: str) -> list[str]:
    """Read an answer over so many connections that each worker gets some."""
    with ThreadPoolExecutor(8) as pool:
        answers = pool.map(lambda _: plain_http.get(service.url + path, timeout=30), range(16))
        return [text_of(events(answer)) for answer in answers]


def test_workers_share_a_redis_of_their_own_that_ends_with_them(
    env: Mapping[str, str], upstream: ScriptedUpstream, tmp_path: Path
) -> None:
    upstream.answer(Say("Hello"), Finish())
    with serve(env, "--workers", "2") as service:
        assert len(workers_of(service)) == 2
        assert "redis-server, which ends with them" in service.log()
        [folder] = tmp_path.glob("chat-sse-*")
        assert folder.stat().st_mode & 0o777 == 0o700
        assert len(redis_of(tmp_path)) == 1
        wanted = {
            "maxmemory": str(256 * 1_048_576 + 2 * 67_108_864),
            "maxmemory-policy": "noeviction",
            "port": "0",
            "save": "",
            "appendonly": "no",
        }
        with redis.Redis(unix_socket_path=str(folder / "redis.sock")) as client:
            assert {name: client.config_get(name)[name] for name in wanted} == wanted
        path = ask(service.url).headers["Content-Location"]
        assert read_everywhere(service, path) == ["Hello"] * 16
        assert service.terminate() == 0
    assert nothing_is_left(tmp_path)


@pytest.mark.parametrize("of", ["Redis", "its keeper"])
def test_a_redis_that_dies_is_started_again(env: Mapping[str, str], tmp_path: Path, of: str) -> None:
    with serve(env, "--workers", "2") as service:
        [server] = redis_of(tmp_path)
        os.kill(server if of == "Redis" else keeper_of(service), signal.SIGKILL)
        service.wait_for_log("redis.died")
        until(lambda: redis_of(tmp_path) not in ([], [server]))
        until(lambda: ask(service.url).status_code == 200)
        assert service.terminate() == 0
        assert "Traceback" not in service.log()
    assert nothing_is_left(tmp_path)


def signal_all(service: RunningService, folder: Path) -> None:
    """Signal every process, as an init system does with a service."""
    [server] = redis_of(folder)
    for pid in (server, keeper_of(service), *workers_of(service), service.process.pid):
        os.kill(pid, signal.SIGTERM)


def kill_supervisor(service: RunningService, _: Path) -> None:
    service.terminate(signal.SIGKILL)


@pytest.mark.parametrize("end", [signal_all, kill_supervisor])
def test_redis_stays_until_the_workers_have_drained_and_then_goes_without_a_trace(
    env: Mapping[str, str],
    upstream: ScriptedUpstream,
    tmp_path: Path,
    end: Callable[[RunningService, Path], None],
) -> None:
    gate = threading.Event()
    upstream.answer(Say("Hel"), Hold(gate), Say("lo"), Finish())
    patient = {"CHAT_SSE_SHUTDOWN_GRACE": "20", "CHAT_SSE_IDLE_TIMEOUT": "60"}
    with serve({**env, **patient}, "--workers", "2") as service, ExitStack() as stack:
        asked = stack.enter_context(asking(service))
        asked.wait_for(b"Hel")
        readers = [stack.enter_context(attaching(service, asked.id)) for _ in range(12)]
        for reader in readers:
            reader.wait_for(b"Hel")
        end(service, tmp_path)
        service.wait_for_log("relay.draining(.|\n)*relay.draining")
        gate.set()
        assert {stream.last_event().get("finish_reason") for stream in [asked, *readers]} == {"stop"}
        assert {text_of_stream(stream.whole()) for stream in readers} == {"Hello"}
        until(lambda: nothing_is_left(tmp_path))
    assert upstream.paid_calls == 1


def text_of_stream(body: bytes) -> str:
    return "".join(part.partition(b'"}')[0].decode() for part in body.split(b'"content":"')[1:])


def test_a_redis_of_its_own_does_not_outlive_a_killed_service(env: Mapping[str, str], tmp_path: Path) -> None:
    with serve(env, "--workers", "2") as service:
        every = [service.process.pid, *workers_of(service)]
        assert len(redis_of(tmp_path)) == 1
        for pid in every:
            os.kill(pid, signal.SIGKILL)
        until(lambda: nothing_is_left(tmp_path), 3)


def test_a_valkey_is_as_good_and_a_long_path_for_temporary_files_does_no_harm(
    env: Mapping[str, str], tmp_path: Path
) -> None:
    program, deep = shutil.which("redis-server"), tmp_path / ("deep" * 25)
    assert program is not None
    (tmp_path / "valkey-server").symlink_to(program)
    deep.mkdir()
    with serve({**env, "TMPDIR": str(deep), "PATH": str(tmp_path)}, "--workers", "2") as service:
        assert f"{tmp_path}/valkey-server, which ends with them" in service.log()
        assert ask(service.url).status_code == 200
        assert not list(deep.iterdir())
        [server] = pids("-P", str(keeper_of(service)))
        title = Path(f"/proc/{server}/cmdline").read_text()
        folder = Path(title.partition("unixsocket:")[2].rstrip("\0 ")).parent
        assert folder.is_dir()
        assert service.terminate() == 0
        assert not folder.exists()


def test_without_a_server_to_start_it_is_told_what_to_install() -> None:
    said = refused_start({}, "--workers", "2")
    assert "install redis-server or valkey-server (apt install redis-server), or set CHAT_SSE_REDIS" in said


def test_a_server_that_does_not_start_is_told_and_leaves_nothing(tmp_path: Path) -> None:
    program = tmp_path / "redis-server"
    program.write_text("#!/bin/sh\nexit 1\n")
    program.chmod(0o755)
    environ = {"PATH": str(tmp_path), "TMPDIR": str(tmp_path)}
    said = refused_start(environ, "--workers", "2")
    assert f"{program} does not start: try it by hand, or set CHAT_SSE_REDIS_URL" in said
    assert nothing_is_left(tmp_path)
