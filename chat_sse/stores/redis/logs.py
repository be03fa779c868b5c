"""The two handles of a log that is in Redis: its producer's, and everybody else's."""

import asyncio
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Protocol

import msgspec

from chat_sse.errors import ChatError
from chat_sse.events import Event, Subscriber, Terminal, is_terminal
from chat_sse.stores.base import Extent, LogSpec
from chat_sse.stores.memory import MemoryLog

# Of one piece. Bounds a command's size and time within Redis, which does nothing else meanwhile.
CHUNK_ENTRIES = 500
# Of one fetch.
CHUNK_PIECES = 50

decode_terminal = msgspec.json.Decoder(Terminal).decode


class Readers(Protocol):
    """Where a mirror's entries come from, and who is told that they are read."""

    async def extent(self, stream_id: str) -> Extent:
        """Return a log's extent. Raises StreamNotFound."""
        ...

    def attend(self, mirror: "MirroredLog") -> None:
        """Keep a mirror up with its log: it has readers."""
        ...

    def leave(self, mirror: "MirroredLog") -> None:
        """Stop following a log: it has no readers here."""
        ...


class ProducedLog(MemoryLog):
    """This process's own log: in its memory, and on its way to Redis.

    While it `is_doubtful`, what is appended waits until Redis has confirmed that nobody else has sealed it.
    """

    __slots__ = (
        "_held",
        "_is_overdue",
        "_note",
        "asked",
        "discarded",
        "is_doubtful",
        "noted",
        "read_until",
        "registered",
        "sent",
        "settled",
        "spec",
    )

    def __init__(
        self, spec: LogSpec, note: "Callable[[ProducedLog], None]", is_overdue: Callable[[], bool]
    ) -> None:
        """`is_overdue`: whether this process may have been taken for dead."""
        super().__init__(spec, lambda _: None)
        self.spec = spec
        self.sent = 0
        """How many entries Redis has."""
        self.registered = True
        """Whether Redis knows its name: not after it came back empty."""
        self.discarded = False
        self.asked = False
        """Whether another process has asked for its end."""
        self.settled = asyncio.Event()
        self.noted = False
        """Whether it is known that there is something to send."""
        self.read_until = 0.0
        """Until when, on the loop's clock, it counts as read in another process."""
        self.is_doubtful = False
        """Whether another process may have sealed it."""
        self._held: list[Sequence[Event] | bytes] = []
        self._note = note
        self._is_overdue = is_overdue

    def append(self, events: Sequence[Event]) -> bool:
        """Append, as `Log.append` promises."""
        if not self.sealed and (self.is_doubtful or self._is_overdue()):
            return self._hold(events)
        appended = super().append(events)
        if appended and (self.sealed or not self.noted):
            self._note(self)
        return appended

    def append_entry(self, entry: bytes) -> bool:
        """Append, as `Log.append_entry` promises."""
        if not self.sealed and (self.is_doubtful or self._is_overdue()):
            return self._hold(entry)
        appended = super().append_entry(entry)
        if appended and not self.noted:
            self._note(self)
        return appended

    def _hold(self, more: Sequence[Event] | bytes) -> bool:
        last = self._held[-1] if self._held else b""
        if not isinstance(last, bytes) and any(isinstance(event, Terminal) for event in last):
            return False  # nothing follows an end that is held
        self.is_doubtful = True
        self._held.append(more)
        self._note(self)
        return True

    def confirm(self) -> None:
        """Append what was held: Redis says that this process still is the producer."""
        self.is_doubtful = False
        held, self._held = self._held, []
        for more in held:
            if isinstance(more, bytes):
                super().append_entry(more)
            else:
                super().append(more)
        if held:
            self._note(self)

    def overrule(self, event: Terminal) -> None:
        """End as another process has ended it."""
        self._held.clear()
        if super().append([event]):
            self.on_stop()

    def apply_stop(self, entry: bytes) -> None:
        """End as another process has asked for."""
        if not self.sealed:
            self.asked = True
            self.stop(decode_terminal(entry))

    def unsent(self) -> tuple[list[bytes], bool]:
        """Return the next entries to send, and whether they are the last."""
        chunk = self._entries[self.sent : self.sent + CHUNK_ENTRIES]
        return chunk, self.sealed and self.sent + len(chunk) == len(self._entries)


class MirroredLog(MemoryLog):
    """Another process's log, or a sealed one, as far as it has been fetched; all its readers here share it.

    `sealed` tells of what is here; `append` refuses, since the producer is elsewhere.
    """

    __slots__ = ("__weakref__", "_holders", "_readers", "ended", "fault", "producer")

    def __init__(self, spec: LogSpec, producer: str, *, ended: bool, readers: Readers) -> None:
        super().__init__(spec, lambda _: None)
        self.producer = producer
        self.ended = ended
        """Whether it was sealed when it was opened: nothing more will be announced."""
        self._readers = readers
        self._holders = 0
        self.fault: ChatError | None = None
        """Why no more can be read from here."""

    def append(self, events: Sequence[Event]) -> bool:  # noqa: ARG002 - the protocol's
        """Refuse."""
        return False

    def append_entry(self, entry: bytes) -> bool:  # noqa: ARG002 - the protocol's
        """Refuse."""
        return False

    async def extent(self) -> Extent:
        """Ask Redis, as `Log.extent` promises."""
        return await self._readers.extent(self.id)

    async def read(self, after: int, subscriber: Subscriber | None = None) -> Sequence[bytes]:
        """Read, as `Log.read` promises."""
        with self.reading():
            entries = await super().read(after, subscriber)
        if not entries and self.fault:
            raise self.fault
        return entries

    @contextmanager
    def reading(self) -> Iterator[None]:
        """Hold, as `Log.reading` promises: fetch what is new while somebody does."""
        self._holders += 1
        if self._holders == 1 and not self.closed:
            self._readers.attend(self)
        try:
            yield
        finally:
            self._holders -= 1
            if self._holders == 0:
                self._readers.leave(self)

    async def read_to_end(self) -> None:
        """Read all entries. Raises ChatError as `read` does."""
        after = -1
        with self.reading():
            while entries := await self.read(after):
                after += len(entries)

    def extend(self, entries: Sequence[bytes]) -> None:
        """Append entries that were fetched."""
        first = len(self._entries)
        self._entries.extend(entries)
        self.size += sum(map(len, entries))
        self.sealed = self.closed = is_terminal(self._entries[-1])
        self._offer(first)

    def fail(self, error: ChatError) -> None:
        """End all reads here with an error. The log itself goes on."""
        if not self.closed:
            self.fault = error
            self.closed = True
            self._offer(len(self._entries))
