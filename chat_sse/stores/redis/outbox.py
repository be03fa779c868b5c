"""This process's own logs, on their way to Redis."""

import asyncio
import logging
from collections.abc import Callable, Iterator
from functools import partial
from itertools import islice
from typing import Any

import msgspec

from chat_sse.errors import InternalError
from chat_sse.events import failure, is_terminal
from chat_sse.stores.base import LogSpec
from chat_sse.stores.redis.commands import Commands, Job
from chat_sse.stores.redis.logs import CHUNK_ENTRIES, ProducedLog, decode_terminal
from chat_sse.stores.redis.scripts import Sealed

log = logging.getLogger(__name__)

# What nobody reads elsewhere is sent this late, and so in larger pieces. It is what a crash may lose.
UNREAD_SECONDS = 0.5
# What falls due within so much goes together: a round trip costs more than what it carries.
TOGETHER_SECONDS = 0.1
# Of one round, so that no delta waits for long while they are written.
LOGS_AT_ONCE = 200
# Readers elsewhere say once a second that they are there.
READ_SECONDS = 3.0


class Outbox:
    """Holds each log until Redis has it to its end, and knows what Redis lacks of it.

    Every job may be repeated: after an outage all logs are sent from where Redis says they stand.
    """

    def __init__(
        self, commands: Commands, wake: Callable[[], object], is_overdue: Callable[[], bool]
    ) -> None:
        """`wake`: there is something for the next round. `is_overdue`: see `ProducedLog`."""
        self.logs: dict[str, ProducedLog] = {}
        self._commands = commands
        self._wake = wake
        self._is_overdue = is_overdue
        self._loop = asyncio.get_running_loop()
        self._unsent: dict[ProducedLog, None] = {}  # in the order in which they have something to send
        self._later: dict[ProducedLog, float] = {}  # those that may wait, until when: the first one first
        self._timer: asyncio.TimerHandle | None = None
        self.creating: set[str] = set()  # logs that others may know already
        self._released: dict[str, ProducedLog] = {}  # since the last beat: a failover may lose the end
        self._released_before: dict[str, ProducedLog] = {}
        self._unended: set[str] = set()  # logs of this process that it has no more, and Redis not to the end

    @property
    def empty(self) -> bool:
        """Whether Redis has everything, as far as is known."""
        return self.unsent == 0

    @property
    def unsent(self) -> int:
        """How many logs there are of which Redis does not have everything, as far as is known."""
        return len(self._unsent) + len(self._later)

    def new_log(self, spec: LogSpec) -> ProducedLog:
        """Make a log that is not yet in here."""
        self.creating.add(spec.stream_id)
        return ProducedLog(spec, self.note, self._is_overdue)

    def note(self, produced: ProducedLog) -> None:
        """Send what is new of a log: now if it has ended or is read elsewhere, and else a little later."""
        produced.noted = True
        now = self._loop.time()
        if produced.sealed or produced.is_doubtful or now < produced.read_until:
            self._send_soon(produced)
        elif produced not in self._unsent and produced not in self._later:
            due = now + UNREAD_SECONDS
            due -= due % TOGETHER_SECONDS
            self._later[produced] = due
            if self._timer is None:
                self._timer = self._loop.call_at(due, self._send_due)

    def hear(self, message: bytes) -> None:
        """Handle what another process asks of this one's log: see `Keys.control`."""
        id_, _, entry = message.partition(b" ")
        stream_id = id_.decode()
        produced = self.logs.get(stream_id)
        if produced is None:
            held = stream_id in self._released or stream_id in self._released_before
            if not entry and not held and stream_id not in self.creating:
                self._unended.add(stream_id)
                self._wake()
        elif entry:
            produced.apply_stop(entry)
        else:
            produced.read_until = self._loop.time() + READ_SECONDS
            if produced.noted:
                self._send_soon(produced)

    def recover(self) -> None:
        """After a break: find out what Redis has lost."""
        self.logs = {**self._released_before, **self._released, **self.logs}
        self._released, self._released_before = {}, {}
        for produced in self.logs.values():
            self._send_soon(produced)

    def age(self) -> None:
        """Drop what Redis had completely before the last call; called with each beat."""
        self._released_before, self._released = self._released, {}

    def doubt(self) -> None:
        """Hold what is appended until Redis has said which logs others have sealed, and recover."""
        for produced in self.logs.values():
            produced.is_doubtful = True
        self.recover()

    def trust(self) -> None:
        """Hold nothing: with Redis away nobody can seal, and readers here are not to wait."""
        for produced in [produced for produced in self.logs.values() if produced.is_doubtful]:
            produced.confirm()

    def send_all(self) -> None:
        """Let nothing wait: this process ends."""
        for produced in list(self._later):
            self._send_soon(produced)

    def close(self) -> None:
        """Start no more rounds."""
        if self._timer is not None:
            self._timer.cancel()

    def jobs(self) -> Iterator[Job]:
        """List what is to be sent now: of each log the next entries and, with the last, the times to live."""
        if len(self._unsent) > LOGS_AT_ONCE:
            self._wake()
        for produced in islice(self._unsent, LOGS_AT_ONCE):
            spec, (entries, last) = produced.spec, produced.unsent()
            if not produced.registered:
                yield self._commands.register(spec), None
                if spec.idempotency_key is not None:
                    yield self._commands.claim(spec), None
                if spec.chat_id is not None:
                    yield self._commands.move_chat(spec), None
            sealed = (Sealed.AS_ASKED if produced.asked else Sealed.BY_PRODUCER) if last else Sealed.NO
            append = self._commands.append(
                spec, produced.sent, entries, sealed=sealed, discarded=produced.discarded
            )
            sent, discarded = produced.sent + len(entries), produced.discarded
            yield append, partial(self._sent, produced, sent, last, discarded)
            if last:
                expiring = self._commands.expire_names(spec, discarded=produced.discarded)
                yield from ((command, None) for command in expiring)
        unended, self._unended = self._unended, set()
        for stream_id in unended:
            event = failure(InternalError("Redis has lost the end of this answer"), "")
            yield self._commands.seal(stream_id, msgspec.json.encode(event)), None

    def _send_soon(self, produced: ProducedLog) -> None:
        self._later.pop(produced, None)
        self._unsent[produced] = None
        self._wake()

    def _send_due(self) -> None:
        """Send those that have waited long enough."""
        now = self._loop.time()
        for produced, due in list(self._later.items()):
            if due > now:
                self._timer = self._loop.call_at(due, self._send_due)
                return
            self._send_soon(produced)
        self._timer = None

    def _sent(self, produced: ProducedLog, sent: int, last: bool, discarded: bool, result: list[Any]) -> None:
        """Handle the result of an append. `discarded`: whether it told that the log is."""
        outcome, detail = result
        if outcome == b"lost" and not (produced.discarded and detail == 0):
            produced.sent, produced.registered = detail, detail > 0
            self._wake()
            return
        if outcome == b"refused":
            self._overruled(produced, detail.rpartition(b"\n")[2])
            return
        produced.registered, produced.sent = True, sent
        if produced.is_doubtful:
            produced.confirm()
            last = last and not produced.unsent()[0]
        if outcome == b"ok" and detail:
            produced.apply_stop(detail)
        if last and discarded == produced.discarded:
            self._release(produced)
            self._released[produced.id] = produced
        elif last:  # it was discarded meanwhile
            self._wake()
        elif (rest := produced.unsent()[0]) and len(rest) < CHUNK_ENTRIES:
            self._unsent.pop(produced, None)
            self.note(produced)
        elif rest:
            self._wake()
        else:
            produced.noted = False
            self._unsent.pop(produced, None)

    def _overruled(self, produced: ProducedLog, terminal: bytes) -> None:
        """Another process has ended this answer: this one was taken for dead."""
        log.warning("log.overruled", extra={"fields": {"id": produced.id}})
        self._release(produced)
        if is_terminal(terminal):
            produced.overrule(decode_terminal(terminal))
        else:
            produced.overrule(failure(InternalError("another process writes this answer"), ""))

    def _release(self, produced: ProducedLog) -> None:
        """Drop a log that Redis has completely. Its readers here read on."""
        self._unsent.pop(produced, None)
        self.logs.pop(produced.id, None)
        produced.settled.set()
