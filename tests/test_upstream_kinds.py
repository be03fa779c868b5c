"""Kinds of replies beyond the cases from the field: what they hold arrives, and they end as upstream said."""

import json
import time
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chat_sse.errors import UpstreamError
from chat_sse.events import Delta, Done, Event, Reasoning, Usage
from chat_sse.upstreams.base import UpstreamEvent
from chat_sse.upstreams.openai.chunks import ChunkDecoder, error_body
from chat_sse.upstreams.openai.classify import classify, read_error
from chat_sse.upstreams.openai.stream import CompletionStream

STOP = b'data: {"choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}\n\n'
DONE = b"data: [DONE]\n\n"
A = b'data: {"choices":[{"index":0,"delta":{"content":"A"}}]}\n\n'
B = A.replace(b'"A"', b'"B"')
END = Done(finish_reason="stop")


def decode(*pieces: bytes) -> tuple[list[Event], UpstreamError | None]:
    decoder = ChunkDecoder()
    events: list[Event] = [event for piece in pieces for event in decoder.feed(piece)]
    return events + decoder.end(), decoder.fault


def chunk(**choice: Any) -> bytes:
    return b"data: %s\n\n" % json.dumps({"choices": [{"index": 0, **choice}]}).encode()


@pytest.mark.parametrize(
    "second",
    [
        B.replace(b"}]}", b',"logprobs":{"x":NaN}}]}'),
        B.replace(b"}]}", b',"logprobs":[-Infinity]}]}'),
        B.replace(b"}]}", b'}],"x":"\xff"}'),
        B.replace(b'"B"', b'["B"]').replace(b"}]}", b'}],"x":"\xff"}'),
        B.replace(b"data: {", b"event: result\nid: 7\n:HTTP_STATUS/200\ndata:{"),
        B.replace(b'"index":0', b'"index":"a"'),
        B.replace(b'"index":0', b'"index":null'),
        chunk(delta={}, message={"content": "B"}),
        chunk(delta={"content": ""}, message={"content": "B"}),
        b'data: {"error":{"code":0,"message":""},"choices":[{"delta":{"content":"B"}}]}\n\n',
        b'data: {"error":{"code":null},"choices":[{"delta":{"content":"B"}}]}\n\n',
        b'data: {"error":"null","choices":[{"delta":{"content":"B"}}]}\n\n',
        b'data: {"base_resp":{"status_code":0,"status_msg":""},"choices":[{"delta":{"content":"B"}}]}\n\n',
    ],
)
def test_a_text_arrives_whatever_stands_beside_it(second: bytes) -> None:
    first = b"" if b'"message"' in second and b"error" not in second else A
    assert decode(first, second, STOP, DONE) == ([Delta("A")] * bool(first) + [Delta("B"), END], None)


def test_an_answer_is_one_choice_whichever_number_it_has() -> None:
    second = (A.replace(b'"index":0', b'"index":1'), STOP.replace(b'"index":0', b'"index":1'))
    assert decode(*second, DONE) == ([Delta("A"), END], None)
    assert decode(B, *second, STOP, DONE) == ([Delta("B"), END], None)


def test_half_a_character_waits_for_its_other_half() -> None:
    halves = [chunk(delta={"content": text}) for text in ("a\ud83d", "\udc4b", "b\ud83d", "c")]
    events, fault = decode(*halves, STOP, DONE)
    assert (events, fault) == ([Delta("a"), Delta("👋"), Delta("b"), Delta("\ufffdc"), END], None)


def test_events_with_no_blank_line_between_them_are_read_in_turn() -> None:
    stream = b"".join((A, B, STOP, DONE)).replace(b"\n\n", b"\n")
    assert decode(stream) == ([Delta("A"), Delta("B"), END], None)


@pytest.mark.parametrize(
    "noise",
    [b"data: ping\n\n", b'data: "ping"\n\n', b"data: {}\n\n", b"error: null\n\n", b'data: {"x":1}\n\n'],
)
def test_a_signal_is_no_part_of_an_answer(noise: bytes) -> None:
    assert decode(noise, A, noise, STOP, noise, b'data: "[DONE]"\n\n') == ([Delta("A"), END], None)


