"""An event loop in virtual time with a network of its own: names, connections, and servers that a test plays.

Connections are made and broken in the loop's own turns, so their deadlines take no real time either.
"""

import asyncio
import socket
from collections.abc import Callable
from typing import Any

from chat_sse.upstreams.http.addresses import look_up
from tests.support.virtual_time import VirtualTimeLoop

TCP = (socket.SOCK_STREAM, socket.IPPROTO_TCP, "")

Play = Callable[["Wire", bytes], None]


class Wire(asyncio.Transport):
    """The client's end of a connection; what it writes is handed to the server's play."""

    family = socket.AF_INET

    def __init__(self, loop: asyncio.AbstractEventLoop, protocol: asyncio.Protocol, play: Play) -> None:
        super().__init__()
        self._loop, self._protocol, self._play = loop, protocol, play
        self.is_closed = False
        self.closed_at = 0.0
        self.options: list[tuple[int, int, int]] = []
        self.requests: list[bytes] = []

    def write(self, data: Any) -> None:
        """Hand it to the server."""
        self.requests.append(bytes(data))
        self._loop.call_soon(self._play, self, bytes(data))

    def reply(self, data: bytes) -> None:
        """Let the client receive something."""
        if not self.is_closed:
            self._protocol.data_received(data)

    def abort(self) -> None:
        """Close it, from either side."""
        if not self.is_closed:
            self.is_closed, self.closed_at = True, self._loop.time()
            self._loop.call_soon(self._protocol.connection_lost, None)

    def is_closing(self) -> bool:
        """Tell."""
        return self.is_closed

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        """Nothing is buffered."""

    def pause_reading(self) -> None:
        """A play says no more than is asked for."""

    def resume_reading(self) -> None:
        """See `pause_reading`."""

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        """Stand in for the socket too."""
        return self if name == "socket" else default

    def getpeername(self) -> tuple[str, int]:
        """Name the server, whichever it is."""
        return "192.0.2.1", 443

    def fileno(self) -> int:
        """There is none: who looks there, as a pool for its idle connections, takes it for closed."""
        return -1

    def setsockopt(self, level: int, option: int, value: int) -> None:
        """Remember."""
        self.options.append((level, option, value))


class NetworkLoop(VirtualTimeLoop):
    """Virtual time, names that have these addresses, and one play for all connections; None: nobody accepts.

    `silent`: the addresses among them that do not even refuse.
    """

    def __init__(self) -> None:
        super().__init__()
        self.lookups: list[str] = []
        self.wires: list[Wire] = []
        self.destinations: list[tuple[Any, Any]] = []
        self.tls_names: list[str | None] = []
        self.addresses: list[tuple[Any, ...]] = [("192.0.2.1",)]
        self.silent: set[str] = set()
        self.play: Play | None = None
        self.lookup_seconds = 0.0

    async def getaddrinfo(self, host: Any, port: Any, **_: Any) -> Any:
        """Return the addresses of any name, after a while. Raises OSError without one."""
        self.lookups.append(host)
        await asyncio.sleep(self.lookup_seconds)
        if not self.addresses:
            raise socket.gaierror(socket.EAI_NONAME, "unknown")
        return [
            (socket.AF_INET6 if ":" in address else socket.AF_INET, *TCP, (address, port, *scope))
            for address, *scope in self.addresses
        ]

    def run_in_executor(self, executor: Any, func: Any, *args: Any) -> Any:  # type: ignore[override]
        """Look names up as `getaddrinfo` does, and run all else."""
        if func is look_up:
            return self.create_task(self.getaddrinfo(*args))
        return super().run_in_executor(executor, func, *args)

    async def sock_connect(self, _: socket.socket, address: Any) -> None:
        """Connect in name only."""
        if address[0] in self.silent:
            await asyncio.Event().wait()
        self.destinations.append(address)

    async def create_connection(  # type: ignore[override]  # as the pool calls it
        self,
        make: Any,
        host: Any = None,
        port: Any = None,
        *,
        sock: socket.socket | None = None,
        ssl: Any = None,
        server_hostname: Any = None,
        **_: Any,
    ) -> Any:
        """Connect to the play."""
        if sock is None:
            self.destinations.append((host, port))
        else:
            sock.close()
        self.tls_names.append(server_hostname if ssl else None)
        if self.play is None:
            await asyncio.Event().wait()
            raise AssertionError
        protocol = make()
        wire = Wire(self, protocol, self.play)
        self.wires.append(wire)
        protocol.connection_made(wire)
        return wire, protocol


def network() -> NetworkLoop:
    """Return the running loop."""
    loop = asyncio.get_running_loop()
    assert isinstance(loop, NetworkLoop)
    return loop
