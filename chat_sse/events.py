"""The events of an answer, and the ids by which a reader remembers its place.

An event type is one class and one line: in `Terminal` if it ends an answer, else in `Event`. Its tag, its
schema in the OpenAPI document and what counts as a log's last entry follow from there.
"""

import re
import secrets
from collections.abc import Iterator, Sequence
from json.encoder import encode_basestring_ascii
from typing import Protocol, TypeAlias, get_args

import msgspec

from chat_sse.errors import ChatError, ErrorBody, InternalError

# A regular expression: the stream's id, a dot, and the event's number without leading zeros.
EVENT_ID = r"[A-Za-z0-9_-]{1,64}\.(0|[1-9][0-9]{0,8})"
_EVENT_ID = re.compile(EVENT_ID)


class Usage(msgspec.Struct, frozen=True, kw_only=True):
    """Tokens, as upstream counted them (OpenAI reference: "The chat completion object", `usage`)."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int


class Start(msgspec.Struct, frozen=True, kw_only=True, tag="start"):
    """The answer has an id and a model; sent before the first delta."""

    id: str
    model: str


class Delta(msgspec.Struct, frozen=True, gc=False, tag="delta"):
    """A piece of the answer's text, never empty."""

    content: str


class Reasoning(msgspec.Struct, frozen=True, gc=False, tag="reasoning"):
    """A piece of the model's reasoning, which is no part of the answer's text."""

    content: str


class Done(msgspec.Struct, frozen=True, kw_only=True, tag="done"):
    """The answer is complete as far as upstream goes; terminal.

    `finish_reason` is what upstream said, or "cancelled" after a stop, or null where upstream closed a
    complete answer (usage and `[DONE]` were sent) without giving a reason, as some Ollama versions do.
    """

    finish_reason: str | None
    usage: Usage | None = None


class Failure(ErrorBody, frozen=True, kw_only=True, tag="error"):
    """The error body as an event; terminal."""


Terminal: TypeAlias = Done | Failure
"""The events that end an answer. A log holds exactly one, as its last entry."""

Event: TypeAlias = Start | Delta | Reasoning | Terminal


class Subscriber(Protocol):
    """Receives a log's entries inside the call that appends them."""

    def deliver(self, entries: Sequence[bytes]) -> bool:
        """Accept all entries and return True, or none and return False. Must neither raise nor wait."""
        ...

    def deliver_entry(self, entry: bytes) -> bool:
        """Accept or refuse one entry, as `deliver` does, at half its cost. Most deltas come alone."""
        ...


_decoder: msgspec.json.Decoder[Event] = msgspec.json.Decoder(Event)
_terminal_decoder: msgspec.json.Decoder[Terminal] = msgspec.json.Decoder(Terminal)
_encode = msgspec.json.Encoder().encode


# How the entry of a terminal event begins: msgspec writes the tag as the first field.
TERMINAL_PREFIXES = tuple(
    b'{"type":"%s"' % str(kind.__struct_config__.tag).encode() for kind in get_args(Terminal)
)


def as_ascii(entry: bytes) -> bytes:
    """Return an event's JSON with everything escaped that is not ASCII.

    So every client reads the same text: one that takes `text/*` for Latin-1 (`requests`), one that breaks
    lines at U+2028 or U+0085 (httpx, Python's `splitlines`), one that decodes each piece of the network by
    itself. That leaves the Content-Type without a charset, whose whole value other clients compare.
    """
    if entry.isascii():
        return entry
    # Taken for a text it gets its own escapes once more: that is undone, and those of the others stay.
    quoted = encode_basestring_ascii(entry.decode())[1:-1]
    return quoted.replace('\\"', '"').replace("\\\\", "\\").encode()


def is_terminal(entry: bytes) -> bool:
    """Return whether an entry is a log's last one, without decoding it."""
    return entry.startswith(TERMINAL_PREFIXES)


def decode_event(entry: bytes) -> Event:
    """Return the event of a log's entry. Raises msgspec.DecodeError for anything else."""
    return _decoder.decode(entry)


def terminal_event(entry: bytes) -> Terminal:
    """Return the event of a log's last entry."""
    return _terminal_decoder.decode(entry)


def entry_around(kind: type[Delta | Reasoning]) -> bytes:
    """Return a delta's entry with `%s` in place of its content, inside the quotes of its JSON string."""
    return _encode(kind("%s"))


def failure(error: ChatError, request_id: str) -> Failure:
    """Return an error as a stream's last event."""
    return msgspec.convert(error.body(request_id), Failure, from_attributes=True)


def _classes(base: type[ChatError]) -> Iterator[type[ChatError]]:
    for kind in base.__subclasses__():
        yield kind
        yield from _classes(kind)


# A class without a code of its own only groups others, and has no status of theirs.
_BY_CODE = {kind.code: kind for kind in _classes(ChatError) if "code" in vars(kind)}


def error_of(body: ErrorBody) -> ChatError:
    """Return the error that a body stands for: an InternalError where a newer version wrote its code."""
    return _BY_CODE.get(body.error, InternalError)(body.details, retryable=body.retryable)


def new_stream_id() -> str:
    """Return an id that cannot be guessed: anyone who has the id can read the answer."""
    return secrets.token_hex(16)


def event_id(stream_id: str, seq: int) -> str:
    """Return an event's id on the wire. Only `[A-Za-z0-9._-]`, so `Last-Event-ID` needs no CORS preflight."""
    return f"{stream_id}.{seq}"


def parse_event_id(text: str) -> tuple[str, int]:
    """Return the stream's id and the sequence number of an event id. Raises ValueError for any other text."""
    if not _EVENT_ID.fullmatch(text):
        raise ValueError("not an event id of this service")
    stream_id, _, seq = text.partition(".")
    return stream_id, int(seq)
