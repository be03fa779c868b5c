"""AG-UI, version 1.0: the event protocol between agents and their frontends, for a run that only talks.

Source: `spec/1.0` of AG-UI, whose types are `ag_ui.core` and `@ag-ui/core`. An answer's events:

    RUN_STARTED · (REASONING_START · REASONING_MESSAGE_START · REASONING_MESSAGE_CONTENT…
    · REASONING_MESSAGE_END · REASONING_END) · TEXT_MESSAGE_START · TEXT_MESSAGE_CONTENT…
    · TEXT_MESSAGE_END · RUN_FINISHED

The text message's id is the stream's, so that `DELETE /ask/<id>` stops it. An answer that failed or was
stopped ends with RUN_ERROR and leaves its message open, since its text is not complete. (The outcome
"cancelled" of RUN_FINISHED is new in 1.0, and older clients read it as a success.) Upstream's finish reason
is in the `result` of RUN_FINISHED.

The protocol has no way to resume. The ids of the events have one.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar, Literal, TypeAlias

from starlette.responses import Response

from chat_sse.events import EVENT_ID, Delta, Done, Event, Failure, Reasoning, Start
from chat_sse.formats.base import EVENT_STREAM, SCHEMA_REF, Asked, Delivery, Format, Json, Reading
from chat_sse.formats.foreign_events import STOPPED, ForeignEncoder, encode_json
from chat_sse.formats.sse import EventStream, stream_id_of
from chat_sse.run_agent_input import decode_run

VERSION = "1.0"

Part: TypeAlias = Literal["TEXT", "REASONING"]

AG_UI_EVENT: Json = {
    "title": "AgUiEvent",
    "description": "One event of `?format=ag-ui`.",
    "type": "object",
    "required": ["data"],
    "properties": {
        "id": {"type": "string", "pattern": f"^{EVENT_ID}$", "description": "Send it as `Last-Event-ID`."},
        "data": {
            "type": "string",
            "contentMediaType": "application/json",
            "contentSchema": {
                "type": "object",
                "required": ["type"],
                "properties": {
                    "type": {
                        "enum": [
                            *("RUN_STARTED", "RUN_FINISHED", "RUN_ERROR", "REASONING_START", "REASONING_END"),
                            *(
                                f"{part}_MESSAGE_{step}"
                                for part in ("REASONING", "TEXT")
                                for step in ("START", "CONTENT", "END")
                            ),
                        ]
                    }
                },
            },
        },
    },
}


class AgUiEncoder(ForeignEncoder):
    """Encodes an entry as the protocol's events. It remembers which message is open."""

    __slots__ = ("_model", "_open", "_run", "_stream_id")

    def __init__(self, stream_id: str, after: int, *, thread_id: str | None, run_id: str | None) -> None:
        super().__init__(stream_id, after)
        self._stream_id = stream_id
        self._run = {"threadId": thread_id or stream_id, "runId": run_id or stream_id}
        self._open: Part | None = None
        self._model = ""

    def translate(self, event: Event) -> Iterator[bytes]:
        """Yield the data of the protocol's events."""
        match event:
            case Start():
                self._model = event.model
                yield _event("RUN_STARTED", **self._run, protocolVersion=VERSION)
            case Delta():
                yield from self._say("TEXT", event.content)
            case Reasoning():
                yield from self._say("REASONING", event.content)
            case Failure():
                yield _event("RUN_ERROR", message=event.content, code=event.error)
            case Done(finish_reason="cancelled"):
                yield _event("RUN_ERROR", message=STOPPED, code="cancelled")
            case Done():
                yield from self._close()
                yield _event("RUN_FINISHED", **self._run, **self._result(event))

    def _say(self, part: Part, text: str) -> Iterator[bytes]:
        if self._open != part:
            yield from self._close()
            self._open = part
            if part == "REASONING":
                yield _event("REASONING_START", messageId=self._message_id)
            role = "assistant" if part == "TEXT" else "reasoning"
            yield _event(f"{part}_MESSAGE_START", messageId=self._message_id, role=role)
        yield _event(f"{part}_MESSAGE_CONTENT", messageId=self._message_id, delta=text)

    def _close(self) -> Iterator[bytes]:
        if self._open is not None:
            yield _event(f"{self._open}_MESSAGE_END", messageId=self._message_id)
            if self._open == "REASONING":
                yield _event("REASONING_END", messageId=self._message_id)

    @property
    def _message_id(self) -> str:
        """The open message's. A message that goes on after another one is the same."""
        return self._stream_id if self._open == "TEXT" else f"{self._stream_id}-reasoning"

    def _result(self, end: Done) -> dict[str, Any]:
        result: dict[str, Any] = {"result": {"finishReason": end.finish_reason}}
        if end.usage is not None:
            result["usage"] = [
                {
                    "model": self._model,
                    "inputTokens": end.usage.prompt_tokens,
                    "outputTokens": end.usage.completion_tokens,
                    "totalTokens": end.usage.total_tokens,
                }
            ]
        return result


def _event(kind: str, **fields: Any) -> bytes:
    return encode_json({"type": kind, **fields})


class AgUiFormat(Format):
    """For `new HttpAgent({url: ".../ask?format=ag-ui"})`."""

    name = "ag-ui"
    media_type = EVENT_STREAM
    resumable = True
    has_ids = True
    replays = True
    reads_body = True
    summary = "?format=ag-ui: the events of AG-UI 1.0"
    schema: ClassVar[Json] = {"$ref": SCHEMA_REF.format(name="AgUiEvent")}
    is_sequential = True
    components: ClassVar[Mapping[str, Json]] = {"AgUiEvent": AG_UI_EVENT}

    def __init__(
        self, delivery: Delivery, *, thread_id: str | None = None, run_id: str | None = None
    ) -> None:
        """Without the ids that a run's body has, the answer's own stands for both."""
        super().__init__(delivery)
        self._ids = {"thread_id": thread_id, "run_id": run_id}

    def read(self, body: bytes | bytearray, *, allows_system: bool) -> Asked:
        """Return what a run asks; its id is the idempotency key."""
        ask, run = decode_run(body, allows_system=allows_system)
        fmt = AgUiFormat(self._delivery, thread_id=run.thread_id, run_id=run.run_id)
        return Asked(ask=ask, format=fmt, key=run.run_id)

    def respond(self, reading: Reading) -> Response:
        """Return the events of the run."""
        encoder = AgUiEncoder(reading.stream_id, reading.after, **self._ids)
        return EventStream(reading, encoder, self._delivery)

    @staticmethod
    def example(entries: Sequence[bytes]) -> str:
        """Return the stream of a whole answer."""
        encoder = AgUiEncoder(stream_id_of(entries), -1, thread_id="chat-1", run_id="run-1")
        return encoder.encode(entries).decode()
