"""Our own connections to upstream, byte by byte: what is a reply, and when a connection is used again."""

import asyncio
from collections.abc import Mapping
from typing import cast

import pytest

from chat_sse.upstreams.http.connection import Body, Connection
from chat_sse.upstreams.http.pool import ConnectionPool
from tests.support.fakes import turns
from tests.support.network import Wire, network

HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n"
CHUNKED = HEAD + b"Transfer-Encoding: chunked\r\n\r\n"
REQUEST = b"POST / HTTP/1.1\r\n\r\n"


class Receiver:
    """Keeps one reply."""

    def __init__(self) -> None:
        self.status = 0
        self.headers: Mapping[str, str] = {}
        self.parts: list[bytes] = []
        self.ends: list[bool] = []

    def begin(self, status: int, headers: Mapping[str, str]) -> Body:
        """Keep the head."""
        self.status, self.headers = status, headers
        return self

    def data(self, data: bytes) -> None:
        """Keep it."""
        self.parts.append(data)

    def end(self, *, lost: bool) -> None:
        """Keep how it ended."""
        self.ends.append(lost)

    @property
    def body(self) -> bytes:
        """Return the whole body."""
        return b"".join(self.parts)


def play_nothing(_: Wire, __: bytes) -> None:
    """Say nothing."""


def pool() -> ConnectionPool:
    network().play = play_nothing
    return ConnectionPool("upstream.example", 80, None, connect_seconds=5, idle_seconds=4)


async def asked(of: ConnectionPool) -> tuple[Connection, Wire, Receiver]:
    """Ask over a connection, which is a new one if there is no idle one."""
    connection, receiver = await of.connection(), Receiver()
    connection.ask(REQUEST, receiver)
    await turns()
    return connection, cast("Wire", connection._transport), receiver  # noqa: SLF001 - the other end


# Replies.


@pytest.mark.parametrize("size", [1, 7, 10_000])
async def test_a_chunked_reply_is_read_wherever_it_is_split(size: int) -> None:
    _, wire, reply = await asked(pool())
    stream = CHUNKED + b"4\r\nabcd\r\n2;x=y\r\nef\r\nA\r\n0123456789\r\n0\r\nTrailer: t\r\n\r\n"
    for start in range(0, len(stream), size):
        wire.reply(stream[start : start + size])
    assert (reply.status, reply.body, reply.ends) == (200, b"abcdef0123456789", [False])
    assert reply.headers == {"content-type": "text/event-stream", "transfer-encoding": "chunked"}
    assert not wire.is_closed


async def test_a_chunk_in_one_piece_is_handed_on_in_one() -> None:
    _, wire, reply = await asked(pool())
    wire.reply(CHUNKED + b"4\r\nabcd\r\n")
    for data in (b"3\r\nabc\r\n", b"1A\r\nabcdefghijklmnopqrstuvwxyz\r\n", b"3\r\nab", b"c\r\n"):
        wire.reply(data)
    assert reply.parts == [b"abcd", b"abc", b"abcdefghijklmnopqrstuvwxyz", b"ab", b"c"]
    assert reply.ends == []


@pytest.mark.parametrize(
    ("before", "after", "content"),
    [
        (b"8\r\n", b"\r\n", b"3\r\nabc\r\n"),
        (b"1", b"..............\r\n", b"abc\r\n.............."),  # 13 and its line end, split
        (b"1\r\nc\r\n1", b"..............\r\n", b"cabc\r\n.............."),
    ],
)
async def test_content_that_looks_like_a_chunk_is_content(
    before: bytes, after: bytes, content: bytes
) -> None:
    _, wire, reply = await asked(pool())
    wire.reply(CHUNKED + b"1\r\na\r\n1\r\nb\r\n")
    for data in (before, b"3\r\nabc\r\n", after + b"0\r\n\r\n"):
        wire.reply(data)
    assert (reply.body, reply.ends) == (b"ab" + content, [False])


async def test_a_reply_by_length_ends_with_its_last_byte() -> None:
    _, wire, reply = await asked(pool())
    wire.reply(HEAD + b"Content-Length: 4\r\n\r\nab")
    assert reply.ends == []
    wire.reply(b"cd")
    assert (reply.body, reply.ends) == (b"abcd", [False])


@pytest.mark.parametrize(
    ("head", "lost"),
    [(HEAD + b"\r\n", False), (HEAD + b"Content-Length: 9\r\n\r\n", True), (CHUNKED, True), (HEAD, True)],
)
async def test_a_connection_that_ends_says_whether_the_reply_was_whole(head: bytes, lost: bool) -> None:
    _, wire, reply = await asked(of := pool())
    wire.reply(head)
    wire.abort()
    await turns()
    assert reply.ends == [lost]
    assert vars(of)["_all"] == set()


