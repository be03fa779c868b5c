"""Which of a server's addresses a connection goes to, and who looks them up."""

import threading
from typing import Any

import pytest

from chat_sse.upstreams.http.addresses import ThreadEach, look_up
from chat_sse.upstreams.http.pool import ConnectionPool
from tests.support.network import Wire, network

ONE, OTHER = "192.0.2.1", "192.0.2.2"


def play_nothing(_: Wire, __: bytes) -> None:
    """Say nothing."""


async def connected(*addresses: tuple[object, ...], silent: str = "") -> tuple[list[tuple[Any, ...]], float]:
    """Connect. Returns where to, and after how many seconds."""
    loop = network()
    loop.play, loop.addresses, loop.silent = play_nothing, list(addresses), {silent}
    pool, began = ConnectionPool("upstream.example", 80, None, connect_seconds=5, idle_seconds=4), loop.time()
    await pool.connection()
    return loop.destinations, loop.time() - began


async def test_the_only_address_is_the_loops_to_connect() -> None:
    assert await connected((ONE,)) == ([(ONE, 80)], 0)
    network().destinations.clear()
    assert await connected(("2001:db8::1", 0, 0)) == ([("2001:db8::1", 80)], 0)


async def test_of_several_addresses_the_next_is_tried_after_a_quarter_of_a_second() -> None:
    assert await connected((ONE,), (OTHER,)) == ([(ONE, 80)], 0)
    network().destinations.clear()
    assert await connected((ONE,), (OTHER,), silent=ONE) == ([(OTHER, 80)], 0.25)


async def test_an_address_on_one_link_keeps_its_scope() -> None:
    assert await connected(("fe80::1", 0, 3)) == ([("fe80::1", 80, 0, 3)], 0)


def test_the_system_looks_names_up_and_says_what_is_none() -> None:
    each = ThreadEach()
    assert each.submit(look_up, "127.0.0.1", 80).result(5)[0][4] == ("127.0.0.1", 80)
    with pytest.raises(OSError, match="no name"):
        each.submit(look_up, "a" * 64 + ".example", 80).result(5)


def test_a_lookup_that_hangs_holds_up_neither_another_nor_the_end_of_the_process() -> None:
    each, over = ThreadEach(), threading.Event()
    hanging = each.submit(over.wait, 10)
    assert each.submit(look_up, "127.0.0.1", 80).result(5)
    assert not hanging.done()
    assert not hanging.cancel()
    assert [thread.daemon for thread in threading.enumerate() if thread.name == "lookup"] == [True]
    over.set()
    assert hanging.result(5)
