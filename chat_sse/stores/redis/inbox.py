"""Other processes' logs, as far as they are read here."""

from collections.abc import Callable, Iterator
from functools import partial
from weakref import WeakValueDictionary

from chat_sse.errors import ChatError, StreamNotFound
from chat_sse.stores.base import LogSpec
from chat_sse.stores.redis.commands import Commands, Job
from chat_sse.stores.redis.logs import CHUNK_PIECES, MirroredLog, Readers
from chat_sse.stores.redis.pubsub import PubSub


class Inbox:
    """Keeps the mirrors that have readers up with their logs: one for each log, however many readers."""

    def __init__(self, commands: Commands, listener: PubSub, wake: Callable[[], object]) -> None:
        """`wake`: there is something for the next round."""
        self._commands = commands
        self._listener = listener
        self._wake = wake
        self._opened: WeakValueDictionary[str, MirroredLog] = WeakValueDictionary()
        self._read: dict[str, MirroredLog] = {}  # by channel
        self._behind: set[MirroredLog] = set()
        self._unmarked: set[MirroredLog] = set()  # whose reading is to be told

    def mirror(self, spec: LogSpec, producer: str, *, ended: bool, readers: Readers) -> MirroredLog:
        """Return the mirror that a log's readers here share."""
        mirror = self._opened.get(spec.stream_id)
        if mirror is None or mirror.fault is not None:
            mirror = MirroredLog(spec, producer, ended=ended, readers=readers)
            self._opened[spec.stream_id] = mirror
        return mirror

    def running(self) -> list[MirroredLog]:
        """List the mirrors with readers whose logs go on."""
        return [mirror for mirror in self._read.values() if not mirror.closed and not mirror.ended]

    def attend(self, mirror: MirroredLog) -> None:
        """Keep a mirror up with its log: it has readers."""
        channel = self._commands.keys.news(mirror.id)
        if channel not in self._read:
            self._listener.subscribe(channel)
        self._read[channel] = mirror
        self._mark(mirror)
        self.fetch(mirror)

    def leave(self, mirror: MirroredLog) -> None:
        """Stop following a log: it has no readers here."""
        channel = self._commands.keys.news(mirror.id)
        self._behind.discard(mirror)
        if self._read.get(channel) is mirror:
            del self._read[channel]
            self._listener.unsubscribe(channel)
            self._mark(mirror)
            self._wake()

    def fetch(self, mirror: MirroredLog) -> None:
        """Look what is new, in the next round."""
        self._behind.add(mirror)
        self._wake()

    def hear(self, channel: str) -> None:
        """Handle an announcement that a log has grown."""
        if mirror := self._read.get(channel):
            self.fetch(mirror)

    def recover(self) -> None:
        """After a break: look for what was missed."""
        self._behind.update(self._read.values())
        self._wake()

    def mark_running(self) -> None:
        """Say that these logs are still read here."""
        for mirror in self.running():
            self._mark(mirror)
        self._wake()

    def interrupt(self, error: ChatError) -> None:
        """Raise an error for all who wait here."""
        for mirror in self._read.values():
            mirror.fail(error)

    def jobs(self) -> Iterator[Job]:
        """List what is to be told and fetched now. What is announced from here on is for the next round."""
        unmarked, self._unmarked = self._unmarked, set()
        for mirror in unmarked:
            yield self._commands.mark_read(mirror.id, mirror.producer), None
        behind, self._behind = self._behind, set()
        for mirror in behind:
            start = f"{mirror.length + 1}-0"
            fetch = ("XRANGE", self._commands.keys.log(mirror.id), start, "+", "COUNT", CHUNK_PIECES)
            yield fetch, partial(self._received, mirror)

    def _mark(self, mirror: MirroredLog) -> None:
        if not mirror.closed and not mirror.ended:
            self._unmarked.add(mirror)

    def _received(self, mirror: MirroredLog, result: list[tuple[bytes, list[bytes]]]) -> None:
        """Handle a fetch's result."""
        if mirror.closed:
            return
        for piece_id, (_, piece) in result:
            entries = piece.split(b"\n")
            first = int(piece_id.partition(b"-")[0]) - len(entries)
            mirror.extend(entries[mirror.length - first :])
        if not result and mirror.ended:
            mirror.fail(StreamNotFound("the answer has expired"))
        if len(result) == CHUNK_PIECES:
            self.fetch(mirror)
