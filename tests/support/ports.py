"""Ports that a test may leave and come back to."""

import secrets
import socket

# Below those that systems give to outgoing connections (Linux: from 32,768 on). One of those, left free for a
# moment while a server is started again, may be taken by anybody's connection.
PORTS = range(20_000, 32_000)


def free_port() -> int:
    """Return a loopback port that nobody listens on."""
    while True:
        port = secrets.choice(PORTS)
        try:
            with socket.create_server(("127.0.0.1", port)):
                return port
        except OSError:
            continue
