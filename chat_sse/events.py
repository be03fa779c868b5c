"""What a stream is made of: the events of an answer, and the ids by which a reader remembers its place."""

import re
import secrets
from collections.abc import Iterator, Sequence
from typing import Protocol, TypeAlias

import msgspec

from chat_sse.errors import ChatError, ErrorBody, InternalError

EVENT_ID = r"^[A-Za-z0-9_-]{1,64}\.(0|[1-9][0-9]{0,8})$"
"""The pattern of an event's id: the answer's id and the event's number."""
_IS_EVENT_ID = re.compile(EVENT_ID)


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


Event: TypeAlias = Start | Delta | Reasoning | Done | Failure
Terminal: TypeAlias = Done | Failure


class Subscriber(Protocol):
    """Takes a log's entries in the call that appends them."""

    def deliver(self, entries: Sequence[bytes]) -> bool:
        """Take all of them, or none and give False. Must not raise nor wait."""
        ...

    def deliver_entry(self, entry: bytes) -> bool:
        """Take one that came alone, in the same way."""
        ...


_decoder: msgspec.json.Decoder[Event] = msgspec.json.Decoder(Event)
_encode = msgspec.json.Encoder().encode


# The tag is an event's first field.
_TERMINAL = (b'{"type":"done"', b'{"type":"error"')


def is_terminal(entry: bytes) -> bool:
    """Tell whether a log's entry is its last one, without decoding it."""
    return entry.startswith(_TERMINAL)


def decode_event(entry: bytes) -> Event:
    """Read a log's entry back."""
    return _decoder.decode(entry)


def entry_around(kind: type[Delta | Reasoning]) -> bytes:
    """Give a delta's entry with `%s` in the place of its content, as it stands between quotes in JSON."""
    return _encode(kind("%s"))


def failure(error: ChatError, request_id: str) -> Failure:
    """Tell an error as the stream's last event."""
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
    """Make an id that cannot be guessed: whoever knows it may read the answer."""
    return secrets.token_hex(16)


def event_id(stream_id: str, seq: int) -> str:
    """Name an event on the wire. Only `[A-Za-z0-9._-]`, so that `Last-Event-ID` needs no CORS preflight."""
    return f"{stream_id}.{seq}"


def parse_event_id(text: str) -> tuple[str, int]:
    """Read an event id back into (stream id, sequence number). Raises ValueError for any other text."""
    if not _IS_EVENT_ID.fullmatch(text):
        raise ValueError("not an event id of this service")
    stream_id, _, seq = text.partition(".")
    return stream_id, int(seq)
