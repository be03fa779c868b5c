"""Signs of life: this process holds a lease, and seals the logs of those that have lost theirs.

Only processes that read one of its holder's logs check a lease: no other reader waits for a dead producer.
"""

import asyncio
import logging

import msgspec

from chat_sse.errors import InternalError, StoreUnavailable, StreamNotFound
from chat_sse.events import failure
from chat_sse.stores.base import PRODUCER_GONE
from chat_sse.stores.redis.client import Client
from chat_sse.stores.redis.commands import Commands
from chat_sse.stores.redis.inbox import Inbox
from chat_sse.stores.redis.logs import MirroredLog
from chat_sse.stores.redis.outbox import Outbox

log = logging.getLogger(__name__)

# A lease outlives a few lost beats, and a reader does not wait much longer than this for a dead producer.
LEASE_SECONDS = 4.0
BEAT_SECONDS = 1.0
# How often an outage is tried: a recovery should not be waited for, nor a starting Redis be stormed.
PROBE_SECONDS = 0.25
# A break shorter than this is bridged; after it, readers of other processes' logs are told.
OUTAGE_SECONDS = 2.0

_encode = msgspec.json.Encoder().encode


class Lease:
    """Beats once a second. Its beat is also what finds out that Redis is back."""

    def __init__(self, client: Client, commands: Commands, outbox: Outbox, inbox: Inbox) -> None:
        self._client = client
        self._commands = commands
        self._outbox = outbox
        self._inbox = inbox
        self._loop = asyncio.get_running_loop()
        self._missing: set[str] = set()  # producers without a lease at the last beat

    async def keep(self) -> None:
        """Beat for ever."""
        while True:
            try:
                await self.beat()
                await asyncio.sleep(BEAT_SECONDS)
            except StoreUnavailable as exc:
                self._outbox.trust()
                if self._client.seconds() > OUTAGE_SECONDS:
                    self._inbox.interrupt(exc)
                await asyncio.sleep(PROBE_SECONDS)

    async def beat(self) -> None:
        """Renew the lease, and look whether the others hold theirs. Raises StoreUnavailable."""
        was_up = self._client.up.is_set()
        began = self._loop.time()
        is_overdue = began > self._client.lease_until
        if is_overdue and was_up:
            self._outbox.doubt()
        running = self._inbox.running()
        self._inbox.mark_running()
        producers = sorted({mirror.producer for mirror in running})
        own, keys = self._commands.producer, self._commands.keys
        _, _, epoch, *leases = await self._client.run(
            [
                ("SET", keys.lease(own), "1", "PX", int(LEASE_SECONDS * 1000)),
                ("PUBLISH", keys.control(own), b""),  # by which the subscriber knows that it still hears
                self._client.epoch(),
                *(("EXISTS", keys.lease(producer)) for producer in producers),
            ],
            probe=True,
        )
        if is_overdue and not was_up:
            self._outbox.doubt()
        self._client.lease_until = began + LEASE_SECONDS
        if self._client.note_epoch(epoch) or not was_up:
            self._outbox.recover()
            self._inbox.recover()
        self._outbox.age()
        # Twice in a row: after an outage the others' leases come back at different moments.
        held = leases if was_up else [True] * len(leases)
        missing = {producer for producer, is_held in zip(producers, held, strict=True) if not is_held}
        gone, self._missing = missing & self._missing, missing
        for mirror in running:
            if mirror.producer in gone:
                await self._seal_orphan(mirror)

    async def give_back(self) -> None:
        """End the lease at once. Raises StoreUnavailable."""
        await self._client.run([("DEL", self._commands.keys.lease(self._commands.producer))])

    async def _seal_orphan(self, mirror: MirroredLog) -> None:
        """End an answer whose producer is gone."""
        event = failure(InternalError(PRODUCER_GONE), "")
        [sealed] = await self._client.run([self._commands.seal(mirror.id, _encode(event))])
        if sealed == -1:
            mirror.fail(StreamNotFound("the answer is lost"))
        elif sealed == 1:
            log.warning("answer.orphan_sealed", extra={"fields": {"id": mirror.id}})
        self._inbox.fetch(mirror)
