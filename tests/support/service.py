"""The service as its users meet it: a process of its own, asked over real sockets."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx2
import msgspec

from chat_sse.formats.sse import HEARTBEAT
from tests.support import plain_http
from tests.support.preloaded import WARNINGS, ForkedProcess, Start, start_preloaded

START_SECONDS = 60.0  # of CPU it takes one or two, on a machine that may be busy
STOP_SECONDS = 25.0

# All tests ask from one address; those about the limits set their own.
FAR_LIMITS = {
    "CHAT_SSE_RATE_LIMIT": "1000000/minute",
    "CHAT_SSE_RATE_LIMIT_TOTAL": "1000000/minute",
    "CHAT_SSE_MAX_STREAMS_PER_CLIENT": "10000",
    "CHAT_SSE_MAX_STREAMS": "10000",
    "CHAT_SSE_TOKEN_BUDGET": "1000000000/day",
    "CHAT_SSE_TOKEN_BUDGET_TOTAL": "1000000000/day",
}

HELLO = {"messages": [{"role": "user", "content": "Hello!"}]}


Process = subprocess.Popen[bytes] | ForkedProcess


class RunningService:
    """A server process that listens on `url`, or on `unix:/path`. `log()` is what it wrote."""

    def __init__(self, process: Process, log_file: Path) -> None:
        self.process = process
        self._log_file = log_file
        self.url = self._wait_for_url()

    def log(self) -> str:
        """Everything it said so far."""
        return self._log_file.read_text()

    def wait_for_log(self, pattern: str, seconds: float = 10.0) -> str:
        """Wait until a line of the log matches."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            if match := re.search(pattern, self.log()):
                return match[0]
            time.sleep(0.02)
        raise AssertionError(f"no {pattern!r} in the log:\n{self.log()}")

    def terminate(self, sig: signal.Signals = signal.SIGTERM) -> int:
        """Send a signal and wait for the exit code."""
        self.process.send_signal(sig)
        return self.process.wait(STOP_SECONDS)

    def _wait_for_url(self) -> str:
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline and self.process.poll() is None:
            if match := re.search(r' on ((?:http://|unix:)[^\s"]+)', self.log()):
                return match[1]
            time.sleep(0.02)
        raise AssertionError(f"the service did not start:\n{self.log()}")


@contextmanager
def serve(
    env: Mapping[str, str] | None = None,
    *arguments: str,
    open_files: int | None = None,
    module: str = "chat_sse",
    before: Sequence[str] = (),
) -> Iterator[RunningService]:
    """Run `python -m chat_sse` on a free loopback port, with no settings but these; end it at the exit.

    `module`: what runs instead. `before`: a command that runs it.
    """
    environ = _environ({"CHAT_SSE_PORT": "0", "CHAT_SSE_LOG_FORMAT": "text", **(env or {})})
    with tempfile.TemporaryDirectory() as folder, (Path(folder) / "log").open("wb") as log:
        if before or any(name.startswith(("PYTHON", "LD_")) for name in env or {}):
            command = [*before, sys.executable, *WARNINGS, "-m", module, *arguments]
            process: Process = subprocess.Popen(command, cwd=folder, env=environ, stderr=log, stdout=log)
        else:
            process = start_preloaded(Start(module, arguments, folder, environ, open_files), log, log)
        with _ended_at_exit(process, Path(log.name)) as service:
            yield service


@contextmanager
def serve_under_uvicorn(
    application: str, folder: Path, env: Mapping[str, str], *arguments: str
) -> Iterator[RunningService]:
    """Run an application, named as uvicorn wants it, under plain uvicorn; end it at the exit."""
    command = [sys.executable, "-m", "uvicorn", application, "--port", "0", *arguments]
    with running(command, folder, env) as service:
        yield service


@contextmanager
def running(command: Sequence[str], folder: Path, env: Mapping[str, str]) -> Iterator[RunningService]:
    """Run a server in a folder, where no `.env` lies, with no environment but this; end it at the exit."""
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(command, cwd=folder, env=_environ(env), stderr=log, stdout=log)
        with _ended_at_exit(process, Path(log.name)) as service:
            yield service


def _environ(env: Mapping[str, str]) -> dict[str, str]:
    return {"PATH": os.environ["PATH"], "PYTHONPATH": str(Path.cwd()), **FAR_LIMITS, **env}


@contextmanager
def _ended_at_exit(process: Process, log_file: Path) -> Iterator[RunningService]:
    try:
        yield RunningService(process, log_file)
    finally:
        if process.poll() is None:
            process.kill()
            process.wait(STOP_SECONDS)


def parse_sse(body: bytes) -> list[tuple[str, dict[str, Any]]]:
    """Read a whole stream as (id, event) pairs, by the letter of what the service promises to send."""
    found = []
    for block in body.replace(HEARTBEAT, b"").decode().split("\n\n")[:-1]:
        fields = dict(line.split(": ", 1) for line in block.split("\n"))
        assert set(fields) <= {"retry", "id", "data"}, fields
        found.append((fields["id"], msgspec.json.decode(fields["data"])))
    return found


def ask(url: str, body: Any = HELLO, **options: Any) -> httpx2.Response:
    """POST /ask and read the whole answer."""
    return plain_http.post(f"{url}/ask", json=body, timeout=30, **options)


def events(response: httpx2.Response) -> list[dict[str, Any]]:
    """Read a finished response's events."""
    assert response.status_code == 200, response.text
    return [event for _, event in parse_sse(response.content)]


def text_of(found: list[dict[str, Any]]) -> str:
    """Join the deltas."""
    return "".join(event["content"] for event in found if event["type"] == "delta")


def until(condition: Callable[[], bool], seconds: float = 15.0) -> None:
    """Wait until a condition holds."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def open_sockets(pid: int) -> int:
    """Count a process's open sockets. A file that is closed meanwhile is none."""
    links = list(Path(f"/proc/{pid}/fd").iterdir())
    return sum(link.is_symlink() and str(link.readlink()).startswith("socket:") for link in links)


def workers_of(service: RunningService) -> list[int]:
    children = ["pgrep", "-P", str(service.process.pid), "-f", "spawn_main"]
    found = subprocess.run(children, check=False, capture_output=True, text=True)
    return [int(pid) for pid in found.stdout.split()]


def run_to_end(
    *arguments: str, folder: Path, env: Mapping[str, str], seconds: float = 30
) -> subprocess.CompletedProcess[str]:
    """Run `python -m chat_sse` in a folder, with no environment but this, and wait until it has ended."""
    with tempfile.TemporaryFile() as stdout, tempfile.TemporaryFile() as stderr:
        process = start_preloaded(Start("chat_sse", arguments, str(folder), env, None), stdout, stderr)
        try:
            process.wait(seconds)
        finally:
            process.kill()
        said = [os.pread(file.fileno(), 1_000_000, 0).decode() for file in (stdout, stderr)]
        return subprocess.CompletedProcess(arguments, process.wait(seconds), *said)


def refused_start(env: Mapping[str, str], *arguments: str, exit_code: int = 2) -> str:
    """Start a service that must refuse; give what it says."""
    environ = {"PATH": "", "OPENAI_API_KEY": "sk-test", "CHAT_SSE_PORT": "0", **env}
    with tempfile.TemporaryDirectory() as folder:
        refused = run_to_end(*arguments, folder=Path(folder), env=environ)
    assert refused.returncode == exit_code, refused.stderr
    return refused.stderr
