"""What the other end of a loopback connection has not read yet, which the kernel lists: proc_net_tcp(5)."""

import socket
from pathlib import Path

_TABLE = Path("/proc/net/tcp")


def has_unread(own: socket.socket) -> bool:
    """Return whether what was sent is still on its way, or in the peer's buffer; False where nobody can tell.

    What the peer has read, its program has got.
    """
    try:
        (_, here), (_, there) = own.getsockname()[:2], own.getpeername()[:2]
        rows = [row.split() for row in _TABLE.read_text().splitlines()[1:]]
    except (OSError, ValueError):  # the peer has gone; no Linux
        return False
    ports = {(f"{here:04X}", f"{there:04X}"): 0, (f"{there:04X}", f"{here:04X}"): 1}
    for _, local, remote, _, queues, *_ in rows:
        side = ports.get((local.rpartition(":")[2], remote.rpartition(":")[2]))
        if side is not None and int(queues.split(":")[side], 16):
            return True
    return False
