"""Redis with a replica, a Sentinel, and HAProxy as the one address that follows the master.

This is how failover is had for a client that speaks no Sentinel: HAProxy asks each server for its role.
"""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path

import redis

from tests.support.nginx import run_proxy
from tests.support.redis_server import PASSWORD, RedisServer
from tests.support.service import until

SENTINEL = """\
bind 127.0.0.1
port {port}
dir {folder}
requirepass {password}
sentinel monitor chat 127.0.0.1 {master} 1
sentinel auth-pass chat {password}
sentinel down-after-milliseconds chat 500
sentinel failover-timeout chat 3000
"""
HAPROXY = """\
defaults
    mode tcp
    timeout connect 1s
    timeout client 1m
    timeout server 1m
listen redis
    bind 127.0.0.1:{port}
    option tcp-check
    tcp-check send AUTH\\ {password}\\r\\n
    tcp-check expect string +OK
    tcp-check send info\\ replication\\r\\n
    tcp-check expect string role:master
    default-server check inter 200ms fall 1 rise 1 on-marked-down shutdown-sessions
    server a 127.0.0.1:{first}
    server b 127.0.0.1:{second}
"""


class FailingOver(RedisServer):
    """All of that in the place of one server. `kill` kills the master, once."""

    def __init__(self, folder: Path) -> None:
        super().__init__()  # for the port and the URL, which are HAProxy's
        follows = "--masterauth", PASSWORD, "--repl-diskless-sync-delay", "0", "--dir", str(folder)
        self.master = RedisServer(*follows)
        self.replica = RedisServer(*follows, "--replicaof", "127.0.0.1", str(self.master.port))
        self._sentinel = RedisServer()
        self._folder = folder
        self._stack = ExitStack()

    def start(self) -> None:
        """Start all four, and return once the Sentinel knows the replica."""
        ports = {"port": self._sentinel.port, "master": self.master.port}
        sentinel, haproxy = self._folder / "sentinel.conf", self._folder / "redis.cfg"
        sentinel.write_text(SENTINEL.format(**ports, folder=self._folder, password=PASSWORD))
        self._sentinel.command = ["redis-server", str(sentinel), "--sentinel"]
        servers = {"first": self.master.port, "second": self.replica.port}
        haproxy.write_text(HAPROXY.format(port=self.port, password=PASSWORD, **servers))
        start = self._stack.enter_context
        start(self.master)
        start(self.replica)
        until(lambda: _told(self.replica, "INFO", "replication")["master_link_status"] == "up")
        start(self._sentinel)
        until(lambda: _told(self._sentinel, "SENTINEL", "MASTER", "chat")["num-slaves"] == "1")
        log = self._folder / "haproxy.log"
        start(run_proxy("haproxy", ["-db", "-f", str(haproxy)], log, self.port))
        until(self._answers)

    def fall_behind(self) -> None:
        """Cut the replica off: what is written from now on, a failover loses."""
        with _client(self.replica) as replica, _client(self.master) as master:
            replica.config_set("masterauth", "wrong")
            master.client_kill_filter(_type="replica")

    def kill(self) -> None:
        """Kill the master, and wait until the Sentinel has made the replica one."""
        self.master.kill()
        until(self._has_failed_over)

    def _has_failed_over(self) -> bool:
        try:
            return _told(self.replica, "INFO", "replication")["role"] == "master"
        except redis.RedisError:  # it cuts its clients off when it becomes one
            return False

    def __exit__(self, *_: object) -> None:
        self._stack.close()


def _client(server: RedisServer) -> redis.Redis:
    return redis.Redis.from_url(server.url, protocol=2, decode_responses=True)


def _told(server: RedisServer, *command: str) -> dict[str, object]:
    with _client(server) as client:
        found = client.execute_command(*command)
    return found if isinstance(found, dict) else dict(zip(found[::2], found[1::2], strict=True))
