"""The two handles of a log that is in Redis: its producer's, and everybody else's."""

import asyncio
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Protocol

import msgspec

from chat_sse.errors import ChatError
from chat_sse.events import Event, Terminal
from chat_sse.stores.base import Ticket
from chat_sse.stores.memory import MemoryLog

# Bounds one command's size and time within Redis, which does nothing else meanwhile.
CHUNK_ENTRIES = 500

TERMINAL = (b'{"type":"done"', b'{"type":"error"')
"""How a terminal entry begins: the tag is an event's first field."""

decode_terminal = msgspec.json.Decoder(Terminal).decode


class Source(Protocol):
    """Where a mirror's entries come from."""

    async def extent(self, stream_id: str) -> tuple[int, bool]:
        """Tell a log's extent. Raises StreamNotFound."""
        ...

    def attend(self, mirror: "MirroredLog") -> None:
        """Keep a mirror up with its log: it has readers."""
        ...

    def leave(self, mirror: "MirroredLog") -> None:
        """Let it be: it has none."""
        ...


class ProducedLog(MemoryLog):
    """This process's own log: in its memory, and on its way to Redis."""

    __slots__ = ("_note", "asked", "discarded", "registered", "sealed_at", "sent", "settled", "ticket")

    def __init__(self, ticket: Ticket, note: "Callable[[ProducedLog], None]") -> None:
        super().__init__(ticket, lambda _: None)
        self.ticket = ticket
        self.sent = 0
        """How many entries Redis has."""
        self.registered = True
        """Whether Redis knows its name: not after it came back empty."""
        self.discarded = False
        self.asked = False
        """Whether another process has asked for its end."""
        self.sealed_at = 0.0
        self.settled = asyncio.Event()
        self._note = note

    def append(self, events: Sequence[Event]) -> bool:
        """Append, as `Log.append` promises."""
        appended = super().append(events)
        if appended:
            self._note(self)
        return appended

    def obey(self, entry: bytes) -> None:
        """End as another process has asked for."""
        if not self.sealed:
            self.asked = True
            self.stop(decode_terminal(entry))

    def unsent(self) -> tuple[list[bytes], bool]:
        """Give the next entries to send, and whether they are the last."""
        chunk = self._entries[self.sent : self.sent + CHUNK_ENTRIES]
        return chunk, self.sealed and self.sent + len(chunk) == len(self._entries)


class _Copy(MemoryLog):
    """As much of another process's log as has been fetched."""

    __slots__ = ()

    def extend(self, entries: Sequence[bytes]) -> None:
        """Append entries that their producer has encoded."""
        self._entries.extend(entries)
        self.size += sum(map(len, entries))
        self.sealed = self.sealed or self._entries[-1].startswith(TERMINAL)
        self._wake()

    def close(self) -> None:
        """Let readers end at what there is."""
        self.sealed = True
        self._wake()


class MirroredLog:
    """Another process's log, or a sealed one, as read from here."""

    def __init__(self, ticket: Ticket, producer: str, *, sealed: bool, store: Source) -> None:
        self.id, self.owner, self.producer = ticket.stream_id, ticket.owner, producer
        self.on_stop: Callable[[], object] = lambda: None
        self.ended = sealed
        """Whether it was sealed when it was opened: nothing more will be announced."""
        self._copy = _Copy(ticket, lambda _: None)
        self._fault: ChatError | None = None
        self._holders = 0
        self._store = store

    @property
    def sealed(self) -> bool:
        """Tell, as `Log.sealed` promises, by what is known here."""
        return self.ended or self._copy.sealed

    @property
    def complete(self) -> bool:
        """Whether there is nothing left to fetch."""
        return self._copy.sealed

    @property
    def size(self) -> int:
        """Bytes of the entries that have been fetched."""
        return self._copy.size

    def append(self, events: Sequence[Event]) -> bool:  # noqa: ARG002 - the protocol's
        """Refuse: the producer is elsewhere."""
        return False

    async def extent(self) -> tuple[int, bool]:
        """Ask Redis, as `Log.extent` promises."""
        return await self._store.extent(self.id)

    async def read(self, after: int) -> Sequence[bytes]:
        """Read, as `Log.read` promises."""
        with self.reading():
            entries = await self._copy.read(after)
        if not entries and self._fault:
            raise self._fault
        return entries

    @contextmanager
    def reading(self) -> Iterator[None]:
        """Hold, as `Log.reading` promises: fetch what is new while somebody does."""
        self._holders += 1
        if self._holders == 1 and not self.complete:
            self._store.attend(self)
        try:
            yield
        finally:
            self._holders -= 1
            if self._holders == 0:
                self._store.leave(self)

    def fetched(self) -> int:
        """How many entries are here."""
        return self._copy.length

    def extend(self, entries: Sequence[bytes]) -> None:
        """Take what was fetched."""
        self._copy.extend(entries)

    def fail(self, error: ChatError) -> None:
        """Tell all readers that no more can be read from here."""
        if not self.complete:
            self._fault = error
            self._copy.close()
