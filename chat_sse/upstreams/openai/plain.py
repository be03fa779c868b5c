"""Chunks as OpenAI's reference describes them, decoded strictly and fast.

`decode_text` is for a chunk with a text, `decode_rest` for one without: the first, the one with the
finish_reason, the one with usage. What either refuses may say more than these types hold, and is read by
`tolerant.py`.
"""

from typing import Annotated, Any, Literal, TypeAlias

import msgspec

from chat_sse.upstreams.openai.tolerant import MAX_TOKENS

Nothing: TypeAlias = Literal[""] | None
Count: TypeAlias = Annotated[int, msgspec.Meta(ge=0, le=MAX_TOKENS)]


class TextDelta(msgspec.Struct, gc=False):
    content: str | None = None
    reasoning_content: str | None = None  # DeepSeek, vLLM, llama.cpp
    reasoning: str | None = None  # OpenRouter, Ollama, newer vLLM
    reasoning_details: Any = None
    error: None = None


class TextChoice(msgspec.Struct, gc=False):
    delta: TextDelta
    index: Literal[0] = 0
    finish_reason: str | None = None
    usage: None = None
    error: None = None


class TextChunk(msgspec.Struct, gc=False):
    """A chunk, and the members by which it may say more than a text."""

    choices: list[TextChoice]
    usage: Any = None
    error: None = None
    x_groq: None = None
    usage_metadata: None = msgspec.field(name="usageMetadata", default=None)


class NoDelta(msgspec.Struct, gc=False, forbid_unknown_fields=True):
    """A delta without a text under any name."""

    role: str | None = None
    content: Nothing = None
    refusal: Nothing = None
    reasoning: Nothing = None
    reasoning_content: Nothing = None


class RestChoice(msgspec.Struct, gc=False, forbid_unknown_fields=True):
    delta: NoDelta
    index: Literal[0] = 0
    finish_reason: str | None = None
    logprobs: Any = None
    native_finish_reason: Any = None
    stop_reason: Any = None
    content_filter_results: Any = None


class PlainUsage(msgspec.Struct, gc=False):
    prompt_tokens: Count
    completion_tokens: Count
    total_tokens: Count


class RestChunk(msgspec.Struct, gc=False):
    """A chunk that is called one, says no text, and holds none of the members by which errors are told."""

    object: Literal["chat.completion.chunk"]
    choices: Annotated[list[RestChoice], msgspec.Meta(max_length=1)]
    usage: PlainUsage | None = None
    error: None = None
    errors: None = None
    detail: None = None
    success: None = None
    message: None = None
    msg: None = None
    base_resp: None = None
    x_groq: None = None
    usage_metadata: None = None
    usage_metadata_of_gemini: None = msgspec.field(name="usageMetadata", default=None)


decode_text = msgspec.json.Decoder(TextChunk).decode
decode_rest = msgspec.json.Decoder(RestChunk).decode
