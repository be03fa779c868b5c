"""How this service reaches Redis, for the log and for the limits alike: connections, scripts, outages.

Part of the extra `redis`. It stands below the rooms that use it, which may not import each other.
"""

import asyncio
import hashlib
import logging
import math
import ssl
from collections.abc import Awaitable, Callable, Iterator, Sequence
from functools import lru_cache
from typing import Any, Protocol, TypeAlias

import msgspec
from hiredis import pack_command
from redis.asyncio import Connection, ConnectionPool
from redis.asyncio.connection import parse_url
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import (
    AuthenticationError,
    NoPermissionError,
    NoScriptError,
    ReadOnlyError,
    RedisError,
    ResponseError,
)

from chat_sse.errors import StoreUnavailable
from chat_sse.figures import Figure

log = logging.getLogger(__name__)

Command: TypeAlias = tuple[str | bytes | int, ...]
Call: TypeAlias = tuple[Sequence[Command], asyncio.Future[list[Any]]]

# One round trip's, so that no other client of Redis waits long for its end.
CALLS_AT_ONCE = 500
# A round trip takes a millisecond; a question waits no longer than this to hear that it cannot be asked.
ROUND_TRIP_SECONDS = 3.0
CONNECT_SECONDS = 2.0
RETRY_SECONDS = 2.0
DEFAULT_PREFIX = "chat_sse"
SINGLE = "standalone"


def connector(
    url: str, on_connect: Callable[[Connection], Awaitable[None]] | None = None
) -> Callable[[], Connection]:
    """Return what makes connections; they connect when they are first used, and again after a break.

    `on_connect`: called with each new connection before anything else is sent; a RedisError that it raises
    fails what was to be sent. Raises ValueError, not quoting the URL, when that is unusable.
    """

    async def prepare(connection: Connection) -> None:
        await connection.on_connect()
        if on_connect is not None:
            await on_connect(connection)

    ours: dict[str, Any] = {
        "socket_timeout": None,  # who uses a connection bounds what it does
        "socket_connect_timeout": CONNECT_SECONDS,
        "retry": Retry(NoBackoff(), 0),  # a reservation whose reply was lost must not be made twice
        "protocol": 2,
        "decode_responses": False,
        "redis_connect_func": prepare,
    }
    try:
        pool = ConnectionPool(**{**parse_url(url), **ours})
        pool.make_connection()  # type: ignore[no-untyped-call]  # where unknown options come to light
    except (TypeError, ValueError):
        raise ValueError("redis-py does not know one of its options") from None
    return pool.make_connection


async def find_fault(url: str) -> str | None:
    """Connect once, and return in words why this Redis cannot be used; None where it can."""
    connection = connector(url)()
    try:
        async with asyncio.timeout(2 * CONNECT_SECONDS):
            mode = (await about(connection)).mode  # connects first
    except (AuthenticationError, NoPermissionError):
        return "refuses the user or the password"
    except ResponseError:
        return "refuses the number of the database, or the command INFO"
    except (RedisError, OSError, TimeoutError) as exc:
        broken = exc.__cause__ or exc.__context__
        if isinstance(broken, ssl.SSLCertVerificationError):
            return f"has a certificate that is not trusted here: {broken.verify_message}"
        return "cannot be reached"
    finally:
        await connection.disconnect(nowait=True)
    return None if mode == SINGLE else wrong_mode(mode)


class Server(msgspec.Struct, frozen=True):
    """What a server says of itself."""

    mode: str
    """Such as "standalone"."""
    run_id: str
    """Another one after each start, and of each replica."""


async def about(connection: Connection) -> Server:
    """Ask a server about itself. Raises RedisError or OSError."""
    await connection.send_command("INFO", "server")
    return read_info(await connection.read_response())


def read_info(info: bytes) -> Server:
    """Read the section `server` of INFO; a server that tells no mode is single.

    Valkey calls it `server_mode`.
    """
    fields = dict(line.split(":", 1) for line in info.decode().splitlines() if ":" in line)
    mode = fields.get("server_mode") or fields.get("redis_mode", SINGLE)
    return Server(mode, fields.get("run_id", ""))


def wrong_mode(mode: str) -> str:
    """Say of a server what is wrong with its mode."""
    return f"leads to a Redis in the mode {mode}: it must be a single server"


def evaluate(script: str, keys: Sequence[str], *arguments: str | bytes | int) -> Command:
    """Return the command that runs a script, by its digest. It is loaded where Redis does not know it."""
    return ("EVALSHA", _digest(script), len(keys), *keys, *arguments)


def unavailable() -> StoreUnavailable:
    """Return the error for an outage."""
    return StoreUnavailable("Redis does not answer", retry_after=RETRY_SECONDS)


class Runner(Protocol):
    """Runs commands on Redis."""

    def run(self, commands: Sequence[Command]) -> asyncio.Future[list[Any]]:
        """Begin, and return what the commands' results will be; see `RoundTrips.run`."""
        ...


