"""Chunks that are not as the reference describes them: the text arrives, and the end is the true one."""

from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chat_sse.events import Delta, Done, Event, Reasoning, Usage
from chat_sse.upstreams.openai.chunks import ChunkDecoder
from chat_sse.upstreams.openai.tolerant import clean_reason, usage_of

STOP = {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}


def sse(*chunks: Any) -> bytes:
    """Encode chunks as an upstream sends them; text goes as it is."""
    payloads = (chunk.encode() if isinstance(chunk, str) else msgspec.json.encode(chunk) for chunk in chunks)
    return b"".join(b"data: %s\n\n" % payload for payload in payloads)


def decode(data: bytes) -> tuple[list[Event], str | None]:
    """Decode a whole body: its events, and the fault's code."""
    decoder = ChunkDecoder()
    events: list[Event] = [*decoder.feed(data), *decoder.end()]
    return events, decoder.fault.code if decoder.fault else None


def of_choice(**choice: Any) -> dict[str, Any]:
    return {"choices": [{"index": 0, **choice}]}


@pytest.mark.parametrize(
    ("chunk", "event"),
    [
        (of_choice(delta={"content": ["Hi"]}), Delta("Hi")),
        (of_choice(delta={"content": [{"type": "text", "text": "Hi"}]}), Delta("Hi")),
        (of_choice(delta={"content": {"type": "output_text", "text": "Hi"}}), Delta("Hi")),
        (of_choice(message={"content": "Hi"}), Delta("Hi")),
        (of_choice(delta=None, message={"content": "Hi"}), Delta("Hi")),
        (of_choice(text="Hi"), Delta("Hi")),
        (of_choice(delta={"refusal": "No."}, logprobs=5), Delta("No.")),
        (of_choice(delta={"content": "Hi", "tool_calls": "?", "role": 7}, finish_reason=0), Delta("Hi")),
        ({"choices": {"index": "0", "delta": {"content": "Hi"}}}, Delta("Hi")),
        ({"id": 5, "object": 7, **of_choice(delta={"content": "Hi"})}, Delta("Hi")),
        ({"error": None, **of_choice(delta={"content": "Hi"})}, Delta("Hi")),
        ({"error": {}, **of_choice(delta={"content": "Hi"})}, Delta("Hi")),
        ({"error": "", **of_choice(delta={"content": "Hi"})}, Delta("Hi")),
        (of_choice(delta={"reasoning": "Hm", "content": ""}), Reasoning("Hm")),
        (of_choice(delta={"reasoning_content": {"text": "Hm"}}), Reasoning("Hm")),
        (of_choice(delta={"reasoning_details": [{"type": "reasoning.text", "text": "Hm"}]}), Reasoning("Hm")),
        (of_choice(delta={"content": [{"type": "thinking", "thinking": "Hm"}]}), Reasoning("Hm")),
    ],
)
def test_text_is_found_in_every_shape(chunk: dict[str, Any], event: Event) -> None:
    assert decode(sse(chunk, STOP, "[DONE]")) == ([event, Done(finish_reason="stop")], None)


def test_a_message_after_its_deltas_is_not_told_twice() -> None:
    whole = of_choice(message={"content": "Hi"}, finish_reason="stop")
    data = sse(of_choice(delta={"content": "Hi"}), whole, "[DONE]")
    assert decode(data) == ([Delta("Hi"), Done(finish_reason="stop")], None)


@pytest.mark.parametrize(
    "reason", ["error", "insufficient_system_resource", "network_error", "ABORT", "timeout"]
)
def test_a_finish_reason_that_means_failure_is_an_error(reason: str) -> None:
    data = sse(of_choice(delta={"content": "Half"}, finish_reason=reason), "[DONE]")
    events, fault = decode(data)
    assert events == [Delta("Half")]
    assert fault == ("timeout_error" if reason == "timeout" else "service_unavailable_error")


@pytest.mark.parametrize("reason", ["null", "NULL", "", " ", "None"])
def test_a_finish_reason_that_says_nothing_is_none(reason: str) -> None:
    data = sse(of_choice(delta={"content": "Half"}, finish_reason=reason))
    assert decode(data) == ([Delta("Half")], "upstream_protocol_error")


def test_text_after_a_finish_reason_revokes_it() -> None:
    data = sse(of_choice(delta={"content": "a"}, finish_reason="stop"), of_choice(delta={"content": "b"}))
    assert decode(data) == ([Delta("a"), Delta("b")], "upstream_protocol_error")
    assert decode(data + sse("[DONE]")) == ([Delta("a"), Delta("b"), Done(finish_reason="stop")], None)


