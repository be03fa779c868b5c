"""The log in Redis Streams: any process reads, resumes and stops what any other has asked for.

What differs from memory:

- The producer appends to a log in its own memory, and its readers there read that one: no delta waits for
  Redis. One task sends what is new of all logs in one round trip, and fetches in the same one what readers
  here want of other processes' logs. Redis may go away in mid-answer and come back, even empty: the producer
  sends what is missing. A sealed log leaves the producer's memory once Redis has all of it.
- A reader elsewhere is woken by Pub/Sub and fetches from the stream. All readers of a process share one
  listening connection.
- A producer holds a lease. When it is gone, whoever reads one of its logs seals it with a retryable error.
- A stop is asked of the producer, which knows what its readers have seen, so that numbers agree everywhere.
  One that does not obey in time is sealed over.
- Redis keeps a sealed log for its time to live. The caps are memory's: here `maxmemory` is the operator's.
  With an eviction policy that takes these keys, answers vanish early; `noeviction` refuses new ones instead.
- How many processes read a log is asked of Redis (PUBSUB NUMSUB), which for a Cluster counts one node only.
"""

import asyncio
import logging
import secrets
from collections.abc import Callable, Coroutine, Iterator, Sequence
from contextlib import suppress
from functools import partial
from typing import Any, TypeAlias

import msgspec

from chat_sse.errors import ChatError, InternalError, KeyReused, Overloaded, StoreUnavailable, StreamNotFound
from chat_sse.events import Terminal, failure
from chat_sse.stores.base import Log, Ticket
from chat_sse.stores.redis_link import Link, Listener
from chat_sse.stores.redis_logs import CHUNK_ENTRIES, TERMINAL, MirroredLog, ProducedLog, decode_terminal
from chat_sse.stores.redis_scripts import (
    APPEND,
    CLAIM,
    KEEP,
    SEAL,
    STOP,
    Command,
    claim_key,
    control_channel,
    evaluate,
    label_key,
    lease_key,
    log_key,
    meta_key,
    news_channel,
)

log = logging.getLogger(__name__)

# A lease outlives a few lost beats, and a reader does not wait much longer than this for a dead producer.
LEASE_SECONDS = 4.0
BEAT_SECONDS = 1.0
# How often an outage is tried: a recovery should not be waited for, nor a starting Redis be stormed.
PROBE_SECONDS = 0.25
# A break shorter than this is bridged; after it, readers of other processes' logs are told.
OUTAGE_SECONDS = 2.0
# A producer obeys a stop in milliseconds; a stop promises a second.
STOP_SECONDS = 0.7
# A refused question's readers in other processes still learn why.
DISCARDED_SECONDS = 10.0
SETTLE_SECONDS = 1.0
CLOSE_SECONDS = 2.0

_encode = msgspec.json.Encoder().encode

Job: TypeAlias = tuple[Command, Callable[[Any], None] | None]
"""A command of the next round trip, and what to do with its result."""


