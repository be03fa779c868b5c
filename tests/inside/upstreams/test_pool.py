"""Connecting to upstream: addresses, deadlines, and the end of a pool."""

import asyncio
import socket

import pytest

from tests.inside.upstreams.test_connections import HEAD, asked, pool
from tests.support.fakes import turns
from tests.support.network import network
from tests.support.virtual_time import BEGIN_SECONDS


async def test_addresses_are_believed_for_ten_seconds() -> None:
    of = pool()
    await asked(of)
    await asyncio.sleep(9.9)
    await asked(of)
    assert network().lookups == ["upstream.example"]
    await asyncio.sleep(0.1)
    await asked(of)
    assert network().lookups == ["upstream.example"] * 2
    assert network().destinations == [("192.0.2.1", 80)] * 3
    assert network().wires[0].options == [(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)]


async def test_all_questions_wait_for_one_lookup_which_outlives_them() -> None:
    of = pool()
    network().lookup_seconds = 8
    first, second = await asyncio.gather(of.connection(), of.connection(), return_exceptions=True)
    assert (type(first), type(second)) == (TimeoutError, TimeoutError)
    await asked(of)
    assert network().time() - BEGIN_SECONDS == 8
    assert network().lookups == ["upstream.example"]


async def test_a_lookup_that_nobody_waits_for_ends_with_its_pool() -> None:
    of = pool()
    network().lookup_seconds = 99
    with pytest.raises(TimeoutError):
        await of.connection()
    of.close()
    await turns()
    assert network().timers() == []


async def test_a_connection_that_is_not_accepted_is_given_up_in_time() -> None:
    of = pool()
    network().play = None
    began = network().time()
    with pytest.raises(TimeoutError):
        await of.connection()
    assert network().time() - began == 5


async def test_closing_the_pool_closes_those_in_use_and_the_idle_ones() -> None:
    of = pool()
    (_, idle, _), (_, used, receiver) = await asked(of), await asked(of)
    idle.reply(HEAD + b"Content-Length: 0\r\n\r\n")
    of.close()
    await turns()
    assert (idle.is_closed, used.is_closed, receiver.ends) == (True, True, [True])
    assert network().timers() == []
