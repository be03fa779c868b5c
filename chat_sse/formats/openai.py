"""OpenAI's chat completions, as its SDKs and most chat frontends read them: as a stream, or as one body.

Source: OpenAI reference, "The chat completion object" and "The chat completion chunk object". The id is the
stream's. Beside what is there, `delta.reasoning_content` holds the model's reasoning, as vLLM sends it.

This wire has no word for an answer that is not whole. So such a stream ends with an error object, which SDKs
raise, and without `[DONE]`, and its connection is broken off: no client takes it for whole.
"""

import re
import time
from collections.abc import Iterator, Mapping, Sequence
from http import HTTPStatus
from typing import ClassVar

import msgspec
from msgspec import UNSET, UnsetType
from starlette.responses import Response

from chat_sse.completions import (
    ChunkChoice,
    ChunkDelta,
    Completion,
    CompletionAnswer,
    CompletionChoice,
    CompletionChunk,
    CompletionRequest,
    ErrorObject,
    Models,
    OpenAiError,
    decode_completion,
)
from chat_sse.errors import (
    ChatError,
    InternalError,
    UpstreamRateLimit,
    UpstreamRejected,
    UpstreamUnavailable,
)
from chat_sse.events import (
    EVENT_ID,
    Delta,
    Done,
    Event,
    Failure,
    Reasoning,
    Start,
    Usage,
    error_of,
    terminal_event,
)
from chat_sse.formats.base import EVENT_STREAM, SCHEMA_REF, Asked, Delivery, Format, Json, Reading, Refusal
from chat_sse.formats.foreign_events import STOPPED, ForeignEncoder, encode_json
from chat_sse.formats.json_body import JsonAnswer, collect
from chat_sse.formats.sse import EventStream, stream_id_of
from chat_sse.formats.text import is_whole

ROOT = "/v1/"

CLIENTS_FAULT = "invalid_request_error"
# OpenAI's statuses, where upstream's failure is one of the whole service's to others.
STATUSES: Mapping[type[ChatError], int] = {
    UpstreamRateLimit: 429,
    UpstreamRejected: 400,
    UpstreamUnavailable: 503,
}
# By status; of the others the rest of 4xx is the client's fault, and the rest the server's.
TYPES = {401: "authentication_error", 403: "permission_error", 429: "rate_limit_error"}
_PARAM = re.compile(r" - at `\$\.?([^`]*)`$")
# When the answers of the OpenAPI document were made.
EXAMPLE_CREATED = 1_764_547_200


OPENAI_EVENT: Json = {
    "title": "OpenAiEvent",
    "description": "One event of a streamed completion: a chunk, `[DONE]`, or an error as the last one.",
    "type": "object",
    "required": ["data"],
    "properties": {
        "id": {"type": "string", "pattern": f"^{EVENT_ID}$", "description": "Send it as `Last-Event-ID`."},
        "data": {
            "oneOf": [
                {"const": "[DONE]"},
                {
                    "type": "string",
                    "pattern": r"^\{",
                    "contentMediaType": "application/json",
                    "contentSchema": {
                        "anyOf": [
                            {"$ref": SCHEMA_REF.format(name=kind.__name__)}
                            for kind in (CompletionChunk, OpenAiError)
                        ]
                    },
                },
            ]
        },
    },
}
_, SCHEMAS = msgspec.json.schema_components(
    (CompletionChunk, Completion, CompletionRequest, Models, OpenAiError), ref_template=SCHEMA_REF
)


def error_object(error: ChatError) -> OpenAiError:
    """Return an error as OpenAI tells it."""
    status = STATUSES.get(type(error), error.status)
    kind = TYPES.get(status, "server_error" if status >= HTTPStatus.INTERNAL_SERVER_ERROR else CLIENTS_FAULT)
    param = _PARAM.search(error.details)
    message = error.details if kind == CLIENTS_FAULT else error.content
    return OpenAiError(
        error=ErrorObject(
            message=message or error.content, type=kind, param=param[1] if param else None, code=error.code
        )
    )