def test_a_finish_reason_is_short_and_printable() -> None:
    assert clean_reason("stop\r\n2026 INFO forged\x1b[2J") == "stop?2026 INFO forged?[2J"
    assert len(clean_reason("x" * 9_999) or "") == 64


@pytest.mark.parametrize(
    "noise",
    [
        b"data: \n\n",
        b"data:\n\n",
        b"data: null\n\n",
        b": ping\n\n",
        b"\n\n\n",
        b"event: ping\ndata: hello\n\n",
        b'event: ping\ndata: {"type": "ping"}\n\n',
        b"id: 7\n\n",
        b"retry: 100\n\n",
        b'data: {"type":"ping"}\n\n',
    ],
)
def test_noise_is_ignored_wherever_it_stands(noise: bytes) -> None:
    text = sse(of_choice(delta={"content": "Hi"}))
    data = b"".join((noise, text, noise, sse(STOP), noise, b"data:  [DONE] \n\n"))
    assert decode(data) == ([Delta("Hi"), Done(finish_reason="stop")], None)


@pytest.mark.parametrize(
    "data",
    [
        b'data: {"error": {"message": "m", "type": "invalid_request_error"}}\n\n',
        b'data: {"error": "bad request: invalid"}\n\n',
        b'data: [{"error": {"status": "INVALID_ARGUMENT"}}]\n\n',
        b'data: {"error": {"error": {"code": 400}}}\n\n',
        b'data: {"object": "error", "code": 400}\n\n',
        b'data: {"choices": [{"index": 0, "delta": {}, "error": {"code": 400}}]}\n\n',
        b'error: {"code": 400}\n\n',
        b'event: error\ndata: {"code": 400}\n\n',
        b"event: error\ndata: invalid request\n\n",
        b'{"error": {"code": 400}}\n',
        b'{\n "error": {"code": 400}\n}',
        b'data: {"detail": "invalid model"}\n\n',
    ],
)
def test_an_error_is_one_wherever_it_is_said(data: bytes) -> None:
    assert decode(sse(of_choice(delta={"content": "Hi"})) + data) == ([Delta("Hi")], "invalid_request_error")


@pytest.mark.parametrize(
    ("told", "counts"),
    [
        ({"prompt_tokens": 7, "completion_tokens": 3, "total_tokens": 12}, (7, 3, 12)),
        ({"prompt_tokens": 7.0, "completion_tokens": "3"}, (7, 3, 10)),
        ({"input_tokens": 7, "output_tokens": 3}, (7, 3, 10)),
        ({"promptTokenCount": 7, "totalTokenCount": 10}, (7, 3, 10)),
        ({"completion_tokens": 3, "total_tokens": 10, "prompt_tokens": None}, (7, 3, 10)),
    ],
)
def test_usage_is_taken_as_far_as_it_goes(told: dict[str, Any], counts: tuple[int, int, int]) -> None:
    prompt, completion, total = counts
    assert usage_of(told) == Usage(prompt_tokens=prompt, completion_tokens=completion, total_tokens=total)


@pytest.mark.parametrize(
    "told",
    [
        {},
        None,
        7,
        [],
        {"prompt_tokens": 7},
        {"prompt_tokens": -1, "completion_tokens": 3},
        {"prompt_tokens": True, "completion_tokens": 1e300},
        {"total_tokens": "nan"},
    ],
)
def test_usage_that_cannot_be_known_is_none(told: Any) -> None:
    assert usage_of(told) is None


junk = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)
bookkeeping = st.fixed_dictionaries(
    {},
    optional={
        "id": junk,
        "object": junk,
        "created": junk,
        "usage": junk,
        "x_groq": junk,
        "model": junk,
        "system_fingerprint": junk,
        "usageMetadata": junk,
    },
)
in_choice = st.fixed_dictionaries(
    {}, optional={"logprobs": junk, "usage": junk, "native_finish_reason": junk}
)


@given(st.lists(st.tuples(st.text(min_size=1, max_size=9), bookkeeping, in_choice), min_size=1, max_size=6))
@settings(max_examples=2 * settings().max_examples)
def test_whatever_the_bookkeeping_the_text_and_its_end_arrive(
    pieces: list[tuple[str, dict[str, Any], dict[str, Any]]],
) -> None:
    chunks = [
        {**around, "choices": [{"index": 0, "delta": {"content": text}, **inside}]}
        for text, around, inside in pieces
        if around.get("object") != "error"
    ]
    events, fault = decode(sse(*chunks, STOP, "[DONE]"))
    *deltas, end = events
    assert fault is None
    assert [event.content for event in deltas if isinstance(event, Delta)] == [
        chunk["choices"][0]["delta"]["content"] for chunk in chunks
    ]
    assert isinstance(end, Done)
    assert end.finish_reason == "stop"
