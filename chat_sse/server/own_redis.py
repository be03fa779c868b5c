"""A Redis of the service's own, for several workers on one host without any set-up.

It listens on a Unix socket in a private folder, keeps nothing on disk, and ends with the service. Any
`redis-server` or `valkey-server` on PATH will do.
"""

import logging
import shutil
import socket
import subprocess
import tempfile
import time
from pathlib import Path

log = logging.getLogger(__name__)

PROGRAMS = ("redis-server", "valkey-server")
# Running answers, and the limits' counts; the finished answers have the rest.
RUNNING_BYTES = 256 * 1_048_576
START_SECONDS = 10.0
STOP_SECONDS = 5.0

# Runs a program until it ends, or until standard input does: with the pipe that this process holds, whatever
# becomes of this process.
TIED = '"$@" </dev/null & own=$!; { cat >/dev/null; kill "$own"; } <&3 3<&- & exec 3<&-; wait "$own"'


class RedisMissing(Exception):
    """There is no program that could be started, or it does not start; its text says what to do."""


def find_program() -> str:
    """Return the path of a server. Raises RedisMissing."""
    found = next(filter(None, map(shutil.which, PROGRAMS)), None)
    if found is None:
        raise RedisMissing(
            "several workers need a log that they share: install redis-server (or valkey-server), "
            "or set CHAT_SSE_REDIS_URL"
        )
    return found


class OwnRedis:
    """A server that is started here, and again when it dies."""

    def __init__(self, program: str, max_kept_bytes: int) -> None:
        """`max_kept_bytes`: of finished answers, which take somewhat more in Redis."""
        self.program = program
        self._folder = tempfile.TemporaryDirectory(prefix="chat-sse-")  # of mode 0700
        self._path = Path(self._folder.name) / "redis.sock"
        memory = RUNNING_BYTES + 2 * max_kept_bytes
        self._command = [
            *(program, "--port", "0", "--unixsocket", str(self._path), "--unixsocketperm", "600"),
            *("--save", "", "--appendonly", "no", "--dir", self._folder.name),
            *("--maxmemory", str(memory), "--maxmemory-policy", "noeviction"),
        ]
        self.url = f"unix://{self._path}?db=0"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it, and return once it listens. Raises RedisMissing."""
        self._process = subprocess.Popen(  # noqa: S603  (found on PATH)
            ["/bin/sh", "-c", f"exec 3<&0; {TIED}", "sh", *self._command],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,  # Ctrl-C in a terminal is for the service, which drains first
        )
        deadline = time.monotonic() + START_SECONDS
        while not self._listens():
            if self._process.poll() is not None or time.monotonic() > deadline:
                self.close()
                raise RedisMissing(f"{self._command[0]} does not start: set CHAT_SSE_REDIS_URL")
            time.sleep(0.01)

    def keep_alive(self) -> None:
        """Start it again if it has died; its clients make their answers known again."""
        if self._process is not None and self._process.poll() is not None:
            log.error("redis.died", extra={"fields": {"exit_code": self._process.returncode}})
            self.start()

    def close(self) -> None:
        """End it, and remove its folder."""
        self._end()
        self._folder.cleanup()

    def _end(self) -> None:
        if self._process is not None:
            with self._process as process:
                assert process.stdin is not None  # noqa: S101  (a pipe)
                process.stdin.close()
                try:
                    process.wait(STOP_SECONDS)
                except subprocess.TimeoutExpired:
                    process.kill()
            self._process = None

    def _listens(self) -> bool:
        with socket.socket(socket.AF_UNIX) as probe:
            try:
                probe.connect(str(self._path))
            except OSError:
                return False
        return True