@pytest.mark.parametrize("field", ["reasoning_text", "thinking", "thinking_blocks"])
def test_reasoning_is_read_under_other_names(field: str) -> None:
    value: Any = [{"type": "thinking", "thinking": "Hm"}] if field == "thinking_blocks" else "Hm"
    assert decode(chunk(delta={field: value}), STOP, DONE) == ([Reasoning("Hm"), END], None)


@pytest.mark.parametrize(
    "data",
    [
        b'event: Error\ndata: {"code":429}\n\n',
        b'event: stream_error\ndata: {"code":429}\n\n',
        b'data: {"code":429,"message":"slow down"}\n\n',
        b'data: {"error_code":429,"error_msg":"slow down"}\n\n',
        b'data: {"base_resp":{"status_code":429,"status_msg":"slow down"}}\n\n',
        b'data: {"x_groq":{"error":{"code":429}},"choices":[{"delta":{}}]}\n\n',
        b'data: {"error":{"message":"{\\"error\\":{\\"code\\":429}}"}}\n\n',
        b'data: {"success":false,"code":429}\n\n',
        b': waiting\n{"error":{"code":429}}\n\n',
        b'data: {"choices":[]}\n{"error":{"code":429}}\n\n',
        chunk(delta={"error": {"code": 429}}),
        chunk(delta={}, error="rate limit reached"),
        b'data: {"error":{"message":"Rate limit exceeded"}}\n\n',
    ],
)
def test_an_error_is_told_wherever_it_stands(data: bytes) -> None:
    events, fault = decode(A, data, B, STOP, DONE)
    assert events == [Delta("A")]
    assert fault is not None
    assert (fault.code, fault.retryable) == ("rate_limit_error", True)


def test_a_bare_line_of_error_is_told_before_the_connection_ends() -> None:
    decoder = ChunkDecoder()
    assert decoder.feed(A + b'{"error":{"code":401}}\n') == [Delta("A")]
    assert decoder.fault is not None
    assert decoder.fault.code == "authentication_error"


@pytest.mark.parametrize("reason", ["UNEXPECTED_TOOL_CALL", "server_down", "internal", "terminated", "Error"])
def test_a_failure_ends_the_answer_at_once_and_is_no_reason(reason: str) -> None:
    events, fault = decode(A, chunk(delta={}, finish_reason=reason), B, STOP, DONE)
    assert events == [Delta("A")]
    assert fault is not None
    assert (fault.code, fault.retryable, fault.may_cost) == ("service_unavailable_error", True, True)


@pytest.mark.parametrize("reason", ["stop", "length", "content_filter", "SAFETY", "eos", "RECITATION"])
def test_a_reason_that_is_no_failure_is_passed_on(reason: str) -> None:
    assert decode(A, chunk(delta={}, finish_reason=reason), DONE)[0][-1] == Done(finish_reason=reason)


def test_numbers_beyond_all_bounds_are_no_usage() -> None:
    usage = b'data: {"choices":[],"usage":{"prompt_tokens":1e400,"completion_tokens":%d}}\n\n' % 10**30
    assert decode(A, STOP, usage, DONE) == ([Delta("A"), END], None)


@pytest.mark.parametrize(
    ("status", "error", "code", "retryable"),
    [
        (500, {"message": "This model's maximum context length is 4096"}, "invalid_request_error", False),
        (500, {"error": {"type": "invalid_request_error"}}, "invalid_request_error", False),
        (500, {"message": "余额不足"}, "rate_limit_error", False),
        (None, {"code": "token_quota_insufficient"}, "rate_limit_error", False),
        (400, {"code": "insufficient_permissions"}, "authentication_error", False),
        (503, {"code": "insufficient_capacity"}, "service_unavailable_error", True),
        (403, {"message": "flagged by moderation"}, "invalid_request_error", False),
        (None, "Request timed out.", "timeout_error", True),
        (None, {"message": "Rate limit exceeded"}, "rate_limit_error", True),
    ],
)
def test_an_error_is_retryable_only_where_asking_again_can_help(
    status: int | None, error: Any, code: str, retryable: bool
) -> None:
    found = classify(read_error(error), status, "")
    assert (found.code, found.retryable) == (code, retryable)


