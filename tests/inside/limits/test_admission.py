"""What a question costs: what is reserved before it is asked, and what is spent when it has ended."""

import asyncio
from contextlib import suppress

import pytest

from chat_sse.errors import InvalidRequest, KeyReused, TooManyRequests, TooManyStreams
from chat_sse.events import Done, Usage
from chat_sse.limits.admission import Limits, Outcome, Permit
from chat_sse.limits.budget import Budget, prompt_bound
from chat_sse.limits.memory import MemoryCounts
from chat_sse.limits.plan import Plan
from chat_sse.limits.rates import Rate
from chat_sse.messages import ImagePart, ImageUrl, Message, Question, TextPart

ALL = 1_000_000
PROMPT = 256 + 16 + len("Hello!")
OUTPUT = 10_000


def question(*messages: str | list[TextPart | ImagePart], output: int = OUTPUT) -> Question:
    turns = [Message(role="user", content=content) for content in messages or ("Hello!",)]
    return Question(messages=turns, model="m", max_output_tokens=output)


def usage(prompt: int, completion: int, total: int) -> Done:
    told = Usage(prompt_tokens=prompt, completion_tokens=completion, total_tokens=total)
    return Done(finish_reason="stop", usage=told)


def limits(plan: Plan | None = None, system_prompt: str | None = None) -> Limits:
    plan = plan or Plan(budget_total=Budget(ALL, "month"))
    return Limits(counts=MemoryCounts(plan), system_prompt=system_prompt)


async def leave(permit: Permit, error: BaseException | None) -> None:
    """End a permit's block with an error, which it does not handle."""
    with suppress(InvalidRequest, KeyReused, asyncio.CancelledError):
        async with permit:
            if error is not None:
                raise error


async def asked(of: Limits) -> int:
    """Return how many requests have counted."""
    requests = (await of.counts.standing("a")).requests
    assert requests is not None
    return requests.quota - requests.left


async def left(of: Limits) -> int:
    tokens = (await of.counts.standing("a")).tokens
    assert tokens is not None
    return tokens.left


@pytest.mark.parametrize(
    ("refused", "done", "seconds", "size", "cost"),
    [
        (True, None, 5.0, 99, 0),
        # Upstream's own count; of two that disagree the larger one.
        (False, usage(10, 8, 18), 5.0, 500, 18),
        (False, usage(10, 8, 0), 5.0, 500, 18),
        (False, usage(10, 8, 25), 5.0, 500, 25),
        (False, usage(-5, 0, -5), 5.0, 500, 0),
        # No count: no more than the bytes of its events, and than its cap.
        (False, Done(finish_reason="stop"), 5.0, 500, PROMPT + 500),
        (False, Done(finish_reason="length"), 5.0, 2 * OUTPUT, PROMPT + OUTPUT),
        # Cut off, such as by an error in mid-stream: it may have thought without saying so.
        (False, None, 0.5, 500, PROMPT + 500 + 2_500),
        (False, None, 0.00001, 500, PROMPT + 500 + 1),
        (False, None, 60.0, 500, PROMPT + OUTPUT),
    ],
)
async def test_an_answer_costs_what_upstream_says_and_else_what_it_may_have_cost(
    refused: bool, done: Done | None, seconds: float, size: int, cost: int
) -> None:
    parts = limits()
    permit = parts.permit("a")
    await permit.admit("s", question())
    assert await left(parts) == ALL - PROMPT - OUTPUT
    outcome = Outcome(refused=refused, done=done, seconds=seconds, size=size)
    assert permit.settle(outcome) == cost
    assert await left(parts) == ALL - cost
    assert permit.settle(outcome) == 0
    assert await left(parts) == ALL - cost


async def test_a_permit_that_was_never_admitted_settles_nothing() -> None:
    parts = limits()
    permit = parts.permit("a")
    assert permit.settle(Outcome(refused=False, done=None, seconds=1, size=1)) == 0
    assert await left(parts) == ALL


async def test_what_is_told_to_a_client_is_what_is_left_to_it() -> None:
    parts = limits(Plan(rate=Rate(3, 3600), budget=Budget(20_000, "day")))
    permit = parts.permit("a")
    assert permit.headers() == {}
    await permit.admit("s", question())
    fields = permit.headers()
    assert fields["RateLimit-Policy"] == '"requests";q=3;w=3600, "tokens";q=20000;qu="tokens";w=86400'
    requests, tokens = fields["RateLimit"].split(", ")
    assert requests.startswith('"requests";r=2;t=')
    assert tokens.startswith(f'"tokens";r={20_000 - PROMPT - OUTPUT};t=')
    attached = parts.permit("a", attaches=True)
    assert attached.headers() == {}


async def test_attaching_is_free_and_misuse_of_a_key_is_not() -> None:
    parts = limits(Plan(rate=Rate(2, 3600)))
    for error in (None, InvalidRequest("malformed"), asyncio.CancelledError()):
        await leave(parts.permit("a", attaches=True), error)
    assert await asked(parts) == 0
    await leave(parts.permit("a", attaches=True), KeyReused("another body"))
    assert await asked(parts) == 1
    await leave(parts.permit("a", attaches=True), KeyReused("another body"))
    with pytest.raises(TooManyRequests):
        await leave(parts.permit("a", attaches=True), KeyReused("another body"))


async def test_a_request_counts_once_with_its_question_or_with_its_error() -> None:
    parts = limits(Plan(rate=Rate(4, 3600), streams_per_client=1))
    await leave(parts.permit("a"), None)  # it attached
    assert await asked(parts) == 0
    await leave(parts.permit("a"), InvalidRequest("malformed"))
    assert await asked(parts) == 1
    async with parts.permit("a") as permit:
        await permit.admit("s", question())
    await leave(permit, InvalidRequest("upstream says so"))
    assert await asked(parts) == 2
    with pytest.raises(TooManyStreams):
        async with parts.permit("a") as permit:
            await permit.admit("t", question())
    assert await asked(parts) == 3
    await leave(parts.permit("a"), InvalidRequest("malformed"))
    with pytest.raises(TooManyRequests):
        parts.permit("a")


async def test_the_servers_prompt_is_paid_for_too() -> None:
    parts = limits(system_prompt="Be brief.")
    await parts.permit("a").admit("s", question())
    assert await left(parts) == ALL - PROMPT - OUTPUT - len("Be brief.")


@pytest.mark.parametrize(
    ("asked", "tokens"),
    [
        (question("a", "b"), 256 + 2 * 16 + 2),
        (question("é"), 256 + 16 + 3),  # decomposed it is an e and an accent
        (question("ﬁ" * 300), 256 + 16 + 3 * 300),
        (question([TextPart(text="What?")]), 256 + 16 + 8 + 5),
        (
            question([TextPart(text="What?"), ImagePart(image_url=ImageUrl(url="https://a/b"))]),
            256 + 16 + 8 + 5 + 8 + 2_833 + 8 * 5_667,
        ),
    ],
)
def test_a_prompt_is_bounded_by_its_bytes_messages_parts_and_pictures(asked: Question, tokens: int) -> None:
    assert prompt_bound(asked) == tokens
