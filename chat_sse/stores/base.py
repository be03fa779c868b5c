"""What a log promises: the stream is the log, and every reader reads it after a cursor."""

from collections.abc import Sequence
from typing import Protocol

import msgspec

from chat_sse.events import Event, Terminal


class Ticket(msgspec.Struct, frozen=True, kw_only=True):
    """Under which names a new log is kept."""

    stream_id: str
    owner: str = ""
    """The principal that asked, and the only one that may read or stop the answer."""
    key: str | None = None
    """Claimed for this log alone: the same key again finds it instead of creating another."""
    fingerprint: bytes = b""
    """Digest of the question, to tell a key's second use from its misuse."""
    label: str | None = None
    """Moves on to the newest log that carries it, such as a chat's latest answer."""


class Log(Protocol):
    """One answer's events, numbered from 0 in the order of their appending.

    An entry is the event's JSON on one line, encoded once however many readers there are. Numbers have no
    gaps. The first terminal event (Done, Failure) seals the log: it is the last entry, for ever. A reader
    joins at any cursor and at any time, and sees the same entries under the same numbers as every other.
    """

    id: str
    owner: str

    @property
    def sealed(self) -> bool:
        """Whether the terminal event has been appended."""
        ...

    @property
    def size(self) -> int:
        """Bytes of all entries."""
        ...

    def append(self, events: Sequence[Event]) -> bool:
        """Append in order, never waiting. False when the log was sealed before: nothing was appended.

        Entries after a terminal event in the same call are not appended either.
        """
        ...

    async def extent(self) -> tuple[int, bool]:
        """Tell how many entries there are, and whether the last one is terminal."""
        ...

    async def read(self, after: int) -> Sequence[bytes]:
        """Read the entries after a cursor, waiting until there is one.

        `after`: the last sequence number seen, exclusive; -1 reads from the start. Returns consecutive
        entries, the first numbered `after + 1`; or nothing, once the log is sealed and was read to its end.
        Cancelling it loses nothing. A reader that waits costs no timer and no task.
        """
        ...


class Store(Protocol):
    """All logs that can still be read.

    A sealed log is kept for the store's time to live, or until the caps on the number and bytes of sealed
    logs push it out, the oldest first. A running log is never evicted.
    """

    async def create(self, ticket: Ticket) -> Log | None:
        """Create a log under a new id, claiming the ticket's key and moving its label.

        Returns None, and changes nothing, when the key already belongs to a log (see `find_key`): of any
        number of simultaneous claims exactly one creates. Raises KeyReused when that log was claimed with
        another fingerprint.
        """
        ...

    async def find_key(self, key: str) -> Log:
        """Give the log that claimed the key. Raises StreamNotFound when there is none (any more)."""
        ...

    async def find_label(self, label: str) -> Log:
        """Give the newest log with the label. Raises StreamNotFound when there is none (any more)."""
        ...

    async def open(self, stream_id: str) -> Log:
        """Give a log by its id. Raises StreamNotFound when it is unknown or expired."""
        ...

    async def seal(self, stream_id: str, event: Terminal) -> bool:
        """End an answer from anywhere; its producer's next append is refused.

        True when this call sealed it, False when it was sealed before. Raises StreamNotFound.
        """
        ...

    async def discard(self, log: Log) -> None:
        """Forget a log and its key at once; readers that hold it go on reading."""
        ...

    async def aclose(self) -> None:
        """Release what the store holds."""
        ...
