"""One question over our own connections: what is sent, and which reply is what."""

import asyncio

import httpx2
import pytest

from chat_sse.errors import UpstreamProtocol, UpstreamUnavailable
from chat_sse.events import Delta, Done
from chat_sse.trace_context import TRACEPARENT
from chat_sse.upstreams.openai.client import Answered, CompletionClient, Outcome, UseSdk
from chat_sse.upstreams.openai.refusal import Refused
from tests.inside.upstreams.ears import Ear
from tests.support.fakes import turns
from tests.support.network import Wire, network

CHUNK = b'data: {"choices":[{"index":0,"delta":{"content":"Hi"},"finish_reason":"stop"}]}\n\ndata: [DONE]\n\n'


def client(
    url: str = "http://upstream.example/v1/chat?x=%20", **options: tuple[str, ...]
) -> CompletionClient:
    """A client whose head says what the HTTP client would say anew, too."""
    written = httpx2.Request("POST", url, headers={"X-A": "b", "Transfer-Encoding": "x"}, content=b"{}")
    return CompletionClient(written, connect_seconds=5, idle_seconds=4, **options)


async def reply(
    head: bytes, body: bytes = b"", one: CompletionClient | None = None, *, size: int | None = None
) -> tuple[Outcome, Ear, Wire]:
    """Ask, and let the server send this. `size`: as its Content-Length has it."""

    def play(wire: Wire, _: bytes) -> None:
        length = len(body) if size is None else size
        wire.reply(b"HTTP/1.1 %s\r\nContent-Length: %d\r\n\r\n%s" % (head, length, body))

    network().play = play
    outcome = await (one or client()).ask(b'{"a":1}', ear := Ear())
    return outcome, ear, network().wires[-1]


async def test_a_question_is_sent_once_with_a_length_of_its_own() -> None:
    _, _, wire = await reply(b"200 OK\r\nContent-Type: text/event-stream", CHUNK)
    [request] = wire.requests
    head, _, body = request.partition(b"\r\n\r\n")
    first, *lines = head.split(b"\r\n")
    assert (first, body) == (b"POST /v1/chat?x=%20 HTTP/1.1", b'{"a":1}')
    assert {b"X-A: b", b"Host: upstream.example", b"Content-Length: 7"} <= set(lines)
    names = [line.partition(b":")[0].lower() for line in lines]
    assert names.count(b"content-length") == 1
    assert not {b"transfer-encoding", b"traceparent"} & set(names)


async def test_a_question_within_a_trace_says_which() -> None:
    token = TRACEPARENT.set("00-1-2-01")
    try:
        _, _, wire = await reply(b"200 OK\r\nContent-Type: text/event-stream", CHUNK)
    finally:
        TRACEPARENT.reset(token)
    assert b"\r\ntraceparent: 00-1-2-01\r\nContent-Length: 7\r\n\r\n" in wire.requests[0]


@pytest.mark.parametrize(
    ("url", "port", "tls_name"),
    [
        ("http://upstream.example/v1", 80, None),
        ("https://upstream.example/v1", 443, "upstream.example"),
        ("https://upstream.example:8443/v1", 8443, "upstream.example"),
        ("http://upstream.example:8000/v1", 8000, None),
    ],
)
async def test_a_server_is_asked_where_its_url_says(url: str, port: int, tls_name: str | None) -> None:
    await reply(b"200 OK\r\nContent-Type: text/event-stream", CHUNK, client(url))
    assert network().destinations == [("192.0.2.1", port)]
    assert network().tls_names == [tls_name]


@pytest.mark.parametrize("status", [200, 201, 299])
async def test_a_success_is_an_answer(status: int) -> None:
    outcome, ear, _ = await reply(b"%d OK\r\nContent-Type: text/event-stream" % status, CHUNK)
    assert outcome == Answered()
    assert (ear.accepted, ear.events) == (1, [Delta("Hi"), Done(finish_reason="stop")])


@pytest.mark.parametrize("status", [300, 307, 399])
async def test_a_redirect_is_for_the_sdk(status: int) -> None:
    assert (await reply(b"%d There" % status))[0] == UseSdk()


@pytest.mark.parametrize("status", [400, 401, 422])
async def test_anything_else_is_a_refusal(status: int) -> None:
    outcome, ear, _ = await reply(b"%d No\r\nX-A: b" % status, b"why")
    headers = {"x-a": "b", "content-length": "3"}
    assert outcome == Refused(status=status, headers=headers, content=b"why")
    assert (ear.accepted, ear.events) == (0, [])


