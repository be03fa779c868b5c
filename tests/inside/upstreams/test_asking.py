"""A question to an OpenAI-compatible server, from its request to the listener, in virtual time."""

import asyncio
from contextlib import AsyncExitStack

import pytest

from chat_sse.errors import UpstreamError, UpstreamRateLimit, UpstreamTimeout, UpstreamUnavailable
from chat_sse.events import Delta, Done
from chat_sse.settings import Settings
from chat_sse.upstreams.openai.upstream import OpenAIUpstream
from chat_sse.upstreams.opening import open_upstream
from tests.inside.upstreams.ears import Ear
from tests.support.fakes import QUESTION, turns
from tests.support.network import Play, Wire, network

CHUNK = b'data: {"choices":[{"index":0,"delta":{"content":"Hi"},"finish_reason":"stop"}]}\n\ndata: [DONE]\n\n'
ANSWER = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nContent-Length: %d\r\n\r\n%s" % (
    len(CHUNK),
    CHUNK,
)


def answer(wire: Wire, _: bytes) -> None:
    wire.reply(ANSWER)


def refuse_first(*heads: bytes, body: bytes = b"{}") -> Play:
    """Refuse one question for each head, then answer."""
    left = list(heads)

    def play(wire: Wire, _: bytes) -> None:
        if left:
            head = b"HTTP/1.1 %s\r\nContent-Length: %d\r\n\r\n" % (left.pop(0), len(body))
            wire.reply(head + body)
        else:
            wire.reply(ANSWER)

    return play


async def ask(upstream: OpenAIUpstream, play: Play | None = answer) -> tuple[Ear, float]:
    """Ask. Returns what was heard, and after how many seconds."""
    network().play = play
    ear, began = Ear(), network().time()
    await upstream.answer(QUESTION, ear)
    return ear, network().time() - began


def upstream(**options: object) -> OpenAIUpstream:
    return OpenAIUpstream(api_key="sk-x", base_url="http://upstream.example/v1", **options)  # type: ignore[arg-type]


async def refusal(play: Play | None) -> tuple[UpstreamError, float]:
    began = network().time()
    with pytest.raises(UpstreamError) as raised:
        await ask(upstream(), play)
    return raised.value, network().time() - began


async def test_an_answer_is_heard_and_its_connection_kept_for_four_seconds() -> None:
    one = upstream()
    ear, _ = await ask(one)
    assert (ear.accepted, ear.events) == (1, [Delta("Hi"), Done(finish_reason="stop")])
    await asyncio.sleep(3.99)
    await ask(one)
    [wire] = network().wires
    assert len(wire.requests) == 2
    closing_at = network().time() + 4
    await asyncio.sleep(5)
    assert (wire.is_closed, wire.closed_at) == (True, closing_at)


@pytest.mark.parametrize(
    ("head", "seconds"),
    [
        (b"429 Slow\r\nretry-after-ms: 1500", 1.5),
        (b"429 Slow\r\nRetry-After: 2", 2),
        (b"503 Busy\r\nRetry-After-Ms: 250\r\nRetry-After: 60", 0.25),
        (b"400 No\r\nx-should-retry: true\r\nretry-after-ms: 100", 0.1),
    ],
)
async def test_a_passing_refusal_is_waited_out_as_upstream_says(head: bytes, seconds: float) -> None:
    ear, waited = await ask(upstream(), refuse_first(head))
    assert waited == pytest.approx(seconds)
    assert ear.accepted == 1


async def test_without_a_word_of_upstreams_each_wait_is_twice_the_one_before() -> None:
    _, waited = await ask(upstream(), refuse_first(b"500 Oh", b"500 Oh"))
    assert 0.75 * 1.5 <= waited <= 1.5


async def test_after_two_repetitions_a_refusal_is_believed() -> None:
    error, waited = await refusal(refuse_first(*[b"429 Slow\r\nretry-after-ms: 100"] * 3))
    assert (type(error), error.retry_after, error.may_cost) == (UpstreamRateLimit, 0.1, False)
    assert waited == pytest.approx(0.2)


@pytest.mark.parametrize(
    "head", [b"429 Slow\r\nretry-after: 2.1", b"503 No\r\nx-should-retry: false", b"404 No", b"401 No"]
)
async def test_what_asking_again_at_once_cannot_mend_is_told_at_once(head: bytes) -> None:
    _, waited = await refusal(refuse_first(head))
    assert waited == 0


async def test_money_that_is_spent_does_not_come_back_by_asking_again() -> None:
    play = refuse_first(b"429 Slow\r\nx-should-retry: false", body=b'{"error":{"code":"insufficient_quota"}}')
    error, _ = await refusal(play)
    assert (type(error), error.retryable) == (UpstreamRateLimit, False)


async def test_a_server_that_accepts_no_connection_is_given_up_after_three_attempts() -> None:
    async with AsyncExitStack() as stack:
        settings = Settings(
            openai_api_key="sk-x", openai_base_url="http://upstream.example/v1", connect_timeout=3
        )
        one = await open_upstream(settings, stack)
        network().play, began = None, network().time()
        with pytest.raises(UpstreamTimeout) as raised:
            await one.answer(QUESTION, Ear())
    assert not raised.value.may_cost
    assert 9 + 0.75 * 1.5 <= network().time() - began <= 9 + 1.5
    assert len(network().destinations) == 3


async def test_a_question_that_was_sent_and_lost_is_not_sent_again() -> None:
    error, _ = await refusal(lambda wire, _: wire.abort())
    assert (type(error), error.may_cost) == (UpstreamUnavailable, True)
    assert len(network().wires) == 1


async def test_a_refusal_whose_body_does_not_end_is_waited_for_five_seconds() -> None:
    error, waited = await refusal(
        lambda wire, _: wire.reply(b"HTTP/1.1 400 No\r\nContent-Length: 9\r\n\r\n{")
    )
    assert (waited, error.code) == (5, "invalid_request_error")


async def test_cancelling_a_question_closes_its_connection() -> None:
    asking = asyncio.create_task(ask(upstream(), lambda wire, _: wire.reply(ANSWER[:80])))
    await asyncio.sleep(1)
    asking.cancel()
    await turns()
    assert (asking.cancelled(), network().wires[0].is_closed) == (True, True)


async def test_the_accounts_names_go_where_its_key_goes() -> None:
    async with AsyncExitStack() as stack:
        settings = Settings(
            openai_api_key="sk-x",
            openai_base_url="http://upstream.example/v1",
            openai_org_id="org-7",
            openai_project_id="proj-8",
        )
        one = await open_upstream(settings, stack)
        network().play = answer
        await one.answer(QUESTION, Ear())
    head = network().wires[0].requests[0].partition(b"\r\n\r\n")[0].lower().split(b"\r\n")
    assert {b"openai-organization: org-7", b"openai-project: proj-8", b"authorization: bearer sk-x"} <= set(
        head
    )


async def test_a_user_in_the_base_url_is_what_the_server_is_told_and_no_secret_is_in_the_name() -> None:
    one = OpenAIUpstream(api_key="sk-x", base_url="http://ada:pass@upstream.example/v1")
    ear, _ = await ask(one)
    head = network().wires[0].requests[0].partition(b"\r\n\r\n")[0].lower().split(b"\r\n")
    credentials = [line for line in head if line.startswith(b"authorization")]
    assert credentials == [b"authorization: basic ywrhonbhc3m="]
    assert b"host: upstream.example" in head
    assert (ear.accepted, one.name) == (1, "http://upstream.example/v1")
    assert network().destinations == [("192.0.2.1", 80)]
