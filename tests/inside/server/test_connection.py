"""One client's connection and its deadlines, and a worker without a supervisor."""

import asyncio
import os
from types import SimpleNamespace
from typing import Any, cast

import pytest
import uvicorn
from starlette.types import Receive, Scope, Send
from uvicorn.server import ServerState

from chat_sse.server.protocol import BoundedProtocol
from chat_sse.server.workers import WorkerServer
from tests.support.fakes import turns

RECEIVE_SECONDS = 30


async def answer(_: Scope, __: Receive, send: Send) -> None:
    """Say "ok"."""
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
    await send({"type": "http.response.body", "body": b"ok"})


def configured() -> uvicorn.Config:
    config = uvicorn.Config(answer, lifespan="off", log_config=None, timeout_keep_alive=75)
    config.load()
    return config


class Client(asyncio.Transport):
    """The server's end of a connection."""

    def __init__(self) -> None:
        super().__init__()
        loop = asyncio.get_running_loop()
        self.loop, self.began = loop, loop.time()
        self.received, self.is_ended, self.closed_at = b"", False, -1.0
        state = {"service": SimpleNamespace(receive_timeout_seconds=RECEIVE_SECONDS)}
        self.protocol = BoundedProtocol(
            config=configured(), server_state=ServerState(), app_state=state, _loop=loop
        )
        self.protocol.connection_made(self)

    def send(self, data: bytes) -> None:
        """Send something to the server."""
        self.protocol.data_received(data)

    # The transport.

    def write(self, data: Any) -> None:
        """Receive something from it."""
        self.received += data

    def write_eof(self) -> None:
        """It sends no more."""
        self.is_ended = True

    def close(self) -> None:
        """It has closed the connection."""
        if self.closed_at < 0:
            self.closed_at = self.loop.time() - self.began
            self.loop.call_soon(self.protocol.connection_lost, None)

    def is_closing(self) -> bool:
        """Tell."""
        return self.closed_at >= 0

    def get_extra_info(self, _: str, default: Any = None) -> Any:
        """Nothing is known of it."""
        return default

    def pause_reading(self) -> None:
        """Nothing arrives by itself."""

    def resume_reading(self) -> None:
        """Nothing arrives by itself."""


async def test_a_refused_client_has_a_second_to_read_why_and_is_then_closed() -> None:
    client = Client()
    await asyncio.sleep(5)
    client.send(b"this is no HTTP\r\n\r\n")
    assert client.received.startswith(b"HTTP/1.1 400 ")
    assert b"connection: close" in client.received
    assert client.is_ended
    await asyncio.sleep(0.9)
    client.send(b"more of it")  # is dropped, and puts nothing off
    assert not client.is_closing()
    await asyncio.sleep(1)
    assert client.closed_at == 5 + 1
    assert client.received.count(b"HTTP/1.1 ") == 1


@pytest.mark.parametrize(("begun", "said"), [(b"", b""), (b"GET /", b"HTTP/1.1 408 ")])
async def test_a_head_that_does_not_come_in_time_is_given_up(begun: bytes, said: bytes) -> None:
    client = Client()
    await asyncio.sleep(20)
    if begun:
        client.send(begun)
    await asyncio.sleep(RECEIVE_SECONDS)
    assert client.received.startswith(said)
    assert bool(client.received) == bool(said)
    assert client.closed_at == RECEIVE_SECONDS + bool(said)


async def test_a_request_is_answered_and_what_the_client_owes_of_it_has_a_deadline() -> None:
    client = Client()
    client.send(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\n12")
    await turns(20)
    assert client.received.endswith(b"\r\n\r\nok")
    await asyncio.sleep(RECEIVE_SECONDS + 2)
    assert client.closed_at == RECEIVE_SECONDS + 1
    assert client.received.endswith(b"\r\n\r\nok")


async def test_a_worker_whose_supervisor_is_gone_drains_and_ends() -> None:
    drains: list[tuple[float, float]] = []

    async def drain(grace_seconds: float, delay_seconds: float) -> None:
        drains.append((grace_seconds, delay_seconds))

    relay = SimpleNamespace(drain=drain)
    service = SimpleNamespace(relay=relay, shutdown_grace_seconds=7, shutdown_delay_seconds=3)

    def worker(supervisor: int) -> WorkerServer:
        server = WorkerServer(configured(), supervisor)
        server.lifespan = cast("Any", SimpleNamespace(state={"service": service}))
        return server

    kept = worker(os.getppid())
    for tick in range(20):
        assert not await kept.on_tick(tick)
    assert not kept.asked_to_exit
    orphan = worker(os.getppid() + 1)
    assert not await orphan.on_tick(1)
    assert orphan.asked_to_exit
    await turns()
    assert await orphan.on_tick(2)
    assert (drains, orphan.should_exit, orphan.force_exit) == ([(7, 3)], True, False)
