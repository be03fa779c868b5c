"""The connections to Redis: few, bounded in time, and honest about an outage.

A pool for commands, one round trip each however many commands it carries, and one connection that listens to
all channels of this process: a thousand remote readers need no thousand connections.
"""

import asyncio
import logging
import math
from collections.abc import Callable, Sequence
from typing import Any

from redis.asyncio import BlockingConnectionPool, Connection, Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import NoScriptError, RedisError

from chat_sse.errors import StoreUnavailable
from chat_sse.stores.redis_scripts import SCRIPTS, Command

log = logging.getLogger(__name__)

CONNECTIONS = 16
# A round trip takes a millisecond; a question waits no longer than this to hear that it cannot be asked.
SOCKET_SECONDS = 2.0
ROUND_TRIP_SECONDS = 3.0
# The store publishes to its own control channel each second: a connection that hears nothing is dead.
LISTEN_SECONDS = 4.0
RECONNECT_SECONDS = 0.25
RETRY_SECONDS = 2.0


class Link:
    """Commands to Redis. Once one failed, all others fail at once until a probe gets through."""

    def __init__(self, url: str) -> None:
        """Prepare; nothing connects. Raises ValueError for a URL that redis-py cannot read."""
        # One retry, at once: the pooled connection may have been closed while it was idle.
        self.pool = BlockingConnectionPool.from_url(
            url,
            max_connections=CONNECTIONS,
            timeout=SOCKET_SECONDS,
            socket_timeout=SOCKET_SECONDS,
            socket_connect_timeout=SOCKET_SECONDS,
            retry=Retry(NoBackoff(), 1),
            protocol=2,
        )
        self._client = Redis.from_pool(self.pool)
        self.up = asyncio.Event()
        self.changed_at = asyncio.get_running_loop().time()

    async def run(self, commands: Sequence[Command], *, probe: bool = False) -> list[Any]:
        """Send commands in one round trip and give their results. Raises StoreUnavailable.

        Nothing is known of what a failed call has done: every command must bear to be repeated.
        """
        if not self.up.is_set() and not probe:
            raise self.unavailable()
        try:
            async with asyncio.timeout(ROUND_TRIP_SECONDS):
                results = await self._send(commands)
                if any(isinstance(result, NoScriptError) for result in results):
                    await self._send([("SCRIPT", "LOAD", script) for script in SCRIPTS])
                    results = await self._send(commands)
                for result in results:
                    if isinstance(result, RedisError):
                        raise result
        except (RedisError, OSError, TimeoutError) as exc:
            self._turn(up=False, reason=type(exc).__name__)  # its text may quote the URL
            raise self.unavailable() from exc
        self._turn(up=True)
        return results

    def unavailable(self) -> StoreUnavailable:
        """Give the error that tells an outage."""
        return StoreUnavailable("Redis does not answer", retry_after=RETRY_SECONDS)

    def seconds(self) -> float:
        """Tell for how long it has been up, or down."""
        return asyncio.get_running_loop().time() - self.changed_at

    async def aclose(self) -> None:
        """Close all connections."""
        await self.pool.disconnect()

    async def _send(self, commands: Sequence[Command]) -> list[Any]:
        async with self._client.pipeline(transaction=False) as pipe:
            for command in commands:
                pipe.execute_command(*command)
            return await pipe.execute(raise_on_error=False)

    def _turn(self, *, up: bool, reason: str = "") -> None:
        if up == self.up.is_set():
            return
        self.changed_at = asyncio.get_running_loop().time()
        if up:
            self.up.set()
            log.info("redis.up")
        else:
            self.up.clear()
            log.warning("redis.down", extra={"fields": {"reason": reason}})


class Listener:
    """One connection that listens to any number of channels, for ever and over every break.

    `hear(channel, None)` says that a channel has just been subscribed to, the first time or anew: what was
    published before may have been missed. `hear(channel, message)` is a message.

    redis-py's own PubSub connects again by itself, from whichever side fails; here one task reads and alone
    connects, and others only ever write to a connection that stands.
    """

    def __init__(self, pool: BlockingConnectionPool, hear: Callable[[str, bytes | None], None]) -> None:
        self._pool = pool
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
        """Tell Redis which channels are wanted. Without a connection the next one will tell."""
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
            connection: Connection = self._pool.make_connection()  # type: ignore[no-untyped-call]
            try:
                await connection.connect()  # type: ignore[no-untyped-call]
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
            kind, channel, message = await connection.read_response(timeout=math.inf, push_request=True)
        if kind == b"message":
            self._hear(channel.decode(), message)
        elif kind == b"subscribe":
            self._hear(channel.decode(), None)
