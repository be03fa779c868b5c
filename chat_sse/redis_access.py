"""How this service reaches Redis, for the log and for the limits alike: connections, scripts, outages.

Part of the extra `redis`. It stands below the rooms that use it, which may not import each other.
"""

import asyncio
import hashlib
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any, TypeAlias

from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.connection import parse_url
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import NoScriptError, RedisError

from chat_sse.errors import StoreUnavailable

Command: TypeAlias = tuple[str | bytes | int, ...]

CONNECTIONS = 16
# One round trip's, so that no other client of Redis waits long for its end.
CALLS_AT_ONCE = 500
# A round trip takes a millisecond; a question waits no longer than this to hear that it cannot be asked.
SOCKET_SECONDS = 2.0
RETRY_SECONDS = 2.0
DEFAULT_PREFIX = "chat_sse"


def open_pool(url: str, *, retries: int) -> BlockingConnectionPool:
    """Prepare connections; nothing connects. Raises ValueError, not quoting the URL, when it is unusable.

    `retries`: at once, after a connection that broke. 0 where a command must not run twice.
    """
    ours: dict[str, Any] = {
        "max_connections": CONNECTIONS,
        "timeout": SOCKET_SECONDS,
        "socket_timeout": SOCKET_SECONDS,
        "socket_connect_timeout": SOCKET_SECONDS,
        "retry": Retry(NoBackoff(), retries),
        "protocol": 2,
        "decode_responses": False,
    }
    try:
        pool = BlockingConnectionPool(**{**parse_url(url), **ours})
        pool.make_connection()  # type: ignore[no-untyped-call]  # where unknown options come to light
    except (TypeError, ValueError):
        raise ValueError("redis-py does not know one of its options") from None
    return pool


def evaluate(script: str, keys: Sequence[str], *arguments: str | bytes | int) -> Command:
    """Return the command that runs a script, by its digest."""
    return ("EVALSHA", _digest(script), len(keys), *keys, *arguments)


def unavailable() -> StoreUnavailable:
    """Return the error for an outage."""
    return StoreUnavailable("Redis does not answer", retry_after=RETRY_SECONDS)


class RoundTrips:
    """Sends the commands of all callers together: one round trip is under way, the next one is gathering.

    However many call at once, none waits for a connection, and each waits for two round trips at most.
    """

    def __init__(
        self,
        pool: BlockingConnectionPool,
        scripts: Sequence[str],
        *,
        seconds: float,
        on_outcome: Callable[[str | None], object],
    ) -> None:
        """`scripts`: loaded where Redis does not know one of them. `seconds`: of one round trip, at most.

        `on_outcome`: called after each round trip, with the kind of its first error or None.
        """
        self._redis = Redis.from_pool(pool)
        self._scripts = scripts
        self._seconds = seconds
        self._on_outcome = on_outcome
        self._gathered: list[tuple[Sequence[Command], asyncio.Future[list[Any]]]] = []
        self._task: asyncio.Task[None] | None = None

    async def run(self, commands: Sequence[Command]) -> list[Any]:
        """Return the commands' results. Raises StoreUnavailable, also when one of them has failed.

        After that, and when cancelled, nothing is known of what they have done.
        """
        loop = asyncio.get_running_loop()
        results: asyncio.Future[list[Any]] = loop.create_future()
        self._gathered.append((commands, results))
        if self._task is None:
            self._task = loop.create_task(self._send_all(), name="redis round trips")
        return await results

    async def aclose(self) -> None:
        """Fail those who wait."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])

    async def _send_all(self) -> None:
        try:
            while gathered := [call for call in self._gathered[:CALLS_AT_ONCE] if not call[1].done()]:
                del self._gathered[:CALLS_AT_ONCE]
                await self._send(gathered)
        finally:
            self._task = None
            gathered, self._gathered = self._gathered, []
            _fail(gathered)

    async def _send(self, gathered: "list[tuple[Sequence[Command], asyncio.Future[list[Any]]]]") -> None:
        """Make one round trip, and hand everybody their results."""
        error = None
        try:
            async with asyncio.timeout(self._seconds):
                results = await self._results([command for commands, _ in gathered for command in commands])
        except (RedisError, OSError, TimeoutError) as exc:
            error = type(exc).__name__  # its text may quote the URL
            gathered += self._gathered  # the connection is broken for them as well
            self._gathered = []
        else:
            start = 0
            for commands, told in gathered:
                own, start = results[start : start + len(commands)], start + len(commands)
                fault = next((result for result in own if isinstance(result, RedisError)), None)
                if fault is not None:
                    error = error or type(fault).__name__
                elif not told.done():
                    told.set_result(own)
        finally:
            _fail(gathered)
        self._on_outcome(error)

    async def _results(self, commands: list[Command]) -> list[Any]:
        results = await self._pipe(commands)
        unknown = [index for index, result in enumerate(results) if isinstance(result, NoScriptError)]
        if unknown:
            await self._pipe([("SCRIPT", "LOAD", script) for script in self._scripts])
            again = await self._pipe([commands[index] for index in unknown])
            for index, result in zip(unknown, again, strict=True):
                results[index] = result
        return results

    async def _pipe(self, commands: list[Command]) -> list[Any]:
        async with self._redis.pipeline(transaction=False) as pipe:
            for command in commands:
                pipe.execute_command(*command)
            return await pipe.execute(raise_on_error=False)


def _fail(gathered: "list[tuple[Sequence[Command], asyncio.Future[list[Any]]]]") -> None:
    """Tell those who have got no result that there is none."""
    for _, results in gathered:
        if not results.done():
            results.set_exception(unavailable())


@lru_cache
def _digest(script: str) -> str:
    return hashlib.sha1(script.encode(), usedforsecurity=False).hexdigest()
