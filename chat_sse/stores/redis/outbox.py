"""This process's own logs, on their way to Redis."""

import logging
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

from chat_sse.errors import InternalError
from chat_sse.events import failure, is_terminal
from chat_sse.stores.base import LogSpec
from chat_sse.stores.redis.commands import Commands, Job
from chat_sse.stores.redis.logs import ProducedLog, decode_terminal
from chat_sse.stores.redis.scripts import Sealed

log = logging.getLogger(__name__)


class Outbox:
    """Holds each log until Redis has it to its end, and knows what Redis lacks of it.

    Every job may be repeated: after an outage all logs are sent from where Redis says they stand.
    """

    def __init__(self, commands: Commands, wake: Callable[[], object]) -> None:
        """`wake`: there is something for the next round."""
        self.logs: dict[str, ProducedLog] = {}
        self._commands = commands
        self._wake = wake
        self._unsent: dict[ProducedLog, None] = {}  # in the order in which they have something to send

    @property
    def empty(self) -> bool:
        """Whether Redis has everything, as far as is known."""
        return not self._unsent

    def new_log(self, spec: LogSpec) -> ProducedLog:
        """Make a log that is not yet in here."""
        return ProducedLog(spec, self.note)

    def note(self, produced: ProducedLog) -> None:
        """Send what is new of a log."""
        self._unsent[produced] = None
        self._wake()

    def apply_stop(self, message: bytes) -> None:
        """End a log as another process has asked for: `<stream id> <terminal event>`."""
        stream_id, _, entry = message.partition(b" ")
        if produced := self.logs.get(stream_id.decode()):
            produced.apply_stop(entry)

    def recover(self) -> None:
        """After a break: find out what Redis has lost."""
        for produced in self.logs.values():
            self.note(produced)

    def jobs(self) -> Iterator[Job]:
        """List what is to be sent now: of each log the next entries and, with the last, the times to live."""
        for produced in self._unsent:
            spec, (entries, last) = produced.spec, produced.unsent()
            if not produced.registered:
                yield from ((command, None) for command in self._commands.register(spec))
                if spec.idempotency_key is not None:
                    yield self._commands.claim(spec), None
                if spec.chat_id is not None:
                    yield self._commands.move_chat(spec), None
            sealed = (Sealed.AS_ASKED if produced.asked else Sealed.BY_PRODUCER) if last else Sealed.NO
            append = self._commands.append(
                spec, produced.sent, entries, sealed=sealed, discarded=produced.discarded
            )
            yield append, partial(self._sent, produced, produced.sent, len(entries), last)
            if last:
                expiring = self._commands.expire_names(spec, discarded=produced.discarded)
                yield from ((command, None) for command in expiring)

    def _sent(self, produced: ProducedLog, first: int, count: int, last: bool, result: list[Any]) -> None:
        """Handle the result of an append."""
        outcome, detail = result
        if outcome == b"lost" and not (produced.discarded and detail == 0):
            produced.sent, produced.registered = detail, detail > 0
            self._wake()
            return
        if outcome == b"refused":
            self._overruled(produced, detail)
            return
        produced.registered, produced.sent = True, first + count
        if outcome == b"ok" and detail:
            produced.apply_stop(detail)
        if last:
            self._release(produced)
        elif produced.unsent()[0]:
            self._wake()
        else:
            self._unsent.pop(produced, None)

    def _overruled(self, produced: ProducedLog, terminal: bytes) -> None:
        """Another process has ended this answer: this one was taken for dead."""
        log.warning("log.overruled", extra={"fields": {"id": produced.id}})
        self._release(produced)
        if is_terminal(terminal):
            produced.stop(decode_terminal(terminal))
        else:
            produced.stop(failure(InternalError("another process writes this answer"), ""))
        self._unsent.pop(produced, None)

    def _release(self, produced: ProducedLog) -> None:
        """Drop a log that Redis has completely. Its readers here read on."""
        self._unsent.pop(produced, None)
        self.logs.pop(produced.id, None)
        produced.settled.set()
