"""Starts the service out of a process that has imported it already, as a preloading server does.

Importing takes most of a second of CPU time, and the tests start the service some hundred times. One process
for each of pytest's imports it once; for a start it forks, and the fork does what `python -m chat_sse` would.
Between the two stands a small process that waits for the service's end and tells its exit code.
"""

import atexit
import functools
import importlib
import json
import os
import resource
import runpy
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO, NamedTuple

MODULES = ("chat_sse.cli", "chat_sse.server.serve", "chat_sse.stores.redis.store", "chat_sse.limits.redis")
# Warnings are errors, but for redis-py's on Python 3.14, of which its user can change nothing.
WARNINGS = ("-W", "error", "-W", "ignore:'asyncio.iscoroutinefunction' is deprecated:DeprecationWarning")

_MAX_REQUEST_BYTES = 150_000


class Start(NamedTuple):
    """What a start is told."""

    module: str
    arguments: Sequence[str]
    folder: str
    environ: Mapping[str, str]
    open_files: int | None


class ForkedProcess:
    """A process that was forked for us: what `subprocess.Popen` offers, as far as the tests need it."""

    def __init__(self, status: socket.socket) -> None:
        self._status = status
        self.pid = int(status.recv(32))
        self.returncode: int | None = None

    def poll(self) -> int | None:
        """Return the exit code, or None while it runs."""
        try:
            return self.wait(0)
        except subprocess.TimeoutExpired:
            return None

    def wait(self, timeout: float | None = None) -> int:
        """Return the exit code, negative for a signal. Raises TimeoutExpired."""
        if self.returncode is None:
            self._status.settimeout(timeout)
            try:
                answer = self._status.recv(32)
            except (TimeoutError, BlockingIOError):
                raise subprocess.TimeoutExpired("chat_sse", timeout or 0) from None
            self._status.close()
            self.returncode = os.waitstatus_to_exitcode(int(answer))
        return self.returncode

    def send_signal(self, sig: int) -> None:
        """Send a signal, unless it has ended."""
        if self.poll() is None:
            os.kill(self.pid, sig)

    def kill(self) -> None:
        """End it at once."""
        self.send_signal(signal.SIGKILL)


def start_preloaded(start: Start, stdout: IO[bytes], stderr: IO[bytes]) -> ForkedProcess:
    """Start `python -m <module>`, with WARNINGS and these arguments; what it writes goes into two files."""
    files = stdout.fileno(), stderr.fileno()
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with theirs:
        socket.send_fds(_preloaded(), [json.dumps(start).encode()], [*files, theirs.fileno()])
    return ForkedProcess(ours)


@functools.cache
def _preloaded() -> socket.socket:
    """Start the process that imports, once."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with theirs:
        process = subprocess.Popen(
            [sys.executable, *WARNINGS, "-m", "tests.support.preloaded", str(theirs.fileno())],
            pass_fds=[theirs.fileno()],
            env={"PATH": os.environ["PATH"], "PYTHONPATH": str(Path.cwd())},
            stdout=subprocess.DEVNULL,
        )

    def end() -> None:
        ours.close()
        process.wait(10)

    atexit.register(end)
    return ours


def _next_start(control: socket.socket) -> Start | None:
    """Fork at each request. Returns what to start in a fork, and None in the first process at its end."""
    while True:
        request, descriptors, _, _ = socket.recv_fds(control, _MAX_REQUEST_BYTES, 3)
        if not request:
            return None
        stdout, stderr, status = descriptors
        if os.fork() == 0:
            control.close()
            _fork_and_wait(status)
            os.dup2(stdout, 1)
            os.dup2(stderr, 2)
            os.closerange(3, max(descriptors) + 1)
            return Start(*json.loads(request))
        for descriptor in descriptors:
            os.close(descriptor)
        with suppress(ChildProcessError):
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass


def _fork_and_wait(status: int) -> None:
    """Return in a fork. Here: tell its process id and its status, and end."""
    pid = os.fork()
    if pid == 0:
        return
    os.write(status, str(pid).encode())
    _, code = os.waitpid(pid, 0)
    os.write(status, str(code).encode())
    os._exit(0)


def _run(start: Start) -> None:
    """Be the service, as if it had been started so."""
    os.chdir(start.folder)
    os.environ.clear()
    os.environ.update(start.environ)
    time.tzset()
    if start.open_files is not None:
        resource.setrlimit(resource.RLIMIT_NOFILE, (start.open_files, start.open_files))
    sys.argv = [start.module, *start.arguments]
    runpy.run_module(start.module, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    for name in MODULES:
        importlib.import_module(name)
    with socket.socket(fileno=int(sys.argv[1])) as requests:
        todo = _next_start(requests)
    if todo is not None:
        _run(todo)
