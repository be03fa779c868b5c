"""From bytes to events: the specification's own examples, and any split of any answer."""

from itertools import pairwise

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from chat_sse.errors import (
    UpstreamAuthentication,
    UpstreamProtocol,
    UpstreamRateLimit,
    UpstreamRejected,
    UpstreamUnavailable,
)
from chat_sse.events import Delta, Done, Event, Reasoning, Usage
from chat_sse.upstreams.openai.chunks import ChunkDecoder
from chat_sse.upstreams.openai.events import MAX_EVENT_BYTES, EventSplitter

DONE = b"data: [DONE]\n\n"
USAGE = b'data: {"choices":[],"usage":{"prompt_tokens":1,"completion_tokens":2,"total_tokens":3}}\n\n'


def chunk(content: str | None = None, finish_reason: str | None = None, **delta: str) -> bytes:
    body = {"choices": [{"index": 0, "delta": {"content": content, **delta}, "finish_reason": finish_reason}]}
    return b"data: " + msgspec.json.encode(body) + b"\n\n"


def decode(*pieces: bytes) -> tuple[list[Event], ChunkDecoder]:
    decoder = ChunkDecoder()
    found: list[Event] = [event for piece in pieces for event in decoder.feed(piece)]
    return found + decoder.end(), decoder


def split(stream: bytes, at: list[int]) -> list[bytes]:
    places = sorted({0, len(stream), *(place % (len(stream) + 1) for place in at)})
    return [stream[start:end] for start, end in pairwise(places)]


@pytest.mark.parametrize(
    ("stream", "data"),
    [
        # The examples of WHATWG HTML, 9.2.6 "Interpreting an event stream", as far as they concern data.
        (b"data: YHOO\ndata: +2\ndata: 10\n\n", [b"YHOO\n+2\n10"]),
        (
            b": test stream\n\ndata: first event\nid: 1\n\ndata:second event\nid\n\n",
            [b"first event", b"second event"],
        ),
        (b"data:test\n\ndata: test\n\n", [b"test", b"test"]),
        (b"\xef\xbb\xbfdata: after a byte order mark\n\n", [b"after a byte order mark"]),
        (b"data: one\r\n\r\ndata: two\r\rdata: three\n\n", [b"one", b"two", b"three"]),
        ('data: "a\u2028b\x85c"\n\n'.encode(), ['"a\u2028b\x85c"'.encode()]),
    ],
)
def test_the_specifications_examples_are_read_as_it_says(stream: bytes, data: list[bytes]) -> None:
    assert list(EventSplitter().feed(stream)) == data
    splitter = EventSplitter()
    assert [found for byte in stream for found in splitter.feed(bytes([byte]))] == data


@given(
    texts=st.lists(st.text(st.characters(codec="utf-8"), min_size=1), max_size=8),
    ends=st.sampled_from([b"\n", b"\r\n", b"\r"]),
    at=st.lists(st.integers(0, 5000), max_size=30),
)
def test_any_text_split_anywhere_arrives_as_it_was_sent(texts: list[str], ends: bytes, at: list[int]) -> None:
    stream = b"".join([*map(chunk, texts), chunk(finish_reason="stop"), USAGE, DONE]).replace(b"\n", ends)
    found, decoder = decode(*split(stream, at))
    usage = Usage(prompt_tokens=1, completion_tokens=2, total_tokens=3)
    assert found == [*map(Delta, texts), Done(finish_reason="stop", usage=usage)]
    assert decoder.fault is None


@pytest.mark.parametrize("reason", ["stop", "length", "content_filter", "tool_calls"])
def test_the_finish_reason_is_what_upstream_said(reason: str) -> None:
    found, _ = decode(chunk("a"), chunk(finish_reason=reason), DONE)
    assert found[-1] == Done(finish_reason=reason)


def test_a_server_that_never_says_done_is_believed_its_finish_reason() -> None:
    found, decoder = decode(chunk("a"), chunk(finish_reason="stop"))
    assert found == [Delta("a"), Done(finish_reason="stop")]
    assert decoder.fault is None


def test_the_last_event_counts_without_its_blank_line() -> None:
    found, _ = decode(chunk("a"), chunk(finish_reason="stop"), b"data: [DONE]")
    assert found[-1] == Done(finish_reason="stop")


def test_a_null_finish_reason_is_told_as_null_when_usage_and_done_vouch_for_the_end() -> None:
    found, decoder = decode(chunk("a"), USAGE, DONE)
    assert isinstance(found[-1], Done)
    assert found[-1].finish_reason is None
    assert decoder.fault is None


@pytest.mark.parametrize("ending", [b"", DONE, USAGE])
def test_an_end_without_a_finish_reason_is_a_fault_and_never_stop(ending: bytes) -> None:
    found, decoder = decode(chunk("a"), ending)
    assert found == [Delta("a")]
    assert isinstance(decoder.fault, UpstreamProtocol)


@pytest.mark.parametrize(
    "nonsense",
    [
        b"data: {oops\n\n",
        b"data: []\n\n",
        b'data: {"choices":5}\n\n',
        b'data: {"choices":[{"delta":{"content":"\xff"}}]}\n\n',
    ],
)
def test_a_chunk_that_is_none_is_a_fault_after_the_deltas_before_it(nonsense: bytes) -> None:
    found, decoder = decode(chunk("a") + nonsense + chunk("b"))
    assert found == [Delta("a")]
    assert isinstance(decoder.fault, UpstreamProtocol)


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        ({"type": "server_error", "message": "secret words"}, UpstreamUnavailable),
        ({"code": "rate_limit_exceeded"}, UpstreamRateLimit),
        ({"type": "invalid_request_error", "code": None}, UpstreamRejected),
        ({"code": 401}, UpstreamAuthentication),
        ("it broke", UpstreamUnavailable),
    ],
)
def test_an_error_object_in_the_stream_is_told_by_its_kind_and_not_in_its_words(
    error: object, kind: type
) -> None:
    found, decoder = decode(chunk("a"), b"data: " + msgspec.json.encode({"error": error}) + b"\n\n")
    assert found == [Delta("a")]
    assert isinstance(decoder.fault, kind)
    assert decoder.fault is not None
    assert "secret words" not in decoder.fault.details


def test_an_event_without_an_end_is_refused_before_it_fills_the_memory() -> None:
    decoder = ChunkDecoder()
    piece = b"data: " + b"x" * 65_536
    for _ in range(MAX_EVENT_BYTES // len(piece) + 2):
        decoder.feed(piece)
    assert isinstance(decoder.fault, UpstreamProtocol)


def test_reasoning_is_read_under_both_of_its_names_and_empty_deltas_are_no_events() -> None:
    found, _ = decode(
        chunk(""), chunk(None, reasoning_content="a"), chunk(None, reasoning="b"), chunk(None, refusal="no"),
        chunk(finish_reason="stop"), DONE,
    )  # fmt: skip
    assert found == [Reasoning("a"), Reasoning("b"), Delta("no"), Done(finish_reason="stop")]


@given(st.binary(max_size=300))
def test_no_bytes_whatever_raise(data: bytes) -> None:
    _, decoder = decode(data)
    assert decoder.finished or decoder.fault is not None