async def test_a_refusal_of_a_very_long_word_is_not_heard_to_its_end() -> None:
    outcome, _, _ = await reply(b"400 No", b"x" * 65_535, size=200_000)
    assert isinstance(outcome, Refused)
    assert (len(outcome.content), network().time()) == (65_535, 1_005)  # its end is waited for
    outcome, _, _ = await reply(b"400 No", b"x" * 65_536, size=200_000)
    assert isinstance(outcome, Refused)
    assert (len(outcome.content), network().time()) == (65_536, 1_005)
    outcome, _, _ = await reply(b"400 No", b"x" * 100_000, size=200_000)
    assert isinstance(outcome, Refused)
    assert (len(outcome.content), network().time()) == (65_536, 1_005)
    await turns()
    assert [timer for timer in network().timers() if timer.when() > 1_006] == []


async def test_a_refusal_that_breaks_off_is_one_all_the_same() -> None:
    def play(wire: Wire, _: bytes) -> None:
        wire.reply(b"HTTP/1.1 400 No\r\nContent-Length: 9\r\n\r\nw")
        wire.reply(b"hy")
        wire.abort()

    network().play = play
    outcome = await client().ask(b"", Ear())
    assert isinstance(outcome, Refused)
    assert (outcome.content, network().time()) == (b"why", 1_000)


async def test_a_refusal_in_pieces_is_kept_up_to_the_same_bound() -> None:
    def play(wire: Wire, _: bytes) -> None:
        wire.reply(b"HTTP/1.1 400 No\r\nContent-Length: 200000\r\n\r\n" + b"x" * 40_000)
        wire.reply(b"x" * 40_000)

    network().play = play
    outcome = await client().ask(b"", Ear())
    assert isinstance(outcome, Refused)
    assert len(outcome.content) == 65_536


async def test_an_answer_that_breaks_off_after_its_head_has_failed_and_may_be_paid() -> None:
    def play(wire: Wire, _: bytes) -> None:
        wire.reply(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nContent-Length: 9999\r\n\r\n")
        wire.abort()

    network().play = play
    with pytest.raises(UpstreamProtocol) as raised:
        await client().ask(b"", ear := Ear())
    assert (raised.value.may_cost, ear.accepted, network().time()) == (True, 1, 1_000)


async def test_an_answer_that_breaks_off_is_not_a_refusal() -> None:
    def play(wire: Wire, _: bytes) -> None:
        wire.abort()

    network().play = play
    with pytest.raises(UpstreamUnavailable) as raised:
        await client().ask(b"", Ear())
    assert raised.value.may_cost


async def test_calls_that_were_made_again_are_counted_and_connections_closed() -> None:
    replies = [b"503 Busy\r\nretry-after-ms: 100", b"503 Busy\r\nretry-after-ms: 100", b"401 No"]

    def play(wire: Wire, _: bytes) -> None:
        wire.reply(b"HTTP/1.1 %s\r\nContent-Length: 0\r\n\r\n" % replies.pop(0))

    network().play = play
    one = client()
    assert one.retries == 0
    outcome = await one.ask(b"", Ear())
    assert isinstance(outcome, Refused)
    assert (outcome.status, one.retries, network().time()) == (401, 2, 1_000.2)
    [wire] = network().wires
    assert (len(wire.requests), wire.is_closed) == (3, False)
    one.close()
    assert wire.is_closed


async def test_a_connection_that_cannot_be_made_is_tried_three_times() -> None:
    network().play = None
    asking = asyncio.create_task((one := client()).ask(b"", Ear()))
    await asyncio.sleep(60)
    assert (type(asking.exception()).__name__, one.retries) == ("UpstreamTimeout", 2)


async def test_a_name_that_nobody_knows_is_looked_up_three_times() -> None:
    network().addresses = []
    with pytest.raises(UpstreamUnavailable, match="cannot be reached") as raised:
        await client().ask(b"", Ear())
    assert (raised.value.may_cost, len(network().lookups)) == (False, 3)


async def test_an_answer_that_is_whole_before_its_end_leaves_its_connection_to_the_next() -> None:
    head = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"

    def play(wire: Wire, _: bytes) -> None:
        wire.reply(head + b"%x\r\n%s\r\n" % (len(CHUNK), CHUNK))
        network().call_later(0.5, wire.reply, b"0\r\n\r\n")

    network().play = play
    one = client()
    for _ in range(2):
        assert await one.ask(b"", Ear()) == Answered()
        await asyncio.sleep(3)
    [wire] = network().wires
    assert (len(wire.requests), wire.is_closed) == (2, False)


async def test_no_secret_stands_in_an_answers_error() -> None:
    error = b'data: {"error":{"type":"server_error","code":"sesame_open_it"}}\n\n'
    with pytest.raises(UpstreamUnavailable) as raised:
        await reply(b"200 OK\r\nContent-Type: text/event-stream", error, client(secrets=("sesame_open_it",)))
    assert "[secret]" in raised.value.details
