"""What a request may ask, and what becomes of an exception on the way out."""

import asyncio
import logging
from typing import Any

import pytest
from starlette.requests import ClientDisconnect, Request
from starlette.types import Message, Receive, Scope, Send

from chat_sse.api.error_responses import ErrorMiddleware
from chat_sse.api.request_body import question_in_url, receive_body
from chat_sse.errors import ChatError, InvalidRequest, Overloaded, PayloadTooLarge, RequestTimeout
from chat_sse.messages import AskRequest, ImagePart, ImageUrl, TextPart, decode_ask
from chat_sse.messages import Message as Turn
from chat_sse.policy import Policy, admit

POLICY = Policy(models=("m", "other"), max_messages=3, max_chars=10, max_output_tokens=100)


def asking(*contents: str | list[TextPart | ImagePart], **options: Any) -> AskRequest:
    return AskRequest(messages=[Turn(role="user", content=content) for content in contents], **options)


def request(query: bytes = b"", parts: list[Message] | None = None, **headers: str) -> Request:
    scope = {
        "type": "http",
        "query_string": query,
        "headers": [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()],
    }
    left = list(parts or [])

    async def receive() -> Message:
        if left:
            return left.pop(0)
        await asyncio.Event().wait()
        raise AssertionError

    return Request(scope, receive)


# What a question may be.


@pytest.mark.parametrize(("wanted", "given"), [(None, 100), (5, 5), (100, 100), (101, 100), (9_999, 100)])
def test_a_client_may_set_a_cap_below_the_servers_and_none_above(wanted: int | None, given: int) -> None:
    assert admit(asking("Hi", max_output_tokens=wanted), POLICY).max_output_tokens == given


def test_characters_are_counted_in_texts_and_in_parts_alike() -> None:
    image = ImagePart(image_url=ImageUrl(url="https://example.org/" + "x" * 1_000))
    admit(asking("12345", [TextPart(text="123"), image, TextPart(text="45")]), POLICY)
    for contents in (
        ("12345678901",),
        ("12345", "123456"),
        ([TextPart(text="12345678901")],),
        ("12345", [TextPart(text="123"), image, TextPart(text="456")]),
    ):
        with pytest.raises(PayloadTooLarge, match="at most 10 characters"):
            admit(asking(*contents), POLICY)


def test_messages_are_counted_and_a_model_is_one_of_the_list() -> None:
    assert admit(asking("1", "2", "3"), POLICY, "a").client == "a"
    with pytest.raises(InvalidRequest, match="at most 3 messages"):
        admit(asking("1", "2", "3", "4"), POLICY)
    assert admit(asking("1"), POLICY).model == "m"
    assert admit(asking("1", model="other"), POLICY).model == "other"
    with pytest.raises(InvalidRequest, match="offers m, other"):
        admit(asking("1", model="gpt"), POLICY)


def test_a_question_in_a_url_may_be_as_long_as_a_body_and_no_longer() -> None:
    query = b"q=" + b"x" * 98
    assert decode_ask(question_in_url(request(query), 100)).messages[0].content == "x" * 98
    for longer in (query + b"x", b"q=x&other=" + b"x" * 200):
        with pytest.raises(PayloadTooLarge, match="100 bytes"):
            question_in_url(request(longer), 100)


# How a body arrives.


async def test_a_body_that_says_that_it_is_too_large_is_refused_unread() -> None:
    with pytest.raises(PayloadTooLarge):
        await receive_body(request(content_length="11"), 10, 30, lambda _: pytest.fail("read"))


async def test_a_body_that_grows_too_large_is_refused_there_and_one_that_does_not_come_in_time() -> None:
    parts: list[bytes] = []
    body: list[Message] = [{"type": "http.request", "body": b"12345", "more_body": True}] * 3
    with pytest.raises(PayloadTooLarge):
        await receive_body(request(parts=body), 10, 30, parts.append)
    assert parts == [b"12345", b"12345"]
    with pytest.raises(RequestTimeout, match="within 30 seconds"):
        await receive_body(request(parts=body[:1]), 10, 30, parts.append)
    with pytest.raises(ClientDisconnect):
        await receive_body(request(parts=[{"type": "http.disconnect"}]), 10, 30, parts.append)


# What goes wrong.


class Outcome:
    """What a client gets from an application that fails, behind the middleware."""

    def __init__(self) -> None:
        self.messages: list[Message] = []

    async def run(self, error: Exception, *, after_head: bool) -> None:
        """Let an application fail, before its response or in its midst."""

        async def app(_: Scope, __: Receive, send: Send) -> None:
            if after_head:
                await send({"type": "http.response.start", "status": 200, "headers": []})
            raise error

        async def send(message: Message) -> None:
            self.messages.append(message)

        scope = {"type": "http", "path": "/ask", "state": {"request_id": "r"}}
        await ErrorMiddleware(app)(scope, request().receive, send)


@pytest.mark.parametrize("error", [ValueError("secret"), Overloaded("busy")])
async def test_an_exception_after_the_head_is_raised_on_so_that_the_connection_breaks(
    error: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    outcome = Outcome()
    with pytest.raises(type(error)):
        await outcome.run(error, after_head=True)
    assert len(outcome.messages) == 1
    assert [record.msg for record in caplog.records] == ["request.crashed"]


@pytest.mark.parametrize(
    ("error", "status", "logged"),
    [(ValueError("secret"), 500, 1), (Overloaded("busy", retry_after=1.2), 503, 0)],
)
async def test_an_exception_before_the_head_is_the_one_error_body(
    error: Exception, status: int, logged: int, caplog: pytest.LogCaptureFixture
) -> None:
    outcome = Outcome()
    await outcome.run(error, after_head=False)
    head, body = outcome.messages
    assert head["status"] == status
    assert b"secret" not in body["body"]
    assert len(caplog.records) == logged
    if isinstance(error, ChatError):
        assert (b"retry-after", b"2") in head["headers"]


async def test_a_client_that_left_is_no_error(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    outcome = Outcome()
    await outcome.run(ClientDisconnect(), after_head=False)
    assert outcome.messages == []
    assert [(record.levelname, record.msg) for record in caplog.records] == [("INFO", "request.abandoned")]