@pytest.mark.parametrize(
    "body", [b'{"error":{"code":7}}', b'data: {"error":{"code":7}}\n\n', b'error: {"code":7}\n']
)
def test_an_error_body_may_be_an_event(body: bytes) -> None:
    assert read_error(error_body(body)).code == "7"
    assert error_body(b"<html>") is None


@pytest.mark.parametrize("line", [b"x" * 990, b"\n".join([b"data: " + b"x" * 20] * 38)])
def test_a_large_event_in_small_pieces_takes_linear_time(line: bytes) -> None:
    decoder, began = ChunkDecoder(), time.process_time()
    decoder.feed(b"data: ")
    for _ in range(8_000):
        decoder.feed(line + b"\ndata: " * (b"\n" in line))
    assert time.process_time() - began < 4  # some 0.2 s; quadratic, it would be more than 30 s
    assert decoder.fault is None


json_lines = st.sampled_from(
    [b": hb\n\n", b"data:\n\n", b"event: ping\ndata: {}\n\n", b"\r\n", b'data: {"x":[]}\n\n']
)


@given(
    st.lists(st.tuples(st.text(st.characters(codec="utf-8"), min_size=1), json_lines), max_size=6),
    st.sampled_from(["stop", "length"]),
    st.booleans(),
    st.lists(st.integers(0, 2_000), max_size=8),
)
@settings(max_examples=200)
def test_noise_between_texts_and_reasons_on_every_chunk_change_neither_text_nor_end(
    pieces: list[tuple[str, bytes]], reason: str, everywhere: bool, cuts: list[int]
) -> None:
    said = [
        chunk(delta={"content": text}, finish_reason="stop" if everywhere else "null") for text, _ in pieces
    ]
    stream = b"".join(noise + piece for piece, (_, noise) in zip(said, pieces, strict=True))
    usage = b'data: {"choices":[{"index":0,"delta":{},"usage":{"input_tokens":1,"output_tokens":2}}]}\n\n'
    stream += chunk(delta={}, finish_reason=reason) + usage + DONE
    places = sorted({0, len(stream), *(cut % len(stream) for cut in cuts)})
    events, fault = decode(*(stream[start:end] for start, end in pairwise(places)))
    tokens = Usage(prompt_tokens=1, completion_tokens=2, total_tokens=3)
    assert fault is None
    assert events == [*(Delta(text) for text, _ in pieces), Done(finish_reason=reason, usage=tokens)]


class Ear:
    """A listener that keeps what it hears."""

    def __init__(self) -> None:
        self.heard: list[Any] = []

    def on_model(self, model: str | None) -> None:
        """Is not called here."""

    def on_accepted(self) -> None:
        self.heard.append("accepted")

    def on_activity(self) -> None:
        """Is of no interest here."""

    def on_events(self, events: Sequence[UpstreamEvent]) -> None:
        self.heard += events

    def on_entry(self, entry: bytes) -> None:
        self.heard.append(entry)


@pytest.mark.parametrize(
    "body",
    [
        b" " * 40 + b"\n" * 40 + A + STOP + DONE,
        b"\xef\xbb\xbf" + A + STOP + DONE,
        b"event: message\n" + A + STOP + DONE,
        b"\n\n" + A[6:].strip() + b"\n" + STOP[6:].strip() + b"\n",
        b" \r\n" * 30 + b'{"choices":[{"message":{"content":"A"},"finish_reason":"stop"}],"x":NaN}',
        b'[{"choices":[{"message":{"content":"A"},"finish_reason":"stop"}]}]'[1:-1],
    ],
)
@pytest.mark.parametrize("size", [1, 7, 10_000])
async def test_a_body_without_a_type_is_what_it_begins_with(body: bytes, size: int) -> None:
    ear = Ear()
    stream = CompletionStream(ear)
    stream.accept({})
    for start in range(0, len(body), size):
        stream.data(body[start : start + size])
    stream.end(lost=False)
    assert stream.finished.exception() is None
    assert ear.heard == ["accepted", Delta("A"), END]
