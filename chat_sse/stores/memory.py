"""The log in this process's memory: what one process needs, and gone with it."""

import asyncio
import math
from collections import OrderedDict
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext

import msgspec

from chat_sse.errors import ChatError, KeyReused, StreamNotFound
from chat_sse.events import Done, Event, Failure, Subscriber, Terminal, as_ascii, terminal_event
from chat_sse.stores.base import UNKNOWN, Extent, Log, LogSpec

_encode = msgspec.json.Encoder().encode


def _nobody() -> None:
    """Stand in for a producer that has not said how it is stopped."""


class _Waiting:
    """A reader that has read all there is: woken by the next append, unless it takes what that brings."""

    __slots__ = ("first", "subscriber", "woken")

    def __init__(self, subscriber: Subscriber | None) -> None:
        self.subscriber = subscriber
        self.first: int | None = None
        """The first entry that it has not taken, once there is one."""
        self.woken: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def wake(self, first: int) -> None:
        """Wake its task, which reads on from an entry. Calls after the first do nothing."""
        if self.first is None:
            self.subscriber, self.first = None, first
            if not self.woken.done():  # cancelled
                self.woken.set_result(None)


class MemoryLog:
    """A Log as a list."""

    __slots__ = ("_entries", "_on_seal", "_waiting", "closed", "id", "on_stop", "owner", "sealed", "size")

    def __init__(self, spec: LogSpec, on_seal: Callable[["MemoryLog"], None]) -> None:
        self.id = spec.stream_id
        self.owner = spec.owner
        self.sealed = False
        self.closed = False
        """Whether nothing more can be read here than there is. Always so once it is sealed."""
        self.size = 0
        self._entries: list[bytes] = []
        self._waiting: list[_Waiting] = []
        self._on_seal = on_seal
        self.on_stop: Callable[[], object] = _nobody

    def append(self, events: Sequence[Event]) -> bool:
        """Append, as `Log.append` promises."""
        if self.sealed:
            return False
        first = len(self._entries)
        for event in events:
            entry = _encode(event)
            if not entry.isascii():
                entry = as_ascii(entry)
            self._entries.append(entry)
            self.size += len(entry)
            if isinstance(event, (Done, Failure)):
                self.sealed = self.closed = True
                self._on_seal(self)
                break
        self._offer(first)
        return True

    def append_entry(self, entry: bytes) -> bool:
        """Append, as `Log.append_entry` promises."""
        if self.sealed:
            return False
        if not entry.isascii():
            entry = as_ascii(entry)
        entries = self._entries
        entries.append(entry)
        self.size += len(entry)
        for waiting in self._waiting:  # as in `_offer`
            subscriber = waiting.subscriber
            if subscriber is None or not subscriber.deliver_entry(entry):
                waiting.wake(len(entries) - 1)
        return True

    @property
    def length(self) -> int:
        """How many entries there are."""
        return len(self._entries)

    @property
    def terminal(self) -> Terminal | None:
        """The terminal event, once there is one."""
        return terminal_event(self._entries[-1]) if self.sealed else None

    def stop(self, event: Terminal) -> bool:
        """Seal it for somebody else than its producer. False when it was sealed before."""
        if not self.append([event]):
            return False
        self.on_stop()
        return True

    def reading(self) -> AbstractContextManager[None]:
        """Hold, as `Log.reading` promises: an entry is where its reader is."""
        return nullcontext()

    async def extent(self) -> Extent:
        """Tell, as `Log.extent` promises."""
        return Extent(len(self._entries), self.sealed)

    async def read(self, after: int, subscriber: Subscriber | None = None) -> Sequence[bytes]:
        """Read, as `Log.read` promises."""
        first = after + 1
        while first >= len(self._entries) and not self.closed:
            waiting = _Waiting(subscriber if first == len(self._entries) else None)
            self._waiting.append(waiting)
            try:
                await waiting.woken
            finally:
                self._waiting.remove(waiting)
            first = max(first, waiting.first or 0)
        return self._entries[first:]

    def _offer(self, first: int) -> None:
        """Offer what is new, from an entry on, to those who wait; the end wakes them all."""
        entries = self._entries[first:]
        for waiting in self._waiting:
            subscriber = waiting.subscriber
            if subscriber is None or self.closed or not subscriber.deliver(entries):
                waiting.wake(first)