async def test_informational_replies_are_passed_over() -> None:
    _, wire, reply = await asked(pool())
    wire.reply(b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n")
    assert (reply.status, reply.ends) == (0, [])
    wire.reply(HEAD + b"Content-Length: 2\r\n\r\nab")
    assert (reply.status, reply.body, reply.ends) == (200, b"ab", [False])
    assert "link" not in reply.headers


@pytest.mark.parametrize(
    "stream", [b"SSH-2.0-x\r\n", b"HTTP/1.1 101 Switching\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\nx"]
)
async def test_what_is_no_http_is_lost_at_once(stream: bytes) -> None:
    _, wire, reply = await asked(pool())
    wire.reply(stream)
    assert (reply.ends, wire.is_closed) == ([True], True)


async def test_what_came_before_a_fault_is_handed_on() -> None:
    _, wire, reply = await asked(pool())
    wire.reply(CHUNKED + b"2\r\nab\r\nnonsense\r\n")
    assert (reply.body, reply.ends, wire.is_closed) == (b"ab", [True], True)


async def test_an_endless_head_is_given_up() -> None:
    _, wire, reply = await asked(pool())
    wire.reply(HEAD)
    left = 65_536 - len(HEAD)
    for size in (*[1_000] * (left // 1_000), left % 1_000):
        wire.reply(b"X: " + b"x" * (size - 5) + b"\r\n")
    assert reply.ends == []
    wire.reply(b"X")
    assert (reply.ends, wire.is_closed) == ([True], True)


# Using connections again.


async def test_an_idle_connection_is_used_again_within_its_time_the_last_one_first() -> None:
    of = pool()
    three = [await asked(of) for _ in range(3)]
    for _, wire, _ in three:
        wire.reply(HEAD + b"Content-Length: 0\r\n\r\n")
    await asyncio.sleep(3.9)
    assert [wire.is_closed for _, wire, _ in three] == [False] * 3
    again, wire, _ = await asked(of)
    assert (again, len(wire.requests)) == (three[2][0], 2)
    await asyncio.sleep(0.1)
    assert [wire.is_closed for _, wire, _ in three] == [True, True, False]
    await asyncio.sleep(1_000)
    assert not wire.is_closed  # it is in use
    assert (await asked(of))[0] not in [connection for connection, _, _ in three]


@pytest.mark.parametrize(
    "reply", [b"Connection: close\r\nContent-Length: 0\r\n\r\n", b"Content-Length: 2\r\n\r\nabX"]
)
async def test_a_connection_that_cannot_be_trusted_is_not_used_again(reply: bytes) -> None:
    of = pool()
    _, wire, receiver = await asked(of)
    wire.reply(HEAD + reply)
    await turns()
    assert (len(receiver.ends), wire.is_closed) == (1, True)
    assert (await asked(of))[1] is not wire


async def test_a_reply_on_the_heels_of_another_closes_the_connection() -> None:
    of = pool()
    _, wire, receiver = await asked(of)
    one = HEAD + b"Content-Length: 2\r\n\r\nab"
    wire.reply(one + one)
    await turns()
    assert wire.is_closed
    assert receiver.ends == [False]


async def test_bytes_that_nobody_asked_for_close_an_idle_connection() -> None:
    of = pool()
    _, wire, receiver = await asked(of)
    wire.reply(HEAD + b"Content-Length: 0\r\n\r\n")
    wire.reply(HEAD + b"Content-Length: 6\r\n\r\npoison")
    assert wire.is_closed
    await turns()
    connection, fresh, second = await asked(of)
    assert fresh is not wire
    fresh.reply(HEAD + b"Content-Length: 2\r\n\r\nok")
    assert (second.body, receiver.body) == (b"ok", b"")
    assert isinstance(connection, Connection)


async def test_one_that_was_closed_while_it_was_idle_is_passed_over() -> None:
    of = pool()
    _, wire, _ = await asked(of)
    wire.reply(HEAD + b"Content-Length: 0\r\n\r\n")
    wire.is_closed = True  # the loop has not told of it yet
    assert (await asked(of))[1] is not wire


async def test_a_whole_answers_missing_end_is_waited_for_a_second() -> None:
    of = pool()
    connection, wire, receiver = await asked(of)
    wire.reply(CHUNKED + b"2\r\nab\r\n")
    connection.release(receiver, complete=True)
    await asyncio.sleep(0.9)
    wire.reply(b"0\r\n\r\n")
    assert (await asked(of))[0] is connection
    assert receiver.ends == []
    await asyncio.sleep(2)
    assert not wire.is_closed
    other, wire, receiver = await asked(of)
    wire.reply(CHUNKED + b"2\r\nab\r\n")
    other.release(receiver, complete=True)
    await asyncio.sleep(1)
    assert wire.is_closed


async def test_an_answer_that_is_given_up_closes_its_connection_and_no_other() -> None:
    of = pool()
    connection, wire, receiver = await asked(of)
    connection.release(Receiver(), complete=False)  # another's, which has ended
    assert not wire.is_closed
    connection.release(receiver, complete=False)
    assert wire.is_closed
    await turns()
    assert receiver.ends == []
