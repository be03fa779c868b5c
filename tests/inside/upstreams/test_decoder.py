"""What chunks say of an answer and of its end, however they are written."""

from typing import Any

import msgspec
import pytest

from chat_sse.errors import (
    UpstreamError,
    UpstreamProtocol,
    UpstreamRejected,
    UpstreamTimeout,
    UpstreamUnavailable,
)
from chat_sse.events import Delta, Done, Event, Reasoning, Usage
from chat_sse.upstreams.openai.chunks import ChunkDecoder, error_body

COUNTS = {"prompt_tokens": 1, "completion_tokens": 2, "total_tokens": 3}
USAGE = Usage(prompt_tokens=1, completion_tokens=2, total_tokens=3)
NAME = {"object": "chat.completion.chunk"}
DONE = b"data: [DONE]\n\n"


def data(value: Any) -> bytes:
    return b"data: %s\n\n" % msgspec.json.encode(value)


def chunk(content: str | None = None, reason: str | None = None, index: int = 0, **more: Any) -> bytes:
    """Encode a chunk of the plain form; `more` goes into its delta."""
    delta = {"content": content, **more}
    return data({**NAME, "choices": [{"index": index, "delta": delta, "finish_reason": reason}]})


def raw(text: bytes) -> bytes:
    """A chunk whose text is written as it stands here."""
    return b'data: {"choices":[{"delta":{"content":"%s"}}]}\n\n' % text


def message(content: str, reason: str | None = None) -> bytes:
    return data({"choices": [{"index": 0, "message": {"content": content}, "finish_reason": reason}]})


STOP = chunk(reason="stop")
END = Done(finish_reason="stop")


def decoded(*pieces: bytes, lost: bool = False) -> tuple[list[Event], UpstreamError | None]:
    decoder, events = ChunkDecoder(), list[Event]()
    for piece in pieces:
        events += decoder.feed(piece)
    return events + decoder.end(lost=lost), decoder.fault


# What it takes.


@pytest.mark.parametrize(
    ("pieces", "events"),
    [
        ([chunk("a", reasoning="b")], [Reasoning("b"), Delta("a")]),
        ([chunk(reasoning_content="b")], [Reasoning("b")]),
        ([chunk("a", reasoning_details=[{"text": "b"}])], [Reasoning("b"), Delta("a")]),
        ([chunk("a", reasoning="", reasoning_details=[])], [Delta("a")]),
        ([chunk("a"), message("a")], [Delta("a")]),
        ([chunk(reasoning="a"), message("b")], [Reasoning("a")]),
        ([raw(b"\\ud83d"), raw(b"\\udc4b"), message("b")], [Delta("👋")]),
        ([message("a"), message("b")], [Delta("a"), Delta("b")]),
        ([message("a"), chunk("b"), message("c")], [Delta("a"), Delta("b"), Delta("c")]),
        ([message(""), chunk("a"), message("a")], [Delta("a")]),
        ([chunk("a"), chunk("x", index=1), chunk("b")], [Delta("a"), Delta("b")]),
        ([chunk(reasoning="a"), chunk("x", index=1)], [Reasoning("a")]),
        ([chunk(""), chunk("x", index=1), chunk("a")], [Delta("a")]),
        ([chunk("a", index=1), data({"choices": [{"index": 0, "text": "x"}]})], [Delta("a")]),
        ([data({"choices": [{"text": "a"}]}), chunk("b")], [Delta("a"), Delta("b")]),
        ([data({**NAME, "choices": []}), chunk("a")], [Delta("a")]),
        ([data({"choices": []}), chunk("a")], [Delta("a")]),
        ([chunk("a").strip() + b"\n" + chunk("b")], [Delta("a"), Delta("b")]),
        ([b"event: ping\ndata: {oops\n\n", chunk("a")], [Delta("a")]),
        ([b'event: error\ndata: {"code":0}\n\n' + chunk("a")], [Delta("a")]),
        ([b'data: "ping"\n\n', chunk("a")], [Delta("a")]),
    ],
)
def test_a_text_is_told_once_and_in_its_order(pieces: list[bytes], events: list[Event]) -> None:
    assert decoded(*pieces, chunk(reason="stop", index=0), DONE) == ([*events, END], None)


