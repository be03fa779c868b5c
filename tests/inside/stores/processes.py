"""A process with the parts of its Redis store, over a fake Redis that the test takes away."""

import asyncio
import math
from collections.abc import Sequence
from typing import Any, cast

import msgspec

from chat_sse.errors import StoreUnavailable
from chat_sse.events import Delta
from chat_sse.redis_access import Command
from chat_sse.stores.base import Extent, LogSpec
from chat_sse.stores.redis.client import Client
from chat_sse.stores.redis.inbox import Inbox
from chat_sse.stores.redis.lease import Lease
from chat_sse.stores.redis.logs import MirroredLog, ProducedLog
from chat_sse.stores.redis.outbox import Outbox
from chat_sse.stores.redis.pubsub import PubSub
from tests.support.fake_redis import FakeRedis, commands_of


class FakeClient:
    """A Client over the fake Redis, which the test takes away."""

    def __init__(self, redis: FakeRedis) -> None:
        self.redis = redis
        self.loop = asyncio.get_running_loop()
        self.up = asyncio.Event()
        self.up.set()
        self.changed_at = self.loop.time()
        self.lease_until = math.inf
        self.known = b""

    async def run(self, commands: Sequence[Command], **_: bool) -> list[Any]:
        """Do it; note whether Redis is there."""
        try:
            results = self.redis.run(commands)
        except StoreUnavailable:
            if self.up.is_set():
                self.up.clear()
                self.changed_at = self.loop.time()
            raise
        if not self.up.is_set():
            self.up.set()
            self.changed_at = self.loop.time()
        return results

    def seconds(self) -> float:
        """Tell for how long it has been up, or down."""
        return self.loop.time() - self.changed_at

    def is_overdue(self) -> bool:
        """Tell whether it may be taken for dead."""
        return self.loop.time() > self.lease_until and self.up.is_set()

    def epoch(self) -> Command:
        """Ask."""
        return commands_of("me").epoch("fresh", self.known.decode())

    def note_epoch(self, result: tuple[bytes, int]) -> bool:
        """Compare."""
        was_lost = self.known not in (b"", result[0])
        self.known = result[0]
        return was_lost


class FakePubSub:
    """The channels that are wanted."""

    def __init__(self) -> None:
        self.wanted: set[str] = set()

    def subscribe(self, channel: str) -> None:
        """Want it."""
        self.wanted.add(channel)

    def unsubscribe(self, channel: str) -> None:
        """Want it no more."""
        self.wanted.remove(channel)


class Process:
    """A process called "me" with the parts of its store, and a reader of another one's log."""

    def __init__(self, redis: FakeRedis) -> None:
        self.redis, self.loop = redis, asyncio.get_running_loop()
        self.client, self.listener = FakeClient(redis), FakePubSub()
        self.work = asyncio.Event()
        commands = commands_of("me")
        self.outbox = Outbox(commands, self.work.set, self.client.is_overdue)
        self.inbox = Inbox(commands, cast("PubSub", self.listener), self.work.set)
        self.lease = Lease(cast("Client", self.client), commands, self.outbox, self.inbox)

    def attend(self, mirror: MirroredLog) -> None:
        """Follow it."""
        self.inbox.attend(mirror)

    def leave(self, mirror: MirroredLog) -> None:
        """Follow it no more."""
        self.inbox.leave(mirror)

    async def extent(self, stream_id: str) -> Extent:
        """Tell what Redis has."""
        return Extent(len(self.redis.entries(stream_id)), sealed=False)

    def produce(self, *texts: str) -> ProducedLog:
        """Create the log "mine" of this process."""
        self.redis.make("mine")
        log = self.outbox.new_log(LogSpec(stream_id="mine"))
        self.outbox.logs["mine"] = log
        log.append([Delta(text) for text in texts])
        return log

    def mirror(self, *, ended: bool = False) -> MirroredLog:
        """Open the log "a" of the process "other"."""
        return self.inbox.mirror(LogSpec(stream_id="a"), "other", ended=ended, readers=self)

    def exchange(self) -> None:
        """Make round trips until nothing is left to do."""
        while self.work.is_set():
            self.work.clear()
            jobs = [*self.outbox.jobs(), *self.inbox.jobs()]
            results = self.redis.run([command for command, _ in jobs])
            for (_, on_result), result in zip(jobs, results, strict=True):
                if on_result is not None:
                    on_result(result)


def piece(*texts: str) -> list[bytes]:
    return [msgspec.json.encode(Delta(text)) for text in texts]


def write(redis: FakeRedis, *texts: str) -> None:
    """Append one piece to the log "a"."""
    redis.make("a")
    redis.pieces.setdefault("p:{a}", []).append((len(redis.entries("a")) + len(texts), piece(*texts)))


def hold_lease(process: Process, seconds: float, producer: str = "other") -> None:
    process.redis.leases[f"p:{{{producer}}}:lease"] = process.loop.time() + seconds
