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
from collections.abc import Mapping, Sequence
from typing import ClassVar

from chat_sse.events import EVENT_ID, Delta, Done, Event, Failure, Reasoning, Start, decode_event
from chat_sse.formats.base import SCHEMA_REF, Json
from chat_sse.formats.sse import RETRY, NumberedEncoder, NumberedEvents

# An entry's lines, the stream's part of its id, its number.
_BLOCK = b"%s%s%d\n\n"

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


class HtmlEncoder(NumberedEncoder):
    """Encodes an entry as one event, or two where there is a note."""

    __slots__ = ()

    def encode(self, entries: Sequence[bytes]) -> bytes:
        """Return consecutive entries as one piece of the body."""
        first, head = self._next, self._id
        self._next = first + len(entries)
        blocks = b"".join([_BLOCK % (_lines(entry), head, seq) for seq, entry in enumerate(entries, first)])
        return RETRY + blocks if first == 0 else blocks

    def encode_fault(self, event: bytes) -> bytes:
        """Return the error without an id, as `SseEncoder` does."""
        return b"%s\n\n" % _lines(event)


def _lines(entry: bytes) -> bytes:
    """Return an entry's events; the last one lacks the end of its last line, so that an id can follow."""
    name, fragment, note = _fragments(decode_event(entry))
    before = f"data: {note}\n\n" if note else ""
    named = f"event: {name}\n" if name else ""
    return f"{before}{named}data: {fragment}".encode()


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


class HtmlFormat(NumberedEvents):
    """For `sse-connect="…/ask?format=html&q=…&id=…"`."""

    name = "html"
    summary = "?format=html: escaped fragments for htmx"
    schema: ClassVar[Json] = {"$ref": SCHEMA_REF.format(name="HtmlEvent")}
    components: ClassVar[Mapping[str, Json]] = {"HtmlEvent": HTML_EVENT}
    encoder = HtmlEncoder