@pytest.mark.parametrize(
    ("pieces", "events"),
    [
        ([raw(b"\\ud83d"), raw(b"\\udc4b")], [Delta("👋")]),
        ([raw(b"a\\ud83d"), raw(b"\\udc4bb")], [Delta("a"), Delta("👋b")]),
        ([raw(b"\\ud83d"), chunk("b")], [Delta("�b")]),
        ([raw(b"\\udc4b"), chunk("b")], [Delta("�"), Delta("b")]),
        ([raw(b"ab\\ud800"), raw(b"\\udbff"), raw(b"c")], [Delta("ab"), Delta("�"), Delta("�c")]),
        ([raw(b"\xef\xbf\xbd")], [Delta("�")]),
        ([raw(b"a\\ud83d"), STOP], [Delta("a")]),
    ],
)
def test_half_a_character_waits_for_the_other_half(pieces: list[bytes], events: list[Event]) -> None:
    assert decoded(*pieces, STOP, DONE) == ([*events, END], None)


def test_bytes_that_are_no_text_are_a_fault_in_a_text_alone() -> None:
    events, fault = decoded(raw(b"a"), raw(b"\xff"), STOP, DONE)
    assert events == [Delta("a")]
    assert isinstance(fault, UpstreamProtocol)
    noted = raw(b"a").replace(b"{", b'{"id":"\xff",', 1)
    assert decoded(noted, STOP, DONE) == ([Delta("a"), END], None)


# How it ends.


@pytest.mark.parametrize("usage", [data({**NAME, "choices": [], "usage": COUNTS}), data({"usage": COUNTS})])
def test_usage_is_kept_and_vouches_for_an_end_without_a_reason(usage: bytes) -> None:
    assert decoded(chunk("a"), usage, DONE) == ([Delta("a"), Done(finish_reason=None, usage=USAGE)], None)
    with_text = data({"choices": [{"delta": {"content": "b"}}], "usage": COUNTS})
    expected = [Delta("a"), Delta("b"), Done(finish_reason="stop", usage=USAGE)]
    assert decoded(chunk("a"), with_text, usage, message("b"), STOP, DONE) == (expected, None)
    events, fault = decoded(chunk("a"), usage)
    assert events == [Delta("a")]
    assert isinstance(fault, UpstreamProtocol)


def test_nothing_is_heard_after_the_end() -> None:
    decoder = ChunkDecoder()
    assert decoder.feed(STOP + DONE + chunk("a")) == [END]
    assert (decoder.feed(chunk("a") + DONE), decoder.end()) == ([], [])
    decoder = ChunkDecoder()
    assert decoder.feed(chunk("a") + STOP + b"data: [DONE]\ndata: {}\n\n") == [Delta("a"), END]
    assert (decoder.finished, decoder.fault) == (True, None)
    decoder = ChunkDecoder()
    assert decoder.feed(STOP + b"data: [DONE]") == []
    assert (decoder.end(), decoder.end()) == ([END], [])


def test_nothing_is_heard_after_a_fault() -> None:
    decoder = ChunkDecoder()
    assert decoder.feed(chunk("a") + b"data: {oops\n\n" + chunk("b")) == [Delta("a")]
    fault = decoder.fault
    assert fault is not None
    assert fault.__traceback__ is None
    assert (decoder.feed(STOP + DONE), decoder.end(), decoder.finished) == ([], [], False)
    assert decoder.fault is fault
    decoder = ChunkDecoder()
    assert decoder.feed(chunk("a") + b"data: {oops") == [Delta("a")]
    assert decoder.end() == []
    assert decoder.fault is not None


def test_a_connection_that_breaks_after_a_reason_is_believed_unless_one_was_wrong() -> None:
    assert decoded(chunk("a"), STOP, lost=True) == ([Delta("a"), END], None)
    for nothing in (chunk(""), data({"choices": [{"text": ""}]})):
        assert decoded(STOP, nothing, message("a"), STOP, nothing, lost=False) == ([Delta("a"), END], None)
        assert decoded(chunk("a"), STOP, nothing, lost=True) == ([Delta("a"), END], None)
    each = chunk("a", "stop")
    assert decoded(each, each) == ([Delta("a"), Delta("a"), END], None)
    decoder = ChunkDecoder()
    decoder.feed(each + each)
    assert decoder.end() == [END]
    events, fault = decoded(each, each, lost=True)
    assert events == [Delta("a"), Delta("a")]
    assert isinstance(fault, UpstreamProtocol)