class MemoryStore:
    """A Store as dictionaries."""

    def __init__(self, *, ttl_seconds: float, max_kept: int, max_kept_bytes: int) -> None:
        self._ttl_seconds = ttl_seconds
        self._max_kept = max_kept
        self._max_kept_bytes = max_kept_bytes
        self._logs: dict[str, MemoryLog] = {}
        self._specs: dict[str, LogSpec] = {}  # by stream id
        self._claims: dict[str, LogSpec] = {}  # by key
        self._chats: dict[str, str] = {}  # chat id → stream id
        self._kept: OrderedDict[str, asyncio.TimerHandle] = OrderedDict()  # sealed, the oldest first
        self._kept_bytes = 0

    async def create(self, spec: LogSpec) -> Log | None:
        """Create or claim, as `Store.create` promises."""
        if spec.idempotency_key is not None:
            claim = self._claims.setdefault(spec.idempotency_key, spec)
            if claim is not spec:
                if claim.fingerprint != spec.fingerprint:
                    raise KeyReused("this key was used with another body")
                return None
        if spec.chat_id is not None:
            self._chats[spec.chat_id] = spec.stream_id
        self._specs[spec.stream_id] = spec
        log = self._logs[spec.stream_id] = MemoryLog(spec, self._keep)
        return log

    async def find_key(self, key: str, fingerprint: bytes | None = None) -> Log:
        """Find, as `Store.find_key` promises."""
        claim = self._claims.get(key)
        if claim is None:
            raise StreamNotFound("no answer belongs to this key")
        if fingerprint not in (None, claim.fingerprint):
            raise KeyReused("this key was used with another body")
        return self._logs[claim.stream_id]

    async def find_chat(self, chat_id: str) -> Log:
        """Find, as `Store.find_chat` promises."""
        stream_id = self._chats.get(chat_id)
        if stream_id is None:
            raise StreamNotFound("no answer belongs to this chat")
        return self._logs[stream_id]

    async def open(self, stream_id: str) -> Log:
        """Open, as `Store.open` promises."""
        try:
            return self._logs[stream_id]
        except KeyError:
            raise StreamNotFound(UNKNOWN) from None

    async def seal(self, stream_id: str, event: Terminal) -> bool:
        """Seal, as `Store.seal` promises."""
        log = self._logs.get(stream_id)
        if log is None:
            raise StreamNotFound(UNKNOWN)
        return log.stop(event)

    async def idle_elsewhere(self, log: Log) -> float:  # noqa: ARG002 - the protocol's
        """Tell, as `Store.idle_elsewhere` promises: there is no elsewhere."""
        return math.inf

    async def check(self) -> None:
        """Tell, as `Store.check` promises: memory is always there."""

    def interrupt(self, error: ChatError) -> None:
        """Nobody waits for another process."""

    async def discard(self, log: Log) -> None:
        """Forget, as `Store.discard` promises."""
        self._forget(log.id)

    async def aclose(self) -> None:
        """Forget everything."""
        for stream_id in list(self._logs):
            self._forget(stream_id)

    def _keep(self, log: MemoryLog) -> None:
        """Keep a sealed log for its time to live, and the caps."""
        if log.id not in self._logs:
            return
        loop = asyncio.get_running_loop()
        self._kept[log.id] = loop.call_later(self._ttl_seconds, self._forget, log.id)
        self._kept_bytes += log.size
        while len(self._kept) > self._max_kept or self._kept_bytes > self._max_kept_bytes:
            self._forget(next(iter(self._kept)))

    def _forget(self, stream_id: str) -> None:
        log = self._logs.pop(stream_id, None)
        if log is None:
            return
        if timer := self._kept.pop(stream_id, None):
            timer.cancel()
            self._kept_bytes -= log.size
        spec = self._specs.pop(stream_id)
        if spec.idempotency_key is not None:
            del self._claims[spec.idempotency_key]
        if spec.chat_id is not None and self._chats.get(spec.chat_id) == stream_id:
            del self._chats[spec.chat_id]
