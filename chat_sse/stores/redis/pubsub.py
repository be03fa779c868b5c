"""What Redis announces: one connection that listens to all channels of this process.

A thousand readers of other processes' logs need no thousand connections.
"""

import asyncio
import logging
import math
from collections.abc import Callable

from redis.asyncio import Connection
from redis.exceptions import RedisError

log = logging.getLogger(__name__)

# The store publishes to its own control channel each second: a connection that hears nothing is dead.
LISTEN_SECONDS = 4.0
RECONNECT_SECONDS = 0.25


class PubSub:
    """One connection that listens to any number of channels, for ever and over every break.

    `hear(channel, None)` says that a channel has just been subscribed to, the first time or anew: what was
    published before may have been missed. `hear(channel, message)` is a message.

    redis-py's own PubSub connects again by itself, from whichever side fails; here one task reads and alone
    connects, and others only ever write to a connection that stands.
    """

    def __init__(self, connect: Callable[[], Connection], hear: Callable[[str, bytes | None], None]) -> None:
        self._connect = connect
        self._hear = hear
        self._wanted: set[str] = set()
        self._changed: set[str] = set()
        self._connection: Connection | None = None

    def subscribe(self, channel: str) -> None:
        """Want a channel, from the next `update` on."""
        self._wanted.add(channel)
        self._changed.add(channel)

    def unsubscribe(self, channel: str) -> None:
        """Want it no more."""
        self._wanted.discard(channel)
        self._changed.add(channel)

    async def update(self) -> None:
        """Subscribe to the wanted channels. Without a connection, the next one does it."""
        connection = self._connection
        if connection is None or not self._changed:
            return
        changed, self._changed = self._changed, set()
        try:
            for command, channels in (
                ("SUBSCRIBE", changed & self._wanted),
                ("UNSUBSCRIBE", changed - self._wanted),
            ):
                if channels and connection.is_connected:
                    await connection.send_command(command, *channels, check_health=False)
        except (RedisError, OSError):
            await connection.disconnect(nowait=True)  # `listen` notices, and subscribes to all of them

    async def listen(self) -> None:
        """Read until cancelled."""
        while True:
            connection = self._connect()
            try:
                async with asyncio.timeout(LISTEN_SECONDS):
                    self._changed.clear()
                    await connection.send_command("SUBSCRIBE", *self._wanted, check_health=False)
                self._connection = connection
                while connection.is_connected:
                    await self._hear_one(connection)
            except (RedisError, OSError) as exc:
                log.info("redis.unheard", extra={"fields": {"reason": type(exc).__name__}})
            finally:
                self._connection = None
                await connection.disconnect(nowait=True)
            await asyncio.sleep(RECONNECT_SECONDS)

    async def _hear_one(self, connection: Connection) -> None:
        async with asyncio.timeout(LISTEN_SECONDS):  # redis-py's own would give None, and keep the connection
            kind, channel, message = await connection.read_response(timeout=math.inf)
        if kind == b"message":
            self._hear(channel.decode(), message)
        elif kind == b"subscribe":
            self._hear(channel.decode(), None)
