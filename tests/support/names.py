"""A name server on loopback that hangs on cue, and what makes a process ask it.

The system's own resolver does: in a mount namespace, a process finds another resolv.conf. That takes Linux,
and root with the right to mount.
"""

from __future__ import annotations

import contextlib
import functools
import os
import socket
import struct
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path

PORT = 53  # resolv.conf knows no other
ADDRESS = "127.0.0.1"
_A, _NXDOMAIN, _RESPONSE = 1, 3, 0x8180
_CNAME_TO_QUESTION = 0xC00C  # RFC 1035, 4.1.4: the name is the one that was asked for


@functools.cache
def can_resolve() -> bool:
    """Return whether `resolving` works here."""
    if sys.platform != "linux" or os.geteuid() != 0:
        return False
    return subprocess.run(["unshare", "--mount", "true"], check=False, capture_output=True).returncode == 0


class NameServer:
    """Knows names by how many seconds it takes for each, all of them 127.0.0.1; None: it never answers.

    Others do not exist. `asked` are the names that were asked for.
    """

    def __init__(self, names: dict[str, float | None]) -> None:
        self.names = names
        self.asked: list[str] = []
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)

    def listen(self) -> str:
        """Answer from now on. Returns the address, one of loopback's that no other test has."""
        for number in range(2, 255):
            with contextlib.suppress(OSError):
                self._socket.bind((f"127.0.53.{number}", PORT))
                break
        threading.Thread(target=self._answer_all, name="name server", daemon=True).start()
        return str(self._socket.getsockname()[0])

    def close(self) -> None:
        self._socket.close()

    def _answer_all(self) -> None:
        while True:
            try:
                query, client = self._socket.recvfrom(512)
            except OSError:  # closed
                return
            name, kind = _question(query)
            self.asked.append(name)
            seconds = self.names.get(name, 0.0)
            if seconds is not None:
                reply = _reply(query, exists=name in self.names, has_address=kind == _A)
                threading.Timer(seconds, self._send, (reply, client)).start()

    def _send(self, reply: bytes, client: tuple[str, int]) -> None:
        with contextlib.suppress(OSError):
            self._socket.sendto(reply, client)


def _question(query: bytes) -> tuple[str, int]:
    """Read a query's name and type: RFC 1035, 4.1.2."""
    labels, at = list[str](), 12
    while length := query[at]:
        labels.append(query[at + 1 : at + 1 + length].decode())
        at += 1 + length
    return ".".join(labels).lower(), int.from_bytes(query[at + 1 : at + 3], "big")


def _reply(query: bytes, *, exists: bool, has_address: bool) -> bytes:
    end = query.index(0, 12) + 5
    answers = int(exists and has_address)
    flags = _RESPONSE | (0 if exists else _NXDOMAIN)
    head = query[:2] + struct.pack("!HHHHH", flags, 1, answers, 0, 0)
    record = struct.pack("!HHHIH4s", _CNAME_TO_QUESTION, _A, 1, 0, 4, socket.inet_aton(ADDRESS))
    return head + query[12:end] + record * answers


@contextlib.contextmanager
def resolving(names: dict[str, float | None], folder: Path) -> Iterator[tuple[NameServer, Sequence[str]]]:
    """Run a name server, and give what is to be put before a command for it to ask this one."""
    server = NameServer(names)
    conf = folder / "resolv.conf"
    conf.write_text(f"nameserver {server.listen()}\noptions timeout:30\n")  # it asks twice
    script = 'mount --bind "$0" /etc/resolv.conf && exec "$@"'
    try:
        yield server, ("unshare", "--mount", "sh", "-c", script, str(conf))
    finally:
        server.close()
