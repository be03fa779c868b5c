"""An event loop in virtual time beside a real Redis.

Before its clock jumps, Redis has answered all that it was asked: it works off its connections one after the
other, so when it answers the loop's own question, it has answered those before. Redis's own clock is real,
so nothing expires there during a test; a test that needs that deletes a key.
"""

import asyncio
import signal
import socket
from types import TracebackType
from typing import Any, Self

from redis import Redis

from tests.support.redis_server import PASSWORD, RedisServer
from tests.support.virtual_time import VirtualTimeLoop

# The first answer shows that a new connection was accepted, each further one that 16 KiB of what came over it
# were read: the largest command is the renewal of 500 leases.
QUESTIONS = 8


class RedisLoop(VirtualTimeLoop):
    """Virtual time that waits for a Redis, unless none is set."""

    def __init__(self) -> None:
        super().__init__()
        self._asked: socket.socket | None = None

    def settle(self) -> None:
        """Let Redis answer what it was asked."""
        if self._asked is not None:
            for _ in range(QUESTIONS):
                self._asked.sendall(b"PING\r\n")
                assert self._asked.recv(64) == b"+PONG\r\n"

    def wait_for(self, server: RedisServer) -> None:
        """Wait for this one from now on."""
        self.wait_for_none()
        self._asked = socket.create_connection(("127.0.0.1", server.port), timeout=5)
        self._asked.sendall(b"AUTH %s\r\n" % PASSWORD.encode())
        assert self._asked.recv(64) == b"+OK\r\n"

    def wait_for_none(self) -> None:
        """It hangs, or is gone: whoever asks it waits until a deadline."""
        if self._asked is not None:
            self._asked.close()
            self._asked = None

    def close(self) -> None:
        """Close it."""
        self.wait_for_none()
        super().close()


class RedisBeside:
    """The Redis beside the running loop: empty at first; what it holds, and how it fails."""

    def __init__(self, server: RedisServer) -> None:
        self.server = server
        self.url = server.url
        loop = asyncio.get_running_loop()
        assert isinstance(loop, RedisLoop)
        self.loop = loop
        self.data: Redis = Redis.from_url(server.url, protocol=2)

    def __enter__(self) -> Self:
        self.data.flushall()
        self.data.script_flush()
        self.loop.wait_for(self.server)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.loop.wait_for_none()
        self.data.close()

    def crash(self) -> None:
        """End it at once: its connections break, and nobody listens any more."""
        self.loop.wait_for_none()
        self.server.kill()

    def come_back(self) -> None:
        """Start it again, empty."""
        self.server.start()
        self.loop.wait_for(self.server)

    def hang(self) -> None:
        """Let it take commands, and neither do them nor answer."""
        self.loop.wait_for_none()
        self.server.signal(signal.SIGSTOP)

    def go_on(self) -> None:
        """Let it do what it was asked meanwhile."""
        self.server.signal(signal.SIGCONT)
        self.loop.wait_for(self.server)

    def break_connections(self) -> None:
        """Break all connections but this one; it accepts others."""
        self.loop.wait_for_none()
        self.data.client_kill_filter(skipme=True, _type="normal")
        self.data.client_kill_filter(skipme=True, _type="pubsub")
        self.loop.wait_for(self.server)

    def keys(self, pattern: str = "*") -> list[str]:
        """Return the names of the keys that it holds, in order."""
        found: Any = self.data.keys(pattern)
        return sorted(key.decode() for key in found)
