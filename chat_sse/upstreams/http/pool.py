"""All connections to one server.

It stands in for the SDK's HTTP client where a question is accepted, which is nearly always: there the client
(request objects, httpx2, aiohttp) would cost more than all the rest, per request and per delta. It knows no
proxies, no redirects and no retries, and gives up at the first fault; its caller then goes the SDK's way.
"""

import asyncio
import socket
import ssl
from collections.abc import Sequence
from typing import Any

import aiohappyeyeballs

from chat_sse.upstreams.http.addresses import Addresses
from chat_sse.upstreams.http.connection import Connection

# RFC 8305, 5: "Connection Attempt Delay".
HAPPY_EYEBALLS_SECONDS = 0.25


class ConnectionPool:
    """Opens as many connections as there are requests, and keeps idle ones for a few seconds."""

    def __init__(
        self, host: str, port: int, tls: ssl.SSLContext | None, *, connect_seconds: float, idle_seconds: float
    ) -> None:
        self.loop = asyncio.get_running_loop()
        self._host, self._tls = host, tls
        self._addresses = Addresses(host, port)
        self._connect_seconds, self._idle_seconds = connect_seconds, idle_seconds
        self._idle: list[Connection] = []
        self._all: set[Connection] = set()

    async def connection(self) -> Connection:
        """Return an idle connection, the last used first, or a new one. Raises OSError or TimeoutError."""
        while self._idle:
            connection = self._idle.pop()
            if connection.resume():
                return connection
        async with asyncio.timeout(self._connect_seconds):
            return await self._connect()

    def release(self, connection: Connection) -> None:
        """Keep a connection whose reply has ended for the next request."""
        self._idle.append(connection)
        connection.set_idle(self._idle_seconds)

    def discard(self, connection: Connection) -> None:
        """Forget a closed connection."""
        self._all.discard(connection)
        if connection in self._idle:
            self._idle.remove(connection)

    def close(self) -> None:
        """Close all connections."""
        self._addresses.close()
        for connection in list(self._all):
            connection.close()

    async def _connect(self) -> Connection:
        addresses = await self._addresses.get()
        transport, connection = await self.loop.create_connection(
            lambda: Connection(self),
            **await self._place(addresses),
            ssl=self._tls,
            server_hostname=self._host if self._tls else None,
        )
        connected: socket.socket = transport.get_extra_info("socket")
        connected.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)  # a silent upstream may be a dead one
        self._all.add(connection)
        return connection

    async def _place(self, addresses: Sequence[Any]) -> dict[str, Any]:
        """Return `create_connection`'s destination: the only address, or the socket that connected first."""
        address, port, *scope = addresses[0][4]
        if len(addresses) == 1 and not any(scope):  # create_connection cannot take a scope
            return {"host": address, "port": port}  # two thirds of the CPU time of the general way
        connected = await aiohappyeyeballs.start_connection(
            addresses, happy_eyeballs_delay=HAPPY_EYEBALLS_SECONDS, loop=self.loop
        )
        return {"sock": connected}
