"""A Redis of the service's own, for several workers on one host without any set-up.

It listens on a Unix socket in a private folder, keeps nothing on disk, and ends with the service: with the
last of its processes, since workers whose supervisor was killed still drain. Any `redis-server` or
`valkey-server` on PATH will do.
"""

import logging
import os
import shutil
import socket
import subprocess
import tempfile
from multiprocessing import Pipe
from pathlib import Path
from urllib.parse import quote

from chat_sse.child_process import end_child, first_line, start_child

log = logging.getLogger(__name__)

PROGRAMS = ("redis-server", "valkey-server")
KEEPER = str(Path(__file__).with_name("redis_keeper.py"))
# Running answers, and the limits' counts; the finished answers have the rest.
RUNNING_BYTES = 256 * 1_048_576
START_SECONDS = 10.0
STOP_SECONDS = 5.0
# Of a Unix socket's address: 108 on Linux and 104 on macOS, with the zero at its end.
MAX_PATH_BYTES = 103


class RedisMissing(Exception):
    """There is no program that could be started, or it does not start; its text says what to do."""


def find_program() -> str:
    """Return the path of a server. Raises RedisMissing."""
    found = next(filter(None, map(shutil.which, PROGRAMS)), None) if hasattr(socket, "AF_UNIX") else None
    if found is None:
        raise RedisMissing(
            "several workers need a log that they share: install redis-server or valkey-server "
            "(apt install redis-server), or set CHAT_SSE_REDIS_URL"
        )
    return found


class OwnRedis:
    """A server that is started here, and again when it dies.

    `lifeline`: the server goes on while any process has it open. Each worker gets it.
    """

    def __init__(self, program: str, max_kept_bytes: int) -> None:
        """Make the folder. `max_kept_bytes`: of finished answers, which take somewhat more in Redis.

        Raises RedisMissing when there can be no folder.
        """
        self.program = program
        self._folder = _private_folder()
        self._path = self._folder / "redis.sock"
        memory = RUNNING_BYTES + 2 * max_kept_bytes
        self._command = [
            *(program, "--port", "0", "--unixsocket", str(self._path), "--unixsocketperm", "600"),
            *("--save", "", "--appendonly", "no", "--dir", str(self._folder)),
            *("--maxmemory", str(memory), "--maxmemory-policy", "noeviction"),
        ]
        self.url = f"unix://{quote(str(self._path))}?db=0"
        self._read_end, self.lifeline = Pipe(duplex=False)
        self._keeper: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it, and return once it listens. Raises RedisMissing."""
        self._keeper = self._spawn()
        if not first_line(self._keeper, START_SECONDS):
            self.close()
            raise RedisMissing(f"{self.program} does not start: try it by hand, or set CHAT_SSE_REDIS_URL")

    def keep_alive(self) -> None:
        """Start it again if it has died; its clients make their answers known again."""
        if self._keeper is not None and (code := self._keeper.poll()) is not None:
            log.error("redis.died", extra={"fields": {"exit_code": code}})
            end_child(self._keeper)
            self._keeper = self._spawn()

    def close(self) -> None:
        """End it, and remove its folder."""
        self.lifeline.close()
        self._read_end.close()
        if self._keeper is not None:
            try:
                self._keeper.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                log.warning("redis.killed")
            end_child(self._keeper)
        shutil.rmtree(self._folder, ignore_errors=True)

    def _spawn(self) -> subprocess.Popen[bytes]:
        return start_child(
            KEEPER, str(self._folder), str(self._path), *self._command, stdin=self._read_end.fileno()
        )


def _private_folder() -> Path:
    """Make a folder of mode 0700 in which a socket's path is not too long. Raises RedisMissing."""
    try:
        usual = tempfile.gettempdir()
        room = len(os.fsencode(f"{usual}/chat-sse-12345678/redis.sock")) <= MAX_PATH_BYTES
        return Path(tempfile.mkdtemp(prefix="chat-sse-", dir=usual if room else "/tmp"))  # noqa: S108
    except OSError as exc:
        raise RedisMissing(
            f"several workers need a folder for their Redis's socket, and none can be made ({exc.strerror}): "
            "set TMPDIR, or CHAT_SSE_REDIS_URL"
        ) from exc
