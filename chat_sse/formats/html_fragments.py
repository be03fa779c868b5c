"""HTML fragments as server-sent events, for htmx: each event's data is what its extension swaps into a page.

| event | data |
|---|---|
| `start` | an empty element that holds the answer's id and its model |
| unnamed | a delta's text, escaped; a line's end is `<br>` |
| `reasoning` | a piece of the reasoning, likewise |
| unnamed | before the end of an answer that is not whole, why: so a page that swaps text alone shows it too |
| `done` | an empty element that holds the finish reason, or the error's code: `sse-close="done"` |

No event is called `error`, which is what EventSource calls a lost connection. Ids and resuming are those of
`sse.py`; a note before `done` has no id, since it is one event of the log with it.
"""

import html
from collections.abc import Iterator, Mapping, Sequence
from typing import ClassVar

import msgspec
from starlette.responses import Response

from chat_sse.events import EVENT_ID, Delta, Done, Event, Failure, Reasoning, Start, decode_event, event_id
from chat_sse.formats.base import EVENT_STREAM, SCHEMA_REF, Format, Json, Reading
from chat_sse.formats.sse import RETRY, Encoder, EventStream

# What the reader is told of an answer that is not whole, by its finish reason.
NOTES = {
    "length": "The answer reached its length limit. Ask to go on for the rest.",
    "content_filter": "The answer was cut by the model's content filter.",
    "cancelled": "Stopped.",
}

HTML_EVENT: Json = {
    "title": "HtmlEvent",
    "description": "One event of `?format=html`: an escaped fragment to be added to a page. Unnamed ones are "
    "the answer's text, and why it is not whole; `done` is the last.",
    "type": "object",
    "required": ["data"],
    "properties": {
        "event": {"enum": ["message", "start", "reasoning", "done"]},
        "id": {"type": "string", "pattern": f"^{EVENT_ID}$"},
        "retry": {"type": "integer"},
        # An element, or a text, in which quotes are escaped.
        "data": {"type": "string", "contentMediaType": "text/html", "pattern": '^(<|[^"]*$)'},
    },
    "anyOf": [{"required": ["id"]}, {"properties": {"data": {"pattern": "^<"}}}],  # a note has no id
}


class HtmlEncoder(Encoder):
    """Encodes one reading's entries, from its first one on."""

    __slots__ = ("_id", "_next")

    def __init__(self, stream_id: str, first: int) -> None:
        self._id = stream_id
        self._next = first

    def encode(self, entries: Sequence[bytes]) -> bytes:
        """Return consecutive entries as one piece of the body."""
        first = self._next
        self._next = first + len(entries)
        blocks = [
            b"".join((*_blocks(entry), f"id: {event_id(self._id, seq)}\n\n".encode()))
            for seq, entry in enumerate(entries, first)
        ]
        return b"".join((RETRY, *blocks)) if first == 0 else b"".join(blocks)

    def encode_fault(self, event: bytes) -> bytes:
        """Return the error without an id, as `SseEncoder` does."""
        return b"".join((*_blocks(event), b"\n"))


def _blocks(entry: bytes) -> Iterator[bytes]:
    """Yield an entry's events; the last one lacks its blank line, so that an id can follow."""
    name, fragment, note = _fragments(decode_event(entry))
    if note:
        yield f"data: {note}\n\n".encode()
    yield f"event: {name}\n".encode() if name else b""
    yield f"data: {fragment}\n".encode()


def _fragments(event: Event) -> tuple[str, str, str]:
    """Return an event's name, its fragment, and the note before it."""
    match event:
        case Start():
            return "start", _empty(answer=event.id, model=event.model), ""
        case Delta():
            return "", _escape(event.content), ""
        case Reasoning():
            return "reasoning", _escape(event.content), ""
        case Failure():
            note = f'<strong role="alert">{_escape(event.content)}</strong>'
            return "done", _empty(error=event.error), note
        case Done():
            reason = event.finish_reason or ""
            note = f'<em role="status">{_escape(NOTES[reason])}</em>' if reason in NOTES else ""
            return "done", _empty(finish_reason=reason), note


def _empty(**data: str) -> str:
    attributes = "".join(f' data-{name.replace("_", "-")}="{_escape(value)}"' for name, value in data.items())
    return f"<span{attributes}></span>"


def _escape(text: str) -> str:
    """Return a text as HTML on one line: to an event stream either character is a line's end."""
    return html.escape(text).replace("\r", "&#13;").replace("\n", "<br>")


class HtmlFormat(Format):
    """For `sse-connect="…/ask?format=html&q=…&id=…"`."""

    name = "html"
    media_type = EVENT_STREAM
    resumable = True
    has_ids = True
    summary = "?format=html: escaped fragments for htmx"
    schema: ClassVar[Json] = {"$ref": SCHEMA_REF.format(name="HtmlEvent")}
    is_sequential = True
    components: ClassVar[Mapping[str, Json]] = {"HtmlEvent": HTML_EVENT}

    def respond(self, reading: Reading) -> Response:
        """Return the event stream."""
        encoder = HtmlEncoder(reading.stream_id, reading.after + 1)
        return EventStream(reading, encoder, self._delivery, max_age_seconds=self._delivery.max_age_seconds)

    @staticmethod
    def example(entries: Sequence[bytes]) -> str:
        """Return the stream of a whole answer."""
        stream_id = msgspec.json.decode(entries[0], type=Start).id
        return HtmlEncoder(stream_id, 0).encode(entries).decode()
