"""What an answer looks like in each format, by media type. Examples are encoded by the code that answers."""

from collections.abc import Mapping
from typing import Any, TypeAlias

import msgspec

from chat_sse.events import Delta, Done, Start, Usage
from chat_sse.formats import ai_sdk, json_body, sse, text

Json: TypeAlias = dict[str, Any]


def _answer_examples() -> dict[str, Any]:
    """Encode one answer in each format, as it goes over the wire. By the formats' names."""
    stream_id = "8f3c1d5e9a7b42608f3c1d5e9a7b4260"
    usage = Usage(prompt_tokens=10, completion_tokens=8, total_tokens=18)
    answer = (
        Start(id=stream_id, model="gpt-4o-mini"),
        Delta("Hello"),
        Delta(" there!"),
        Done(finish_reason="stop", usage=usage),
    )
    entries = [msgspec.json.encode(event) for event in answer]
    return {
        sse.SseFormat.name: sse.SseEncoder(stream_id, 0).encode(entries).decode(),
        text.TextFormat.name: text.encode(entries)[0].decode(),
        json_body.JsonFormat.name: msgspec.to_builtins(json_body.collect(entries)),
        ai_sdk.AiSdkFormat.name: ai_sdk.UiMessageEncoder().encode(entries).decode(),
    }


STREAMED: Json = {
    "oneOf": [
        {"$ref": "#/components/schemas/ServerSentEvent"},
        {"$ref": "#/components/schemas/UiMessageEvent"},
    ]
}

EXAMPLES = _answer_examples()

# `itemSchema` is how 3.2 describes a stream. Its readers of today show it only beside a `schema` for the
# whole, and an example only where it is literal text.
EVENT_STREAM: Json = {
    "itemSchema": STREAMED,
    "schema": {"type": "array", "items": STREAMED},
    "examples": {
        "sse": {"summary": "The default", "value": EXAMPLES["sse"]},
        "ai-sdk": {
            "summary": "?format=ai-sdk: the AI SDK's UI message stream, with events of its own",
            "value": EXAMPLES["ai-sdk"],
        },
    },
}
CHAT_STREAM: Json = {
    "itemSchema": STREAMED,
    "schema": {"type": "array", "items": STREAMED},
    "example": EXAMPLES["ai-sdk"],
}

# What an answer can look like, by media type; a new format is a line here and in `_answer_examples`.
ANSWER: Mapping[str, Json] = {
    sse.SseFormat.media_type: EVENT_STREAM,
    text.TextFormat.media_type: {"schema": {"type": "string"}, "example": EXAMPLES["text"]},
    json_body.JsonFormat.media_type: {
        "schema": {"$ref": "#/components/schemas/Answer"},
        "example": EXAMPLES["json"],
    },
}
