"""What an answer looks like in each format, by media type. The code that answers encodes the examples."""

from collections.abc import Iterable, Sequence
from typing import Any

import msgspec

from chat_sse.events import Delta, Done, Start, Usage
from chat_sse.formats import formats_at
from chat_sse.formats.ai_sdk import AiSdkFormat
from chat_sse.formats.base import Format, Json
from chat_sse.formats.openai import ROOT
from chat_sse.formats.sse import SseFormat

STREAM_ID = "8f3c1d5e9a7b42608f3c1d5e9a7b4260"
_USAGE = Usage(prompt_tokens=10, completion_tokens=8, total_tokens=18)
_ANSWER = (
    Start(id=STREAM_ID, model="gpt-4o-mini"),
    Delta("Hello"),
    Delta(" there!"),
    Done(finish_reason="stop", usage=_USAGE),
)
_ENTRIES = [msgspec.json.encode(event) for event in _ANSWER]
# The whole stream, and what a reader gets of it that comes back after its second event.
STREAM = SseFormat.example(_ENTRIES)
REST = SseFormat.encoder(STREAM_ID, 2).encode(_ENTRIES[2:]).decode()


def _content(kinds: Iterable[type[Format]]) -> Json:
    """Return the media type objects of formats, one a media type, with an answer encoded in each format."""
    by_media_type: dict[str, list[type[Format]]] = {}
    for kind in kinds:
        by_media_type.setdefault(kind.media_type, []).append(kind)
    return {media_type: _media_type_object(found) for media_type, found in by_media_type.items()}


def _media_type_object(kinds: Sequence[type[Format]]) -> Json:
    first, *others = kinds
    schema = {"oneOf": [kind.schema for kind in kinds]} if others else first.schema
    examples = {kind.name: {"summary": kind.summary, "value": _example(kind)} for kind in kinds}
    shown = {"examples": examples} if others else {"example": _example(first)}
    if first.is_sequential:
        # `itemSchema` is how 3.2 describes a stream. Today's readers show it only beside a `schema` of the
        # whole, and an example only where it is literal text.
        return {"itemSchema": schema, "schema": {"type": "array", "items": schema}, **shown}
    return {"schema": schema, **shown}


def _example(kind: type[Format]) -> Any:
    """Return one answer as it goes over the wire in a format."""
    return kind.example(_ENTRIES)


# What an answer can look like, by media type.
ANSWER = _content(formats_at())
COMPLETION = _content(formats_at(ROOT))
# Where the AI SDK's format is the default.
CHAT_ANSWER = {
    **ANSWER,
    AiSdkFormat.media_type: {
        **{key: value for key, value in ANSWER[AiSdkFormat.media_type].items() if key != "examples"},
        "example": _example(AiSdkFormat),
    },
}
