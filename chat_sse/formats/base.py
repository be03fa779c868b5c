"""What a format promises: events of a log go in, bytes that some client understands come out."""

from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from typing import Protocol, TypeAlias

import msgspec
from starlette.responses import Response

from chat_sse.events import Subscriber

Batches: TypeAlias = AsyncGenerator[Sequence[bytes], None]


class Reading(msgspec.Struct, frozen=True, kw_only=True):
    """One reader's view of a log."""

    stream_id: str
    after: int
    """The cursor: the last sequence number that the client has seen, -1 for none."""
    follow: Callable[[Subscriber | None], Batches]
    """Begin to read: consecutive entries, the first numbered `after + 1`; ends after the terminal one. What
    the argument takes, as `Log.read` says, is not among them. Raises ChatError when no more can be read from
    here: a format tells it as the last event, under no number, since the log goes on without it and the
    client may resume."""
    headers: Mapping[str, str]
    """Headers for the response, whatever its format."""
    request_id: str = ""
    """For an error that this reading ends with."""


class Delivery(msgspec.Struct, frozen=True, kw_only=True):
    """How responses are sent, whatever their format. Times are in seconds."""

    heartbeat_seconds: float
    send_timeout_seconds: float
    """How long a client may take no bytes before it is cut off."""


class Format(Protocol):
    """A wire format: pure encoding, and the response class that suits it."""

    name: str
    """What `?format=` calls it."""
    media_type: str
    """What `Accept` calls it."""
    resumable: bool
    """Whether a client of this format can come back after a break; else upstream is stopped at once."""
    has_ids: bool
    """Whether its events carry ids, so that a reader may begin behind one; others are read from the start."""

    def respond(self, reading: Reading) -> Response:
        """Answer a request with what is read."""
        ...