@pytest.mark.parametrize(
    ("reason", "kind"), [("stream_timeout", UpstreamTimeout), ("error", UpstreamUnavailable)]
)
def test_a_reason_that_means_failure_may_have_cost_something(reason: str, kind: type) -> None:
    for last in (chunk(reason=reason), message("x", reason)):
        events, fault = decoded(chunk("a"), last, DONE)
        assert events == [Delta("a")]
        assert fault is not None
        assert (type(fault), fault.may_cost) == (kind, True)


# What it is at.


def test_it_is_at_rest_between_events_and_as_new_before_any_end() -> None:
    decoder = ChunkDecoder()

    def state() -> tuple[bool, bool, bool]:
        return decoder.is_at_rest, decoder.is_as_new, decoder.is_doubtful

    assert state() == (True, True, False)
    decoder.feed(chunk("a"))
    assert state() == (True, True, False)
    decoder.feed(b"da")
    assert state() == (False, False, False)
    decoder.feed(b"ta: null\n\n" + raw(b"\\ud83d"))
    assert state() == (False, False, False)
    decoder.feed(raw(b"\\udc4b"))
    assert state() == (True, True, False)
    decoder.feed(STOP)
    assert state() == (True, False, False)
    decoder.feed(chunk("b"))
    assert state() == (True, True, True)
    decoder.feed(data({"choices": [], "usage": COUNTS}))
    assert state() == (True, False, True)
    decoder.feed(DONE)
    assert state() == (False, False, True)
    decoder = ChunkDecoder()
    decoder.feed(b"data: {oops\n\n")
    assert state() == (False, False, False)


# Bodies that are no event stream.


def read(body: bytes) -> tuple[list[Event], UpstreamError | None]:
    decoder = ChunkDecoder()
    return list(decoder.read_body(body)), decoder.fault


def test_a_body_is_a_completion_or_chunks_in_lines() -> None:
    whole = b'{"choices": [{"message": {"content": "a"}, "finish_reason": "length"}]}'
    assert read(whole) == ([Delta("a"), Done(finish_reason="length")], None)
    lines = b"".join(line.removeprefix(b"data: ").strip() + b"\n" for line in (chunk("a"), chunk("b"), STOP))
    assert read(b" " + lines) == ([Delta("a"), Delta("b"), END], None)
    assert read(lines + b"[DONE]") == ([Delta("a"), Delta("b"), END], None)


@pytest.mark.parametrize(
    "body", [b"", b"<p>", b"{", b"{oops", b"x\n{}", b"{}", b'{"a":1}', b'"a"', b"null", b"[]"]
)
def test_a_body_that_is_neither_is_no_completion(body: bytes) -> None:
    events, fault = read(body)
    assert events == []
    assert isinstance(fault, UpstreamProtocol)
    assert "no chat completion" in fault.details
    assert not fault.retryable


def test_an_error_in_a_body_is_one() -> None:
    for body in (
        b'{"error": {"code": 500}}',
        b'[{"error": {"code": 500}}]',
        b'{"a":\n{"error":{"code":500}}',
    ):
        events, fault = read(body)
        assert (events, type(fault)) == ([], UpstreamUnavailable if b"\n" not in body else UpstreamProtocol)
    events, fault = read(b'{"choices": [{"message": {"content": "a"}, "finish_reason": "error"}]}')
    assert (events, type(fault)) == ([Delta("a")], UpstreamUnavailable)
    assert fault is not None
    assert fault.__traceback__ is None


def test_a_chunk_with_neither_choices_nor_usage_may_be_an_error() -> None:
    events, fault = decoded(chunk("a"), data({**NAME, "choices": [], "type": "error", "code": 400}))
    assert events == [Delta("a")]
    assert isinstance(fault, UpstreamRejected)


@pytest.mark.parametrize(
    ("content", "error"),
    [
        (b'{"a": 1}', {"a": 1}),
        (b"data: oops\n\ndata: [1]", [1]),
        (b"<html>", None),
        (b"", None),
    ],
)
def test_a_refusals_body_is_json_or_an_event_of_it(content: bytes, error: Any) -> None:
    assert error_body(content) == error


def test_an_error_event_may_be_words() -> None:
    _, fault = decoded(b"event: error\ndata: rate limit \xff\n\n")
    assert fault is not None
    assert fault.code == "rate_limit_error"
    assert fault.details == "upstream reported an error"
