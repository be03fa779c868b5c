"""The Vercel AI SDK's UI message stream, version 1, as `useChat` of AI SDK 5, 6 and 7 reads it.

Source: https://ai-sdk.dev/docs/ai-sdk-ui/stream-protocol and `uiMessageChunkSchema` in the package `ai`. Its
client refuses the whole stream for one chunk that is not in the schema, so only chunks that all those
versions know are sent (`finishReason` from 5.0.92 on).

An answer's chunks, each an event's data:

    start · start-step · (reasoning-start · reasoning-delta… · reasoning-end)
    · text-start · text-delta… · text-end · finish-step · finish · [DONE]

The message's id is the stream's, so that `DELETE /ask/<message.id>` stops it. A stopped answer ends with
`abort`, a failed one with `error`, each before `[DONE]`. Both leave the open part open, as the AI SDK's own
server does: its text is not complete.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar, Literal, TypeAlias

import msgspec
from starlette.responses import Response

from chat_sse.events import (
    Delta,
    Done,
    Event,
    Failure,
    Reasoning,
    Start,
    Terminal,
    Usage,
    as_ascii,
    decode_event,
)
from chat_sse.formats.base import EVENT_STREAM, SCHEMA_REF, Format, Json, Reading
from chat_sse.formats.sse import Encoder, EventStream

HEADERS = ((b"x-vercel-ai-ui-message-stream", b"v1"),)

DONE = b"data: [DONE]\n\n"

# Any other reason of upstream's, and none, is "other".
FINISH_REASONS = {
    "stop": "stop",
    "length": "length",
    "content_filter": "content-filter",
    "tool_calls": "tool-calls",
    "function_call": "tool-calls",
}

UI_MESSAGE_EVENT: Json = {
    "title": "UiMessageEvent",
    "description": "One event of `?format=ai-sdk`: a chunk of the AI SDK's UI message stream, or `[DONE]`.",
    "type": "object",
    "required": ["data"],
    "properties": {"data": {"type": "string", "pattern": r"^(\{|\[DONE\]$)"}},
    "not": {"required": ["id"]},  # clients must not resume it by an id
}

Chunk: TypeAlias = dict[str, Any]
Part: TypeAlias = Literal["text", "reasoning"]

_encode = msgspec.json.Encoder().encode


class UiMessageEncoder(Encoder):
    """Encodes one answer's entries from the first one on. It remembers which part of the message is open."""

    __slots__ = ("_open", "_part_id", "_parts")

    def __init__(self) -> None:
        self._open: Part | None = None
        self._part_id = ""
        self._parts = 0

    def encode(self, entries: Sequence[bytes]) -> bytes:
        """Return consecutive entries as one piece of the body."""
        blocks: list[bytes] = []
        for entry in entries:
            event = decode_event(entry)
            blocks += (b"data: %s\n\n" % as_ascii(_encode(chunk)) for chunk in self._chunks(event))
            if isinstance(event, Terminal):
                blocks.append(DONE)
        return b"".join(blocks)

    def encode_fault(self, event: bytes) -> bytes:
        """Return it as an answer's failure: this format has no ids to resume from."""
        return self.encode([event])

    def _chunks(self, event: Event) -> Iterator[Chunk]:
        match event:
            case Start():
                yield {"type": "start", "messageId": event.id}
                yield {"type": "start-step"}
            case Delta():
                yield from self._say("text", event.content)
            case Reasoning():
                yield from self._say("reasoning", event.content)
            case Failure():
                yield {"type": "error", "errorText": event.content}
            case Done(finish_reason="cancelled"):
                yield {"type": "abort"}
            case Done():
                yield from self._close()
                yield {"type": "finish-step"}
                yield _finish(event)

    def _say(self, part: Part, text: str) -> Iterator[Chunk]:
        if self._open != part:
            yield from self._close()
            self._parts += 1
            self._open, self._part_id = part, str(self._parts)
            yield {"type": f"{part}-start", "id": self._part_id}
        yield {"type": f"{part}-delta", "id": self._part_id, "delta": text}

    def _close(self) -> Iterator[Chunk]:
        if self._open is not None:
            yield {"type": f"{self._open}-end", "id": self._part_id}


def _finish(event: Done) -> Chunk:
    finish: Chunk = {"type": "finish", "finishReason": FINISH_REASONS.get(event.finish_reason or "", "other")}
    if event.usage is not None:
        finish["messageMetadata"] = {"usage": _usage(event.usage)}
    return finish


def _usage(usage: Usage) -> dict[str, int]:
    """Return the counts under the AI SDK's names (`LanguageModelUsage`)."""
    return {
        "inputTokens": usage.prompt_tokens,
        "outputTokens": usage.completion_tokens,
        "totalTokens": usage.total_tokens,
    }


class AiSdkFormat(Format):
    """For `new DefaultChatTransport({api: ".../ask?format=ai-sdk"})`."""

    name = "ai-sdk"
    media_type = EVENT_STREAM
    resumable = True  # through GET /ask/<chat id>/stream
    has_ids = False
    summary = "?format=ai-sdk: the AI SDK's UI message stream, with events of its own"
    schema: ClassVar[Json] = {"$ref": SCHEMA_REF.format(name="UiMessageEvent")}
    is_sequential = True
    components: ClassVar[Mapping[str, Json]] = {"UiMessageEvent": UI_MESSAGE_EVENT}

    def respond(self, reading: Reading) -> Response:
        """Return the UI message stream."""
        return EventStream(reading, UiMessageEncoder(), self._delivery, HEADERS)

    @staticmethod
    def example(entries: Sequence[bytes]) -> str:
        """Return the stream of a whole answer."""
        return UiMessageEncoder().encode(entries).decode()
