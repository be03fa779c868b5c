"""What questions have cost, on its way to Redis: each told at once, and again while Redis is away."""

import asyncio
import logging
from functools import partial
from itertools import islice
from typing import Any

from chat_sse.errors import StoreUnavailable
from chat_sse.redis_access import Command, Runner

log = logging.getLogger(__name__)

# A settlement without a reply is made again, and recognised for so long.
MARK_MS = 120_000
# While Redis is away. What is settled beyond that stays reserved until its window ends.
MAX_UNSETTLED = 20_000
SETTLED_AT_ONCE = 200
RETRY_SECONDS = 0.5
# What is still to be written when the process ends.
CLOSING_SECONDS = 2.0


class Settlements:
    """Commands that settle, by stream id, until Redis has run them."""

    def __init__(self, redis: Runner) -> None:
        self._redis = redis
        self._waiting: dict[str, Command] = {}
        self._doubtful: dict[str, float] = {}  # those that may be settled: stream id → when they were sent
        self._under_way: set[asyncio.Future[list[Any]]] = set()
        self._retrying: asyncio.Task[None] | None = None
        self._closed = False

    def add(self, stream_id: str, command: Command) -> None:
        """Settle, within bounds. Never waits or raises."""
        if len(self._waiting) >= MAX_UNSETTLED:
            log.warning("limits.unsettled", extra={"fields": {"id": stream_id}})
            return
        self._waiting[stream_id] = command
        if self._retrying is None:
            sent = self._redis.run([command])
            self._under_way.add(sent)
            sent.add_done_callback(partial(self._told, stream_id))

    async def aclose(self) -> None:
        """Wait a moment for what is still to be settled."""
        deadline = asyncio.get_running_loop().time() + CLOSING_SECONDS
        if self._under_way:
            await asyncio.wait(self._under_way, timeout=CLOSING_SECONDS)
        self._closed = True
        if (retrying := self._retrying) is not None:
            await asyncio.wait([retrying], timeout=deadline - asyncio.get_running_loop().time())
            retrying.cancel()
            await asyncio.wait([retrying])

    def _told(self, stream_id: str, sent: asyncio.Future[list[Any]]) -> None:
        """Handle the outcome of the first try."""
        self._under_way.discard(sent)
        if sent.exception() is None:
            self._waiting.pop(stream_id, None)
            return
        self._doubtful[stream_id] = sent.get_loop().time()
        if self._retrying is None and not self._closed:
            self._retrying = asyncio.create_task(self._retry(), name="settlements")

    async def _retry(self) -> None:
        """Settle all that waits, again and again while Redis is away."""
        is_up, loop = False, asyncio.get_running_loop()
        try:
            while self._waiting:
                if not is_up:
                    await asyncio.sleep(RETRY_SECONDS)
                    self._give_up(loop.time() - MARK_MS / 1000)
                some = dict(islice(self._waiting.items(), SETTLED_AT_ONCE))
                try:
                    await self._redis.run(list(some.values()))
                except StoreUnavailable:
                    if is_up:  # the connection broke under these; later ones find none
                        self._doubtful.update(dict.fromkeys(some, loop.time()))
                    is_up = False
                else:
                    is_up = True
                    for stream_id in some:
                        self._waiting.pop(stream_id, None)
                        self._doubtful.pop(stream_id, None)
        finally:
            self._retrying = None

    def _give_up(self, late: float) -> None:
        """Leave reserved what was in doubt before `late`: Redis would settle it once more."""
        for stream_id in [stream_id for stream_id, sent_at in self._doubtful.items() if sent_at < late]:
            del self._doubtful[stream_id], self._waiting[stream_id]
            log.warning("limits.unsettled", extra={"fields": {"id": stream_id}})
