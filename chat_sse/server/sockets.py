"""The sockets that the service listens on: at an address, or as a file for a proxy on the same machine."""

import os
import socket
import stat
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

# Read and write for the owner and the group: who may connect may name any visitor's address.
FORBIDDEN_MODE = 0o117


class CannotListen(Exception):
    """The socket file cannot be made; the message says why."""


@contextmanager
def unix_socket(path: Path, backlog: int) -> Iterator[socket.socket]:
    """Listen at a path, and remove the file at the exit. Raises CannotListen.

    A socket that nobody listens on is left from a process that was killed, and is replaced. It listens at
    once, before there is anyone to accept, so that another process never takes it for such a one.
    """
    if not hasattr(socket, "AF_UNIX") or sys.platform == "win32":
        raise CannotListen("this system has no Unix sockets")
    with socket.socket(socket.AF_UNIX) as listening:
        umask = os.umask(FORBIDDEN_MODE)
        try:
            _remove_stale(path)
            listening.bind(str(path))
            listening.listen(backlog)
        except OSError as exc:
            raise CannotListen(f"{path}: {exc.strerror or exc}") from exc
        finally:
            os.umask(umask)
        own = _identity(path)
        try:
            yield listening
        finally:
            if _identity(path) == own:
                path.unlink()


def _remove_stale(path: Path) -> None:
    """Remove a socket that nobody listens on. Raises CannotListen for any other file."""
    try:
        mode = path.lstat().st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(mode):
        raise CannotListen(f"{path} exists, and is no socket")
    with socket.socket(socket.AF_UNIX) as probe:
        probe.setblocking(False)  # a full backlog is an answer as well
        try:
            probe.connect(str(path))
        except ConnectionRefusedError:
            path.unlink()
            return
        except BlockingIOError:
            pass
    raise CannotListen(f"{path}: another process listens there")


def _identity(path: Path) -> tuple[int, int] | None:
    try:
        found = path.lstat()
    except OSError:
        return None
    return found.st_dev, found.st_ino


def beside(bound: socket.socket) -> socket.socket:
    """Return another socket at the same address. Only Linux spreads connections; elsewhere a duplicate.

    So is that of a Unix socket: its workers share one queue.
    """
    if sys.platform != "linux" or bound.family == socket.AF_UNIX:
        return bound.dup()
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    another = socket.socket(bound.family, bound.type)
    another.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    another.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    milliseconds = bound.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT)
    another.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, milliseconds)
    another.bind(bound.getsockname())
    return another


def bound_unread_bytes(listening: socket.socket, seconds: float) -> None:
    """Make the kernel reset a connection whose peer accepts no bytes for so long; inherited by accept.

    asyncio flushes before it closes, and would otherwise wait forever for a client that does not read. Behind
    a Unix socket that is left to the proxy, which has such a limit for its own clients.
    """
    if hasattr(socket, "TCP_USER_TIMEOUT") and listening.family != socket.AF_UNIX:
        listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, int(seconds * 1000))
