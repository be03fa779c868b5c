"""The Store that every process shares which has the same Redis. Its package tells how the parts work."""

import asyncio
import logging
import math
import secrets
from collections.abc import Awaitable, Iterator
from contextlib import suppress
from typing import Any

import msgspec

from chat_sse.errors import ChatError, InternalError, KeyReused, Overloaded, StoreUnavailable, StreamNotFound
from chat_sse.events import Terminal, failure
from chat_sse.figures import Figure
from chat_sse.redis_access import DEFAULT_PREFIX, unavailable
from chat_sse.stores.base import UNKNOWN, Extent, Log, LogSpec
from chat_sse.stores.redis.client import Client
from chat_sse.stores.redis.commands import Commands, claim_of
from chat_sse.stores.redis.inbox import Inbox
from chat_sse.stores.redis.lease import BEAT_SECONDS, LEASE_SECONDS, Lease
from chat_sse.stores.redis.logs import MirroredLog, ProducedLog
from chat_sse.stores.redis.outbox import Outbox
from chat_sse.stores.redis.pubsub import PubSub
from chat_sse.stores.redis.scripts import Keys, Sealed
from chat_sse.stores.redis.tasks import end, spawn

log = logging.getLogger(__name__)

# A producer applies a stop within milliseconds; a stop promises a second.
STOP_SECONDS = 0.7
# From one round trip to the next: nobody sees a fiftieth of a second, and at 500 deltas a second it halves
# the cost of each.
ROUND_SECONDS = 0.02
SETTLE_SECONDS = 1.0
CLOSE_SECONDS = 2.0

_encode = msgspec.json.Encoder().encode


