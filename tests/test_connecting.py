"""Connecting to upstream: to its only address or the best of several, and no longer than it may take."""

import asyncio
import os
import socket
from collections.abc import Callable, Coroutine, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import pytest
import uvloop

from chat_sse.upstreams.http.connection import Connection
from chat_sse.upstreams.http.pool import ConnectionPool
from tests.support.service import open_sockets

NAME = "upstream.example"
HERE = "127.0.0.1"
# The whole of 127/8 is this machine, but nobody listens at these.
ELSEWHERE = ("127.0.0.2", "127.0.0.3")
CONNECT_SECONDS = 0.4


class Loop(uvloop.Loop):
    """The server's loop with a resolver that knows of one more name, and its addresses."""

    addresses: tuple[str, ...]

    def run_in_executor(self, executor: Any, func: Any, *args: Any) -> Any:  # type: ignore[override]
        if args[:1] != (NAME,):
            return super().run_in_executor(executor, func, *args)
        found = self.create_future()
        found.set_result(
            [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, args[1])) for address in self.addresses]
        )
        return found


def within(
    addresses: tuple[str, ...], port: int, do: Callable[[ConnectionPool], Coroutine[Any, Any, None]]
) -> None:
    """Do something with connections to a host that has these addresses."""

    def loop() -> Loop:
        made = Loop()
        made.addresses = addresses
        return made

    async def work() -> None:
        wire = ConnectionPool(NAME, port, None, connect_seconds=CONNECT_SECONDS, idle_seconds=1)
        try:
            await do(wire)
        finally:
            wire.close()
            await asyncio.sleep(0.05)

    with asyncio.Runner(loop_factory=loop) as runner:
        runner.run(work())


@contextmanager
def listening(backlog: int = 16) -> Iterator[socket.socket]:
    with socket.create_server((HERE, 0), backlog=backlog) as listener:
        listener.settimeout(10)
        yield listener


@pytest.mark.parametrize("addresses", [(HERE,), (*ELSEWHERE, HERE), (HERE, *ELSEWHERE)])
def test_a_host_is_reached_at_the_address_that_answers_and_watched_for_its_death(
    addresses: tuple[str, ...],
) -> None:
    async def connect(wire: ConnectionPool) -> None:
        connection = await wire.connection()
        assert isinstance(connection, Connection)
        assert connection.resume()
        accepted, _ = listener.accept()
        with accepted:
            connected = connection._transport.get_extra_info("socket")  # noqa: SLF001 - a socket's option
            assert connected.getpeername() == (HERE, port)
            assert connected.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1

    with listening() as listener:
        port = listener.getsockname()[1]
        within(addresses, port, connect)


@pytest.mark.parametrize("addresses", [ELSEWHERE[:1], ELSEWHERE])
def test_where_nobody_listens_the_refusal_is_told_at_once(addresses: tuple[str, ...]) -> None:
    async def connect(wire: ConnectionPool) -> None:
        with pytest.raises(ConnectionRefusedError):
            await wire.connection()

    with listening() as listener:
        within(addresses, listener.getsockname()[1], connect)


@pytest.mark.parametrize("addresses", [(HERE,), (HERE, HERE)])
def test_a_host_that_accepts_nobody_is_given_up_in_time_and_leaves_no_socket(
    addresses: tuple[str, ...],
) -> None:
    async def connect(wire: ConnectionPool) -> None:
        before = open_sockets(os.getpid())
        with pytest.raises(TimeoutError):
            await wire.connection()
        await asyncio.sleep(0.05)
        assert open_sockets(os.getpid()) == before

    with listening(backlog=0) as listener, ExitStack() as queue:
        for _ in range(4):  # the system's queue is full: further ones get no answer at all
            waiting = queue.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex(listener.getsockname())
        within(addresses, listener.getsockname()[1], connect)
