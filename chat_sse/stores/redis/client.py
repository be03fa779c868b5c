"""Commands to Redis: one round trip for any number of them, bounded in time, honest about an outage."""

import asyncio
import logging
import math
import secrets
from collections.abc import Iterator, Sequence
from typing import Any

from redis.asyncio import Connection
from redis.exceptions import RedisError

from chat_sse.errors import StoreUnavailable
from chat_sse.figures import Figure
from chat_sse.redis_access import SINGLE, Command, RoundTrips, about, connector, unavailable, wrong_mode
from chat_sse.stores.redis.commands import Commands
from chat_sse.stores.redis.scripts import EPOCH

log = logging.getLogger(__name__)


class WrongMode(Exception):
    """Redis is there, and is no single server."""


class DataLost(RedisError):
    """Redis has come back without its data, or perhaps without the last of it."""


class Client:
    """Commands to Redis. Once a round trip failed, all fail at once until a probe gets through.

    A Redis that has lost its data is found out by its epoch, on each new connection before anything is sent,
    and at each beat. Until every producer can have made its logs known again, nobody can tell a key or an id
    that was lost from one that never was.
    """

    def __init__(self, url: str, commands: Commands) -> None:
        """Prepare, as `connector` does."""
        self.connect = connector(url, self._check_epoch)
        self._trips = RoundTrips(self.connect, on_outcome=self._turn)
        self._commands = commands
        self._loop = asyncio.get_running_loop()
        self._epoch = b""
        self._run_id = ""
        self.mode = ""  # such as "standalone", once it is known
        self._complete_at = 0.0  # on the loop's clock
        self.lease_until = math.inf  # on the loop's clock; nothing is to be lost before the first beat
        self.up = asyncio.Event()
        self.changed_at = self._loop.time()

    def run(self, commands: Sequence[Command], *, probe: bool = False) -> asyncio.Future[list[Any]]:
        """Begin, as `RoundTrips.run` does. `probe`: also while Redis is down.

        Nothing is known of what a failed call has done: every command of the log must be idempotent.
        """
        if self.up.is_set() or probe:
            return self._trips.run(commands)
        refused: asyncio.Future[list[Any]] = self._loop.create_future()
        refused.set_exception(unavailable())
        return refused

    def seconds(self) -> float:
        """Return for how long it has been up, or down."""
        return self._loop.time() - self.changed_at

    def is_overdue(self) -> bool:
        """Return whether others may have taken this process for dead: it was frozen, or very slow.

        With Redis away nobody takes anybody for dead.
        """
        return self._loop.time() > self.lease_until and self.up.is_set()

    def check_complete(self) -> None:
        """Raise StoreUnavailable while logs and keys may be missing that producers still hold."""
        left = self._complete_at - self._loop.time()
        if left > 0:
            raise StoreUnavailable("Redis has lost its data", retry_after=math.ceil(left))

    def epoch(self, known: str | None = None) -> Command:
        """Return the command whose result `note_epoch` takes. `known`: the epoch, if it is not this one's."""
        return self._commands.epoch(secrets.token_hex(8), self._epoch.decode() if known is None else known)

    def note_epoch(self, result: tuple[bytes, int]) -> bool:
        """Note which epoch it is, and return whether Redis has lost its data since the last time."""
        epoch, recovery_ms = result
        was_lost = self._epoch not in (b"", epoch)
        self._epoch = epoch
        self._complete_at = self._loop.time() + recovery_ms / 1000
        if was_lost:
            log.warning("redis.data_lost")
        return was_lost

    def check_mode(self) -> None:
        """Raise WrongMode for a node of a cluster, and for a sentinel."""
        if self.mode not in ("", SINGLE):
            raise WrongMode(f"CHAT_SSE_REDIS_URL {wrong_mode(self.mode)}")

    def figures(self) -> Iterator[Figure]:
        """Return whether Redis is there, and what the round trips were."""
        yield Figure("redis_up", self.up.is_set())
        yield from self._trips.figures()

    async def aclose(self) -> None:
        """Close all connections."""
        await self._trips.aclose()

    async def _check_epoch(self, connection: Connection) -> None:
        """Raise DataLost on the first connection to a Redis that has lost its data, or may have.

        A server that was started anew, or has taken over from another, may lack what was written last. Before
        the first, find out the server's mode: scripts and channels here are those of a single one.
        """
        server = await about(connection)
        self.mode = server.mode
        if self.mode != SINGLE:
            raise RedisError
        was_replaced = self._run_id not in ("", server.run_id)
        self._run_id = server.run_id
        _, _, *arguments = self.epoch("of another server" if was_replaced else None)
        await connection.send_command("EVAL", EPOCH, *arguments)
        if self.note_epoch(await connection.read_response()):
            raise DataLost
        if was_replaced:
            log.warning("redis.replaced")
            raise DataLost

    def _turn(self, reason: str | None) -> None:
        up = reason is None
        if up == self.up.is_set():
            return
        self.changed_at = self._loop.time()
        if up:
            self.up.set()
            log.info("redis.up")
        else:
            self.up.clear()
            log.warning("redis.down", extra={"fields": {"reason": reason}})