class RedisStore:
    """A Store shared by every process that has the same Redis."""

    def __init__(
        self, url: str, *, ttl_seconds: float, running_seconds: float, prefix: str = DEFAULT_PREFIX
    ) -> None:
        """Prepare. Raises ValueError for a URL that redis-py cannot read.

        `running_seconds`: longer than any answer takes; keys of an answer whose producer died go after it.
        """
        producer = secrets.token_hex(8)
        self._keys = Keys(prefix)
        self._commands = Commands(
            keys=self._keys,
            producer=producer,
            ttl_ms=int(ttl_seconds * 1000),
            running_ms=int(running_seconds * 1000),
        )
        self.redis = Client(url, self._commands)
        """What runs its commands, and the limits' with them."""
        self._control = self._keys.control(producer)
        self._listener = PubSub(self.redis.connect, self._hear)
        self._listener.subscribe(self._control)
        self._work = asyncio.Event()
        self._outbox = Outbox(self._commands, self._work.set, self.redis.is_overdue)
        self._inbox = Inbox(self._commands, self._listener, self._work.set)
        self._lease = Lease(self.redis, self._commands, self._outbox, self._inbox)
        self._tasks: list[asyncio.Task[None]] = []

    async def start(self) -> None:
        """Start its three tasks. Redis may be away: then `check` says so until it is there.

        Raises WrongMode for a Redis that is no single server.
        """
        with suppress(StoreUnavailable):
            await self._lease.beat()
        self.redis.check_mode()
        works = {"lease": self._lease.keep(), "exchange": self._exchange(), "listen": self._listener.listen()}
        self._tasks = [spawn(work, f"redis {name}") for name, work in works.items()]

    def create(self, spec: LogSpec) -> Awaitable[Log | None]:
        """Create or claim, as `Store.create` promises; begins at once."""
        if spec.idempotency_key is not None:
            self.redis.check_complete()
        return self._created(self._outbox.new_log(spec), self.redis.run(self._commands.create(spec)))

    async def _created(self, produced: ProducedLog, begun: asyncio.Future[list[Any]]) -> Log | None:
        """Return a new log once Redis has it."""
        spec = produced.spec
        try:
            created = await self._claim(spec, (await begun)[-1])
        except KeyReused:
            raise
        except BaseException:
            # What Redis has done of it is unknown, and a claim without an answer would bind its key. So it
            # gets an end, and is forgotten as soon as Redis can be told.
            self._outbox.logs[spec.stream_id] = produced
            produced.append([failure(InternalError("the question was not asked"), "")])
            produced.discarded = True
            raise
        finally:
            self._outbox.creating.discard(spec.stream_id)
        if not created:
            return None
        self._outbox.logs[spec.stream_id] = produced
        return produced

    async def find_key(self, key: str, fingerprint: bytes | None = None) -> Log:
        """Find, as `Store.find_key` promises."""
        [value] = await self.redis.run([("GET", self._keys.claim(key))])
        if value is None:
            raise self._not_found("no answer belongs to this key")
        stream_id, _, claimed_with = value.decode().partition(":")
        stream = await self.open(stream_id)
        if fingerprint is not None and fingerprint.hex() != claimed_with:
            raise KeyReused("this key was used with another body")
        return stream

    async def find_chat(self, chat_id: str) -> Log:
        """Find, as `Store.find_chat` promises."""
        [value] = await self.redis.run([("GET", self._keys.chat(chat_id))])
        if value is None:
            raise self._not_found("no answer belongs to this chat")
        return await self.open(value.decode())

    async def open(self, stream_id: str) -> Log:
        """Open, as `Store.open` promises."""
        return await self._open(stream_id)

    async def extent(self, stream_id: str) -> Extent:
        """Return a log's extent by Redis. Raises StreamNotFound."""
        [[length, sealed]] = await self.redis.run([("HMGET", self._keys.meta(stream_id), "length", "sealed")])
        if sealed is None:
            raise self._not_found(UNKNOWN)
        state = Sealed(int(sealed))
        by_producer = state in (Sealed.BY_PRODUCER, Sealed.AS_ASKED)
        return Extent(int(length or 0), state is not Sealed.NO, is_exact=by_producer)

    async def seal(self, stream_id: str, event: Terminal) -> bool:
        """Seal, as `Store.seal` promises: by the producer, or in its stead when it does not answer."""
        stream = await self._open(stream_id)
        if isinstance(stream, ProducedLog):
            return stream.stop(event)
        entry = _encode(event)
        [asked] = await self.redis.run([self._commands.stop(stream_id, stream.producer, entry)])
        if asked == -1:
            raise self._not_found(UNKNOWN)
        if asked == 0:
            return False
        try:
            async with asyncio.timeout(STOP_SECONDS):
                await stream.read_to_end()
        except TimeoutError:
            if await self.redis.run([self._commands.seal(stream_id, entry)]) == [1]:
                return True  # else the producer did it in this very moment
        sealed = await self.redis.run([("HGET", self._keys.meta(stream_id), "sealed")])
        return bool(asked == 1 and sealed == [b"%d" % Sealed.AS_ASKED])

    async def discard(self, log: Log) -> None:
        """Forget, as `Store.discard` promises; waits a moment for Redis to know."""
        if not isinstance(log, ProducedLog):
            return
        log.discarded = True
        log.settled.clear()
        self._outbox.logs[log.id] = log  # Redis may have had it to its end
        self._outbox.note(log)
        with suppress(TimeoutError):
            async with asyncio.timeout(SETTLE_SECONDS if self.redis.up.is_set() else 0):
                await log.settled.wait()

    async def idle_elsewhere(self, log: Log) -> float:
        """Tell, as `Store.idle_elsewhere` promises, by when the others have last marked the log."""
        try:
            [idle_ms] = await self.redis.run([self._commands.idle(log.id)])
        except StoreUnavailable:
            return 0.0
        if self.redis.seconds() < LEASE_SECONDS:  # those that were cut off as well are about to come back
            return 0.0
        if idle_ms < 0:
            return math.inf
        return 0.0 if idle_ms < 2000 * BEAT_SECONDS else idle_ms / 1000

    async def check(self) -> None:
        """Ask Redis whether it is there. Raises StoreUnavailable."""
        await self.redis.run([("PING",)])
        if any(task.done() for task in self._tasks):
            raise unavailable()

    def figures(self) -> Iterator[Figure]:
        """Return what Redis does not have yet."""
        yield Figure("redis_unsent_logs", self._outbox.unsent)

    def interrupt(self, error: ChatError) -> None:
        """Interrupt, as `Store.interrupt` promises."""
        self._inbox.interrupt(error)

    async def aclose(self) -> None:
        """Send what is unsent, within bounds, give the lease back and close the connections."""
        await end(self._tasks)
        self.interrupt(Overloaded("the log was closed"))
        self._outbox.send_all()
        with suppress(StoreUnavailable, TimeoutError):
            async with asyncio.timeout(CLOSE_SECONDS):
                while not self._outbox.empty:
                    await self._round()
                await self._lease.give_back()
        self._outbox.close()
        await self.redis.aclose()

    async def _claim(self, spec: LogSpec, there: Any) -> bool:
        """Return whether a new log has its key, if it wants any. `there`: the claim that stands then."""
        if spec.idempotency_key is None:
            return True
        if there != claim_of(spec) and not await self._take_over(spec, there):
            await self.redis.run([("DEL", self._keys.meta(spec.stream_id))])
            if there.partition(b":")[2] != spec.fingerprint.hex().encode():
                raise KeyReused("this key was used with another body")
            return False
        if spec.chat_id is not None:
            await self.redis.run([self._commands.move_chat(spec)])
        return True

    async def _take_over(self, spec: LogSpec, there: bytes) -> bool:
        """Replace a claim whose log is gone, as after a failover that lost it."""
        meta = self._keys.meta(there.decode().partition(":")[0])
        [[owner, discarded]] = await self.redis.run([("HMGET", meta, "owner", "discarded")])
        if owner is not None and not discarded:
            return False
        [there] = await self.redis.run([self._commands.claim(spec, there)])
        return there == claim_of(spec)

    async def _open(self, stream_id: str) -> ProducedLog | MirroredLog:
        if produced := self._outbox.logs.get(stream_id):
            if produced.discarded:
                raise StreamNotFound("the question with this id has failed")
            return produced
        fields = ("owner", "producer", "sealed", "discarded")
        [[owner, producer, sealed, discarded]] = await self.redis.run(
            [("HMGET", self._keys.meta(stream_id), *fields)]
        )
        if owner is None or discarded:
            raise self._not_found(UNKNOWN)
        spec = LogSpec(stream_id=stream_id, owner=owner.decode())
        return self._inbox.mirror(spec, producer.decode(), ended=sealed != b"%d" % Sealed.NO, readers=self)

    def _not_found(self, details: str) -> StreamNotFound:
        """Return the error for what Redis does not know. Raises StoreUnavailable where it may have known."""
        self.redis.check_complete()
        return StreamNotFound(details)

    # What keeps it going.

    def attend(self, mirror: MirroredLog) -> None:
        """Keep a mirror up with its log, as `Readers.attend` promises."""
        self._inbox.attend(mirror)

    def leave(self, mirror: MirroredLog) -> None:
        """Stop following a log, as `Readers.leave` promises."""
        self._inbox.leave(mirror)

    async def _exchange(self) -> None:
        """One round trip after the other, as long as there is anything to send or to fetch."""
        while True:
            await self._work.wait()
            await self.redis.up.wait()
            self._work.clear()
            try:
                await self._listener.update()
                await self._round()
                await asyncio.sleep(ROUND_SECONDS)
            except StoreUnavailable:
                self._recover()

    async def _round(self) -> None:
        """What is new here goes out, what is new elsewhere comes in."""
        jobs = [*self._outbox.jobs(), *self._inbox.jobs()]
        if not jobs:
            return
        results = await self.redis.run([command for command, _ in jobs])
        for (_, on_result), result in zip(jobs, results, strict=True):
            if on_result is not None:
                on_result(result)

    def _recover(self) -> None:
        self._outbox.recover()
        self._inbox.recover()

    def _hear(self, channel: str, message: bytes | None) -> None:
        """Handle a message of Pub/Sub. None: the subscription has begun."""
        if channel != self._control:
            self._inbox.hear(channel)
        elif message is None:
            self._recover()
        elif message:
            self._outbox.hear(message)