class RedisStore:
    """A Store shared by every process that has the same Redis."""

    def __init__(self, url: str, *, ttl_seconds: float, running_seconds: float) -> None:
        """Prepare. Raises ValueError for a URL that redis-py cannot read.

        `running_seconds`: longer than any answer takes; keys of an answer whose producer died go after it.
        """
        self._id = secrets.token_hex(8)
        self._ttl_ms, self._running_ms = int(ttl_seconds * 1000), int(running_seconds * 1000)
        self._ttl_seconds = ttl_seconds
        self._link = Link(url)
        self._listener = Listener(self._link.pool, self._hear)
        self._control = control_channel(self._id)
        self._listener.subscribe(self._control)
        self._produced: dict[str, ProducedLog] = {}  # all that Redis may not have to the end
        self._unsent: dict[ProducedLog, None] = {}  # in the order in which they have something to send
        self._mirrors: dict[str, set[MirroredLog]] = {}  # by channel; those that are being read
        self._behind: set[MirroredLog] = set()
        self._missing: set[str] = set()  # producers without a lease at the last beat
        self._work = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []

    async def start(self) -> None:
        """Start its three tasks. Redis may be away: then `check` says so until it is there."""
        with suppress(StoreUnavailable):
            await self._beat()
        for name, work in (
            ("keep", self._keep()),
            ("exchange", self._exchange()),
            ("listen", self._listener.listen()),
        ):
            self._tasks.append(_spawn(work, f"redis {name}"))

    # The protocol.

    async def create(self, ticket: Ticket) -> Log | None:
        """Create or claim, as `Store.create` promises."""
        produced = ProducedLog(ticket, self._note)
        try:
            created = await self._register(ticket)
        except KeyReused:
            raise
        except BaseException:
            # What Redis has done of it is unknown, and a claim without an answer would bind its key. So it
            # gets an end, and is forgotten as soon as Redis can be told.
            self._produced[ticket.stream_id] = produced
            produced.append([failure(InternalError("the question was not asked"), "")])
            produced.discarded = True
            raise
        if not created:
            return None
        self._produced[ticket.stream_id] = produced
        return produced

    async def find_key(self, key: str) -> Log:
        """Find, as `Store.find_key` promises."""
        [value] = await self._link.run([("GET", claim_key(key))])
        if value is None:
            raise StreamNotFound("no answer belongs to this key")
        return await self.open(value.decode().partition(":")[0])

    async def find_label(self, label: str) -> Log:
        """Find, as `Store.find_label` promises."""
        [value] = await self._link.run([("GET", label_key(label))])
        if value is None:
            raise StreamNotFound("no answer belongs to this label")
        return await self.open(value.decode())

    async def open(self, stream_id: str) -> Log:
        """Open, as `Store.open` promises."""
        if produced := self._produced.get(stream_id):
            if produced.discarded:
                raise StreamNotFound("the question with this id has failed")
            return produced
        fields = ("owner", "producer", "sealed", "discarded")
        [[owner, producer, sealed, discarded]] = await self._link.run(
            [("HMGET", meta_key(stream_id), *fields)]
        )
        if owner is None or discarded:
            raise StreamNotFound("no answer has this id, or it has expired")
        ticket = Ticket(stream_id=stream_id, owner=owner.decode())
        return MirroredLog(ticket, producer.decode(), sealed=sealed != b"0", store=self)

    async def extent(self, stream_id: str) -> tuple[int, bool]:
        """Tell a log's extent by Redis. Raises StreamNotFound."""
        length, sealed = await self._link.run(
            [("XLEN", log_key(stream_id)), ("HGET", meta_key(stream_id), "sealed")]
        )
        if sealed is None:
            raise StreamNotFound("no answer has this id, or it has expired")
        return length, sealed != b"0"

    async def seal(self, stream_id: str, event: Terminal) -> bool:
        """Seal, as `Store.seal` promises: by the producer, or in its stead when it does not answer."""
        stream = await self.open(stream_id)
        if isinstance(stream, ProducedLog):
            return stream.stop(event)
        assert isinstance(stream, MirroredLog)  # noqa: S101 - `open` gives these two
        entry = _encode(event)
        message = stream_id.encode() + b" " + entry
        asking = evaluate(STOP, (meta_key(stream_id),), entry, control_channel(stream.producer), message)
        [asked] = await self._link.run([asking])
        if asked == -1:
            raise StreamNotFound("no answer has this id, or it has expired")
        if asked == 0:
            return False
        try:
            async with asyncio.timeout(STOP_SECONDS):
                await _read_to_end(stream)
                sealed = await self._link.run([("HGET", meta_key(stream_id), "sealed")])
        except TimeoutError:
            return await self._link.run([self._sealing(stream_id, event)]) == [1]
        return bool(asked == 1 and sealed == [b"2"])

    async def discard(self, log: Log) -> None:
        """Forget, as `Store.discard` promises; waits a moment for Redis to know."""
        produced = self._produced.get(log.id)
        if produced is None:
            return
        produced.discarded = True
        self._note(produced)
        with suppress(TimeoutError):
            async with asyncio.timeout(SETTLE_SECONDS if self._link.up.is_set() else 0):
                await produced.settled.wait()

    async def read_elsewhere(self, log: Log) -> bool:
        """Tell, as `Store.read_elsewhere` promises, by the subscribers of the log's channel."""
        channel = news_channel(log.id)
        try:
            [[_, count]] = await self._link.run([("PUBSUB", "NUMSUB", channel)])
        except StoreUnavailable:
            return True
        # Those that were cut off as well are about to come back.
        return bool(count > 0) or self._link.seconds() < LEASE_SECONDS

    async def check(self) -> None:
        """Ask Redis whether it is there. Raises StoreUnavailable."""
        await self._link.run([("PING",)])
        if any(task.done() for task in self._tasks):
            raise self._link.unavailable()

    def interrupt(self, error: ChatError) -> None:
        """Interrupt, as `Store.interrupt` promises."""
        for mirrors in self._mirrors.values():
            for mirror in mirrors:
                mirror.fail(error)

    async def aclose(self) -> None:
        """Send what is unsent, within bounds, give the lease back and close the connections."""
        await _end(self._tasks)
        self.interrupt(Overloaded("the log was closed"))
        with suppress(StoreUnavailable, TimeoutError):
            async with asyncio.timeout(CLOSE_SECONDS):
                while self._unsent:
                    await self._round()
                await self._link.run([("DEL", lease_key(self._id))])
        await self._link.aclose()

    # What the logs tell the store.

    def attend(self, mirror: MirroredLog) -> None:
        """Keep a mirror up with its log: it has readers."""
        channel = news_channel(mirror.id)
        if channel not in self._mirrors:
            self._mirrors[channel] = set()
            self._listener.subscribe(channel)
        self._mirrors[channel].add(mirror)
        self._behind.add(mirror)
        self._work.set()

    def leave(self, mirror: MirroredLog) -> None:
        """Let it be: it has none."""
        channel = news_channel(mirror.id)
        mirrors = self._mirrors.get(channel, set())
        mirrors.discard(mirror)
        self._behind.discard(mirror)
        if not mirrors and self._mirrors.pop(channel, None) is not None:
            self._listener.unsubscribe(channel)
            self._work.set()

    def _note(self, produced: ProducedLog) -> None:
        self._unsent[produced] = None
        self._work.set()

    # Names: keys and labels live under hash tags of their own, so each is a step of its own.

    async def _register(self, ticket: Ticket) -> bool:
        """Make a log known, then claim its key: whoever finds a claim finds its log."""
        commands = self._birth(ticket)
        results = await self._link.run(commands)
        if ticket.key is not None:
            there = results[-1]
            if there != _claim(ticket) and not await self._take_over(ticket, there):
                await self._link.run([("DEL", meta_key(ticket.stream_id))])
                if there.partition(b":")[2] != ticket.fingerprint.hex().encode():
                    raise KeyReused("this key was used with another body")
                return False
        if ticket.label is not None:
            await self._link.run([self._labelling(ticket.label, ticket.stream_id)])
        return True

    def _birth(self, ticket: Ticket) -> list[Command]:
        meta = meta_key(ticket.stream_id)
        fields = ("owner", ticket.owner, "producer", self._id, "sealed", "0")
        commands: list[Command] = [("HSET", meta, *fields), ("PEXPIRE", meta, self._running_ms)]
        if ticket.key is not None:
            commands.append(self._claiming(ticket))
        return commands

    def _claiming(self, ticket: Ticket, instead_of: bytes = b"") -> Command:
        key = claim_key(ticket.key or "")
        return evaluate(CLAIM, (key,), _claim(ticket), self._running_ms, instead_of)

    def _labelling(self, label: str, stream_id: str) -> Command:
        return ("SET", label_key(label), stream_id, "PX", self._running_ms)

    async def _take_over(self, ticket: Ticket, there: bytes) -> bool:
        """Take a claim whose log is gone, as after a failover that lost it."""
        meta = meta_key(there.decode().partition(":")[0])
        [[owner, discarded]] = await self._link.run([("HMGET", meta, "owner", "discarded")])
        if owner is not None and not discarded:
            return False
        [there] = await self._link.run([self._claiming(ticket, there)])
        return there == _claim(ticket)

    # One round trip: what is new here goes out, what is new elsewhere comes in.

    async def _exchange(self) -> None:
        while True:
            await self._work.wait()
            await self._link.up.wait()
            self._work.clear()
            try:
                await self._listener.update()
                await self._round()
            except StoreUnavailable:
                self._work.set()

    async def _round(self) -> None:
        jobs: list[Job] = []
        for produced in self._unsent:
            jobs += self._sending(produced)
        fetching, self._behind = self._behind, set()  # what is announced from here on is for the next round
        for mirror in fetching:
            start = f"{mirror.fetched() + 1}-0"
            fetch = ("XRANGE", log_key(mirror.id), start, "+", "COUNT", CHUNK_ENTRIES)
            jobs.append((fetch, partial(self._received, mirror)))
        if not jobs:
            return
        try:
            results = await self._link.run([command for command, _ in jobs])
        except StoreUnavailable:
            self._behind |= fetching
            raise
        for (_, on_result), result in zip(jobs, results, strict=True):
            if on_result is not None:
                on_result(result)

    def _sending(self, produced: ProducedLog) -> list[Job]:
        """Send a log's next entries and, with the last, set the times to live."""
        ticket = produced.ticket
        entries, last = produced.unsent()
        commands: list[Command] = []
        if not produced.registered:
            commands += self._birth(ticket)
            if ticket.label is not None:
                commands.append(self._labelling(ticket.label, ticket.stream_id))
        keys = (log_key(ticket.stream_id), meta_key(ticket.stream_id))
        kept_ms = int(DISCARDED_SECONDS * 1000) if produced.discarded else self._ttl_ms
        channel = news_channel(ticket.stream_id)
        sealed = (2 if produced.asked else 1) if last else 0
        append = evaluate(APPEND, keys, produced.sent, self._running_ms, kept_ms, sealed, channel, *entries)
        jobs: list[Job] = [(command, None) for command in commands]
        jobs.append((append, partial(self._sent, produced, produced.sent, len(entries), last)))
        if last:
            jobs += [(command, None) for command in self._retiring(produced)]
        return jobs

    def _retiring(self, produced: ProducedLog) -> Iterator[Command]:
        ticket, ttl_ms = produced.ticket, 0 if produced.discarded else self._ttl_ms
        if produced.discarded:
            yield ("HSET", meta_key(ticket.stream_id), "discarded", "1")
            yield ("PEXPIRE", meta_key(ticket.stream_id), int(DISCARDED_SECONDS * 1000))
        if ticket.key is not None:
            yield evaluate(KEEP, (claim_key(ticket.key),), _claim(ticket), ttl_ms)
        if ticket.label is not None:
            yield evaluate(KEEP, (label_key(ticket.label),), ticket.stream_id, ttl_ms)

    def _sent(self, produced: ProducedLog, first: int, count: int, last: bool, result: list[Any]) -> None:
        """Take note of what an append has done."""
        outcome, detail = result
        if outcome == b"lost" and not (produced.discarded and detail == 0):
            produced.sent = detail
            produced.registered = detail > 0
            self._work.set()
            return
        if outcome == b"refused":
            self._overruled(produced, detail)
            return
        produced.registered = True
        produced.sent = first + count
        if detail and outcome == b"ok" and not produced.sealed:
            produced.obey(detail)
        if last:
            self._release(produced)
        elif produced.unsent()[0]:
            self._work.set()
        else:
            self._unsent.pop(produced, None)

    def _overruled(self, produced: ProducedLog, terminal: bytes) -> None:
        """Another process has ended this answer: this one was taken for dead."""
        log.warning("log.overruled", extra={"fields": {"id": produced.id}})
        self._release(produced)
        if terminal.startswith(TERMINAL):
            produced.stop(decode_terminal(terminal))
        else:
            produced.stop(failure(InternalError("another process writes this answer"), ""))
        self._unsent.pop(produced, None)

    def _release(self, produced: ProducedLog) -> None:
        """Let go of a log that Redis has to its end; who reads it here goes on."""
        self._unsent.pop(produced, None)
        self._produced.pop(produced.id, None)
        produced.settled.set()

    def _received(self, mirror: MirroredLog, result: list[tuple[bytes, Any]]) -> None:
        """Take what a fetch has brought."""
        if mirror.complete:
            return
        if result:
            mirror.extend([fields[b"e"] for _, fields in result])
        elif mirror.ended:
            mirror.fail(StreamNotFound("the answer has expired"))
        if len(result) == CHUNK_ENTRIES:
            self._behind.add(mirror)
            self._work.set()

    # Signs of life.

    async def _keep(self) -> None:
        """Hold the lease, and look whether the others do."""
        while True:
            try:
                await self._beat()
                self._forget_expired()
                await asyncio.sleep(BEAT_SECONDS)
            except StoreUnavailable as exc:
                if self._link.seconds() > OUTAGE_SECONDS:
                    self.interrupt(exc)
                await asyncio.sleep(PROBE_SECONDS)

    async def _beat(self) -> None:
        was_up = self._link.up.is_set()
        running = [m for mirrors in self._mirrors.values() for m in mirrors if not m.sealed]
        producers = sorted({mirror.producer for mirror in running})
        _, _, *leases = await self._link.run(
            [
                ("SET", lease_key(self._id), "1", "PX", int(LEASE_SECONDS * 1000)),
                ("PUBLISH", self._control, b""),
                *(("EXISTS", lease_key(producer)) for producer in producers),
            ],
            probe=True,
        )
        if not was_up:
            self._recover()
        missing = {producer for producer, held in zip(producers, leases, strict=True) if not held}
        # Twice in a row: after an outage the others' leases come back at different moments.
        gone = missing & self._missing
        self._missing = missing if was_up else set()
        for mirror in running:
            if mirror.producer in gone:
                await self._bury(mirror)

    async def _bury(self, mirror: MirroredLog) -> None:
        """End an answer whose producer is gone."""
        event = failure(InternalError("the process that produced this answer is gone"), "")
        [sealed] = await self._link.run([self._sealing(mirror.id, event)])
        if sealed == -1:
            mirror.fail(StreamNotFound("the answer is lost"))
        elif sealed == 1:
            log.warning("answer.buried", extra={"fields": {"id": mirror.id}})
        self._behind.add(mirror)
        self._work.set()

    def _sealing(self, stream_id: str, event: Terminal) -> Command:
        keys = (log_key(stream_id), meta_key(stream_id))
        return evaluate(SEAL, keys, _encode(event), self._ttl_ms, news_channel(stream_id))

    def _recover(self) -> None:
        """After a break: look for what Redis has lost, and for what was missed."""
        for produced in self._produced.values():
            self._note(produced)
        for mirrors in self._mirrors.values():
            self._behind |= mirrors
        self._work.set()

    def _forget_expired(self) -> None:
        """Give up on sealed logs that could not be sent in their time to live."""
        now = asyncio.get_running_loop().time()
        for produced in [item for item in self._unsent if item.sealed]:
            produced.sealed_at = produced.sealed_at or now
            if now - produced.sealed_at > self._ttl_seconds:
                self._release(produced)

    def _hear(self, channel: str, message: bytes | None) -> None:
        """Take a message of Pub/Sub; None: heard from now on."""
        if channel != self._control:
            self._behind |= self._mirrors.get(channel, set())
            self._work.set()
        elif message is None:
            self._recover()
        elif message:
            stream_id, _, entry = message.partition(b" ")
            if produced := self._produced.get(stream_id.decode()):
                produced.obey(entry)


def _claim(ticket: Ticket) -> bytes:
    return f"{ticket.stream_id}:{ticket.fingerprint.hex()}".encode()


async def _read_to_end(stream: MirroredLog) -> None:
    after = -1
    with stream.reading():
        while entries := await stream.read(after):
            after += len(entries)


async def _end(tasks: Sequence[asyncio.Task[None]]) -> None:
    """Cancel tasks until they have ended.

    Once may not do: before Python 3.12 `wait_for`, which redis-py sends with, swallows a cancellation that
    arrives together with its result (CPython issue 86296).
    """
    running = {task for task in tasks if not task.done()}
    while running:
        for task in running:
            task.cancel()
        _, running = await asyncio.wait(running, timeout=PROBE_SECONDS)


def _spawn(work: Coroutine[Any, Any, None], name: str) -> asyncio.Task[None]:
    """Start a task of the store; it ends with it, or says why."""

    def report(task: asyncio.Task[None]) -> None:
        if not task.cancelled() and (error := task.exception()):
            log.critical("store.crashed", extra={"fields": {"task": name}}, exc_info=error)

    task = asyncio.create_task(work, name=name)
    task.add_done_callback(report)
    return task