class CompletionEncoder(ForeignEncoder):
    """Encodes an entry as a chunk; the last one as up to three events, or as an error."""

    __slots__ = ("_created", "_model", "_stream_id", "_tells_usage")

    def __init__(self, stream_id: str, after: int, *, created: int, tells_usage: bool = False) -> None:
        super().__init__(stream_id, after)
        self._stream_id, self._model = stream_id, ""
        self._created = created
        self._tells_usage = tells_usage

    def translate(self, event: Event) -> Iterator[bytes]:
        """Yield the data of OpenAI's events."""
        match event:
            case Start():
                self._model = event.model
                yield self._chunk(ChunkDelta(role="assistant", content=""))
            case Delta():
                yield self._chunk(ChunkDelta(content=event.content))
            case Reasoning():
                yield self._chunk(ChunkDelta(reasoning_content=event.content))
            case Done() if is_whole(event):
                yield self._chunk(ChunkDelta(), finish_reason=event.finish_reason or "stop")
                if self._tells_usage and event.usage is not None:
                    yield encode_json(self._envelope([], event.usage))
                yield b"[DONE]"
            case Done() | Failure():
                self.ended = False  # so the body does not end, and its connection is broken off
                yield encode_json(error_object(error_of_end(event)))

    def _chunk(self, delta: ChunkDelta, finish_reason: str | None = None) -> bytes:
        usage = None if self._tells_usage else UNSET
        return encode_json(self._envelope([ChunkChoice(delta=delta, finish_reason=finish_reason)], usage))

    def _envelope(self, choices: list[ChunkChoice], usage: Usage | UnsetType | None) -> CompletionChunk:
        return CompletionChunk(
            id=self._stream_id, created=self._created, model=self._model, choices=choices, usage=usage
        )


def error_of_end(end: Done | Failure) -> ChatError:
    """Return why an answer is not whole."""
    if isinstance(end, Failure):
        return error_of(end)
    return InternalError("the answer was stopped", content=STOPPED, retryable=False)


def completion(entries: Sequence[bytes], created: int) -> Completion:
    """Return the answer in a sealed log's entries. Raises ChatError when it is not whole."""
    end = terminal_event(entries[-1])
    if not is_whole(end):
        raise error_of_end(end)
    answer = collect(entries)
    message = CompletionAnswer(content=answer.content, reasoning_content=answer.reasoning)
    choice = CompletionChoice(message=message, finish_reason=answer.finish_reason or "stop")
    usage = UNSET if answer.usage is None else answer.usage
    return Completion(id=answer.id, created=created, model=answer.model, choices=[choice], usage=usage)


class _OpenAi(Format):
    """What both forms share."""

    root = ROOT
    reads_body = True
    resumable = True  # by the answer's id, and by an idempotency key

    def read(self, body: bytes | bytearray, *, allows_system: bool) -> Asked:
        """Return what a body asks, and the form that it wants its answer in."""
        ask, options = decode_completion(body, allows_system=allows_system)
        if not options.stream:
            return Asked(ask=ask, format=OpenAiBodyFormat(self._delivery))
        tells_usage = options.stream_options is not None and options.stream_options.include_usage is True
        return Asked(ask=ask, format=OpenAiFormat(self._delivery, tells_usage=tells_usage))

    @staticmethod
    def refusal(error: ChatError, request_id: str) -> Refusal:  # noqa: ARG004 - a header has it
        """Return OpenAI's error. SDKs ask again by themselves unless they are told not to."""
        asks_again = error.retryable and not error.may_cost
        return Refusal(
            status=STATUSES.get(type(error), error.status),
            body=error_object(error),
            headers={} if asks_again else {"x-should-retry": "false"},
        )


class OpenAiFormat(_OpenAi):
    """For `stream: true`, and for a reader that comes back."""

    name = "openai"
    media_type = EVENT_STREAM
    has_ids = True
    replays = True
    summary = "stream: true"
    schema: ClassVar[Json] = {"$ref": SCHEMA_REF.format(name="OpenAiEvent")}
    is_sequential = True
    components: ClassVar[Mapping[str, Json]] = {"OpenAiEvent": OPENAI_EVENT, **SCHEMAS}

    def __init__(self, delivery: Delivery, *, tells_usage: bool = False) -> None:
        super().__init__(delivery)
        self._tells_usage = tells_usage

    def respond(self, reading: Reading) -> Response:
        """Return the stream of chunks."""
        encoder = CompletionEncoder(
            reading.stream_id, reading.after, created=int(time.time()), tells_usage=self._tells_usage
        )
        return EventStream(reading, encoder, self._delivery)

    @staticmethod
    def example(entries: Sequence[bytes]) -> str:
        """Return the stream of a whole answer."""
        stream_id = stream_id_of(entries)
        return CompletionEncoder(stream_id, -1, created=EXAMPLE_CREATED).encode(entries).decode()


class OpenAiBodyFormat(_OpenAi):
    """For `stream: false`, which is OpenAI's default."""

    name = "openai-body"
    media_type = "application/json"
    has_ids = False
    summary = "stream: false"
    schema: ClassVar[Json] = {"$ref": SCHEMA_REF.format(name=Completion.__name__)}

    def respond(self, reading: Reading) -> Response:
        """Return a response that is sent once, at the end of the answer."""
        created = int(time.time())
        return JsonAnswer(reading, self._delivery, lambda entries: completion(entries, created))

    @staticmethod
    def example(entries: Sequence[bytes]) -> Json:
        """Return the body of a whole answer."""
        body: Json = msgspec.to_builtins(completion(entries, EXAMPLE_CREATED))
        return body
