"""What a log promises: the stream is the log, and every reader reads it after a cursor."""

from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractContextManager
from typing import Protocol

import msgspec

from chat_sse.errors import ChatError
from chat_sse.events import Event, Subscriber, Terminal

# Of errors, said alike wherever they are found out.
UNKNOWN = "no answer has this id, or it has expired"
PRODUCER_GONE = "the process that produced this answer is gone"


class LogSpec(msgspec.Struct, frozen=True, kw_only=True):
    """Under which names a new log is kept."""

    stream_id: str
    owner: str = ""
    """The principal that asked, and the only one that may read or stop the answer."""
    idempotency_key: str | None = None
    """Claimed for this log alone: the same key again finds it instead of creating another."""
    fingerprint: bytes = b""
    """Digest of the question, to tell a key's second use from its misuse."""
    chat_id: str | None = None
    """Moves on to the newest log that carries it, such as a chat's latest answer."""


class Extent(msgspec.Struct, frozen=True):
    """How far a log has got."""

    length: int
    """How many entries there are."""
    sealed: bool
    """Whether the last one is terminal."""
    is_exact: bool = True
    """False where a reader may have seen more: beside a producer that has not told of it yet, or is gone."""

    def ends_at(self, number: int) -> bool:
        """Return whether an entry is the last one for certain: whoever has seen it needs no other end."""
        return self.is_exact and self.sealed and number == self.length - 1


class Log(Protocol):
    """One answer's events, numbered from 0 in the order of their appending.

    An entry is the event's JSON on one line, encoded once however many readers there are. Numbers have no
    gaps. The first terminal event (Done, Failure) seals the log: it is the last entry, for ever. A reader
    joins at any cursor and at any time, and sees the same entries under the same numbers as every other.

    A log has one producer: the process that created it, through the handle that `Store.create` gave.
    """

    id: str
    owner: str
    on_stop: Callable[[], object]
    """The producer's: called once, in its process, when `Store.seal` has sealed the log from whichever
    process; never for an append of its own. It tells an upstream that is silent."""

    @property
    def sealed(self) -> bool:
        """Whether the terminal event has been appended, as far as this handle has seen."""
        ...

    @property
    def size(self) -> int:
        """Bytes of all entries."""
        ...

    @property
    def length(self) -> int:
        """How many entries there are, as far as this handle has seen."""
        ...

    @property
    def terminal(self) -> Terminal | None:
        """The terminal event, once there is one, as far as this handle has seen."""
        ...

    def append(self, events: Sequence[Event]) -> bool:
        """Append in order, never waiting. False when the log was sealed before, or has another producer:
        nothing was appended.

        Entries after a terminal event in the same call are not appended either.
        """
        ...

    def append_entry(self, entry: bytes) -> bool:
        """Append one event that is an entry already, and not a terminal one; else as `append`."""
        ...

    async def extent(self) -> Extent:
        """Return how far it has got."""
        ...

    async def read(self, after: int, subscriber: Subscriber | None = None) -> Sequence[bytes]:
        """Read the entries after a cursor, waiting until there is one.

        `after`: the last sequence number seen, exclusive; -1 reads from the start. Returns consecutive
        entries up to `length`; or nothing, once the log is sealed and was read to its end, or ends before.
        Cancelling it loses nothing. A reader that waits costs no timer and no task.

        `subscriber`: is offered each append while this waits. As long as it accepts them, the wait goes on
        and no task is woken. Returned is what it did not accept, and the append that ends the log.

        Raises ChatError when the log can be read no further from here, such as StoreUnavailable when it is
        kept elsewhere and out of reach; what was read before remains true, and can be resumed from.
        """
        ...

    def reading(self) -> AbstractContextManager[None]:
        """Hold the log while reading it; `Store.idle_elsewhere` counts on it.

        `read` works without it, but where entries come from elsewhere each call then begins anew.
        """
        ...


class Store(Protocol):
    """All logs that can still be read.

    A sealed log is kept for the store's time to live, or, where memory is this process's own, until the caps
    on the number and bytes of sealed logs push it out, the oldest first. A running log is never evicted.

    Each method raises StoreUnavailable when the logs are kept elsewhere and out of reach; appending to a log
    and reading it beside its producer never depend on that.
    """

    def create(self, spec: LogSpec) -> Awaitable[Log | None]:
        """Create a log under a new id, claiming the spec's key and becoming the newest of its chat.

        May begin at once, so that what is awaited first shares its round trip; must be awaited.

        Returns None, and changes nothing, when the key already belongs to a log (see `find_key`): of any
        number of simultaneous claims exactly one creates. Raises KeyReused when that log was claimed with
        another fingerprint.
        """
        ...

    async def find_key(self, key: str, fingerprint: bytes | None = None) -> Log:
        """Return the log that claimed the key. Raises StreamNotFound when there is none (any more).

        `fingerprint`: raises KeyReused when the log was claimed with another one. None does not compare.
        """
        ...

    async def find_chat(self, chat_id: str) -> Log:
        """Return the newest log of a chat. Raises StreamNotFound when there is none (any more)."""
        ...

    async def open(self, stream_id: str) -> Log:
        """Return a log by its id. Raises StreamNotFound when it is unknown or expired."""
        ...

    async def seal(self, stream_id: str, event: Terminal) -> bool:
        """End an answer from anywhere; its producer's next append is refused.

        True when this call sealed it, False when it was sealed before. Raises StreamNotFound. When it
        returns, the producer's next append is refused and its `on_stop` was called, unless its process is
        gone.
        """
        ...

    async def idle_elsewhere(self, log: Log) -> float:
        """Return for how many seconds no other process has read a log. For its producer.

        0 while one does, or may: also when that cannot be known. Infinity when none ever has.
        """
        ...

    async def check(self) -> None:
        """Return whether logs can be created. Raises StoreUnavailable."""
        ...

    def interrupt(self, error: ChatError) -> None:
        """Raise an error for everybody here who waits for another process's entries: this one shuts down."""
        ...

    async def discard(self, log: Log) -> None:
        """Forget a sealed log and its key at once; readers that hold it read it to its end.

        The producer's to call. Raises nothing: what cannot be forgotten now is when it can be.
        """
        ...

    async def aclose(self) -> None:
        """Release what the store holds."""
        ...