class RoundTrips:
    """Sends the commands of all callers together: one round trip is under way, the next one is gathering.

    However many call at once, none waits for a connection, and each waits for two round trips at most.
    redis-py's client would bound, pool and trace each command by itself, which takes longer than the trip.
    """

    def __init__(
        self,
        connect: Callable[[], Connection],
        *,
        seconds: float = ROUND_TRIP_SECONDS,
        on_outcome: Callable[[str | None], object] | None = None,
    ) -> None:
        """`seconds`: of one round trip, at most.

        `on_outcome`: called after each round trip, with the kind of its first error or None. Without it, a
        failure is logged.
        """
        self._connection = connect()
        self._seconds = seconds
        self._on_outcome = on_outcome or _report
        self._gathered: list[Call] = []
        self._task: asyncio.Task[None] | None = None
        self._count = self._failures = 0
        self._seconds_taken = 0.0

    def figures(self) -> Iterator[Figure]:
        """Return how many round trips there were, how long they took, and how many failed."""
        yield Figure("redis_round_trips", self._count)
        yield Figure("redis_round_trip_seconds", self._seconds_taken)
        yield Figure("redis_failures", self._failures)

    def run(self, commands: Sequence[Command]) -> asyncio.Future[list[Any]]:
        """Begin, and return a future of the commands' results.

        What is begun in the same turn of the loop shares a round trip, in this order. The future raises
        StoreUnavailable, also when one of the commands has failed. After that, and when it is cancelled,
        nothing is known of what they have done.
        """
        loop = asyncio.get_running_loop()
        results: asyncio.Future[list[Any]] = loop.create_future()
        self._gathered.append((commands, results))
        if self._task is None:
            self._task = loop.create_task(self._send_all(), name="redis round trips")
        return results

    async def aclose(self) -> None:
        """Fail those who wait, and close the connection."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])
        _fail(self._gathered)
        await self._connection.disconnect(nowait=True)

    async def _send_all(self) -> None:
        try:
            while self._gathered:
                await asyncio.sleep(0)  # who has just heard of results may go on with more
                gathered = self._gathered[:CALLS_AT_ONCE]
                del self._gathered[:CALLS_AT_ONCE]
                if wanted := [call for call in gathered if not call[1].done()]:  # cancelled
                    await self._send(wanted)
        finally:
            self._task = None
            gathered, self._gathered = self._gathered, []
            _fail(gathered)

    async def _send(self, gathered: list[Call]) -> None:
        """Make one round trip, and hand everybody their results."""
        error, loop = None, asyncio.get_running_loop()
        began = loop.time()
        try:
            async with asyncio.timeout(self._seconds):
                results = await self._results([command for commands, _ in gathered for command in commands])
        except (RedisError, OSError, TimeoutError) as exc:
            error = type(exc).__name__  # its text may quote the URL
            gathered += self._gathered  # the connection is broken for them as well
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
        self._count += 1
        self._failures += error is not None
        self._seconds_taken += loop.time() - began
        self._on_outcome(error)

    async def _results(self, commands: Sequence[Command]) -> list[Any]:
        results = await self._exchange(commands)
        unknown = [index for index, result in enumerate(results) if isinstance(result, NoScriptError)]
        if unknown:
            wanted = {commands[index][1] for index in unknown} & _scripts.keys()
            await self._exchange([("SCRIPT", "LOAD", _scripts[digest]) for digest in wanted])
            again = await self._exchange([commands[index] for index in unknown])
            for index, result in zip(unknown, again, strict=True):
                results[index] = result
        return results

    async def _exchange(self, commands: Sequence[Command]) -> list[Any]:
        """Send commands, and return their results, errors among them."""
        connection, results = self._connection, list[Any]()
        try:
            if connection.is_connected and await connection.can_read():  # closed while it was idle
                await connection.disconnect(nowait=True)
            packed = b"".join([pack_command(command) for command in commands])  # type: ignore[arg-type]
            await connection.send_packed_command(packed, check_health=False)
            for _ in commands:
                try:
                    results.append(await connection.read_response(timeout=math.inf))
                except ResponseError as exc:
                    results.append(exc.with_traceback(None))  # whose frame refers to the results
            if any(isinstance(result, ReadOnlyError) for result in results):
                await connection.disconnect(nowait=True)  # a replica now: the address may lead elsewhere
        except BaseException:
            await connection.disconnect(nowait=True)
            raise
        return results


def _report(error: str | None) -> None:
    if error is not None:
        log.warning("redis.failed", extra={"fields": {"reason": error}})


def _fail(gathered: list[Call]) -> None:
    """Tell those who have got no result that there is none."""
    for _, results in gathered:
        if not results.done():
            results.set_exception(unavailable())


_scripts: dict[Any, str] = {}
"""Those that commands name, by their digests."""


@lru_cache
def _digest(script: str) -> str:
    digest = hashlib.sha1(script.encode(), usedforsecurity=False).hexdigest()
    _scripts[digest] = script
    return digest
