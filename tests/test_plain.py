"""The strict decoder takes the ordinary, and agrees with the tolerant reader on all that it takes."""

from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chat_sse.events import Usage
from chat_sse.upstreams.openai.plain import decode_rest
from chat_sse.upstreams.openai.tolerant import read_chunk

USAGE = {"prompt_tokens": 7, "completion_tokens": 3, "total_tokens": 10}


def chunk(*choices: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"id": "c", "object": "chat.completion.chunk", "created": 1, "choices": list(choices), **more}


@pytest.mark.parametrize(
    "ordinary",
    [
        chunk({"index": 0, "delta": {"role": "assistant", "content": ""}, "finish_reason": None}),
        chunk({"index": 0, "delta": {}, "finish_reason": "stop", "logprobs": None}, usage=None),
        chunk({"index": 0, "delta": {"content": "", "reasoning_content": None}, "finish_reason": "length"}),
        chunk(usage={**USAGE, "prompt_tokens_details": {"cached_tokens": 0}}),
        chunk({"index": 0, "delta": {}, "finish_reason": "stop"}, usage=USAGE, system_fingerprint="f"),
    ],
)
def test_ordinary_ends_are_decoded_strictly(ordinary: dict[str, Any]) -> None:
    decode_rest(msgspec.json.encode(ordinary))


@pytest.mark.parametrize(
    "unusual",
    [
        chunk({"index": 0, "delta": {"content": "text"}, "finish_reason": "stop"}),
        chunk({"index": 0, "delta": {"thinking": "text"}}),
        chunk({"index": 0, "delta": {}, "message": {"content": "text"}, "finish_reason": "stop"}),
        chunk({"index": 0, "delta": {}, "text": "text"}),
        chunk({"index": 0, "delta": {}, "usage": USAGE}),
        chunk({"index": 0, "delta": {}, "error": {"code": 400}}),
        chunk({"index": 1, "delta": {}, "finish_reason": "stop"}),
        chunk({"index": 0, "delta": {}}, {"index": 1, "delta": {}}),
        chunk(usage={**USAGE, "prompt_tokens": -1}),
        chunk(usage={"prompt_tokens": 7.0, "completion_tokens": None}),
        chunk(usage=USAGE, error={"code": 400}),
        chunk(usage=USAGE, base_resp={"status_code": 1008, "status_msg": "no"}),
        chunk(usage=USAGE, detail="no"),
        chunk(usage=USAGE, message="no", code=400),
        {**chunk(usage=USAGE), "object": "error"},
        {"choices": [], "usage": USAGE},
    ],
)
def test_what_may_say_more_is_left_to_the_tolerant_reader(unusual: dict[str, Any]) -> None:
    with pytest.raises(msgspec.DecodeError):
        decode_rest(msgspec.json.encode(unusual))


words = st.none() | st.just("") | st.text(max_size=6)
counts = st.none() | st.integers(-2, 50) | st.floats(allow_nan=False, allow_infinity=False) | words
usages = st.none() | st.fixed_dictionaries({}, optional=dict.fromkeys(USAGE, counts))
deltas = st.fixed_dictionaries(
    {}, optional={"role": words, "content": words, "refusal": words, "reasoning": words, "thinking": words}
)
choices = st.fixed_dictionaries(
    {"delta": deltas},
    optional={"index": st.integers(0, 1), "finish_reason": words, "logprobs": words, "message": deltas},
)


@given(st.lists(choices, max_size=2), usages)
@settings(max_examples=500)
def test_both_readers_agree_wherever_the_strict_one_decodes(
    several: list[dict[str, Any]], usage: dict[str, Any] | None
) -> None:
    value = chunk(*several, usage=usage)
    try:
        strict = decode_rest(msgspec.json.encode(value))
    except msgspec.DecodeError:
        return
    tolerant = read_chunk(value)
    assert tolerant.events == []
    assert tolerant.error is None
    told = strict.usage and msgspec.convert(strict.usage, Usage, from_attributes=True)
    assert tolerant.usage == told
