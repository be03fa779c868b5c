"""A real Redis: a process of its own on a loopback port, with no persistence, that a test may kill."""

from __future__ import annotations

import signal
import socket
import subprocess
import time
from types import TracebackType
from typing import Self

from tests.support.ports import free_port

START_SECONDS = 10.0
PASSWORD = "redis-canary-0123456789"  # in every URL, so that every log can be searched for it


class RedisServer:
    """`redis-server` on a free port; started anew it listens on the same one, empty."""

    def __init__(self, *arguments: str) -> None:
        """`arguments`: more of redis-server's options."""
        self.port = free_port()
        self.url = f"redis://:{PASSWORD}@127.0.0.1:{self.port}/0"
        bound = ("--bind", "127.0.0.1", "--port", str(self.port), "--save", "", "--requirepass", PASSWORD)
        self.command = ["redis-server", *bound, *arguments]
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start, and return once it answers."""
        self._process = subprocess.Popen(self.command, stdout=subprocess.DEVNULL)
        deadline = time.monotonic() + START_SECONDS
        while not self._answers():
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise AssertionError("redis-server did not start")
            time.sleep(0.02)

    def kill(self) -> None:
        """Stop it at once, as a crash does."""
        if self._process is not None:
            self._process.kill()
            self._process.wait(START_SECONDS)

    def signal(self, sig: signal.Signals) -> None:
        """Send it a signal: SIGSTOP makes it hang with its connections open, SIGCONT go on."""
        assert self._process is not None
        self._process.send_signal(sig)

    def _answers(self) -> bool:
        try:
            with socket.create_connection(("127.0.0.1", self.port), timeout=START_SECONDS) as connection:
                connection.sendall(b"PING\r\n")
                return connection.recv(64).startswith(b"-NOAUTH")
        except OSError:
            return False

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.kill()
